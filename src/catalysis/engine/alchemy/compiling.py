"""From a statement to SQL text and bound parameters, by SQLAlchemy's own compiler and processors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import BindParameter, CompoundSelect, Connection, CursorResult, Engine, Select
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.compiler import WARN_LINTING, SQLCompiler


def cache_key(statement: Any) -> tuple[Any, Sequence[Any], Any] | None:
    """SQLAlchemy's key of the statement, its bound parameters in order, and values given by `params()`."""
    return statement._generate_cache_key()


def unkeyed_options(statement: Any) -> tuple[type[object], ...]:
    """The kinds of options that SQLAlchemy leaves out of its key."""
    options: tuple[object, ...] = statement._with_options
    return tuple([type(each) for each in options if not _has_key(each)])


def _has_key(option: Any) -> bool:
    return option._is_has_cache_key


def is_select(statement: Any) -> bool:
    """Whether it is a SELECT or several in a UNION, written as such."""
    given: Any = statement
    return isinstance(statement, (Select, CompoundSelect)) and not given._is_lambda_element


def own_execution_options(statement: Any) -> Mapping[str, Any]:
    """The execution options the statement carries."""
    return statement._execution_options


def outer_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The execution options of the statement whose eager load one with these options is, which hold for it too."""
    outer = options.get("sa_top_level_orm_context")
    return {} if outer is None else {**outer.query._execution_options, **outer.execution_options}


def subject_of(statement: Any) -> Mapper[Any] | None:
    """The mapper a statement is about, which decides where it is sent."""
    subject = statement._propagate_attrs.get("plugin_subject")
    return None if subject is None else subject.mapper


def locks_rows(statement: Any) -> bool:
    """Whether it has FOR UPDATE or the like at its top."""
    return statement._for_update_arg is not None


def compiled_for(statement: Any, engine: Engine) -> SQLCompiler:
    """The statement compiled for the engine's dialect; raises whatever SQLAlchemy raises."""
    compiled, *_ = compile_for(statement, engine, cache={})
    return compiled


def compile_for(
    statement: Any, engine: Any, columns: Sequence[str] = (), *, many: bool = False, cache: Any
) -> Any:
    """The statement compiled, its values, those it was given by name, and whether SQLAlchemy's `cache` had it.

    `columns`: those that an INSERT or UPDATE gives values, sorted; `many`: whether for many rows.
    """
    return statement._compile_w_cache(
        dialect=engine.dialect,
        compiled_cache=cache,
        column_keys=list(columns),
        for_executemany=many,
        schema_translate_map=None,
        linting=engine.dialect.compiler_linting | WARN_LINTING,
    )


def with_literal_limit(statement: Any) -> Any:
    """The statement with its LIMIT to be written into the SQL, where that is a number given as such."""
    limit = getattr(statement, "_limit_clause", None)
    if not isinstance(limit, BindParameter) or limit.callable is not None or limit.required:
        return statement
    copy = statement._clone()
    copy._limit_clause = limit.render_literal_execute()
    return copy


@dataclass(frozen=True, slots=True)
class Bind:
    """Where one positional parameter comes from."""

    position: int | None
    """Its place among the statement's bound parameters; None for a value that the compiler put there."""
    constant: Any
    """That value."""
    called: bool
    """Whether the parameter is a function to be called for its value."""
    element: int | None
    """Its place in the value, of an IN's list; None for the value itself."""
    processor: Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class Variable:
    """A parameter whose value shapes the SQL: an IN's list by its length, a literal by itself."""

    position: int
    is_list: bool


@dataclass(frozen=True, slots=True)
class Variant:
    """The SQL for certain lengths and literals, and what is bound in it."""

    sql: str
    binds: tuple[Bind, ...]


def variables_of(compiled: Any) -> tuple[Variable, ...] | None:
    """The parameters that shape the SQL; None if only SQLAlchemy can bind this statement."""
    if compiled.cache_key is None or compiled._cache_key_bind_match is None:
        return None
    positions = _positions(compiled)
    found: list[Variable] = []
    for bound in (*compiled.post_compile_params, *compiled.literal_execute_params):
        if bound not in positions or bound.callable is not None:
            return None
        if bound.type._is_tuple_type:  # each value makes several parameters
            return None
        found.append(Variable(positions[bound], bound in compiled.post_compile_params and bound.expanding))
    return tuple(found)


@dataclass(slots=True)
class Given:
    """A value where a statement has a bound parameter."""

    value: Any
    required = False

    @property
    def effective_value(self) -> Any:
        """As SQLAlchemy's own parameters call it."""
        return self.value


