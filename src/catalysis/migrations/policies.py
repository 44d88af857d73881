"""Row-level security for tables of tenants: the policies, as SQL and as Alembic operations.

A policy compares a row's tenant with a setting that a session makes for each transaction (`DATABASE_TENANT_SETTING`).
Where nothing is set no row is seen and none is taken.  A setting that was made once is empty afterwards, and not NULL:
so an empty one counts as none.  Superusers and roles with BYPASSRLS see everything; the owner of a table does not, as
security is forced.

Source: PostgreSQL documentation, "Row Security Policies", "CREATE POLICY", "Customized Options".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import String, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import registry

from catalysis.tenancy.models import is_scoped, scoped_mappers

SETTING = "catalysis.tenant"
"""The setting that is read unless another is named."""
NAME = "tenant"
"""The name of each policy."""

_DIALECT: Any = postgresql.dialect()
_quoted = _DIALECT.identifier_preparer.quote


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """One table's policy: by its own column, or by the tables that its rows belong to."""

    table: str
    column: str | None
    """The column that says whose the row is."""
    type: str = "uuid"
    """Its type, in SQL."""
    through: tuple[tuple[str, str, str], ...] = ()
    """Without a column: (column, table, its column), whose rows must be seen for this one to be."""
    setting: str = SETTING
    schema: str | None = None

    @property
    def condition(self) -> str:
        """What must be true of a row."""
        if self.column is not None:
            setting = self.setting.replace("'", "''")
            return f"{_quoted(self.column)} = nullif(current_setting('{setting}', true), '')::{self.type}"
        return " AND ".join(
            f"EXISTS (SELECT 1 FROM {self._named(table)} WHERE {_quoted(table)}.{_quoted(theirs)} = "  # noqa: S608 - quoted
            f"{_quoted(self.table)}.{_quoted(own)})"
            for own, table, theirs in self.through
        )

    def enable(self) -> tuple[str, ...]:
        """The statements that put it in force, for the table's owner too."""
        table = self._named(self.table)
        return (
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY {NAME} ON {table} USING ({self.condition}) WITH CHECK ({self.condition})",
        )

    def disable(self) -> tuple[str, ...]:
        """The statements that take it away."""
        table = self._named(self.table)
        return (
            f"DROP POLICY {NAME} ON {table}",
            f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        )

    def operation(self) -> str:
        """The line of a migration that puts it in force."""
        given = [repr(self.table), repr(self.column)]
        given += [] if self.column is None else [f"type={self.type!r}"]
        given += [f"{name}={value!r}" for name in ("through", "schema") if (value := getattr(self, name))]
        if self.setting != SETTING:
            given.append(f"setting={self.setting!r}")
        return f"op.create_tenant_policy({', '.join(given)})"

    def _named(self, table: str) -> str:
        return f"{_quoted(self.schema)}.{_quoted(table)}" if self.schema else str(_quoted(table))


def tenant_policies(of: registry | None = None, *, setting: str = SETTING) -> list[TenantPolicy]:
    """The policies of all tables with tenants' rows, of one registry's models or of all.

    Association tables between them, and tables of joined subclasses, are as visible as what they belong to.
    """
    own: dict[Any, TenantPolicy] = {}
    attached: dict[Any, None] = {}
    for mapper in sorted(scoped_mappers(of), key=lambda each: each.class_.__name__):
        column = cast("Any", mapper.columns[mapper.class_.__tenant__])
        table: Any = column.table
        # A cast to varchar(n) cuts a longer value off, which might then be another tenant's.
        kind = "text" if isinstance(column.type, String) else str(column.type.compile(_DIALECT)).lower()
        own[table] = TenantPolicy(table.name, column.name, kind, setting=setting, schema=table.schema)
        attached |= dict.fromkeys(each for each in mapper.tables if each is not table)
        attached |= dict.fromkeys(
            relation.secondary
            for relation in mapper.relationships
            if relation.secondary is not None and is_scoped(relation.mapper)
        )
    return [
        *own.values(),
        *(_through(each, own, setting) for each in attached if isinstance(each, Table) and each not in own),
    ]


def _through(table: Any, own: dict[Any, TenantPolicy], setting: str) -> TenantPolicy:
    links = tuple(sorted(_links(table, own)))
    return TenantPolicy(table.name, None, through=links, setting=setting, schema=table.schema)


def _links(table: Any, own: dict[Any, TenantPolicy]) -> Iterator[tuple[str, str, str]]:
    for column in table.columns:
        for key in column.foreign_keys:
            if key.column.table in own:
                yield column.name, key.column.table.name, key.column.name


# --- Alembic's operations -------------------------------------------------------------------------


class _PolicyOperation(MigrateOperation):
    def __init__(self, policy: TenantPolicy) -> None:
        self.policy = policy


@Operations.register_operation("create_tenant_policy")
class CreateTenantPolicy(_PolicyOperation):
    """`op.create_tenant_policy("task", "organisation_id", type="uuid")`; nothing where there are no policies."""

    @classmethod
    def create_tenant_policy(
        cls, operations: Operations, table: str, column: str | None, **options: Any
    ) -> None:
        """Enable and force row-level security on a table, with the policy of tenants; see `TenantPolicy`."""
        operations.invoke(cls(TenantPolicy(table, column, **options)))

    def reverse(self) -> "DropTenantPolicy":
        """What takes it back."""
        return DropTenantPolicy(self.policy)


@Operations.register_operation("drop_tenant_policy")
class DropTenantPolicy(_PolicyOperation):
    """`op.drop_tenant_policy("task")`."""

    @classmethod
    def drop_tenant_policy(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Take the policy of tenants away, and disable row-level security on the table."""
        operations.invoke(cls(TenantPolicy(table, None, schema=schema)))


@Operations.implementation_for(CreateTenantPolicy)
def _create(operations: Operations, operation: CreateTenantPolicy) -> None:
    _execute(operations, operation.policy.enable())


@Operations.implementation_for(DropTenantPolicy)
def _drop(operations: Operations, operation: DropTenantPolicy) -> None:
    _execute(operations, operation.policy.disable())


def _execute(operations: Operations, statements: tuple[str, ...]) -> None:
    if operations.get_context().dialect.name == "postgresql":
        for statement in statements:
            operations.execute(statement)
