"""Where a project keeps its migrations: finding the configuration, and writing the first files.

The configuration is Alembic's own (`[tool.alembic]` in pyproject.toml, or an alembic.ini), so that `alembic`
works beside `catalysis migrate`.  No database is touched here.
"""

import os
import sys
import tomllib
from argparse import Namespace
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, cast

from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from catalysis.errors import MigrationError

CONFIG_VARIABLE = "ALEMBIC_CONFIG"
"""The variable that names the configuration file, for `alembic` and here."""

TEMPLATES = files("catalysis.migrations") / "template"


def load_config(file: Path | None = None, *, quiet: bool = True) -> Config:
    """Alembic's configuration from `file`, else from $ALEMBIC_CONFIG, else from the current folder.

    If `quiet`, Alembic prints nothing.

    Raises:
        MigrationError: there is none, or the folder it names is not there.
    """
    config = find_config(file, quiet=quiet)
    if config is None:
        _, toml = _files(file)
        raise MigrationError(
            f"No migrations are configured in {toml.absolute()}: it has no [tool.alembic] with a "
            "script_location.  Run `catalysis migrate init`, in the project's folder."
        )
    return config


def find_config(file: Path | None = None, *, quiet: bool = True) -> Config | None:
    """As `load_config`, but None where no migrations are configured.

    Raises:
        MigrationError: `file`, or the folder that the configuration names, is not there.
    """
    ini, toml = _files(file)
    _tools(toml)  # says so if it cannot be read
    config = Config(ini, toml, stdout=sys.stdout, cmd_opts=Namespace(quiet=quiet, x=[]))
    try:
        if config.get_alembic_option("script_location") is None:
            return None
        ScriptDirectory.from_config(config)
    except CommandError as missing:
        raise MigrationError(f"{missing}  `catalysis migrate init` makes it.") from None
    return config


def _files(file: Path | None) -> tuple[Path, Path]:
    """The alembic.ini and the pyproject.toml that are meant."""
    given = file or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if given is not None and not given.is_file():
        raise MigrationError(f"The configuration file {given} is not there.")
    folder = given.parent if given is not None else Path()
    toml = given if given is not None and given.suffix == ".toml" else folder / "pyproject.toml"
    ini = given if given is not None and given.suffix != ".toml" else folder / "alembic.ini"
    return ini, toml


def init_project(folder: Path, models: str, root: Path = Path()) -> list[Path]:
    """Write the migrations folder and its configuration; return the files written.

    `models` names the module (or `module:metadata`) with the tables; `folder` is relative to `root`, which holds
    or gets a pyproject.toml.

    Raises:
        MigrationError: the folder is not empty, or migrations are configured already, and nothing was written;
            or a file cannot be written.
    """
    target, pyproject = root / folder, root / "pyproject.toml"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise MigrationError(f"{target} is there already and not empty.  Choose another folder.")
    configured = pyproject.read_text("utf-8") if pyproject.exists() else ""
    if "alembic" in _tools(pyproject):
        raise MigrationError(f"{pyproject} has a [tool.alembic] already.  Take it out to start anew.")
    paths = ["%(here)s/src", "%(here)s"] if (root / "src").is_dir() else ["%(here)s"]
    section = _template(
        "pyproject.toml.txt", location=folder.as_posix(), paths=", ".join(f'"{path}"' for path in paths)
    )
    texts = {
        target / "env.py": _template("env.py.txt", models=models),
        target / "script.py.mako": (TEMPLATES / "script.py.mako").read_text("utf-8"),
        pyproject: f"{configured.rstrip()}\n\n{section}".lstrip(),
    }
    try:
        (target / "versions").mkdir(parents=True)
        for path, content in texts.items():
            path.write_text(content, "utf-8")
    except OSError as failure:
        raise MigrationError(f"{failure.filename} cannot be written: {failure.strerror}.") from None
    return list(texts)


def configured_models(root: Path = Path()) -> str:
    """What pyproject.toml says: `models` of [tool.catalysis]; else what `guess_models` finds.

    Raises:
        MigrationError: pyproject.toml cannot be read, or the models are not found.
    """
    section: Any = _tools(root / "pyproject.toml").get("catalysis")
    named = cast("dict[str, Any]", section).get("models") if isinstance(section, dict) else None
    return named if isinstance(named, str) else guess_models(root)


def guess_models(root: Path = Path()) -> str:
    """The dotted name of the one module called `models` in `root` (its `src`, if it has one) or in a package there.

    Raises:
        MigrationError: there is none, or more than one.
    """
    base = root / "src" if (root / "src").is_dir() else root
    places = [each for pattern in ("models.py", "*/models.py") for each in base.glob(pattern)]
    places += [
        each.parent for pattern in ("models", "*/models") for each in base.glob(f"{pattern}/__init__.py")
    ]
    parts = [place.relative_to(base).with_suffix("").parts for place in places]
    names = sorted(".".join(each) for each in parts if each[0] != "tests")
    if len(names) != 1:
        found = f"found {', '.join(names)}" if names else "found none"
        raise MigrationError(
            f"Which module holds the models?  ({found.capitalize()}.)  Name it: --models app.models"
        )
    return names[0]


def _tools(pyproject: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(pyproject.read_text("utf-8")).get("tool", {}) if pyproject.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as malformed:
        raise MigrationError(f"{pyproject} cannot be read: {malformed}.") from None


def _template(name: str, **values: str) -> str:
    return Template((TEMPLATES / name).read_text("utf-8")).substitute(values)