def requires_values(compiled: Any) -> bool:
    """Whether the statement has parameters without a value of their own."""
    return any(bound.required for bound in compiled.bind_names)


def filled(given: Sequence[Any], params: Mapping[str, Any]) -> Sequence[Any] | None:
    """The bound parameters with the values given by name; None if they do not fit, for SQLAlchemy to say why."""
    names = set(params)
    made: list[Any] = []
    for each in given:
        if each.key in params:
            names.discard(each.key)
            made.append(Given(params[each.key]))
        elif each.required:
            return None
        else:
            made.append(each)
    return None if names else made


def variant_key(variables: Sequence[Variable], given: Sequence[Any]) -> tuple[Any, ...]:
    """What tells the variants of a statement apart."""
    values = [(given[each.position].value, each.is_list) for each in variables]
    return tuple([len(value) if is_list else value for value, is_list in values])


def _positions(compiled: Any) -> dict[Any, int]:
    match = compiled._cache_key_bind_match[0]
    return {
        bound: position
        for position, original in enumerate(compiled.cache_key[1])
        for bound in match.get(original, ())
    }


def variant_of(compiled: Any, given: Sequence[Any]) -> Variant | None:
    """The variant for these bound parameters, as SQLAlchemy makes it; None if only SQLAlchemy can bind them."""
    positions, sql = _positions(compiled), compiled.string
    by_name = {name: (bound, None) for bound, name in compiled.bind_names.items()}
    processors = dict(compiled._bind_processors)
    names: Sequence[str] = compiled.positiontup or ()
    if compiled.post_compile_params or compiled.literal_execute_params:
        values = compiled.construct_params(extracted_parameters=given, escape_names=False, _check=False)
        expanded = compiled._process_parameters_for_postcompile(values)
        sql, names, processors = (
            expanded.statement,
            expanded.positiontup or (),
            processors | dict(expanded.processors),
        )
        for name, elements in expanded.parameter_expansion.items():
            by_name |= {each: (by_name[name][0], number) for number, each in enumerate(elements)}
    binds: list[Bind] = []
    for name in names:
        bound, element = by_name.get(name, (None, None))
        processor = processors.get(name)
        if bound is None or isinstance(processor, tuple):
            return None
        position, is_called = positions.get(bound), bound.callable is not None
        if position is None and (is_called or bound.required or element is not None):
            return None
        constant = bound.value if position is None else None
        binds.append(Bind(position, constant, is_called, element, cast("Any", processor)))
    return Variant(sql, tuple(binds))


def bound_values(binds: Sequence[Bind], given: Sequence[Any]) -> list[Any]:
    """The driver's parameters, from the statement's own bound parameters."""
    values: list[Any] = []
    for bind in binds:
        if bind.position is None:
            value = bind.constant
        else:
            parameter = given[bind.position]
            value = parameter.effective_value if bind.called else parameter.value
        if bind.element is not None:
            value = value[bind.element]
        values.append(value if bind.processor is None else bind.processor(value))
    return values


# --- SQLAlchemy's execution context over rows that we fetch ---------------------------------------


class FetchedCursor:
    """A cursor, as SQLAlchemy wants one, over rows that were fetched already."""

    arraysize = 1
    lastrowid: int | None = None

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


_DETACHED = "_catalysis_detached_connection"


def detached_connection(engine: Engine) -> Connection:
    """A `Connection` of the engine that is connected to nothing, for results to refer to.

    It is kept with the engine, which it refers to, so that both go together.
    """
    kept = engine.__dict__
    if _DETACHED not in kept:
        kept[_DETACHED] = Connection(engine, connection=_SOURCE, _has_events=False)
    return kept[_DETACHED]


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
    return fetched_from(
        compiled,
        connection,
        [params] if params else [],
        execution_options,
        statement,
        given,
        named,
        cast("Any", connection.dialect).CACHE_HIT,
    )


def fetched_from(
    compiled: Any,
    connection: Connection,
    rows: list[Any],
    execution_options: Mapping[str, Any],
    statement: Any,
    given: Sequence[Any],
    named: Any,
    cache_hit: Any,
) -> Any:
    """The same for a statement that is executed for many rows of parameters."""
    dialect: Any = connection.dialect
    return dialect.execution_ctx_cls._init_compiled(
        dialect,
        connection,
        _SOURCE,
        execution_options,
        compiled,
        rows,
        statement,
        given,
        cache_hit=cache_hit,
        param_dict=named,
    )


def cursor_result(context: Any, description: Any, rows: Sequence[Any], rowcount: int) -> CursorResult[Any]:
    """SQLAlchemy's result over the rows that the driver answered with."""
    context.cursor.fill(description, rows, rowcount)
    return context._setup_result_proxy()
