"""The recipe of a plan's rows, read off SQLAlchemy when it is about to load them: asked once a plan.

SQLAlchemy makes its row processors from the statement's options, the mappers and the columns; what they would do
with a row is written down here as a `Row` of `shape.py`, or refused as `NotGenerated` where that cannot say it.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import InstanceState, strategies
from sqlalchemy.orm.collections import InstrumentedList
from sqlalchemy.orm.context import QueryContext
from sqlalchemy.orm.instrumentation import ClassManager
from sqlalchemy.orm.interfaces import MapperProperty, StrategizedProperty

from catalysis.engine.shape import Child, Node, Row

_private: Any = strategies
LAZY, JOINED = _private._LazyLoader, _private._JoinedLoader
SELECT_IN, NOTHING = _private._SelectInLoader, _private._DoNothingLoader
MAPPED, COLUMNS = "_MapperEntity", ("_RawColumnEntity", "_ORMColumnEntity")
_nothing: Any = MapperProperty


def _does_nothing(attribute: Any) -> bool:
    """Whether a property has no part in loading rows: a synonym, or a composite, which follows its columns."""
    return attribute.__class__.create_row_processor is _nothing.create_row_processor


class NotGenerated(Exception):
    """A row holds what no hydrator is generated for; the message says what."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is needed to turn a plan's rows into instances without asking SQLAlchemy again."""

    row: Row
    processors: tuple[tuple[Any, Callable[[Any], Any] | None], ...]
    """Each column's type, and what turns its value as the driver gives it into the type's own."""
    metadata: Any
    """SQLAlchemy's description of the columns."""
    result_metadata: Any
    """The same of the result; None if it depends on the statement at hand."""
    default_options: tuple[Any, ...]
    """What goes on with the instances where the statement itself brings no options."""
    compile_state: Any
    places: tuple[tuple[Any, Any, Any, Any], ...]
    """For each node what SQLAlchemy's own row processor is made of: entity, mapper, path, adapter."""
    requires_uniquing: bool
    has_options: bool
    """Whether options go on with the instances, for what they load later."""


def recipe_of(result: Any) -> Recipe:
    """The recipe of the rows that SQLAlchemy has just loaded.

    Raises:
        NotGenerated: only SQLAlchemy can load them.
    """
    context = getattr(result, "context", None)
    if not isinstance(context, QueryContext):
        raise NotGenerated("no mapped class is selected")
    reader = _Reader(context, result.raw)
    return reader.read(result)


class _Reader:
    def __init__(self, context: Any, cursor: Any) -> None:
        self.context, self.cursor = context, cursor
        self.width = len(cursor.keys())
        self.nodes: list[Node] = []
        self.places: list[tuple[Any, Any, Any, Any]] = []

    def read(self, result: Any) -> Recipe:
        compile_state = self.context.compile_state
        options = [each for each in compile_state.select_statement._with_options if each.propagate_to_loaders]
        entries = tuple(self.entry(entity) for entity in compile_state._entities)
        row = Row(
            entries,
            tuple(sorted(self.nodes, key=lambda node: node.number)),
            self.width,
            is_scalar=bool(result._source_supports_scalars),
            loads_after=any(node.loads_after for node in self.nodes),
            has_options=bool(options),
        )
        translated = any(getattr(each, "translate_raw_column", False) for each in compile_state._entities)
        metadata = result._metadata
        names, extra = metadata._keys, [metadata._keymap[key][2] for key in metadata._keys]
        distinct = len(set(names)) == len(names)
        return Recipe(
            row,
            tuple(zip(self.types(), self.cursor._metadata._processors, strict=True)),
            self.cursor._metadata,
            None if translated or not distinct else described(compile_state, names, extra),
            tuple(options),
            compile_state,
            tuple(self.places),
            requires_uniquing=self.context.requires_uniquing,
            has_options=bool(options),
        )

    def types(self) -> list[Any]:
        columns = self.cursor.context.compiled._result_columns
        if len(columns) != self.width:
            raise NotGenerated("columns that the compiler does not know")
        return [column.type for column in columns]

    def entry(self, entity: Any) -> Node | int:
        kind = type(entity).__name__
        if kind in COLUMNS:
            getter = entity._row_processor[0] if entity._row_processor else None
            if getter is None:
                raise NotGenerated("a column that is not read by its place")
            return self.place(getter)
        if kind != MAPPED:
            raise NotGenerated(f"a {kind.strip('_')}")
        adapter = entity._get_entity_clauses(self.context.compile_state)
        compound = self.context.compile_state.compound_eager_adapter
        adapter = adapter.wrap(compound) if compound and adapter else adapter or compound
        if entity._polymorphic_discriminator is not None:
            raise NotGenerated("a polymorphic class")
        return self.node(entity, entity.mapper, entity.path, adapter)

    def place(self, getter: Callable[[Any], Any]) -> int:
        # The getters are made by operator.itemgetter, so that a row of numbers tells where each looks.
        found = getter(range(self.width))
        if not isinstance(found, int):
            raise NotGenerated("a column that is not read by its place")
        return found

    def node(self, entity: Any, mapper: Any, path: Any, adapter: Any) -> Node:
        _check_mapper(mapper)
        number = len(self.places)
        self.places.append((entity, mapper, path, adapter))
        getters = path.get(self.context.compile_state.attributes, ("getters", mapper), None)
        if getters is None or getters["primary_key_getter"] is None:
            raise NotGenerated("an instance that is being refreshed")
        found = getters["cached_populators"]
        if found["existing"] or found["eager"] or found["deferred"]:
            raise NotGenerated("an attribute with a loader of its own")
        children, loads_after = self.relations(entity, mapper, path, adapter, getters["todo"])
        current = self.context.compile_state.current_path
        key = getters["primary_key_getter"](range(self.width))
        node = Node(
            number,
            mapper.class_,
            mapper._identity_class,
            mapper.class_manager,
            current + path if current.path else path,
            tuple(key),
            needs_whole_key=not mapper.allow_partial_pks,
            columns=tuple((name, self.place(getter)) for name, getter in _in_order(mapper, found["quick"])),
            expired=tuple(name for name, is_expired in found["expire"] if is_expired),
            fresh=tuple(populate for _, populate in found["new"]),
            children=tuple(children),
            loads_after=loads_after,
        )
        self.nodes.append(node)
        return node

    def relations(
        self, entity: Any, mapper: Any, path: Any, adapter: Any, todo: Sequence[Any]
    ) -> tuple[list[Child], bool]:
        children: list[Child] = []
        loads_after = False
        for prop in todo:
            attribute: Any = prop
            if not isinstance(prop, StrategizedProperty):
                if not _does_nothing(attribute):
                    raise NotGenerated(f"{mapper.class_.__name__}.{attribute.key}")
                continue
            option = attribute._get_context_loader(self.context, path)
            chosen = option and option.strategy
            strategy = attribute._get_strategy(option.strategy) if chosen else attribute.strategy
            if isinstance(strategy, JOINED):
                if (
                    child := self.joined(entity, mapper, path, adapter, attribute, strategy, option)
                ) is not None:
                    children.append(child)
            elif isinstance(strategy, SELECT_IN):
                loads_after = True
            elif isinstance(strategy, LAZY):
                _check_lazy(mapper, attribute, strategy, option)
            elif not isinstance(strategy, NOTHING):
                raise NotGenerated(
                    f"{mapper.class_.__name__}.{attribute.key} by {type(strategy).__name__.strip('_')}"
                )
        return children, loads_after

    def joined(
        self, entity: Any, mapper: Any, path: Any, adapter: Any, attribute: Any, strategy: Any, option: Any
    ) -> Child | None:
        inner = path[attribute]
        eager = strategy._create_eager_adapter(self.context, self.cursor, adapter, inner, option)
        if eager is False:  # the columns are not there, so it is left for later
            _check_lazy(mapper, attribute, attribute._get_strategy((("lazy", "select"),)), option)
            return None
        if mapper.class_manager[attribute.key].impl.supports_population is False:
            raise NotGenerated(f"{mapper.class_.__name__}.{attribute.key}, which cannot be filled")
        node = self.node(entity, strategy.mapper, inner[strategy.entity], eager)
        implementation = mapper.class_manager[attribute.key].impl
        return Child(
            attribute.key, strategy.uselist, strategy.uselist and _is_plain_list(implementation), node
        )


