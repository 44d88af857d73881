"""Values of parameters, for where they may be shown: as a short text, and as what EXPLAIN may be given later."""

import reprlib
import sys
from typing import Any, cast

_MOST_VALUES = 100
_MOST_BYTES = 4_000
"""Of all values of an execution: every statement keeps those of its latest."""
_UNMEASURED = (list, dict, tuple, set, frozenset, memoryview)
"""Their size is not that of what they hold."""
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
    if len(values) > _MOST_VALUES or any(isinstance(value, _UNMEASURED) for value in values):
        return None
    return tuple(values) if sum(map(sys.getsizeof, values)) <= _MOST_BYTES else None
