"""Rows of a plain class, new or changed, bound by generated functions: what SQLAlchemy does for each, decided once.

Plain is a class with one table, no version, no heirs and no listeners, whose keys are there before the flush and whose
defaults are Python's.  Anything else, and any instance out of the ordinary, is left to SQLAlchemy before anything
has been sent.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import bindparam
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.sql.elements import ClauseElement

from catalysis.engine.alchemy.compiling import compile_for
from catalysis.engine.alchemy.copying import maker_of
from catalysis.models import lacks_times

BINDINGS = 100
"""The most ways to give a class's attributes that are kept."""
_BY_AGE = attrgetter("insert_order")


class Default(NamedTuple):
    """What Python fills in where an instance gives nothing."""

    attribute: str
    place: int
    """Of the driver's parameters."""
    make: Callable[[], Any]
    processor: Callable[[Any], Any] | None


class Binding(NamedTuple):
    """How the rows that give certain attributes are sent."""

    sql: str
    bind: Callable[[dict[str, Any]], list[Any]]
    """From an instance's dictionary to the driver's parameters; None in the places of defaults."""
    defaults: tuple[Default, ...]
    counts: bool
    """Whether it must find a row for each."""


def save(
    states: Sequence[Any],
    mapper: Any,
    known: Any,
    gateway: Any,
    send: Callable[[str, list[Any], bool], int | None],
    owner: str | None = None,
) -> bool:
    """Send the rows of a mapper's instances, changed ones first; False if that is SQLAlchemy's to do, all of it.

    `known` is the identity map; `send(sql, rows, counts)` gives the number of rows, -1 if nobody counted and None if
    nothing can be sent natively.  `owner`: the attribute that must be in the row too as it is in the instance.

    Raises:
        StaleDataError: a row to be changed is not there.
    """
    if not _is_plain(mapper) or mapper.class_manager.dispatch.refresh_flush:
        return False
    old = [state for state in states if state.key is not None]
    new = [state for state in states if state.key is None] if len(old) < len(states) else ()
    try:
        parts = [
            *_changed_parts(old, mapper, gateway, owner),
            *_new_parts(new, mapper, known, gateway.engine),
        ]
    except (
        Exception
    ):  # an instance is unusual, or a value cannot be bound: SQLAlchemy will say so, if that is wrong
        return False
    for number, (binding, members, rows) in enumerate(parts):
        made = [_fill(binding, row) for row in rows] if binding.defaults else ()
        count = send(binding.sql, rows, binding.counts)
        if count is None:
            assert number == 0, "what could be sent once can be sent again"
            return False
        for state, values in zip(members, made, strict=False):
            for default, value in zip(binding.defaults, values, strict=True):
                state.dict[default.attribute] = value
                state.committed_state.pop(default.attribute, None)
        if binding.counts and count != len(rows):
            raise StaleDataError(
                f"UPDATE statement on table '{mapper.local_table.description}' expected to "
                f"update {len(rows)} row(s); {count} were matched."
            )
    return True


def _fill(binding: Binding, row: list[Any]) -> list[Any]:
    """Put the defaults into a row, and return them."""
    made = list[Any]()
    for default in binding.defaults:
        value = default.make()
        made.append(value)
        row[default.place] = value if default.processor is None else default.processor(value)
    return made


class _Unusual(Exception):
    """An instance is not for us."""


Part = tuple[Binding, list[Any], list[list[Any]]]


def _new_parts(states: Sequence[Any], mapper: Any, known: Any, engine: Any) -> Iterator[Part]:
    """The states that give the same attributes, one after the other, and what of their rows is given."""
    table = mapper.local_table
    names = tuple(mapper._propkey_to_col[table])
    keys = [mapper._columntoproperty[column].key for column in mapper.primary_key]
    nulls = mapper._insert_cols_as_none[table]
    always = {mapper._columntoproperty[column].key for column in table.columns if column.key in nulls}

    def given(state: Any) -> tuple[str, ...]:
        values = state.dict
        key = tuple([values.get(name) for name in keys])
        lacks = any(each is None for each in key)
        if lacks or (mapper._identity_class, key, None) in known:
            raise _Unusual
        return tuple([name for name in names if name in always or values.get(name) is not None])

    for attributes, group in groupby(sorted(states, key=_BY_AGE), given):
        members = list(group)
        binding = _binding(mapper, "insert", attributes, engine, many=len(members) > 1)
        for state in members:
            for name in attributes:
                if _is_sql(state.dict.get(name)):
                    raise _Unusual
        yield binding, members, [binding.bind(state.dict) for state in members]


def _changed_parts(states: Sequence[Any], mapper: Any, gateway: Any, owner: str | None) -> Iterator[Part]:
    """The states that change the same attributes, one after the other, and what of their rows is given."""
    table = mapper.local_table
    keys = [mapper._columntoproperty[column].key for column in mapper.primary_key]
    equal = {name: mapper.class_manager[name].impl.is_equal for name in mapper._propkey_to_col[table]}
    # A default of the server's that is not loaded, SQLAlchemy would fetch after the flush.
    fetched = set(mapper._server_default_plus_onupdate_propkeys if mapper.eager_defaults is True else ())
    hears = mapper.dispatch.before_update  # by us alone, or this would not be asked

    def changed(state: Any) -> tuple[str, ...]:
        values, before = state.dict, state.committed_state
        if hears and lacks_times(values):
            hears(mapper, gateway, state)
        for name in keys:
            if name in before or values[name] is None:
                raise _Unusual
        found = list[str]()
        for name, old in before.items():
            if (is_equal := equal.get(name)) is not None:
                if _is_sql(value := values[name]):
                    raise _Unusual
                if is_equal(value, old) is not True:
                    found.append(name)
        if not fetched <= values.keys():
            raise _Unusual
        return tuple(sorted(found)) if len(found) > 1 else tuple(found)

    for attributes, group in groupby(sorted(states, key=mapper._persistent_sortkey_fn), changed):
        if attributes:
            members = list(group)
            many = len(members) > 1
            binding = _binding(mapper, "update", attributes, gateway.engine, many=many, owner=owner)
            yield binding, members, [binding.bind(state.dict) for state in members]


