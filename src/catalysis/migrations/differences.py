"""Alembic's differences between models and database, in words."""

from collections.abc import Iterable
from typing import Any


def describe(diffs: Iterable[tuple[Any, ...] | list[tuple[Any, ...]]]) -> list[str]:
    """A line for each of the differences that `alembic.command.check` found."""
    lines: list[str] = []
    for diff in diffs:
        changes = [diff] if isinstance(diff, tuple) else diff  # those of one column come as a list
        lines += [_line(*change) for change in changes]
    return lines


def _line(kind: str, *what: Any) -> str:
    verb, _, noun = kind.partition("_")
    match kind:
        case "add_table" | "remove_table":
            return f"{_side(verb)}: table {what[0].name}"
        case "add_column" | "remove_column":
            return f"{_side(verb)}: column {what[1]}.{what[2].name}"
        case "add_index" | "remove_index":
            return f"{_side(verb)}: index {what[0].name} of {what[0].table.name}"
        case "add_constraint" | "remove_constraint" | "add_fk" | "remove_fk":
            return f"{_side(verb)}: constraint {what[0].name} of {what[0].table.name}"
        case "create_enum" | "drop_enum":
            return f"{_side('add' if verb == 'create' else 'remove')}: enum {what[1]}"
        case "alter_enum":
            return f"enum {what[1]} differs: {what[2]} in the database, {what[3]} in the models"
        case "place_table":
            return f"table {what[0]} is not {what[1]} in the database"
        case "undistribute_table":
            return f"table {what[0]} is {what[1]} in the database, and not in the models"
        case "modify_type" | "modify_nullable" | "modify_default" | "modify_comment":
            _, table, column, _, old, new = what
            return f"{noun} of {table}.{column} differs: {_value(old)} in the database, {_value(new)} in the models"
        case _:
            return f"{kind.replace('_', ' ')}: {', '.join(str(each) for each in what if each is not None)}"


def _side(verb: str) -> str:
    return "missing in the database" if verb == "add" else "not in the models"


def _value(value: Any) -> str:
    return str(getattr(value, "arg", value)) if value is not None else "none"
