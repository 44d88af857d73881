"""Which models belong to tenants, and whose rows a session sees: said once, at the declaration and at the opening."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, cast
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.orm import Mapper, registry

from catalysis.engine.alchemy.checking import Guarded
from catalysis.engine.alchemy.criteria import OwnCriterion, OwnParameter, is_own
from catalysis.errors import ModelError, TenantError, TenantRequired

UNFILTERED_SQL = "unfiltered_sql"
"""Execution option of a statement that is sent although parts of it cannot be limited to the session's tenant."""


class TenantScoped:
    """Mixin for a mapped class whose rows belong to tenants; `__tenant__` names the attribute that says to which.

    `class Task(TenantScoped, ModelWithIdAndTimestamps, table=True)` with `tenant_id`, or `__tenant__ =
    "organisation_id"`.  A session of a tenant (`session.for_tenant(id)`) adds the criterion to every SELECT, UPDATE and
    DELETE, eager and later loads included; it fills the attribute of new rows and refuses those of others.  A session
    without one refuses the model; one for `ALL_TENANTS` sees and writes everything.
    """

    __tenant__: ClassVar[str] = "tenant_id"


class _AllTenants:
    def __repr__(self) -> str:
        return "ALL_TENANTS"


ALL_TENANTS: Final = _AllTenants()
"""Given in the place of a tenant: the session is an administrator's, and sees and writes the rows of all."""


def _required(mapper: Mapper[Any]) -> TenantRequired:
    return TenantRequired(
        f"{mapper.class_.__name__} belongs to tenants, and this session has none.  Open it with "
        "`database.session(tenant=…)`, or say `session.for_tenant(…)` first; ALL_TENANTS is for what is meant for all."
    )


@dataclass(frozen=True, slots=True)
class Tenancy:
    """Whose rows a session sees."""

    tenant: Any
    """The tenant, `ALL_TENANTS`, or None where nobody has said."""
    criterion: OwnCriterion | None
    """What is added to its statements; None: nothing."""

    kind: Literal["one", "none", "all"]
    """What plans of statements depend on: never the tenant itself."""

    @property
    def is_limited(self) -> bool:
        """Whether it is of one tenant."""
        return self.kind == "one"


UNSAID: Final = Tenancy(None, OwnCriterion(TenantScoped, None, _required), "none")
OF_ALL: Final = Tenancy(ALL_TENANTS, None, "all")


def tenancy_of(tenant: Any) -> Tenancy:
    """The tenancy of a session that is opened for this tenant, for `ALL_TENANTS`, or for None."""
    if tenant is None:
        return UNSAID
    if tenant is ALL_TENANTS:
        return OF_ALL
    return Tenancy(tenant, OwnCriterion(TenantScoped, OwnParameter(tenant)), "one")


_registries: WeakSet[registry] = WeakSet()
"""Those with a `TenantScoped` model."""
_mappers: WeakSet[Mapper[Any]] = WeakSet()
_guarded: list[Guarded] = []
"""What is guarded, once it has been asked for."""


@event.listens_for(Mapper, "after_mapper_constructed")
def _opt_in(mapper: Mapper[Any], cls: type[Any]) -> None:
    _guarded.clear()
    if not issubclass(cls, TenantScoped):
        return
    name = cls.__tenant__
    if name not in mapper.columns:
        raise ModelError(
            f"{cls.__name__} inherits TenantScoped but has no column {name!r}.  Add one, or name it: "
            '`__tenant__ = "organisation_id"`.'
        )
    if mapper.inherits is not None and not issubclass(mapper.inherits.class_, TenantScoped):
        raise ModelError(
            f"{cls.__name__} inherits TenantScoped, but the mapped class above it, {mapper.inherits.class_.__name__}, "
            "does not: a query of that one would show every tenant's rows.  Let the topmost mapped class inherit it."
        )
    kind = _type_of(mapper)
    for other in _mappers:
        theirs = _type_of(other)
        if other.registry is mapper.registry and theirs != kind:
            raise ModelError(
                f"{cls.__name__}.{name} is {kind} and {other.class_.__name__}.{other.class_.__tenant__} is "
                f"{theirs}: tenants are told apart by values of one type.  Give both columns the same."
            )
    _registries.add(mapper.registry)
    _mappers.add(mapper)


def _type_of(mapper: Mapper[Any]) -> str:
    kind = cast("Any", mapper.columns[mapper.class_.__tenant__]).type
    try:
        return kind.python_type.__name__
    except NotImplementedError:  # a type of the user's
        return type(kind).__name__


def required(mapper: Mapper[Any], tenancy: Tenancy) -> None:
    """Refuse a model that belongs to tenants in a session without one.

    Raises:
        TenantRequired: it is one.
    """
    if tenancy.tenant is None and is_scoped(mapper):
        raise _required(mapper)


def is_scoped(mapper: Any) -> bool:
    """Whether the rows of a mapped class belong to tenants."""
    return mapper is not None and issubclass(mapper.class_, TenantScoped)


def scoped_mappers(of: registry | None = None) -> list[Mapper[Any]]:
    """The mapped classes whose rows do, in a registry or in all."""
    return [each for each in _mappers if of is None or each.registry is of]


def guarded() -> Guarded:
    """The tables that a session of a tenant may not read or write without its condition."""
    if not _guarded:
        columns: dict[str, str] = {}
        attached: set[str] = set()
        for mapper in list(_mappers):
            column = cast("Any", mapper.columns[mapper.class_.__tenant__])
            columns[column.table.name] = column.name
            attached |= {cast("Any", each).name for each in mapper.tables if each is not column.table}
            attached |= {
                cast("Any", relation.secondary).name
                for relation in mapper.relationships
                if relation.secondary is not None and is_scoped(relation.mapper)
            }
        _guarded.append(
            Guarded(
                "tenants",
                lambda table: columns.get(table.name),  # however the table was made
                is_own,
                unfiltered,
                attached=frozenset(attached - columns.keys()),
            )
        )
    return _guarded[0]


def has_scoped(registries: Iterable[registry] | None = None) -> bool:
    """Whether there is a model that belongs to tenants, in these registries or in any."""
    return bool(_registries) if registries is None else any(each in _registries for each in registries)


def unfiltered(what: str) -> TenantError:
    """The error for a statement that cannot be limited, from what is wrong with it."""
    return TenantError(
        f"A statement in a session of one tenant {what}.  Write it over the mapped classes, or, if it is right for "
        f"every tenant, add `.execution_options({UNFILTERED_SQL}=True)`: then only row-level security guards it."
    )