def _is_plain_list(implementation: Any) -> bool:
    """Whether the collection is SQLAlchemy's own list, whose appending is the built-in one."""
    factory = getattr(implementation, "collection_factory", None)
    return factory is not None and type(factory()) is InstrumentedList


def _in_order(mapper: Any, quick: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """As the class declares them; SQLAlchemy's own order is that of a set."""
    order = {name: number for number, name in enumerate(mapper.column_attrs.keys())}
    return sorted(quick, key=lambda each: order.get(each[0], len(order)))


def _check_lazy(mapper: Any, attribute: Any, strategy: Any, option: Any) -> None:
    if not strategy.is_class_level or (option and option._extra_criteria):
        raise NotGenerated(f"{mapper.class_.__name__}.{attribute.key}, whose loading an option changes")


def _check_mapper(mapper: Any) -> None:
    name, manager = mapper.class_.__name__, mapper.class_manager
    if mapper.polymorphic_map or mapper.inherits:
        raise NotGenerated(f"{name}, which is polymorphic or inherits")
    if manager.dispatch.load:
        raise NotGenerated(f"{name}, whose loading is listened to")
    if mapper.always_refresh:
        raise NotGenerated(f"{name}, which is always refreshed")
    made: Any = manager
    if type(manager) is not ClassManager or made._state_constructor is not InstanceState:
        raise NotGenerated(f"{name}, which is instrumented in a way of its own")
    if "__dict__" not in dir(mapper.class_):
        raise NotGenerated(f"{name}, whose instances have no __dict__")


def described(compile_state: Any, names: Sequence[Any], extra: Sequence[Any]) -> SimpleResultMetaData:
    kinds = [_uniqueness(entity) for entity in compile_state._entities]

    def unique_filters(result: Any) -> Sequence[Callable[[Any], Any] | None]:
        if result._yield_per:
            raise InvalidRequestError("Can't use the ORM yield_per feature in conjunction with unique()")
        return kinds

    return SimpleResultMetaData(names, extra, _create_unique_filters=unique_filters)


def _uniqueness(entity: Any) -> Callable[[Any], Any] | None:
    """By what the values of an entity are told apart: as SQLAlchemy's `loading.instances` has it."""
    if entity.use_id_for_hash:
        return id
    if not (entity._non_hashable_value or entity._null_column_type):
        return None
    datatype, uncertain = entity.column.type, entity._null_column_type

    def refuse(value: Any) -> Any:
        if uncertain:
            with suppress(TypeError):
                return hash(value)
        produced = "the values returned appear to be" if uncertain else "this datatype produces"
        raise InvalidRequestError(
            f"Can't apply uniqueness to row tuple containing value of type {datatype!r}; {produced} non-hashable values"
        )

    return refuse
