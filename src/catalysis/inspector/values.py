"""Values of parameters, for where they may be shown: as a short text, and as what EXPLAIN may be given later."""

import reprlib
from typing import Any, cast

_MOST_VALUES = 100
_LONGEST_VALUE = 1_000
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 120
_shown.maxlist = _shown.maxtuple = 20


def text_of(parameters: Any, longest: int) -> str | None:
    """Their `repr`, cut short; None if there are none."""
    if not parameters:
        return None
    try:
        return _shown.repr(parameters)[:longest]
    except Exception as failure:  # a value's own __repr__ must not fail the statement
        return f"<{type(failure).__name__} in repr()>"


def kept_values(parameters: Any) -> tuple[Any, ...] | None:
    """The values of one execution, if they are few and short; None if they are not, or those of many executions."""
    if not isinstance(parameters, list | tuple):
        return None
    values = cast("list[Any] | tuple[Any, ...]", parameters)
    if len(values) > _MOST_VALUES or any(map(_is_large, values)):
        return None
    return tuple(values)


def _is_large(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return len(value) > _LONGEST_VALUE
    return isinstance(value, list | dict | tuple | set)
