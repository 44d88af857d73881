"""New rows of a plain class, bound by a generated function: what `_save_obj` of SQLAlchemy does, decided once.

Plain is a class with one table, no version, no heirs and no listeners, whose keys are there before the flush and whose
defaults are Python's.  Anything else, and any instance out of the ordinary, is left to SQLAlchemy before anything
has been sent.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy.sql.elements import ClauseElement

from catalysis.engine.alchemy.compiling import compiled_with

BINDINGS = 100
"""The most ways to give a class's attributes that are kept."""
_BY_AGE = attrgetter("insert_order")


class Binding(NamedTuple):
    """How the rows that give certain attributes are sent."""

    sql: str
    bind: Callable[[dict[str, Any], tuple[Any, ...]], tuple[Any, ...]]
    """From an instance's dictionary and its defaults to the driver's parameters."""
    defaults: tuple[tuple[str, Callable[[Any], Any]], ...]
    """The attributes that Python's defaults fill in."""


def save_new(
    states: Sequence[Any], mapper: Any, known: Any, engine: Any, send: Callable[[str, list[Any]], bool]
) -> bool:
    """Send the rows of new instances of a mapper, in their order; False if that is SQLAlchemy's to do, all of it.

    `known` is the identity map; `send(sql, rows)` is False if nothing can be sent natively.
    """
    if not _is_plain(mapper) or mapper.class_manager.dispatch.refresh_flush:
        return False
    try:
        parts = list(_parts(states, mapper, known, engine))
    except _Unusual:
        return False
    except Exception:  # a value that cannot be bound, or a default that fails: SQLAlchemy will meet it too
        return False
    for number, (binding, rows, filled) in enumerate(parts):
        if not send(binding.sql, rows):
            assert number == 0, "what could be sent once can be sent again"
            return False
        for state, values in filled:
            for (name, _), value in zip(binding.defaults, values, strict=True):
                state.dict[name] = value
                state.committed_state.pop(name, None)
    return True


class _Unusual(Exception):
    """An instance is not for us."""


Part = tuple[Binding, list[Any], list[tuple[Any, tuple[Any, ...]]]]


def _parts(states: Sequence[Any], mapper: Any, known: Any, engine: Any) -> Iterator[Part]:
    table = mapper.local_table
    names = tuple(mapper._propkey_to_col[table])
    keys = [mapper._columntoproperty[column].key for column in mapper.primary_key]
    nulls = mapper._insert_cols_as_none[table]
    always = {mapper._columntoproperty[column].key for column in table.columns if column.key in nulls}

    def given(state: Any) -> tuple[str, ...]:
        values = state.dict
        key = tuple([values.get(name) for name in keys])
        if state.key is not None or None in key or (mapper._identity_class, key, None) in known:
            raise _Unusual
        return tuple([name for name in names if name in always or values.get(name) is not None])

    for attributes, group in groupby(sorted(states, key=_BY_AGE), given):
        members = list(group)
        binding = _binding(mapper, attributes, engine, many=len(members) > 1)
        rows, filled = list[Any](), list[Any]()
        for state in members:
            values = state.dict
            for name in attributes:
                value = values.get(name)
                if isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
                    raise _Unusual
            made = tuple([make(None) for _, make in binding.defaults])
            rows.append(binding.bind(values, made))
            if made:
                filled.append((state, made))
        yield binding, rows, filled


# --- What is decided once -------------------------------------------------------------------------

_KEPT = "_catalysis_saves_plainly"


def _is_plain(mapper: Any) -> bool:
    if _KEPT not in mapper.__dict__:
        setattr(mapper, _KEPT, _would_be_plain(mapper))
    return getattr(mapper, _KEPT)


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
    default = column.default
    if default is None:
        return False
    # SQLAlchemy wraps a function that takes no context, and one that wants it is handed nothing here.
    return default.is_scalar or (default.is_callable and hasattr(default.arg, "__wrapped__"))


def _binding(mapper: Any, attributes: tuple[str, ...], engine: Any, *, many: bool) -> Binding:
    kept: dict[Any, Binding | None] = mapper._memo(
        ("catalysis bindings", engine.dialect), dict[Any, Binding | None]
    )
    if (attributes, many) not in kept:
        if len(kept) >= BINDINGS:
            kept.clear()
        kept[attributes, many] = _make_binding(mapper, attributes, engine, many=many)
    if (binding := kept[attributes, many]) is None:
        raise _Unusual
    return binding


def _make_binding(mapper: Any, attributes: tuple[str, ...], engine: Any, *, many: bool) -> Binding | None:
    table = mapper.local_table
    columns = mapper._propkey_to_col[table]
    given = {columns[name].key: name for name in attributes}
    statement = mapper._memo(("insert", table), table.insert)
    compiled = compiled_with(statement, engine, sorted(given), many, mapper._compiled_cache)
    prefetched = {each.key: each for each in compiled.insert_prefetch}
    if compiled.postfetch or compiled.effective_returning or not compiled.positional:
        return None
    if not all(_has_python_default(each) for each in prefetched.values()):
        return None
    defaults = list[tuple[str, Callable[[Any], Any]]]()
    names, parts = dict[str, Any](), list[str]()
    for n, name in enumerate(compiled.positiontup):
        if name in given:
            value = f"values.get({given[name]!r})"
        elif name in prefetched:
            column = prefetched[name]
            value = f"made[{len(defaults)}]"
            default = column.default.arg
            defaults.append(
                (
                    mapper._columntoproperty[column].key,
                    default if column.default.is_callable else _always(default),
                )
            )
        else:
            return None
        if (processor := compiled._bind_processors.get(name)) is not None:
            names[f"P{n}"], value = processor, f"P{n}({value})"
        parts.append(value)
    source = f"lambda values, made: ({', '.join(parts)},)"
    return Binding(compiled.string, eval(source, names), tuple(defaults))  # noqa: S307 - our own source


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda context: value
