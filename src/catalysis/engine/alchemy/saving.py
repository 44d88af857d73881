"""Rows of a plain class, new or changed, bound by generated functions: what SQLAlchemy does for each, decided once.

Plain is a class with one table, no version, no heirs and no listeners, whose keys are there before the flush and whose
defaults are Python's.  Anything else, and any instance out of the ordinary, is left to SQLAlchemy before anything
has been sent.
"""

from collections import deque
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
from catalysis.engine.conversions import NAMES, parameter
from catalysis.models import lacks_times

BINDINGS = 100
"""The most ways to give a class's attributes that are kept."""
_BY_AGE = attrgetter("insert_order")


class Binding(NamedTuple):
    """How the rows that give certain attributes are sent."""

    sql: str
    take: Callable[[dict[str, Any], Any], list[Any] | None]
    """From an instance's dictionary, and those known by their keys, to the driver's parameters; None in the places of
    defaults.  None if a new instance gives other attributes."""
    fill: Callable[[list[Any]], tuple[Any, ...]] | None
    """Puts the defaults into a row's parameters and returns them, where Python fills in something."""
    keep: Callable[[Any, tuple[Any, ...]], None]
    """Gives a state's instance those defaults, once its row was sent."""
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
    if any(state.identity_token is not None for state in new):
        return False
    try:
        parts = [
            *_changed_parts(old, mapper, gateway, owner),
            *_new_parts(new, mapper, known, gateway.engine),
        ]
    except (
        Exception
    ):  # an instance is unusual, or a value cannot be bound: SQLAlchemy will say so, if that is wrong
        return False
    if parts and not gateway.can_send():
        return False
    for number, (binding, members, rows) in enumerate(parts):
        made = _filled(binding.fill, rows, gateway, binding.sql) if binding.fill is not None else ()
        count = send(binding.sql, rows, binding.counts)
        if count is None:
            assert number == 0, "what could be sent once can be sent again"
            return False
        for state, values in zip(members, made, strict=False):
            binding.keep(state, values)
        if binding.counts and count != len(rows):
            raise StaleDataError(
                f"UPDATE statement on table '{mapper.local_table.description}' expected to "
                f"update {len(rows)} row(s); {count} were matched."
            )
    return True


def _filled(fill: Callable[[list[Any]], Any], rows: list[Any], gateway: Any, sql: str) -> list[Any]:
    try:
        return [fill(row) for row in rows]
    except Exception as error:
        gateway.refuse(error, sql, rows)
        raise


class _Unusual(Exception):
    """An instance is not for us."""


Part = tuple[Binding, list[Any], list[Any]]
"""How they are sent, the states, and the rows, with None in the places of defaults."""


def _new_parts(states: Sequence[Any], mapper: Any, known: Any, engine: Any) -> Iterator[Part]:
    """The states that give the same attributes, one after the other, and what of their rows is given."""
    left = deque(sorted(states, key=_BY_AGE))
    while left:
        attributes = _given(left[0].dict, mapper)
        binding = _binding(mapper, "insert", attributes, engine, many=len(left) > 1)
        members, rows = list[Any](), list[Any]()
        while left and (row := binding.take(left[0].dict, known)) is not None:
            members.append(left.popleft())
            rows.append(row)
        if len(members) == 1 and left:
            binding = _binding(mapper, "insert", attributes, engine, many=False)
            rows = [binding.take(members[0].dict, known)]
        assert members, "what an instance gives is what it was asked for"
        yield binding, members, rows


def _given(values: dict[str, Any], mapper: Any) -> tuple[str, ...]:
    """The attributes that a new instance gives."""
    always = _always(mapper)
    if any(values.get(mapper._columntoproperty[column].key) is None for column in mapper.primary_key):
        raise _Unusual
    names = mapper._propkey_to_col[mapper.local_table]
    return tuple([name for name in names if name in always or values.get(name) is not None])


def _always(mapper: Any) -> set[str]:
    """The attributes whose NULL is sent too, as the column's default would come in its place."""
    table = mapper.local_table
    nulls = mapper._insert_cols_as_none[table]
    return {mapper._columntoproperty[column].key for column in table.columns if column.key in nulls}


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

    for attributes, group in groupby(_by_key(states, mapper), changed):
        if attributes:
            members = list(group)
            many = len(members) > 1
            binding = _binding(mapper, "update", attributes, gateway.engine, many=many, owner=owner)
            yield binding, members, [binding.take(state.dict, ()) for state in members]


