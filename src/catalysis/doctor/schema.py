"""The models against the live database: Alembic's comparison, judged.  Pure: the comparison was made before."""

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import (
    Date,
    DateTime,
    ForeignKeyConstraint,
    Integer,
    Numeric,
    String,
    Time,
)
from sqlalchemy.types import BigInteger, Float, SmallInteger, TypeDecorator, TypeEngine

from catalysis.doctor.complaint import Complaint, Rule, Severity
from catalysis.migrations.differences import describe
from catalysis.migrations.runner import Comparison

_ALEMBIC = "https://alembic.sqlalchemy.org/en/latest/"
_COMPARED = _ALEMBIC + "autogenerate.html"


def _rule(code: str, name: str, severity: Severity, what: str, source: str = _COMPARED) -> Rule:
    return Rule(code, name, severity, what, source)


PENDING = _rule(
    "D201",
    "migrations-pending",
    "error",
    "revisions that the database has not had",
    _ALEMBIC + "tutorial.html",
)
UNKNOWN = _rule(
    "D202",
    "revision-unknown",
    "error",
    "the database is at a revision that is not in the folder",
    _ALEMBIC + "tutorial.html",
)
HEADS = _rule(
    "D203", "several-heads", "error", "the revisions end in more than one head", _ALEMBIC + "branches.html"
)
TABLE = _rule("D211", "table-missing", "error", "a table of the models that the database has not")
COLUMN = _rule("D212", "column-missing", "error", "a column of the models that the database has not")
REFUSED = _rule(
    "D213", "null-refused", "error", "a column that is nullable in the models and not in the database"
)
NULLS = _rule(
    "D214", "null-let-in", "warning", "a column that is nullable in the database and not in the models"
)
LOSSY = _rule(
    "D215", "type-loses", "error", "a column of the database that cannot hold all that the model's can"
)
TYPE = _rule("D216", "type-differs", "warning", "a column whose type differs otherwise")
CONSTRAINT = _rule(
    "D217", "constraint-missing", "error", "a constraint or unique index that the database has not"
)
INDEX = _rule("D218", "index-missing", "warning", "an index of the models that the database has not")
DEFAULT = _rule("D219", "default-differs", "warning", "a server default that differs")
ENUM = _rule("D220", "enum-differs", "error", "an enum type that is missing or has other values")
UNUSED = _rule("D221", "not-in-models", "info", "what the database has and the models have not")
REQUIRED = _rule(
    "D222",
    "required-column-not-in-models",
    "error",
    "a column that every new row must fill, not in the models",
)
PLACED = _rule(
    "D223",
    "distribution-differs",
    "error",
    "a table whose rows are elsewhere in the cluster than its model says",
)

RULES = (
    *(PENDING, UNKNOWN, HEADS, TABLE, COLUMN, REFUSED, NULLS, LOSSY, TYPE),
    *(CONSTRAINT, INDEX, DEFAULT, ENUM, UNUSED, REQUIRED, PLACED),
)
NOT_COMPARED = _rule(
    "D200", "comparison", "info", "the comparison as a whole: said only where it was skipped"
)

UPGRADE = "catalysis migrate upgrade"


def judge_revisions(found: Comparison) -> Iterator[Complaint]:
    """What there is to say of the revisions."""
    at, heads = ", ".join(found.at) or "none", ", ".join(found.heads)
    if len(found.heads) > 1:
        yield HEADS.complain(
            "revisions", f"They end in {heads}, so that none of them is the newest.", "alembic merge heads"
        )
    if found.unknown:
        yield UNKNOWN.complain(
            "revisions",
            f"The database is at {', '.join(found.unknown)}, which is not in the folder: newer code migrated it, or "
            "another project.",
            "bring the code up to date, or name another database",
        )
    elif set(found.at) != set(found.heads):
        yield PENDING.complain(
            "revisions", f"The database is at {at}, the newest revision is {heads}.", UPGRADE
        )


def judge_differences(differences: list[Any], system: str, *, migrated: bool) -> Iterator[Complaint]:
    """A complaint for each difference; `migrated`: the project has migrations, so that a revision is the mend."""
    for each in differences:
        changes: list[Any] = [each] if isinstance(each, tuple) else each  # those of one column come as a list
        for change in changes:
            if (judged := _judge(change, system)) is not None:
                rule, subject, reason = judged
                message = f"{describe([change])[0]}{reason}."
                yield rule.complain(subject, message[0].upper() + message[1:], _mend(change, migrated))


_Judged = tuple[Rule, str, str] | None
"""The rule, the subject, and what follows from the difference."""


def _judge(change: Any, system: str) -> _Judged:
    kind, *what = change
    verb, _, noun = kind.partition("_")
    if kind == "modify_comment":
        return None
    if verb == "add" and noun in _ADDED:
        return _ADDED[noun](*what)
    if verb == "remove":
        return _judge_removed(noun, *what)
    if kind in ("create_enum", "drop_enum", "alter_enum"):
        rule = UNUSED if kind == "drop_enum" else ENUM
        return rule, f"enum {what[1]}", ""
    if kind in ("place_table", "undistribute_table"):
        return PLACED, what[0], ""
    if verb == "modify":
        return _judge_modified(noun, system, *what)
    return TYPE, str(what[-1]), ""  # of a kind that a later Alembic brings


