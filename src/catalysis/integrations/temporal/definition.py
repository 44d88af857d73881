"""What is known of an activity before it runs: its names, its options, and where each parameter comes from.

Nothing is run or awaited here, and nothing of Temporal is imported.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar, cast, get_origin, get_type_hints, overload

from sqlalchemy.ext.asyncio import AsyncSession

from catalysis.errors import ActivityError
from catalysis.session import Session

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """When an activity that failed is attempted again.  Pauses are in seconds; the defaults are Temporal's."""

    attempts: int | None = None
    """The most there are, the first included; None: no end but the deadline."""
    first_pause: float = 1
    factor: float = 2
    """By which each pause is longer than the one before."""
    longest_pause: float | None = None
    """None: a hundred times the first."""
    never: tuple[str, ...] = ()
    """Errors after which there is no other attempt, by the name of their class."""

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"attempts={self.attempts}: say 1 for no other attempt, None for no end.")
        if self.first_pause < 0 or self.factor < 1:
            raise ValueError("A pause cannot be negative, and factor cannot be below 1.")

    @property
    def bound(self) -> float:
        """The longest pause, in seconds."""
        return self.first_pause * 100 if self.longest_pause is None else self.longest_pause

    def pause_after(self, attempt: int) -> float:
        """Seconds between attempt number `attempt`, from 1, and the next."""
        return min(self.bound, self.first_pause * self.factor ** min(attempt - 1, 64))


@dataclass(frozen=True, slots=True)
class Options:
    """How an activity is asked for; see `activity`.  Durations are in seconds."""

    timeout: float = 60
    deadline: float | None = None
    heartbeat: float | None = None
    retry: Retry = Retry()
    queue: str | None = None
    activity_id: str | None = None

    def __post_init__(self) -> None:
        for name in ("timeout", "deadline", "heartbeat"):
            seconds = getattr(self, name)
            if seconds is not None and seconds <= 0:
                raise ValueError(f"{name}={seconds}: say seconds, more than none.")

    @property
    def silence(self) -> float | None:
        """Seconds without a heartbeat after which the attempt counts as lost: two beats may get lost."""
        return None if self.heartbeat is None else self.heartbeat * 3


@dataclass(frozen=True, slots=True)
class PerWorker:
    """The default of a parameter that the worker fills; see `per_worker`."""

    make: Callable[[], Any]


@overload
def per_worker(make: Callable[[], AbstractAsyncContextManager[T]]) -> T: ...
@overload
def per_worker(make: Callable[[], Awaitable[T]]) -> T: ...
@overload
def per_worker(make: Callable[[], T]) -> T: ...
def per_worker(make: Callable[[], Any]) -> Any:
    """The default of an activity's parameter that is made once for each worker and shared by its activities.

    `make()` returns the thing, an awaitable of it, or an async context manager, which is left when the worker ends.
    Without a worker it is made for each call.  Its caller may pass another, as a test does.

        async def send(letter: Letter, mailer: Mailer = per_worker(make_mailer)) -> None: ...
    """
    return PerWorker(make)


@dataclass(frozen=True, slots=True)
class Parameters:
    """An activity's parameters: those that its callers give, and those that are given to it."""

    full: inspect.Signature
    seen: inspect.Signature
    """As callers see it, and as Temporal does."""
    session: str | None
    """The parameter that gets a session."""
    resources: dict[str, Callable[[], Any]]
    hints: dict[str, Any]
    result: Any
    """The type of the result; `Any` where the function does not say."""

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Parameters":
        """Read them.

        Raises:
            ActivityError: an annotation names nothing, there are two sessions, or a parameter cannot be given by
                position, which is how Temporal gives them.
        """
        hints = _hints_of(function)
        full = inspect.signature(function)
        sessions = [name for name in full.parameters if _is_session(hints.get(name))]
        if len(sessions) > 1:
            raise ActivityError(f"{_name(function)} asks for two sessions.  One is what an activity gets.")
        given = {
            name: each.default.make
            for name, each in full.parameters.items()
            if isinstance(each.default, PerWorker)
        }
        seen = [each for name, each in full.parameters.items() if name not in sessions and name not in given]
        for each in seen:
            if each.kind not in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
                raise ActivityError(
                    f"{_name(function)} has a parameter {each.name!r} that is not given by position, and Temporal "
                    "gives all of them so.  One model with all fields is best."
                )
        return cls(
            full,
            full.replace(parameters=seen),
            sessions[0] if sessions else None,
            given,
            hints,
            hints.get("return", Any),
        )

    def positional(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        """What a caller gives, in order and with defaults, as Temporal sends it.

        Raises:
            TypeError: an argument is missing, or one too many.
        """
        bound = self.seen.bind(*args, **kwargs)
        bound.apply_defaults()
        return list(bound.arguments.values())

    def filled(self, arguments: dict[str, Any]) -> inspect.BoundArguments:
        """All arguments by name, in the order in which the function takes them."""
        in_order = {name: arguments[name] for name in self.full.parameters if name in arguments}
        bound = inspect.BoundArguments(self.full, cast("Any", in_order))
        bound.apply_defaults()
        return bound


@dataclass(frozen=True, slots=True)
class Definition:
    """An activity."""

    function: Callable[..., Awaitable[Any]]
    name: str
    title: str
    options: Options
    parameters: Parameters
    idempotent: bool
    key: Callable[..., str] | None


def definition_of(function: Callable[..., Any]) -> Definition:
    """What `@activity` knows of a function.

    Raises:
        ActivityError: it is no activity of ours.
    """
    found = getattr(function, "__activity__", None)
    if not isinstance(found, Definition):
        raise ActivityError(
            f"{_name(function)} is not an activity: put @activity(…) above it.  Those that Temporal's own decorator "
            "made are executed with Temporal's own function."
        )
    return found


def with_options(
    function: Callable[P, Awaitable[R]],
    *,
    timeout: float | None = None,
    deadline: float | None = None,
    retry: Retry | None = None,
    queue: str | None = None,
    activity_id: str | None = None,
) -> Callable[P, Coroutine[Any, Any, R]]:
    """The same activity, asked for otherwise in one place: `await execute(with_options(charge, queue="slow"), order)`.

    None leaves an option as `@activity` has it; `activity_id` is Temporal's own choice then.

    Raises:
        ActivityError: the function is no activity.
    """
    given = {
        "timeout": timeout,
        "deadline": deadline,
        "retry": retry,
        "queue": queue,
        "activity_id": activity_id,
    }
    definition = definition_of(function)
    changed = replace(
        definition.options, **{name: value for name, value in given.items() if value is not None}
    )

    @wraps(function)
    async def same(*args: P.args, **kwargs: P.kwargs) -> R:
        return await function(*args, **kwargs)

    setattr(same, "__activity__", replace(definition, options=changed))  # noqa: B010 - not declared by a function
    return same


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as unknown:
        raise ActivityError(
            f"The annotations of {_name(function)} name {unknown.name!r}, which is not there when the program runs.  "
            "Import it outside of `if TYPE_CHECKING`: arguments and results are read by their types."
        ) from None


def _is_session(hint: Any) -> bool:
    plain = hint.__origin__ if get_origin(hint) is Annotated else hint
    return isinstance(plain, type) and issubclass(plain, AsyncSession) and issubclass(Session, plain)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
