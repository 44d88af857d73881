"""Explains broken models with the mend, at the moment SQLAlchemy would fail on them.

Checks run just before a mapper is configured and before tables are made, and complain only of what fails
there anyway: a model that works on SQLAlchemy is never refused.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, cast

from sqlalchemy import MetaData, event, inspect
from sqlalchemy.orm import Mapper, RelationshipProperty
from sqlmodel import SQLModel

from catalysis.errors import ModelError


def check_tables(metadata: MetaData) -> None:
    """Check that every foreign key of `metadata` names a table it holds.

    Raises:
        ModelError: naming the column, the table that is missing and the likely mend.
    """
    for table in metadata.tables.values():
        for foreign_key in table.foreign_keys:
            named = foreign_key.target_fullname.rpartition(".")[0]
            if named not in metadata.tables:
                raise ModelError(
                    f"{table.name}.{foreign_key.parent.name} refers to {foreign_key.target_fullname!r}, but there "
                    f"is no table {named!r}.  {_mend_foreign_key(metadata, foreign_key.target_fullname)}"
                )


def _mend_foreign_key(metadata: MetaData, target: str) -> str:
    named, _, column = target.rpartition(".")
    for table_name in metadata.tables:
        if table_name.lower() == named.lower():
            return f"A foreign key names the table, not the class: write {f'{table_name}.{column}'!r}."
    if close := get_close_matches(named, list(metadata.tables), n=1):
        return f"Did you mean {f'{close[0]}.{column}'!r}?"
    return "Import the module that defines it before the tables are made."


@event.listens_for(Mapper, "before_mapper_configured")
def _check_relationships(mapper: Mapper[Any], cls: type[Any]) -> None:
    for prop in mapper.iterate_properties:
        if isinstance(prop, RelationshipProperty) and prop.parent is mapper:
            target = _target_of(mapper, prop)
            if target is not None:
                _check_back_populates(mapper, prop, target)
    metadata = mapper.registry.metadata
    for table in mapper.tables:
        for foreign_key in table.foreign_keys:
            named = foreign_key.target_fullname.rpartition(".")[0]
            if named not in metadata.tables and _mapped_class(mapper, named):
                check_tables(metadata)


def _target_of(mapper: Mapper[Any], prop: RelationshipProperty[Any]) -> Mapper[Any] | None:
    """The mapper the relationship leads to; None where only SQLAlchemy can tell (aliases, ambiguous names)."""
    argument: Any = prop.argument
    target: Any
    if isinstance(argument, str):
        name = argument.rpartition(".")[2]
        found = [each for each in mapper.registry.mappers if each.class_.__name__ == name]
        target = found[0] if len(found) == 1 else None
        missing = name.isidentifier() and not found
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
    back = prop.back_populates
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
        if isinstance(each, RelationshipProperty) and each.back_populates == prop.key
    ]
    mend = (
        f"Write back_populates={towards[0]!r} on {here}."
        if towards
        else f"Add a relationship {back!r} to {there} with back_populates={prop.key!r}."
    )
    raise ModelError(f"{here} says back_populates={back!r}, but {there}.{back} {wrong}.  {mend}")


def _mapped_class(mapper: Mapper[Any], name: str) -> bool:
    return any(each.class_.__name__ == name for each in mapper.registry.mappers)


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
