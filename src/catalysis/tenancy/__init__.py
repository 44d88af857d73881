"""Tenancy: rows that belong to tenants, and sessions that see and write those of one.

A model opts in by inheriting `TenantScoped` (`models.py`).  What a session does with that is decided in plain
functions, for its statements (`statements.py`) and its instances (`instances.py`); `sessions.py` calls them.  Whatever
can be neither limited nor looked into is refused before anything is sent.
"""

from catalysis.tenancy.models import ALL_TENANTS, TenantScoped

__all__ = ["ALL_TENANTS", "TenantScoped"]
