"""From a statement to SQL text and bound parameters, by SQLAlchemy's own compiler and processors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CompoundSelect, Connection, CursorResult, Engine, Select
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.compiler import WARN_LINTING, SQLCompiler

ONLY_BUFFERING = "prebuffer_rows"


def cache_key(statement: Any) -> tuple[Any, Sequence[Any], Any] | None:
    """SQLAlchemy's key of the statement, its bound parameters in order, and values given by `params()`."""
    return statement._generate_cache_key()


def unkeyed_options(statement: Any) -> tuple[type[Any], ...]:
    """The kinds of options that SQLAlchemy leaves out of its key."""
    options = statement._with_options
    return tuple([type(each) for each in options if not each._is_has_cache_key]) if options else ()


def is_select(statement: Any) -> bool:
    """Whether it is a SELECT or several in a UNION, written as such."""
    return isinstance(statement, (Select, CompoundSelect)) and not statement._is_lambda_element


def own_execution_options(statement: Any) -> Mapping[str, Any]:
    """The execution options the statement carries."""
    return statement._execution_options


def subject_of(statement: Any) -> Mapper[Any] | None:
    """The mapper a statement is about, which decides where it is sent."""
    subject = statement._propagate_attrs.get("plugin_subject")
    return None if subject is None else subject.mapper


def locks_rows(statement: Any) -> bool:
    """Whether it has FOR UPDATE or the like at its top."""
    return statement._for_update_arg is not None


def compiled_for(statement: Any, engine: Engine) -> SQLCompiler:
    """The statement compiled for the engine's dialect; raises whatever SQLAlchemy raises."""
    dialect: Any = engine.dialect
    compiled, *_ = statement._compile_w_cache(
        dialect=dialect,
        compiled_cache={},
        column_keys=[],
        for_executemany=False,
        schema_translate_map=None,
        linting=dialect.compiler_linting | WARN_LINTING,
    )
    return compiled


@dataclass(frozen=True, slots=True)
class Bind:
    """Where one positional parameter comes from."""

    position: int
    """Its place among the statement's bound parameters."""
    called: bool
    """Whether the parameter is a function to be called for its value."""
    processor: Callable[[Any], Any] | None


def simple_binds(compiled: Any) -> tuple[Bind, ...] | None:
    """How the parameters are made when the caller gives none by name; None if it takes SQLAlchemy to make them."""
    if compiled.literal_execute_params or compiled.post_compile_params or compiled.cache_key is None:
        return None
    match = compiled._cache_key_bind_match
    if match is None:
        return None
    positions = {
        bound: position
        for position, original in enumerate(compiled.cache_key[1])
        for bound in match[0].get(original, ())
    }
    by_name = {name: bound for bound, name in compiled.bind_names.items()}
    binds: list[Bind] = []
    for name in compiled.positiontup or ():
        bound = by_name.get(name)
        if bound not in positions or bound.required:
            return None
        processor = compiled._bind_processors.get(name)
        if isinstance(processor, tuple):
            return None
        binds.append(Bind(positions[bound], bound.callable is not None, cast("Any", processor)))
    return tuple(binds)


def bound_values(binds: Sequence[Bind], given: Sequence[Any]) -> list[Any]:
    """The driver's parameters, from the statement's own bound parameters."""
    values: list[Any] = []
    for bind in binds:
        parameter = given[bind.position]
        value = parameter.effective_value if bind.called else parameter.value
        values.append(value if bind.processor is None else bind.processor(value))
    return values


# --- SQLAlchemy's execution context over rows that we fetch ---------------------------------------


class FetchedCursor:
    """A cursor, as SQLAlchemy wants one, over rows that were fetched already."""

    arraysize = 1
    lastrowid = None

    def __init__(self) -> None:
        self.description: Any = None
        self.rowcount = -1
        self._rows: Sequence[Any] = ()
        self._next = 0

    def fill(self, description: Any, rows: Sequence[Any], rowcount: int) -> None:
        """Give it what the driver answered."""
        self.description, self._rows, self.rowcount = description, rows, rowcount

    def fetchall(self) -> Sequence[Any]:
        """All rows that are left."""
        start, self._next = self._next, len(self._rows)
        return self._rows[start:] if start else self._rows

    def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        """The next rows, at most `size`."""
        start = self._next
        self._next = min(len(self._rows), start + (size or self.arraysize))
        return self._rows[start : self._next]

    def fetchone(self) -> Any:
        """The next row, or None."""
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def close(self) -> None:
        """There is nothing to close."""


class _CursorSource:
    """Stands where SQLAlchemy asks a connection for a cursor."""

    def cursor(self, *_: Any, **__: Any) -> FetchedCursor:
        return FetchedCursor()


_SOURCE = cast("Any", _CursorSource())


def detached_connection(engine: Engine) -> Connection:
    """A `Connection` of the engine that is connected to nothing, for results to refer to."""
    return Connection(engine, connection=_SOURCE, _has_events=False)


def execution_context(
    compiled: Any,
    connection: Connection,
    statement: Any,
    given: Sequence[Any],
    named: Any,
    params: Mapping[str, Any] | None,
    execution_options: Mapping[str, Any],
) -> Any:
    """SQLAlchemy's context of one execution: `context.statement` and `context.parameters[0]` go to the driver.

    Raises:
        StatementError, InvalidRequestError: a value is missing or cannot be bound.
    """
    dialect: Any = connection.dialect
    return dialect.execution_ctx_cls._init_compiled(
        dialect,
        connection,
        _SOURCE,
        execution_options,
        compiled,
        [params] if params else [],
        statement,
        given,
        cache_hit=dialect.CACHE_HIT,
        param_dict=named,
    )


def cursor_result(context: Any, description: Any, rows: Sequence[Any], rowcount: int) -> CursorResult[Any]:
    """SQLAlchemy's result over the rows that the driver answered with."""
    context.cursor.fill(description, rows, rowcount)
    return context._setup_result_proxy()