def _is_sql(value: Any) -> bool:
    if type(value) in _VALUES:
        return False
    return isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")


_VALUES = frozenset({str, int, bool, float, bytes, type(None), UUID, datetime, date, Decimal})
"""Types that are no SQL, so that nobody need ask."""


# --- What is decided once -------------------------------------------------------------------------

_PLAIN = "_catalysis_saves_plainly"


def _is_plain(mapper: Any) -> bool:
    if _PLAIN not in mapper.__dict__:  # SQLAlchemy forgets it when the mapper gets another attribute
        mapper._set_memoized_attribute(_PLAIN, _Kind(_would_be_plain(mapper)))
    return mapper.__dict__[_PLAIN].is_plain


class _Kind:
    """What was found out about a mapper; another when it was found out anew."""

    def __init__(self, is_plain: bool) -> None:
        self.is_plain = is_plain


def _would_be_plain(mapper: Any) -> bool:
    table = mapper.local_table
    return (
        mapper.base_mapper is mapper
        and len(list(mapper.self_and_descendants)) == 1
        and len(mapper.tables) == 1
        and mapper.batch
        and mapper.version_id_col is None
        and not mapper._validate_polymorphic_identity
        and not mapper._readonly_props
        and not mapper._insert_orm_defaults[table]
        and not mapper._table_to_equated[table]
        and not mapper._insert_cols_evaluating_none[table]
        and not mapper._server_onupdate_default_cols[table]
        and set(mapper._cols_by_table[table]) == set(table.columns)
        and all(_has_python_default(each) for each in mapper._server_default_cols[table])
    )


def _has_python_default(column: Any) -> bool:
    return _maker(column.default) is not None


def _maker(default: Any) -> Callable[[], Any] | None:
    """What makes the values of a default; None if it is the server's, or looks at the row that it is for."""
    if default is None:
        return None
    if default.is_scalar:
        value = default.arg
        return lambda: value
    return maker_of(default) if default.is_callable else None


_BINDINGS = "_catalysis_bindings"
"""Under this name an engine keeps them, as the processors in them may refer to its dialect."""


def _binding(
    mapper: Any, verb: str, attributes: tuple[str, ...], engine: Any, *, many: bool, owner: str | None = None
) -> Binding:
    of_engine: WeakKeyDictionary[_Kind, dict[Any, Binding | None]]
    of_engine = engine.__dict__.setdefault(_BINDINGS, WeakKeyDictionary())
    kept = of_engine.setdefault(mapper.__dict__[_PLAIN], {})
    how = verb, attributes, many, owner
    if how not in kept:
        if len(kept) >= BINDINGS:
            kept.clear()
        kept[how] = _make_binding(mapper, verb, attributes, engine, many=many, owner=owner)
    if (binding := kept[how]) is None:
        raise _Unusual
    return binding


def _update_of(mapper: Any, owner: str | None) -> Any:
    """The UPDATE of one row by its key, whose parameters are named as SQLAlchemy's flush does."""
    table = mapper.local_table
    columns = [*mapper._pks_by_table[table], *([] if owner is None else [mapper.columns[owner]])]
    return table.update().where(*(each == bindparam(each._label, type_=each.type) for each in columns))


def _make_binding(
    mapper: Any, verb: str, attributes: tuple[str, ...], engine: Any, *, many: bool, owner: str | None
) -> Binding | None:
    table = mapper.local_table
    columns = mapper._propkey_to_col[table]
    given = {columns[name].key: name for name in attributes}
    if is_update := verb == "update":
        statement = mapper._memo(("catalysis update", table, owner), lambda: _update_of(mapper, owner))
        given |= {
            column._label: mapper._columntoproperty[column].key for column in mapper._pks_by_table[table]
        }
        if owner is not None:
            given[mapper.columns[owner]._label] = owner
    else:
        statement = mapper._memo(("insert", table), table.insert)
    compiled, *_ = compile_for(statement, engine, sorted(given), many=many, cache=mapper._compiled_cache)
    prefetched = {
        each.key: each for each in (compiled.update_prefetch if is_update else compiled.insert_prefetch)
    }
    if compiled.postfetch or compiled.effective_returning or not compiled.positional:
        return None
    defaults, names, parts = list[Default](), dict[str, Any](), list[str]()
    for place, name in enumerate(compiled.positiontup):
        processor = compiled._bind_processors.get(name)
        if name in given:
            value = f"values.get({given[name]!r})"
            names[f"P{place}"] = processor
            parts.append(value if processor is None else f"P{place}({value})")
        elif name in prefetched and (make := _maker(_default_of(prefetched[name], is_update))) is not None:
            attribute = mapper._columntoproperty[prefetched[name]].key
            defaults.append(Default(attribute, place, make, processor))
            parts.append("None")
        else:
            return None
    source = f"lambda values: [{', '.join(parts)}]"
    return Binding(compiled.string, eval(source, names), tuple(defaults), is_update)  # noqa: S307 - our own source


def _default_of(column: Any, is_update: bool) -> Any:
    return column.onupdate if is_update else column.default
