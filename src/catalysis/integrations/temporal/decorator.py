"""`@activity`: a coroutine function becomes one, and it stays a function that can be called.

In a Temporal worker, in `local` and in a plain call it does the same; what differs is who decides about another try.
"""

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from importlib.util import find_spec
from inspect import iscoroutinefunction
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from pydantic import TypeAdapter

from catalysis.engine.routing import share_no_more
from catalysis.errors import ActivityError
from catalysis.events import CodeLine, scoped
from catalysis.integrations.temporal.attempts import (
    Attempt,
    Place,
    current_database,
    current_resources,
    entered,
)
from catalysis.integrations.temporal.definition import Definition, Options, Parameters, Retry
from catalysis.integrations.temporal.effects import once
from catalysis.integrations.temporal.failures import told_to_temporal
from catalysis.integrations.temporal.heartbeats import beating
from catalysis.integrations.temporal.results import check_result
from catalysis.loading.managed import managed
from catalysis.session import Session

P = ParamSpec("P")
R = TypeVar("R")


class Mark(Protocol):
    """What `activity(…)` returns: a decorator.  A session that the function takes first is not its callers' to give."""

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload] - the first is the narrower, and asked first
        self, function: Callable[Concatenate[Session, P], Awaitable[R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, R]]: ...


def activity(
    *,
    display_name: str | None = None,
    name: str | None = None,
    timeout: float = 60,
    deadline: float | None = None,
    heartbeat: float | None = None,
    retry: Retry | None = None,
    queue: str | None = None,
    idempotent: bool = False,
    key: Callable[..., str] | None = None,
) -> Mark:
    """Mark a coroutine function as an activity called `name` (default: the function's own name).

    It runs in a managed scope: touching what was not loaded loads it.  A parameter annotated with `Session` gets a
    new session of the worker's database, or of the process's own; a `per_worker(…)` default what the worker keeps.
    Callers give neither.  A mapped object cannot be returned: a DTO can.

    With the extra `temporal` installed it is Temporal's activity too, which any of its workers may run.  Called
    directly it is called once; `local` and, outside of a workflow, `execute` call it again as `retry` says.

    `display_name` is for people; it becomes the function's `__display_name__`.  These hold wherever `execute` asks
    for it, in seconds: `timeout` for one attempt, `deadline` for all with the pauses, `heartbeat` between automatic
    heartbeats, of which three in a row must not be missing.  `retry` (default: `Retry()`) says when there is another
    attempt, `queue` whose workers run it (default: the workflow's).

    `idempotent=True` gives the session in a transaction, and commits that with a row for this call: another attempt
    gets the stored result, and does nothing (see `effects_table`).  `key`, which is called with the arguments, makes
    it once for all calls with the same key instead; without it, a plain call has no row.

    Raises:
        ActivityError: it is not a coroutine function, its parameters cannot be given, or it is idempotent and takes
            no session or does not say what it returns.
    """
    options = Options(timeout, deadline, heartbeat, retry or Retry(), queue)

    def mark(function: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        title = display_name or name or function.__name__
        parameters = Parameters.of(function)
        definition = Definition(
            function, name or function.__name__, title, options, parameters, idempotent, key
        )
        _check(definition)

        @wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            with entered(definition.name) as attempt:
                if attempt.info is None:
                    return await _run(definition, attempt, args, kwargs)
                with told_to_temporal(is_once=idempotent):
                    async with beating(options.heartbeat):
                        return await _run(definition, attempt, args, kwargs)

        shown: Any = call
        shown.__signature__, shown.__display_name__, shown.__activity__ = parameters.seen, title, definition
        _make_temporals(shown, definition)
        return call

    return mark


def _check(definition: Definition) -> None:
    function, parameters = definition.function, definition.parameters
    if not iscoroutinefunction(function):
        raise ActivityError(f"{definition.name} is no coroutine function: write `async def`.")
    if not definition.idempotent:
        if definition.key is not None:
            raise ActivityError(f"{definition.name} has a key and is not idempotent: say idempotent=True.")
        return
    if parameters.session is None:
        raise ActivityError(
            f"{definition.name} is idempotent and takes no session: what it writes must be committed with the row "
            "that says so.  Add `session: Session` as its first parameter, and write through it."
        )
    if "return" not in parameters.hints:
        raise ActivityError(
            f"{definition.name} is idempotent and does not say what it returns: a stored result is read by that type."
        )


def _make_temporals(call: Any, definition: Definition) -> None:
    if find_spec("temporalio") is None:
        return
    from temporalio.activity import defn
    from temporalio.common import RawValue

    # Arguments are read here and not by Temporal, which takes one that is not valid for a failure that may pass, and
    # quotes it; and which reads none by its type if a default was left out.
    seen = dict.fromkeys(definition.parameters.seen.parameters, RawValue)
    call.__annotations__ = {**seen, "return": definition.parameters.result}
    defn(name=definition.name)(call)
    call.__annotations__ = {
        name: hint for name, hint in definition.parameters.hints.items() if name in seen or name == "return"
    }


async def _run(definition: Definition, attempt: Attempt, args: Any, kwargs: dict[str, Any]) -> Any:
    if attempt.info is not None:  # called by Temporal: it is nobody's part
        share_no_more()
    with scoped("activity", definition.title):
        return await managed(_run_inside(definition, attempt, args, kwargs))


async def _run_inside(definition: Definition, attempt: Attempt, args: Any, kwargs: dict[str, Any]) -> Any:
    parameters = definition.parameters
    own = () if definition.idempotent or parameters.session is None else (parameters.session,)
    given = {name: kwargs.pop(name) for name in (*parameters.resources, *own) if name in kwargs}
    bound = parameters.seen.bind(*args, **kwargs)
    if attempt.info is not None:
        _read(bound.arguments, definition)
    async with current_resources() as resources:
        for name, make in parameters.resources.items():
            if name not in given:
                given[name] = await resources.get(make)
        if parameters.session is None or parameters.session in given:
            result = await _called(definition, {**bound.arguments, **given})
        else:
            place = attempt.place
            if definition.key is not None:
                place = Place("", "", "", definition.key(*bound.args, **bound.kwargs), definition.name)
            result = await _with_session(definition, place, {**bound.arguments, **given})
    check_result(result, definition.name)
    return result


async def _with_session(definition: Definition, place: Place | None, given: dict[str, Any]) -> Any:
    name, database = definition.parameters.session, current_database()
    assert name is not None
    code = definition.function.__code__  # pyright: ignore[reportFunctionMemberAccess] - it is a function

    async def work(session: Session) -> Any:
        session.sync_session.opened = CodeLine(code, code.co_firstlineno)
        return await _called(definition, {**given, name: session})

    if not definition.idempotent:
        async with database.session() as session:
            return await work(session)
    if place is None:
        return await database.transaction(work)
    return await once(database, place, definition.parameters.result, work)


async def _called(definition: Definition, arguments: dict[str, Any]) -> Any:
    bound = definition.parameters.filled(arguments)
    return await definition.function(*bound.args, **bound.kwargs)


def _read(arguments: dict[str, Any], definition: Definition) -> None:
    """Make what came from Temporal what the parameters say.

    Raises:
        ValidationError: it is not.
    """
    from temporalio.activity import payload_converter
    from temporalio.common import RawValue

    hints: dict[str, Any] = definition.parameters.hints
    # Temporal gives them as they are only if there is one for each parameter, else as plain JSON.
    is_plain = len(arguments) < len(definition.parameters.seen.parameters)
    for name, value in arguments.items():
        if isinstance(value, RawValue):
            arguments[name] = payload_converter().from_payload(value.payload, hints.get(name, Any))
        elif is_plain and name in hints:
            arguments[name] = TypeAdapter(hints[name]).validate_python(value)
