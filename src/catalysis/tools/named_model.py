"""The mapped class that a command means by a table's or a class's name."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Mapper, registry

from catalysis.errors import BulkError


def find_model(models: str, name: str, root: Path = Path()) -> type[Any]:
    """The class called `name`, or of the table called so, among those that the import of the module makes known.

    `models` is a module as in `app.models`, of `root` or its `src`; what follows a colon there is for Alembic.

    Raises:
        BulkError: there is no such module or class, or more than one.
    """
    module_name = models.partition(":")[0]
    for folder in (root, root / "src"):
        if folder.is_dir() and (place := str(folder.resolve())) not in sys.path:
            sys.path.insert(0, place)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{module_name}.".startswith(f"{missing.name}."):
            raise  # the module is there, what it imports is not
        raise BulkError(
            f"There is no module {missing.name!r}.  Name that of the models: --models app.models"
        ) from None
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


def _is_called(mapper: Mapper[Any], name: str) -> bool:
    table: Any = mapper.local_table
    own = mapper.inherits is None or mapper.inherits.local_table is not table
    return mapper.class_.__name__ == name or (
        own and name in (table.name, getattr(table, "fullname", table.name))
    )


def _mappers(members: Any) -> Iterator[Mapper[Any]]:
    """All mappers of the registries that the module's members belong to."""
    seen: set[registry] = set()
    for member in members:
        mapper: Any = vars(member).get("__mapper__") if isinstance(member, type) else None
        base = mapper.registry if mapper is not None else getattr(member, "registry", None)
        if isinstance(base, registry) and base not in seen:
            seen.add(base)
            yield from base.mappers
