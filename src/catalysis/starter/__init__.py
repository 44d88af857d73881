"""The backend that `catalysis new` writes: the code that runs here, as a project of its own.

The application is in `app`, its migrations and tests beside it; what only a project needs is in `project`.
"""

from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from jinja2 import Environment, StrictUndefined

from catalysis.errors import CatalysisError

PARTS = ("app", "migrations", "tests")
"""Packages here that become folders of the project."""

HIDDEN = {"gitignore", "env.example"}
"""Files of the project whose names begin with a dot."""


def write_project(name: str, target: Path) -> list[Path]:
    """Write a project called `name` into the folder `target`, which is made if need be; the files, as written.

    Raises:
        CatalysisError: the folder is not empty, or cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CatalysisError(f"{target} is there already and not empty.  Choose another folder.")
    contents = {**_root_files(name), **_packages()}
    try:
        for path, text in contents.items():
            file = target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
    except OSError as failure:
        raise CatalysisError(f"{failure.filename} cannot be written: {failure.strerror}.") from None
    return [target / path for path in contents]


def _root_files(name: str) -> dict[PurePosixPath, str]:
    """What describes the project, from templates."""
    templates = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - no HTML
    found: dict[PurePosixPath, str] = {}
    for file in (files(__name__) / "project").iterdir():
        plain = file.name.removesuffix(".jinja")
        text = templates.from_string(file.read_text("utf-8")).render(name=name, version=version("catalysis"))
        found[PurePosixPath(f".{plain}" if plain in HIDDEN else plain)] = text
    return found


def _packages() -> dict[PurePosixPath, str]:
    """The code, with its own names instead of those it has in here."""
    return {
        path: _as_own(file.read_text("utf-8"))
        for part in PARTS
        for path, file in _walk(files(__name__) / part, PurePosixPath(part))
        if path.suffix in {".py", ".mako"}
    }


def _walk(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if each.is_dir():
            yield from _walk(each, path / each.name)
        else:
            yield path / each.name, each


def _as_own(text: str) -> str:
    for part in PARTS:
        text = text.replace(f"{__name__}.{part}", part)
    return text
