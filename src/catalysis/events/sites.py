"""Call sites: the line of the user's code that led to what happens now."""

import inspect
import os
import sysconfig
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple, ParamSpec, TypeVar

import greenlet

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CallSite:
    """A line of the user's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


_OURS = str(Path(__file__).parent.parent) + os.sep
_STARTER = _OURS + "starter" + os.sep
_LIBRARIES = (
    _OURS,
    *(
        os.path.dirname(found.origin) + os.sep
        for name in ("sqlalchemy", "sqlmodel", "greenlet", "pydantic", "fastapi", "starlette")
        if (found := find_spec(name)) is not None and found.origin is not None
    ),
)
"""Those that touch attributes, or send statements, for the user's code."""
_STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep
_SITE_PACKAGES = sysconfig.get_path("purelib") + os.sep


@lru_cache(maxsize=10_000)
def _is_users(file: str) -> bool:
    if file.startswith(_STARTER):
        return True
    if file.startswith(_LIBRARIES) or file.startswith(
        "<"
    ):  # "<string>" is generated code, SQLAlchemy's for one
        return False
    return not file.startswith(_STANDARD_LIBRARY) or file.startswith(_SITE_PACKAGES)


_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR


def call_site() -> CallSite | None:
    """See `call_line`."""
    found = call_line()
    return None if found is None else found.site


class CodeLine(NamedTuple):
    """A line of running code, as cheap as it can be noted."""

    code: CodeType
    line: int

    @property
    def site(self) -> CallSite:
        """The same for people."""
        return CallSite(self.code.co_filename, self.line, self.code.co_qualname)


def call_line() -> CodeLine | None:
    """The innermost line that is neither ours, SQLAlchemy's nor the standard library's; None if there is none.

    SQLAlchemy executes inside a greenlet, whose frames end at `greenlet_spawn`; the coroutine that awaits it
    stands in the parent greenlet, so the walk goes on there.  A plain function below a coroutine is what drives
    its task: whoever runs the event loop has not sent the statement, so the walk ends there.
    """
    frame = inspect.currentframe()
    current: Any = greenlet.getcurrent()
    in_task = False
    while current is not None:
        while frame is not None:
            code = frame.f_code
            if code is _SENT_FROM:
                return frame.f_locals["line"]
            if in_task and not code.co_flags & (_COROUTINE | inspect.CO_GENERATOR):
                return None
            if _is_users(code.co_filename):
                return CodeLine(code, frame.f_lineno)
            in_task = in_task or bool(code.co_flags & _COROUTINE)
            frame = frame.f_back
        current = current.parent
        frame = current.gr_frame if current is not None else None
    return None


async def sent_from(
    line: CodeLine | None, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Await the function; what it sends is sent from this line, which the walk would not find from another greenlet
    or task.
    """
    return await function(*args, **kwargs)


_SENT_FROM = sent_from.__code__


def waits_at(awaited: Any) -> CallSite | None:
    """The innermost line of the user's code in a coroutine that is suspended; None if there is none."""
    found: CallSite | None = None
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        frame = frame or getattr(awaited, "ag_frame", None)
        if frame is not None and _is_users(frame.f_code.co_filename):
            found = CallSite(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
        awaited = (
            getattr(awaited, "cr_await", None)
            or getattr(awaited, "gi_yieldfrom", None)
            or getattr(awaited, "ag_await", None)
        )
    return found
