"""What a command means by the name of a module with models, and by a table's or a class's name."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import Mapper, registry
from sqlmodel import SQLModel

from catalysis.errors import BulkError, SettingsError


def find_model(models: str, name: str, root: Path = Path()) -> type[Any]:
    """The class called `name`, or of the table called so, among those that the import of the module makes known.

    `models` is a module as in `app.models`, of `root` or its `src`; what follows a colon there is for Alembic.

    Raises:
        SettingsError: there is no such module.
        BulkError: there is no such class, or more than one.
    """
    module = import_models(models, root)
    mappers = list(_mappers(vars(module).values()))
    found = [each for each in mappers if _is_called(each, name)]
    if any(each.class_.__name__ == name for each in found):
        found = [each for each in found if each.class_.__name__ == name]
    if len(found) == 1:
        return found[0].class_
    known = sorted({each.class_.__name__ for each in found or mappers})
    what = "More than one class is" if found else "No class of the models is"
    raise BulkError(
        f"{what} called {name!r}, or has a table called so.  There are: {', '.join(known) or 'none'}."
    )


def import_models(models: str, root: Path = Path()) -> ModuleType:
    """The module before the colon of `app.models` or `app.models:Base.metadata`, of `root` or its `src`.

    Raises:
        SettingsError: there is no such module.
    """
    module_name = models.partition(":")[0]
    for folder in (root, root / "src"):
        if folder.is_dir() and (place := str(folder.resolve())) not in sys.path:
            sys.path.insert(0, place)
    try:
        return import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{module_name}.".startswith(f"{missing.name}."):
            raise  # the module is there, what it imports is not
        raise SettingsError(
            f"There is no module {missing.name!r}.  Name that of the models: --models app.models"
        ) from None


def find_metadata(models: str, root: Path = Path()) -> list[MetaData]:
    """The metadata that `app.models:Base.metadata` names, or those that the members of `app.models` belong to.

    Where it has no mapped classes or tables, the modules that it imports are meant: those of its bases, and SQLModel's.

    Raises:
        SettingsError: there is no such module or metadata, or the module cannot be imported.
    """
    try:
        module = import_models(models, root)
    except SettingsError:
        raise
    except Exception as failure:
        raise SettingsError(
            f"{models.partition(':')[0]} cannot be imported: {type(failure).__name__}: {failure}"
        ) from failure
    path = models.partition(":")[2]
    if not path:
        members = list(vars(module).values())
        mapped = [each for each in members if isinstance(each, type) and "__mapper__" in vars(each)]
        found = [each.registry.metadata for each in map(_mapper_of, mapped)]
        found += [each for each in members if isinstance(each, MetaData)]
        found += [each.metadata for each in members if isinstance(each, Table)]
        bases = [*(each.metadata for each in _registries(members)), SQLModel.metadata]
        with_tables = [each for each in dict.fromkeys(found or bases) if each.tables]
        if not with_tables:
            raise SettingsError(
                f"{models} declares no table.  Name the module that does: --models app.models"
            )
        return with_tables
    named: Any = module
    for name in path.split("."):
        named = getattr(named, name, None)
    if not isinstance(named, MetaData):
        raise SettingsError(f"{path} is not a MetaData of {models.partition(':')[0]}.  Correct --models.")
    return [named]


def _is_called(mapper: Mapper[Any], name: str) -> bool:
    table: Any = mapper.local_table
    own = mapper.inherits is None or mapper.inherits.local_table is not table
    return mapper.class_.__name__ == name or (
        own and name in (table.name, getattr(table, "fullname", table.name))
    )


def _mappers(members: Any) -> Iterator[Mapper[Any]]:
    """All mappers of the registries that the module's members belong to."""
    for base in _registries(members):
        yield from base.mappers


def _mapper_of(mapped: Any) -> Mapper[Any]:
    return mapped.__mapper__


def _registries(members: Any) -> Iterator[registry]:
    seen: set[registry] = set()
    for member in members:
        mapper: Any = vars(member).get("__mapper__") if isinstance(member, type) else None
        base = mapper.registry if mapper is not None else getattr(member, "registry", None)
        if isinstance(base, registry) and base not in seen:
            seen.add(base)
            yield base
