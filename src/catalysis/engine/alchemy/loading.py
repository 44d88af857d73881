"""One load of rows: SQLAlchemy's own instances of them, or what a generated hydrator shares with it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Result
from sqlalchemy.engine.result import ChunkedIteratorResult
from sqlalchemy.orm import loading
from sqlalchemy.orm.attributes import init_state_collection, instance_state
from sqlalchemy.orm.context import QueryContext
from sqlalchemy.sql.base import CompileState

from catalysis.engine.alchemy.recipes import Recipe, described

init_collection: Callable[[Any, Any, str], Any] = init_state_collection
"""A new, empty collection for an attribute: (state, dict, attribute) → SQLAlchemy's adapter of it."""


def plugin_of(statement: Any) -> Any:
    """The part of SQLAlchemy that runs a statement over mapped classes; None for one without."""
    plugin: Any = CompileState
    if statement._propagate_attrs.get("compile_state_plugin") != "orm":
        return None
    return plugin._get_plugin_class_for_plugin(statement, "orm")


def autoflushes(options: Mapping[str, Any]) -> bool:
    """Whether the execution options leave the autoflush before the statement on."""
    given = options.get("_sa_orm_load_options")
    return options.get("autoflush", True if given is None else given._autoflush)


def load_options(
    plugin: Any, session: Any, statement: Any, params: Any, options: Any, bind_arguments: Any
) -> Mapping[str, Any]:
    """The execution options with SQLAlchemy's own added, as it would before the statement; does not autoflush."""
    _, options, _ = plugin.orm_pre_session_exec(session, statement, params, options, bind_arguments, True)
    return options


def loaded(
    plugin: Any, session: Any, statement: Any, params: Any, options: Any, bind_arguments: Any, cursor: Any
) -> Result[Any]:
    """SQLAlchemy's own instances of the rows; inside a greenlet, as it may send more statements."""
    return plugin.orm_setup_cursor_result(
        session, statement, params or {}, options, bind_arguments or {}, cursor
    )


def number_of(result: Any) -> int | None:
    """The number of the load that a result belongs to; None for one without instances."""
    return getattr(getattr(result, "context", None), "runid", None)


new_run: Callable[[], int] = cast("Any", loading)._new_runid
"""A number for one load, by which SQLAlchemy knows the instances it has met in it."""


class _Columns:
    """What SQLAlchemy's row processors ask of a result."""

    def __init__(self, metadata: Any) -> None:
        self.keys = lambda: metadata.keys
        self._getter = metadata._getter
        self._tuple_getter = metadata._row_as_tuple_getter


