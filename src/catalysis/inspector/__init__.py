"""The inspector: what requests and activities ask of the database, live, in a browser on the developer's machine.

It is off unless asked for, answers loopback clients only, and keeps no value of a parameter unless told to.
"""

from typing import TYPE_CHECKING

from catalysis.inspector.mount import PATH, add_inspector
from catalysis.inspector.records import Limits

if TYPE_CHECKING:
    from catalysis.inspector.app import Inspector

__all__ = ["PATH", "Inspector", "Limits", "add_inspector"]


def __getattr__(name: str) -> object:
    if name == "Inspector":  # needs the extra, which an application that leaves it off need not have
        from catalysis.inspector.app import Inspector

        return Inspector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
