"""What can go wrong with a migration, in one clear line each: Alembic's, the database's and the revision's errors."""

import re
import traceback
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from catalysis.database import Database
from catalysis.errors import CatalysisError, MigrationError


def unreachable(database: Database, failure: Exception) -> MigrationError:
    """The error for a connection that could not be opened; it names the database without its password."""
    url = make_url(database.settings.url)
    reason = _first_line(failure) or type(failure).__name__
    if url.password:
        reason = reason.replace(str(url.password), "***")
    return MigrationError(
        f"The database {url.render_as_string(hide_password=True)} cannot be reached: {reason}.  "
        "Start it, or correct DATABASE_URL (or --url)."
    )


def explain(
    failure: Exception, config: Config, asked: str = "", undone: str = "revision"
) -> CatalysisError | None:
    """The failure of a command as an error of ours; None if it is nothing we know.

    `asked` is the revision that the user named, which tells it from one that the database names; `undone` is what
    was rolled back, this revision or the whole run.
    """
    scripts = ScriptDirectory.from_config(config)
    line = _line_of_revision(failure, Path(scripts.dir).absolute())
    if line is not None:
        known = isinstance(failure, CatalysisError | DBAPIError)
        reason = _first_line(failure) if known else f"{type(failure).__name__}: {_first_line(failure)}"
        return MigrationError(f"{line}: {reason}.  Nothing of this {undone} was kept.")
    if isinstance(failure, CatalysisError):
        return failure
    if isinstance(failure, CommandError):
        return MigrationError(_of_alembic(str(failure), scripts, asked))
    if isinstance(failure, DBAPIError):
        return MigrationError(f"The database refuses: {_first_line(failure)}.")
    return None


def _of_alembic(message: str, scripts: ScriptDirectory, asked: str) -> str:
    if unknown := re.match(r"Can't locate revision identified by '(.+)'", message):
        if unknown[1] in asked:
            return f"There is no revision {unknown[1]!r} in {scripts.versions}."
        return (
            f"The database is at revision {unknown[1]!r}, which is not in {scripts.versions}: it was migrated by newer "
            "code, or by another project.  Bring the code up to date, or use another database."
        )
    heads, behind = scripts.get_heads(), "Target database is not up to date" in message
    if len(heads) > 1 and (behind or "ultiple head" in message):
        return (
            f"The revisions end in more than one head: {', '.join(heads)}.  Join them with `alembic merge heads`, "
            "or name one of them."
        )
    if behind:
        return "The database is not at the newest revision.  Run `catalysis migrate upgrade` first."
    return message


def _line_of_revision(failure: Exception, folder: Path) -> str | None:
    """File and line of the revision that the failure came out of."""
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(failure.__traceback__)]
    if isinstance(failure, SyntaxError) and failure.filename:
        places.append((failure.filename, failure.lineno or 0))
    inside = [(Path(file), line) for file, line in places if Path(file).is_relative_to(folder)]
    return next(
        (f"{file.name}, line {line}" for file, line in reversed(inside) if file.name != "env.py"), None
    )


def _first_line(failure: BaseException) -> str:
    """What the driver or Python said, without the statement, its parameters and PostgreSQL's DETAIL."""
    cause = failure.orig if isinstance(failure, DBAPIError) and failure.orig is not None else failure
    text = str(cause).strip().partition("\n")[0].rstrip(".")
    return re.sub(r"^<class '[\w.]+'>: ", "", text)  # SQLAlchemy's asyncpg dialect begins with the class