def _by_key(states: Sequence[Any], mapper: Any) -> list[Any]:
    """In the order of their keys, as the unit of work has it; UUIDs by their numbers, which compare in no time."""
    of_one = len(mapper.primary_key) == 1 and mapper.primary_key[0].type.sort_key_function is None
    if of_one and {type(state.key[1][0]) for state in states} == {UUID}:
        return sorted(states, key=lambda state: state.key[1][0].int)
    return sorted(states, key=mapper._persistent_sortkey_fn)


def _is_sql(value: Any) -> bool:
    if type(value) in _VALUES:
        return False
    return isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")


def _refuse_sql(value: Any) -> None:
    if _is_sql(value):
        raise _Unusual


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
        and tuple(mapper._pks_by_table[table]) == mapper.primary_key
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
    generator = _Generator(mapper, compiled)
    for place, name in enumerate(compiled.positiontup):
        if name in given:
            generator.given(place, given[name], name)
        elif name in prefetched and (make := _maker(_default_of(prefetched[name], is_update))) is not None:
            generator.default(place, mapper._columntoproperty[prefetched[name]].key, name, make)
        else:
            return None
    others = () if is_update else [name for name in columns if name not in attributes]
    return generator.binding(attributes, others, counts=is_update)


class _Generator:
    """Writes the functions of a binding."""

    def __init__(self, mapper: Any, compiled: Any) -> None:
        self.mapper, self.compiled = mapper, compiled
        self.names: dict[str, Any] = {
            "VALUES": _VALUES,
            "refuse_sql": _refuse_sql,
            "Unusual": _Unusual,
            "I": mapper._identity_class,
            **NAMES,
        }
        self.parts: list[str] = []
        self.taken: dict[str, str] = {}
        """The variables of the attributes that are given."""
        self.made: list[tuple[int, str, str]] = []
        """The place of each default, its attribute, and the parameter made of it."""

    def given(self, place: int, attribute: str, name: str) -> None:
        """The parameter of this place is the attribute's value."""
        self.taken.setdefault(attribute, f"a{place}")
        self.parts.append(self._processed(place, name, self.taken[attribute]))

    def default(self, place: int, attribute: str, name: str, make: Callable[[], Any]) -> None:
        """The parameter of this place is filled in."""
        self.names[f"M{place}"] = make
        self.parts.append("None")
        self.made.append((place, attribute, self._processed(place, name, f"v{place}")))

    def _processed(self, place: int, name: str, value: str) -> str:
        self.names[f"P{place}"] = processor = self.compiled._bind_processors.get(name)
        return parameter(self.compiled.binds[name].type, processor).format(value, f"P{place}")

    def binding(self, attributes: Sequence[str], others: Sequence[str], *, counts: bool) -> Binding:
        """The binding of rows that give these attributes, and not the others."""
        lines = ["def take(values, known):", "    get = values.get"]
        lines += [f"    {variable} = get({attribute!r})" for attribute, variable in self.taken.items()]
        if not counts:
            lines += self._only(attributes, others)
        lines += [f"    return [{', '.join(self.parts)}]"]
        lines += ["def fill(row):"]
        for place, _, made in self.made:
            lines += [f"    v{place} = M{place}()", f"    row[{place}] = {made}"]
        values = "".join(f"v{place}, " for place, *_ in self.made)
        lines += [f"    return ({values})", "def keep(state, made):"]
        lines += ["    values, before = state.dict, state.committed_state"]
        for number, (_, attribute, _) in enumerate(self.made):
            lines += [
                f"    values[{attribute!r}] = made[{number}]",
                f"    before.pop({attribute!r}, None)",
            ]
        exec(compile("\n".join(lines), "<catalysis binding>", "exec"), self.names)  # noqa: S102 - our own source
        fill = self.names["fill"] if self.made else None
        return Binding(self.compiled.string, self.names["take"], fill, self.names["keep"], counts)

    def _only(self, attributes: Sequence[str], others: Sequence[str]) -> Iterator[str]:
        """Lines that leave where a new instance gives something else, is known already, or has SQL for a value."""
        always = _always(self.mapper)
        for name in others:
            yield f"    if get({name!r}) is not None: return None"
        for name in attributes:
            variable = self.taken[name]
            if name not in always:
                yield f"    if {variable} is None: return None"
            yield f"    if type({variable}) not in VALUES: refuse_sql({variable})"
        keys = [self.taken[self.mapper._columntoproperty[column].key] for column in self.mapper.primary_key]
        yield f"    if (I, ({''.join(f'{key}, ' for key in keys)}), None) in known: raise Unusual"


def _default_of(column: Any, is_update: bool) -> Any:
    return column.onupdate if is_update else column.default
