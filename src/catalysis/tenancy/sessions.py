"""The part of a session that knows of its tenant: what it adds, what it refuses, and what the database is told."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Mapper, ORMExecuteState
from sqlalchemy.orm import Session as SyncSession

from catalysis.engine.alchemy.owning import LocalSetting, Owned
from catalysis.engine.alchemy.sessions import HookedSession, holds_nothing
from catalysis.engine.alchemy.sharding import by_token
from catalysis.engine.alchemy.touches import load_columns
from catalysis.engine.drivers.settings import set_locally
from catalysis.errors import TenantError
from catalysis.loading.batch import CHUNK
from catalysis.tenancy.instances import check_attached, check_claimed, claim
from catalysis.tenancy.models import ALL_TENANTS, UNSAID, Tenancy, is_scoped, tenancy_of
from catalysis.tenancy.statements import (
    check_statement,
    of_tenant_options,
    own_rows,
    owned_by,
    update_nothing,
)


class TenantSession(HookedSession):
    """A synchronous session that may be limited to one tenant."""

    tenancy: Tenancy = UNSAID
    """Whose rows are seen and written."""
    tenant_setting: str | None = None
    """The name of the database's setting that policies read; None where there are none."""

    def check_plan(self, statement: Any, engine: Engine) -> None:
        """See to it that every table of a tenant's is limited."""
        check_statement(statement, self.tenancy, engine)

    @property
    def own_parameter(self) -> Any:
        """The tenant, as it is bound."""
        criterion = self.tenancy.criterion
        return None if criterion is None else criterion.parameter

    def own_options(self, options: tuple[Any, ...]) -> tuple[Any, ...]:
        """With the criterion of this session's tenant."""
        return of_tenant_options(options, self.tenancy)

    def for_tenant(self, tenant: Any) -> None:
        """See `Session.for_tenant`."""
        if tenant is None:
            raise TenantError(
                "for_tenant(None): a session without a tenant is what it is already.  Give one."
            )
        if tenant == self.tenancy.tenant:
            return
        if self.tenancy.tenant is not None:
            raise TenantError(
                "This session has a tenant, and may hold rows of it: it cannot be given another.  Open a session for "
                "each."
            )
        if not holds_nothing(self):
            raise TenantError(
                "The session's transaction has begun at the database, which was not told of a tenant.  Say "
                "for_tenant() before, or after its commit, or open the session with tenant=…."
            )
        self.tenancy = tenancy_of(tenant)

    @property
    def local_setting(self) -> LocalSetting | None:
        """The tenant as policies of the database know it."""
        if self.tenant_setting is None or not self.tenancy.is_limited:
            return None
        return LocalSetting(self.tenant_setting, str(self.tenancy.tenant))

    def has_begun(self, connection: Connection) -> None:
        """Tell the database whose session it is, until the end of the transaction."""
        if (setting := self.local_setting) is not None:
            set_locally(connection, setting)
        elif self.tenant_setting is not None and isinstance(self.bind, Connection):
            # The connection is the caller's, and its transaction may have been told of a tenant.
            set_locally(connection, LocalSetting(self.tenant_setting, ""))

    def attaching(self, instance: object) -> None:
        """No instance of another tenant comes in."""
        check_attached(instance, self.tenancy)

    def about_to_flush(self, states: Iterable[Any]) -> None:
        """Fill in the tenant; what is not loaded has to be, to know whose the row is."""
        for mapper, lacking in claim(states, self.tenancy).items():
            attribute = mapper.class_.__tenant__
            for alike in by_token(lacking):
                for start in range(0, len(alike), CHUNK):
                    load_columns(self, alike[start : start + CHUNK], frozenset((attribute,)))
            check_claimed(lacking, self.tenancy)

    def about_to_save(self, states: Iterable[Any]) -> None:
        """Foreign keys are filled in by now, and one of them may be the tenant."""
        check_claimed(states, self.tenancy)

    def owned_by(self, mapper: Mapper[Any]) -> Owned | None:
        """A row may have been given to another tenant since it was loaded."""
        return owned_by(mapper, self.tenancy) if self.tenancy.is_limited and is_scoped(mapper) else None

    def writing_past_us(self, mapper: Mapper[Any]) -> None:
        """Nothing of a tenant's is written so."""
        if self.tenancy.tenant is not ALL_TENANTS and is_scoped(mapper):
            raise TenantError(
                f"{mapper.class_.__name__} belongs to tenants, and SQLAlchemy's legacy bulk methods pass by every "
                "guard.  Use bulk_insert() and bulk_update(), or add_all()."
            )

    def update_own_rows(self, executing: ORMExecuteState) -> Any:
        """An UPDATE of rows by their keys, to which SQLAlchemy adds no criteria: those of others are left out."""
        mapper = executing.bind_mapper
        if not isinstance(executing.parameters, list) or mapper is None or self.owned_by(mapper) is None:
            return None
        rows: list[Any] = executing.parameters
        kept = own_rows(rows, mapper, self._asked)
        if kept:
            executing.parameters = kept
            return None
        return SyncSession.execute(self, update_nothing(mapper))

    def _asked(self, statement: Any) -> Iterable[Any]:
        return SyncSession.execute(self, statement).all()
