"""Instances in a session that has a tenant: theirs is filled in, and another's is refused."""

from collections.abc import Iterable
from typing import Any, cast

from sqlalchemy import inspect
from sqlalchemy.orm import Mapper

from catalysis.errors import TenantError
from catalysis.tenancy.models import ALL_TENANTS, Tenancy, TenantScoped, has_scoped, is_scoped, required

_UNKNOWN = object()


def is_foreign(instance: object, tenancy: Tenancy) -> bool:
    """Whether an instance is another tenant's, or only the database knows; never loads anything."""
    if not isinstance(instance, TenantScoped) or tenancy.tenant is ALL_TENANTS:
        return False
    return not tenancy.is_limited or instance.__dict__.get(instance.__tenant__, _UNKNOWN) != tenancy.tenant


def check_attached(instance: object, tenancy: Tenancy) -> None:
    """Refuse an instance that comes into the session by hand, and is known to be another tenant's.

    Raises:
        TenantError: it is.
        TenantRequired: the session has no tenant.
    """
    if not isinstance(instance, TenantScoped) or tenancy.tenant is ALL_TENANTS:
        return
    required(inspect(type(instance)), tenancy)
    if instance.__dict__.get(instance.__tenant__) not in (None, tenancy.tenant):
        raise _of_another(instance, "belongs to another tenant than the session it is added to")


def claim(states: Iterable[Any], tenancy: Tenancy) -> dict[Mapper[Any], list[Any]]:
    """Before a flush: fill in the tenant of new rows, and refuse those of others.

    Returns the states, by class, whose tenant is not loaded: it has to be, and then `claim` asked again.

    Raises:
        TenantError: an instance is another tenant's, or is being given to one.
        TenantRequired: the session has no tenant.
    """
    unloaded: dict[Mapper[Any], list[Any]] = {}
    if not has_scoped() or tenancy.tenant is ALL_TENANTS:
        return unloaded
    for state in states:
        mapper = state.mapper
        if not is_scoped(mapper):
            continue
        required(mapper, tenancy)
        attribute, values = mapper.class_.__tenant__, state.dict
        instance = state.obj()
        if attribute not in values and state.key is not None:
            unloaded.setdefault(mapper, []).append(state)
        elif state.key is None and values.get(attribute) is None and instance is not None:
            setattr(instance, attribute, tenancy.tenant)
        check_claimed((state,), tenancy)
        _check_related(state, mapper, tenancy)
    return unloaded


def check_claimed(states: Iterable[Any], tenancy: Tenancy) -> None:
    """Refuse rows of another tenant; asked again when foreign keys have been filled in from related instances.

    Raises:
        TenantError: there is one.
    """
    if not has_scoped() or not tenancy.is_limited:
        return
    for state in states:
        if not is_scoped(state.mapper):
            continue
        attribute = state.mapper.class_.__tenant__
        if attribute not in state.dict:
            continue
        before = state.committed_state.get(attribute, tenancy.tenant) if state.key is not None else None
        if state.dict[attribute] != tenancy.tenant:
            raise _of_another(state.obj(), f"has another tenant than the session's in {attribute!r}")
        if isinstance(before, type(tenancy.tenant)) and before != tenancy.tenant:
            raise _of_another(state.obj(), f"was another tenant's before {attribute!r} was set")


def _check_related(state: Any, mapper: Mapper[Any], tenancy: Tenancy) -> None:
    """A tenant's own row (an organisation) may be the related instance that the foreign key is filled in from."""
    column = cast("Any", mapper.columns[mapper.class_.__tenant__])
    for relation in mapper.relationships:
        if column not in relation.local_columns or relation.uselist:
            continue
        related = state.dict.get(relation.key)
        if related is None:
            continue
        for local, remote in relation.local_remote_pairs or ():
            if local is column:
                key = relation.mapper.get_property_by_column(cast("Any", remote)).key
                if related.__dict__.get(key, tenancy.tenant) not in (None, tenancy.tenant):
                    raise _of_another(state.obj(), f"is given to another tenant by {relation.key!r}")


def _of_another(instance: object, what: str) -> TenantError:
    return TenantError(
        f"A {type(instance).__name__} {what}.  A session sees and writes the rows of one tenant: open another with "
        "`database.session(tenant=…)`, or with ALL_TENANTS for what is meant for all.  Nothing was sent for it."
    )
