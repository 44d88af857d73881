"""Explains broken models with the mend, at the moment SQLAlchemy would fail on them.

Checks run just before a mapper is configured and after tables could not be made, and complain only of what fails
there anyway: a model that works on SQLAlchemy is never refused.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, cast
from weakref import WeakSet

from sqlalchemy import ForeignKey, MetaData, event, inspect, join
from sqlalchemy.exc import NoForeignKeysError, SQLAlchemyError
from sqlalchemy.orm import Mapper, RelationshipProperty, registry
from sqlmodel import SQLModel

from catalysis.errors import ModelError

_registries: WeakSet[registry] = WeakSet()


@event.listens_for(Mapper, "after_mapper_constructed")
def _remember(mapper: Mapper[Any], cls: type[Any]) -> None:
    _registries.add(mapper.registry)


def known_mappers() -> list[Mapper[Any]]:
    """The mappers of all registries of the process."""
    return [each for every in list(_registries) for each in every.mappers]


def check_tables(metadata: MetaData) -> None:
    """Check that every foreign key of `metadata` names a table it holds.

    Raises:
        ModelError: naming the column, the table that is missing and the likely mend.
    """
    for table in metadata.tables.values():
        for foreign_key in table.foreign_keys:
            if (named := _missing_table(foreign_key)) is not None:
                raise _refers_to_nothing(foreign_key, named)


def _missing_table(foreign_key: ForeignKey) -> str | None:
    """The table it names that its metadata does not hold; a column given as an object is always there."""
    if foreign_key.target_column is not None:
        return None
    metadata, (schema, table_name, _) = foreign_key.parent.table.metadata, foreign_key.target_tokens
    schema = schema or metadata.schema
    named = f"{schema}.{table_name}" if schema else table_name
    return None if named in metadata.tables else named


def _refers_to_nothing(foreign_key: ForeignKey, named: str) -> ModelError:
    metadata, column = foreign_key.parent.table.metadata, foreign_key.target_tokens.column_name
    suffix = f".{column}" if column else ""
    mend = "Import the module that defines it before the tables are made."
    if close := get_close_matches(named, list(metadata.tables), n=1):
        mend = f"Did you mean {close[0] + suffix!r}?"
    for table_name in metadata.tables:
        if table_name.lower() == named.lower():
            mend = f"A foreign key names the table, not the class: write {table_name + suffix!r}."
    return ModelError(
        f"{foreign_key.parent.table.name}.{foreign_key.parent.name} refers to {named + suffix!r}, but there is no "
        f"table {named!r}.  {mend}"
    )


@event.listens_for(Mapper, "before_mapper_configured")
def _check_relationships(mapper: Mapper[Any], cls: type[Any]) -> None:
    for prop in mapper.iterate_properties:
        if isinstance(prop, RelationshipProperty) and prop.parent is mapper:
            target = _target_of(mapper, prop)
            if target is not None:
                _check_back_populates(mapper, prop, target)
                _check_link(mapper, target)


def _check_link(mapper: Mapper[Any], target: Mapper[Any]) -> None:
    """Explain the foreign key that names the other class where it should link the tables, if nothing else does."""
    if _linked(mapper, target):
        return
    for here, there in ((mapper, target), (target, mapper)):
        for table in here.tables:
            for foreign_key in table.foreign_keys:
                named = _missing_table(foreign_key)
                if named is not None and foreign_key.target_tokens.table_name == there.class_.__name__:
                    raise _refers_to_nothing(foreign_key, named)


def _linked(mapper: Mapper[Any], target: Mapper[Any]) -> bool:
    try:
        join(mapper.persist_selectable, target.persist_selectable)
    except NoForeignKeysError:
        return False
    except SQLAlchemyError:  # more than one link, or one that only SQLAlchemy can explain
        return True
    return True


def _target_of(mapper: Mapper[Any], prop: RelationshipProperty[Any]) -> Mapper[Any] | None:
    """The mapper the relationship leads to; None where only SQLAlchemy can tell (aliases, ambiguous names)."""
    argument: Any = prop.argument
    target: Any
    if isinstance(argument, str):
        name = argument.rpartition(".")[2]
        found = [each for each in mapper.registry.mappers if each.class_.__name__ == name]
        target = found[0] if len(found) == 1 else None
        # Registries may share the names of their classes, so one that any of them mapped may be meant.
        known = (each.class_.__name__ for every in _registries for each in every.mappers)
        missing = name.isidentifier() and not found and name not in known
    else:
        name = getattr(argument, "__name__", "")
        target = _inspected(argument)
        missing = target is None
    if missing:
        raise ModelError(
            f"{mapper.class_.__name__}.{prop.key} is a relationship to {name!r}, which is not a mapped class.  "
            + _mend_target(mapper, name)
        )
    return target if getattr(target, "is_mapper", False) else None


def _inspected(argument: Any) -> Any:
    return cast("Any", inspect(argument, raiseerr=False)) if isinstance(argument, type) else argument


def _mend_target(mapper: Mapper[Any], name: str) -> str:
    for model in _subclasses(SQLModel):
        if model.__name__ == name and inspect(model, raiseerr=False) is None:
            return f"Add table=True: `class {name}({model.__bases__[0].__name__}, table=True)`."
    names = [each.class_.__name__ for each in mapper.registry.mappers]
    if close := get_close_matches(name, names, n=1):
        return f"Did you mean {close[0]!r}?"
    return "Import the module that defines it before the first query."


def _check_back_populates(mapper: Mapper[Any], prop: RelationshipProperty[Any], target: Mapper[Any]) -> None:
    back = _back_of(prop)
    if not back:
        return
    here, there = f"{mapper.class_.__name__}.{prop.key}", target.class_.__name__
    properties = {other.key: other for other in target.iterate_properties}
    other = properties.get(back)
    if isinstance(other, RelationshipProperty):
        return
    wrong = "is not a relationship" if other is not None else "does not exist"
    towards = [
        each.key
        for each in properties.values()
        if isinstance(each, RelationshipProperty) and _back_of(each) == prop.key
    ]
    mend = (
        f"Write back_populates={towards[0]!r} on {here}."
        if towards
        else f"Add a relationship {back!r} to {there} with back_populates={prop.key!r}."
    )
    raise ModelError(f"{here} says back_populates={back!r}, but {there}.{back} {wrong}.  {mend}")


def _back_of(prop: RelationshipProperty[Any]) -> str | None:
    """The other side as it is named; None where a function or an attribute gives it, for SQLAlchemy to look up."""
    given: Any = prop.back_populates
    return given if isinstance(given, str) else None


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
