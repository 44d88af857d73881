"""What may leave an activity: data.  A mapped object belongs to a session, and that ends with the activity."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy import inspect

from catalysis.errors import ActivityError

_PLAIN = (str, bytes, int, float, bool, type(None))


def check_result(result: Any, activity: str) -> None:
    """Refuse a mapped object, wherever in the result it is.

    Raises:
        ActivityError: there is one; the message names its class.
    """
    pending, seen = [result], set[int]()
    while pending:
        each = pending.pop()
        if isinstance(each, _PLAIN) or id(each) in seen:
            continue
        seen.add(id(each))
        if getattr(inspect(each, raiseerr=False), "is_instance", False):
            name = type(each).__name__
            raise ActivityError(
                f"The activity {activity!r} returns a mapped {name}, which belongs to a session that ends with it.  "
                f"Return a DTO: `return {name}DTO.model_validate(…)` with `class {name}DTO(DTO)`."
            )
        pending.extend(_parts(each))


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, BaseModel):
        yield from vars(value).values()
    elif is_dataclass(value):
        yield from (getattr(value, each.name, None) for each in fields(value))
