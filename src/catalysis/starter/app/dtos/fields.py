"""The kinds of fields that bodies are made of, each with its bounds."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

# PostgreSQL stores every character but NUL.
_STORABLE = r"^[^\x00]*$"

Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=_STORABLE)
]
Title = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=_STORABLE)
]
ShortText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200, pattern=_STORABLE)]
LongText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=5000, pattern=_STORABLE)]
Username = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,49}$")]
Email = Annotated[
    str, StringConstraints(to_lower=True, max_length=254, pattern=r"^[^@\s\x00]+@[^@\s\x00]+\.[^@\s\x00]+$")
]
Password = Annotated[str, StringConstraints(min_length=10, max_length=128)]
Color = Annotated[str, StringConstraints(to_lower=True, pattern=r"^#[0-9A-Fa-f]{6}$")]
Priority = Annotated[int, Field(ge=1, le=5, description="1 is urgent, 5 can wait")]


def left_out() -> Any:
    """The default of a field that a PATCH may leave out but may not set to null."""
    return Field(default_factory=lambda: None)