def _judge_added_table(table: Any) -> _Judged:
    return TABLE, table.fullname, ""


def _judge_added_column(schema: str | None, table: str, column: Any) -> _Judged:
    return COLUMN, _named(schema, table, column.name), ""


def _judge_added_index(index: Any) -> _Judged:
    rule = CONSTRAINT if index.unique else INDEX
    return rule, f"index {index.name}", ": rows may repeat that must not" if index.unique else ""


def _judge_added_constraint(constraint: Any) -> _Judged:
    why = ": rows may refer to nothing" if isinstance(constraint, ForeignKeyConstraint) else ""
    return CONSTRAINT, f"constraint {constraint.name}", why


_ADDED: dict[str, Callable[..., _Judged]] = {
    "table": _judge_added_table,
    "column": _judge_added_column,
    "index": _judge_added_index,
    "constraint": _judge_added_constraint,
    "fk": _judge_added_constraint,
}


def _judge_removed(noun: str, *what: Any) -> _Judged:
    if noun == "column":
        schema, table, column = what
        required = not column.nullable and column.server_default is None and column.identity is None
        rule, why = (REQUIRED, ", and a new row without it is refused") if required else (UNUSED, "")
        return rule, _named(schema, table, column.name), why
    (thing,) = what
    subject = (
        thing.fullname if noun == "table" else f"{'index' if noun == 'index' else 'constraint'} {thing.name}"
    )
    return UNUSED, subject, ""


def _judge_modified(
    noun: str, system: str, schema: str | None, table: str, column: str, existing: Any, old: Any, new: Any
) -> _Judged:
    subject = _named(schema, table, column)
    match noun:
        case "nullable":
            if new:
                return REFUSED, subject, ": None is refused"
            return NULLS, subject, ": a row may hold None where the model promises a value"
        case "type":
            lost = loss(old, new, system)
            return (LOSSY, subject, f": {lost}") if lost else (TYPE, subject, "")
        case "default":
            missing = new is not None and old in (None, False)
            return DEFAULT, subject, ": an INSERT that leaves it out gets NULL" if missing else ""
        case _:
            return TYPE, subject, ""


def loss(there: TypeEngine[Any], here: TypeEngine[Any], system: str) -> str | None:
    """What a value of the model's type (`here`) would lose in the database's type; None if nothing for certain.

    SQLite holds to no length, precision or range ("Datatypes In SQLite", section 3), so nothing is lost there.
    """
    old, new = _stored(there), _stored(here)
    if system == "sqlite":
        return None
    for kinds, lost in _LOSSES:
        if isinstance(old, kinds) and isinstance(new, kinds) and (said := lost(old, new)):
            return said
    if isinstance(old, Float) and isinstance(new, Numeric) and not isinstance(new, Float):
        return "decimal digits are rounded"
    if isinstance(old, Date | Time) and isinstance(new, DateTime):
        return "a part of the time is cut off"
    return None


def _length_lost(old: Any, new: Any) -> str | None:
    if old.length is not None and (new.length is None or new.length > old.length):
        return f"text longer than {old.length} is refused"
    return None


def _range_lost(old: Any, new: Any) -> str | None:
    return "larger numbers are refused" if _bytes(old) < _bytes(new) else None


def _digits_lost(old: Any, new: Any) -> str | None:
    if old.scale is not None and (new.scale or 0) > old.scale:
        return f"digits after the {old.scale}. are rounded away"
    if old.precision is not None and new.precision is not None:
        whole = old.precision - (old.scale or 0)
        return "larger numbers are refused" if new.precision - (new.scale or 0) > whole else None
    return None


def _zone_lost(old: Any, new: Any) -> str | None:
    return "the time zone is cut off" if new.timezone and not old.timezone else None


_LOSSES: tuple[tuple[type[Any], Callable[[Any, Any], str | None]], ...] = (
    (String, _length_lost),
    (Integer, _range_lost),
    (Numeric, _digits_lost),
    (DateTime, _zone_lost),
)


def _bytes(type_: Integer) -> int:
    return 2 if isinstance(type_, SmallInteger) else 8 if isinstance(type_, BigInteger) else 4


def _stored(type_: TypeEngine[Any]) -> Any:
    found: Any = type_
    while isinstance(found, TypeDecorator):
        found = found.impl_instance
    return found


def _named(schema: str | None, table: str, column: str) -> str:
    return ".".join(part for part in (schema, table, column) if part)


def _mend(change: Any, migrated: bool) -> str:
    if not migrated:
        return "catalysis migrate init, then a revision; or mend the models"
    if change[0].startswith("remove") or change[0] == "drop_enum":
        return f"add it to the models, or drop it: catalysis migrate revision -m '…'; {UPGRADE}"
    return f"catalysis migrate revision -m '…'; {UPGRADE}"