@dataclass(slots=True)
class Load:
    """One load in progress: what the generated hydrator shares with SQLAlchemy, which takes over where it must."""

    recipe: Recipe
    session: Any
    statement: Any
    options: Mapping[str, Any]
    takes_defaults: bool
    number: int = field(default_factory=new_run)
    collections: dict[Any, Any] = field(default_factory=dict[Any, Any])
    """(state, attribute) → the collection being filled, under the keys that SQLAlchemy uses."""
    met_again: list[Any] = field(default_factory=list[Any])
    """Instances that the session knew before."""
    _context: Any = None
    _processors: dict[int, Callable[[Any], Any]] = field(default_factory=dict[int, Callable[[Any], Any]])

    @property
    def context(self) -> Any:
        """SQLAlchemy's context of the load, made when it is first asked for."""
        if self._context is None:
            options: Any = QueryContext.default_load_options
            if self.outer is not None:
                options += {"_sa_top_level_orm_context": self.outer}
            statement = self.session.with_defaults(self.statement) if self.takes_defaults else self.statement
            made: Any = QueryContext(
                self.recipe.compile_state,
                statement,
                statement,
                {},
                self.session,
                options,
                cast("Any", self.options),
            )
            made.runid, made.partials = self.number, {}
            made.post_load_paths = {} if self.outer is None else self.outer.post_load_paths
            self.collections.update(made.attributes)
            made.attributes = self.collections
            self._context = made
        return self._context

    @property
    def load_options(self) -> tuple[Any, ...]:
        """The options that go on with the instances."""
        if not self.recipe.has_options or not self.statement._with_options:
            return self.session.own_options(self.recipe.default_options)
        return self.context.propagated_loader_options

    @property
    def outer(self) -> Any:
        """The context of the load that this one is a part of, and which loads what is to be loaded after."""
        return self.options.get("sa_top_level_orm_context")

    def processor(self, number: int) -> Callable[[Any], Any]:
        """SQLAlchemy's own function from a row to the instance of a node."""
        if number not in self._processors:
            entity, mapper, path, adapter = self.recipe.places[number]
            columns, own = _Columns(self.recipe.metadata), cast("Any", loading)
            self._processors[number] = own._instance_processor(
                entity, mapper, self.context, columns, path, adapter
            )
        return self._processors[number]

    def instance(self, number: int, row: Any) -> Any:
        """The instance of a node in a row, by SQLAlchemy itself: for one that the session knew before."""
        instance = self.processor(number)(row)
        if instance is not None:
            self.met_again.append(instance)
        return instance

    def adopt(self, from_load: Callable[[int | None], bool]) -> None:
        """Count those that were met again, and came by such a load, to this one; when all rows are instances."""
        for instance in self.met_again:
            state: Any = instance_state(instance)
            if from_load(state.runid):
                state.runid = self.number
        self.met_again.clear()

    def after(self, number: int) -> dict[Any, Any]:
        """Where a node's instances go for which SQLAlchemy will load something after the rows."""
        self.processor(number)  # which registers it, unless relationships have led back to where they began
        found = self.context.post_load_paths.get(self.recipe.row.nodes[number].load_path.path)
        return {} if found is None else found.states

    def take_post_loads(self, *, again: bool = False) -> list[Callable[[], None]]:
        """What is to be loaded now, a function for each relationship; each may note more.  Inside greenlets.

        `again`: more rows will come, whose instances are to be noted as well.
        """
        if self._context is None or self.outer is not None:
            return []
        waiting = list(self._context.post_load_paths.items())
        self._context.post_load_paths.clear()
        calls: list[Callable[[], None]] = []
        for path, post_load in waiting:
            calls += _split(self._context, path, post_load)
            if again:
                post_load.states.clear()
                self._context.post_load_paths[path] = post_load
        return calls


def _split(context: Any, path: Any, post_load: Any) -> list[Callable[[], None]]:
    """SQLAlchemy would run the loaders of a path one after another; here each can run by itself."""
    made: list[Callable[[], None]] = []
    for token, loader in post_load.loaders.items():
        alone = type(post_load)()
        alone.loaders[token] = loader
        alone.states.update(post_load.states)
        alone.load_keys = post_load.load_keys
        made.append(lambda alone=alone: alone.invoke(context, path))
    return made if post_load.states else []


def result_of(load: Load, rows: list[Any]) -> Result[Any]:
    """The rows as SQLAlchemy's own kind of result."""
    recipe = load.recipe
    metadata = recipe.result_metadata or _result_metadata(load)

    def chunks(size: int | None) -> Iterator[list[Any]]:
        return iter([rows])

    make: Any = ChunkedIteratorResult
    result = make(
        metadata,
        chunks,
        source_supports_scalars=recipe.row.is_scalar,
        context=cast("Any", _Summary(recipe.requires_uniquing)),
    )
    return result.unique() if recipe.requires_uniquing else result


class _Source:
    """What SQLAlchemy closes when a result is closed."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    def _soft_close(self, hard: bool = False, **_: Any) -> None:
        self._close()


def streamed_result(
    load: Load, chunks: Callable[[int | None], Iterator[list[Any]]], close: Callable[[], None]
) -> Any:
    """The rows as they come, as SQLAlchemy's own kind of result."""
    make: Any = ChunkedIteratorResult
    return make(
        load.recipe.result_metadata or _result_metadata(load),
        chunks,
        source_supports_scalars=load.recipe.row.is_scalar,
        raw=_Source(close),
        dynamic_yield_per=True,
        context=_Summary(False),
    )


@dataclass(frozen=True, slots=True)
class _Summary:
    requires_uniquing: bool


def _result_metadata(load: Load) -> Any:
    columns, compile_state = _Columns(load.recipe.metadata), load.recipe.compile_state
    found = [entity.row_processor(load.context, columns) for entity in compile_state._entities]
    return described(compile_state, [label for _, label, _ in found], [extra for *_, extra in found])
