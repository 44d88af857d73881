"""Programs that write: generated, run on a session, and traced."""

import asyncio
import re
import sqlite3
import warnings
from decimal import Decimal
from typing import Any

import asyncpg
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    DateTime,
    Enum,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Uuid,
    delete,
    event,
    func,
    insert,
    inspect,
    null,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, SAWarning, StatementError
from sqlalchemy.orm import make_transient, make_transient_to_detached
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.types import TypeDecorator

from catalysis import Session
from catalysis.engine.alchemy.sessions import keep_order
from tests.differential.models import Mood, Point
from tests.differential.programs import Player, Step, describe, is_instance, small, step
from tests.differential.running import SEVERAL
from tests.differential.writing_models import (
    FAMILIES,
    Car,
    Card,
    Cart,
    Child,
    Grade,
    Playlist,
    Sample,
    Student,
    Taxi,
    Vehicle,
    counter,
)

values = st.one_of(small, small, small, st.integers(9, 13))
bits = st.integers(0, 255)
making = step("make", small, bits, values, small)
changing = step("set", small, small, values)
relating = step("relate", small, small, small, small)
steps = st.one_of(
    making,
    making,
    step("make_many", small, bits, values, st.integers(2, 4)),
    changing,
    changing,
    step("set_all", small, small, values),
    step("set_all", small, small, values),
    relating,
    relating,
    relating,
    step("find", small, small),
    step("find", small, small),
    step("find_all", small),
    step("find_all", small),
    step("touch", small, small),
    step("mutate", small, small, small),
    step("delete", small),
    step("delete", small),
    step("delete_all", small, small),
    step("merge", small, bits, values, small),
    step("add", small),
    step("add_all"),
    step("expunge", small),
    step("make_transient", small, small),
    step("forget", small),
    step("flush"),
    step("flush"),
    step("flush"),
    step("commit"),
    step("commit"),
    step("commit"),
    step("rollback"),
    step("rollback"),
    step("begin_nested"),
    step("end_nested", small),
    step("nested", small),
    step("refresh", small, small, small),
    step("refresh_all", small),
    step("expire", small, small),
    step("expire_all"),
    step("update", small, small, values, small),
    step("remove", small, small, small),
    step("insert", small, bits, values, small),
    step("bulk", small, bits, values, small),
    step("without_autoflush", small, small, values),
    step("outside", small, small, small),
    step("outside", small, small, small),
    step("listen", small, small),
    step("close", small),
)
family = st.integers(0, len(FAMILIES) - 1)
programs = st.tuples(
    st.tuples(st.just("about"), family, st.one_of(st.just(-1), st.just(-1), family)),
    st.one_of(step("find_all", small), step("find_all", small), making),
    st.lists(steps, min_size=5, max_size=18),
).map(lambda parts: [parts[0], parts[1], *parts[2]])

SECONDS = 20
"""No step takes that long, unless one side waits for itself."""
SESSION_EVENTS = [
    ["before_flush", "after_flush", "after_flush_postexec"],
    ["pending_to_persistent", "persistent_to_deleted", "deleted_to_detached", "persistent_to_transient"],
    ["transient_to_pending", "pending_to_transient", "detached_to_persistent", "loaded_as_persistent"],
    ["before_commit", "after_commit", "after_soft_rollback", "after_rollback"],
    ["before_attach", "after_attach", "after_transaction_create", "after_transaction_end"],
]
REQUIRED = {
    "id": (),
    "name": "Account Ticket Memo Owner Course Strict",
    "level": "Strict",
    "line": "Cell",
    "place": "Cell",
    "code": "Country Region",
    "country": "Pass",
    "number": "Pass",
}


def columns_of(model: Any) -> list[str]:
    """The attributes that a constructor or an assignment can be given a plain value for."""
    names = [
        each.key
        for each in inspect(model).column_attrs
        if each.columns[0].computed is None and each.key not in ("kind", "made")
    ]
    if model is Sample:
        names += ["place", "length"]
    return sorted(names)


def value_of(model: Any, name: str, number: int, *, expressions: bool = True) -> Any:  # noqa: C901 - one case a kind of attribute
    """A value for the attribute; 0 is None, 9 an expression, and from 10 on it is hardly one."""
    if name == "length":
        return number
    if model is Sample and name == "place":
        return Point(number, number + 1)
    column = inspect(model).column_attrs[name].columns[0]
    kind = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
    if number == 0 and not column.primary_key:
        return None
    if number == 9 and not expressions:
        number = 8
    if number in (10, 11):
        return {10: "bad", 11: 2**70}[number] if not isinstance(kind, (String, JSON)) else number
    if isinstance(kind, Enum):
        return [Mood.CALM, Mood.WILD][number % 2]
    if isinstance(kind, Numeric):
        return Decimal(number) / 4 if kind.asdecimal else number / 4
    if isinstance(kind, LargeBinary):
        return bytes([number, 0, 255])
    if isinstance(kind, JSON):
        if number > 7:
            return null() if expressions and number == 9 else JSON.NULL
        return [number, 2] if name == "numbers" else {"n": number, "of": [number]}
    if isinstance(kind, DateTime):
        # A clock that a base sets is aware.
        return counter_day(
            number, aware=bool(getattr(kind, "timezone", False)) or hasattr(model, "deleted_at")
        )
    if isinstance(kind, Uuid):
        return counter.uuid()
    if isinstance(kind, Integer):
        if column.foreign_keys:
            return number % 6 or None
        return getattr(model, name) + 1 if number == 9 and not column.primary_key else number
    if column.primary_key or column.foreign_keys:
        return f"code {number}"
    return func.upper(f"expression {number}") if number == 9 else f"name {number}"


def counter_day(number: int, *, aware: bool) -> Any:
    from datetime import UTC, datetime

    return datetime(2026, 2, number % 28 + 1, tzinfo=UTC if aware else None)


def made(model: Any, which: int, number: int) -> Any:
    """An instance with the arguments whose bits are set, and mostly those that it needs."""
    arguments = {}
    for place, name in enumerate(columns_of(model)):
        if model is Card and name == "id":
            continue
        needed = model.__name__ in REQUIRED.get(name, ()) and number != 7
        key = inspect(model).column_attrs.get(name)
        is_key = key is not None and key.columns[0].primary_key
        chosen = which >> (place % 8) & 1 and (not is_key or which % 3 == 0) and name != "version"
        if needed or chosen:
            arguments[name] = value_of(
                model, name, number + place % 2 * (not is_key), expressions=which < 128
            )
    return model(**arguments)


ADDRESS = re.compile(r"0x[0-9a-f]{6,}|\(was: '<' not supported.*")
"""What differs from run to run: addresses, and which of two keys a sort compares with which."""


def steady(value: Any) -> Any:
    """Without addresses."""
    if isinstance(value, str):
        return ADDRESS.sub("0x", value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(steady, value))
    if isinstance(value, dict):
        return {key: steady(each) for key, each in value.items()}
    return value


PLACE = re.compile(r"query argument \$\d+(?: in element #\d+ of executemany\(\) sequence)?")
"""Where asyncpg found a value that it cannot send: rows that stock sends in one VALUES we send one by one."""


FAILS = " fails"
"""Says that a listener of the program's own raised, maybe in the place of what it was told of."""


def failure(error: BaseException) -> Any:
    """What can be seen of an error: type, first line, what the driver raised, and what it came in the place of."""
    first = PLACE.sub("query argument", ADDRESS.sub("0x", str(error).split("\n")[0]))
    seen = ["raised", type(error).__name__, first]
    if isinstance(error, DBAPIError):
        seen += [
            type(error.orig).__name__,
            getattr(error.orig, "sqlstate", None),
            error.connection_invalidated,
        ]
    if first.endswith(FAILS) and error.__context__ is not None:
        seen.append(failure(error.__context__))
    return tuple(seen)


class Writer(Player):
    """Runs a program that writes; it goes on after a failure."""

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self.models = FAMILIES[0]
        self.listening: set[str] = set()
        if not isinstance(session, Session):

            @event.listens_for(session.sync_session, "before_flush")
            def in_one_order(session: Any, context: Any, instances: Any) -> None:
                keep_order(context)  # which ours does in any case: stock has no order to compare

    async def play(self, program: list[Step]) -> list[Any]:
        for each in program:
            unflushed = len([*self.session.new, *self.session.dirty, *self.session.deleted])
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always", SAWarning)
                try:
                    outcome = await asyncio.wait_for(getattr(self, each[0])(*each[1:]), SECONDS)
                except Exception as error:
                    outcome = failure(error)
                    if unflushed > 1 and isinstance(error, (StatementError, OverflowError)):
                        outcome = (*outcome, SEVERAL)
                    counter.skip()  # what defaults made for rows that were never written, and how often, is nobody's
            said = sorted(str(one.message) for one in heard if issubclass(one.category, SAWarning))
            log, counter.log = counter.log, []
            self.trace.append(steady((each, outcome, said, log, self.seen())))
        self.listening.clear()  # the session is closed outside of any step
        return self.trace

    def seen(self) -> Any:
        return super().seen(), [self.more(each) for each in self.kept]

    def more(self, instance: Any) -> Any:
        """What `describe` leaves out: the values of before, and what is no attribute of the mapper's."""
        state: Any = inspect(instance)
        names = state.mapper.all_orm_descriptors.keys()
        return (
            sorted(
                (name, repr(value))
                for name, value in state.dict.items()
                if name not in names and name[0] != "_"
            ),
            sorted((name, self.flat(value)) for name, value in state.committed_state.items()),
            repr(getattr(instance, "model_fields_set", None) and sorted(instance.model_fields_set)),
            str(state.key),
            instance in self.session,
        )

    def flat(self, value: Any) -> str:
        if isinstance(value, (list, set, tuple)):
            return str(sorted(map(self.flat, value)))
        return f"{type(value).__name__} {inspect(value).key}" if is_instance(value) else repr(value)

    def model(self, which: int) -> Any:
        return self.models[which % len(self.models)]

    def alike(self, number: int) -> list[Any]:
        """All kept instances of the class of one."""
        one = self.one(number)
        return [each for each in self.kept if type(each) is type(one)]

    def target(self, model: Any, number: int) -> Any:
        """A kept instance of the model, a new one if there is none, or None."""
        found = [each for each in self.kept if isinstance(each, model)]
        if not found:
            return self.keep(made(model, 0, number % 7))
        return found[number % len(found)]

    # --- Steps

    async def about(self, one: int, two: int) -> None:
        self.models = FAMILIES[one] + (FAMILIES[two] if two >= 0 else [])

    async def make(self, which: int, bits: int, value: int, way: int) -> Any:
        instance = self.keep(made(self.model(which), bits, value))
        relations = sorted(inspect(type(instance)).relationships.keys())
        if relations and way % 2:
            name = relations[way % len(relations)]
            await self.session.run_sync(lambda _: self.change(instance, name, way, way))
        if way < 8:
            self.session.add(instance)
        return describe(instance)

    async def make_many(self, which: int, bits: int, value: int, count: int) -> None:
        """Rows of one batch; some of its values may be refused."""
        model = self.model(which)
        parent = None
        if model is Child:  # an orphan is no row of a batch
            parent = self.target(inspect(model).relationships["parent"].mapper.class_, value)
        for n in range(count):
            instance = self.keep(made(model, bits, (value + n) % 11))
            if parent is not None:
                instance.parent = parent
            self.session.add(instance)

    async def set(self, number: int, which: int, value: int) -> Any:
        instance = self.one(number)
        names = columns_of(type(instance))
        name = names[which % len(names)]
        new = value_of(type(instance), name, value)
        await self.session.run_sync(lambda _: setattr(instance, name, new))
        return name

    async def set_all(self, number: int, which: int, value: int) -> Any:
        instances = self.alike(number)
        model = type(instances[0])
        names = columns_of(model)
        name = names[which % len(names)]

        def change(_: Any) -> None:
            for place, each in enumerate(instances):
                setattr(each, name, value_of(model, name, (value + place * (value % 3)) % 10))

        await self.session.run_sync(change)
        return name

    def change(self, instance: Any, name: str, other: int, way: int) -> Any:
        relation = inspect(type(instance)).relationships[name]
        target = self.target(relation.mapper.class_, other)
        if not relation.uselist:
            setattr(instance, name, None if way % 4 == 0 else target)
            return "set"
        collection = getattr(instance, name)
        if isinstance(collection, set):
            collection.symmetric_difference_update({target})
            return "set changed"
        if way % 6 == 0:
            setattr(instance, name, [target, *[each for each in collection[1:] if each is not target]])
            return "replaced"
        if way % 6 == 1 and collection:
            collection.pop(0)
            return "popped"
        if target in collection:
            collection.remove(target)
            if way % 6 == 2:
                collection.insert(0, target)
            return "removed or moved to the front"
        collection.append(target) if way % 2 else collection.insert(0, target)
        return "added"

    async def relate(self, number: int, which: int, other: int, way: int) -> Any:
        instance = self.one(number)
        names = sorted(inspect(type(instance)).relationships.keys())
        if isinstance(instance, Student):
            names.append("graded")
        if not names:
            return None
        name = names[which % len(names)]

        def change(_: Any) -> Any:
            if name == "graded":
                course = self.target(inspect(Grade).relationships["course"].mapper.class_, other)
                found = course in instance.graded
                instance.graded.remove(course) if found else instance.graded.append(course)
                return found
            return self.change(instance, name, other, way)

        return name, await self.session.run_sync(change)

    async def mutate(self, number: int, which: int, value: int) -> Any:
        """Change a value in place."""
        instance = self.one(number)
        names = [
            each.key
            for each in inspect(type(instance)).column_attrs
            if isinstance(each.columns[0].type, (JSON, postgresql.ARRAY)) or each.key in ("numbers", "data")
        ]
        if not names:
            return None
        name = names[which % len(names)]

        def change(_: Any) -> str:
            held = getattr(instance, name)
            if isinstance(held, dict):
                held["n"] = value
            elif isinstance(held, list):
                held.append(value)
            if value == 9:
                flag_modified(instance, name)
            return name

        return await self.session.run_sync(change)

    async def find(self, which: int, number: int) -> Any:
        model = self.model(which)
        statement = select(model).order_by(*inspect(model).primary_key).offset(number % 3).limit(1)
        return self.keep_rows(list((await self.session.execute(statement)).scalars()))

    async def find_all(self, which: int) -> Any:
        model = self.model(which)
        statement = select(model).order_by(*inspect(model).primary_key).limit(4)
        return self.keep_rows(list((await self.session.execute(statement)).scalars()))

    async def delete_all(self, number: int, many: int) -> None:
        for each in self.alike(number)[: many + 1]:
            await self.session.delete(each)

    async def merge(self, which: int, bits: int, value: int, key: int) -> Any:
        model = self.model(which)
        instance = made(model, bits, value)
        for name in [
            each.key for each in map(inspect(model).get_property_by_column, inspect(model).primary_key)
        ]:
            if key < 7:
                setattr(instance, name, value_of(model, name, key % 4))
        merged = await self.session.merge(instance, load=key != 6)
        self.keep(merged)
        return describe(merged)

    async def add(self, number: int) -> None:
        self.session.add(self.one(number))

    async def add_all(self) -> None:
        self.session.add_all(self.kept)

    async def make_transient(self, number: int, way: int) -> None:
        instance = self.one(number)
        if way % 3 and instance in self.session:
            self.session.expunge(instance)
        make_transient(instance)
        if way % 4 == 0:
            make_transient_to_detached(instance)

    async def begin_nested(self) -> None:
        await self.session.begin_nested()

    async def end_nested(self, way: int) -> None:
        savepoint = self.session.get_nested_transaction()
        if savepoint is not None:
            await (savepoint.commit() if way % 2 else savepoint.rollback())

    async def nested(self, way: int) -> None:
        async with self.session.begin_nested() as savepoint:
            if self.kept:
                await self.set(way, way, way)
            await self.session.flush()
            if way % 2:
                await savepoint.rollback()

    async def refresh(self, number: int, which: int, way: int) -> None:
        instance = self.one(number)
        names = sorted(inspect(type(instance)).attrs.keys())
        await self.session.refresh(
            instance,
            None if which < 5 else [names[which % len(names)], names[0]],
            with_for_update=way == 1 or None,
        )

    async def refresh_all(self, number: int) -> None:
        for each in self.alike(number):
            await self.session.refresh(each)

    async def expire(self, number: int, which: int) -> None:
        instance = self.one(number)
        names = sorted(inspect(type(instance)).attrs.keys())
        self.session.expire(instance, None if which < 5 else [names[which % len(names)]])

    def how(self, way: int) -> Any:
        return {"synchronize_session": ["auto", "evaluate", "fetch", False][way % 4]}

    async def update(self, which: int, column: int, value: int, way: int) -> Any:
        model = self.model(which)
        names = columns_of(model)
        name = names[column % len(names)]
        key = inspect(model).primary_key[0]
        criterion = key == value_of(model, inspect(model).get_property_by_column(key).key, way)
        statement = update(model).values({name: value_of(model, name, value)})
        result = await self.session.execute(
            statement.where(criterion) if way % 3 else statement, execution_options=self.how(way)
        )
        return result.rowcount

    async def remove(self, which: int, number: int, way: int) -> Any:
        model = self.model(which)
        key = inspect(model).primary_key[0]
        criterion = key == value_of(model, inspect(model).get_property_by_column(key).key, number)
        return (
            await self.session.execute(delete(model).where(criterion), execution_options=self.how(way))
        ).rowcount

    def given(self, model: Any, bits: int, value: int) -> dict[str, Any]:
        """The same for a statement: values by attribute."""
        return {
            name: value_of(model, name, value, expressions=False)
            for place, name in enumerate(columns_of(model))
            if name not in ("length", "version")
            and not (model is Sample and name == "place")
            and (model.__name__ in REQUIRED.get(name, ()) or (bits >> (place % 8) & 1 and name != "id"))
        }

    async def insert(self, which: int, bits: int, value: int, way: int) -> Any:
        model = self.model(which)
        many = [self.given(model, bits, (value + n) % 9) for n in range(1 + way % 3)]
        statement: Any = insert(model)
        if way < 4:
            return self.keep_rows(list((await self.session.scalars(statement.returning(model), many)).all()))
        if way < 6:
            return self.keep_rows(
                list(
                    (await self.session.execute(statement.returning(*inspect(model).primary_key), many)).all()
                )
            )
        if way == 6:
            return (await self.session.execute(statement.values(many))).rowcount
        result = await self.session.execute(statement, many if way < 9 else many[0])
        return getattr(result, "rowcount", None)

    async def bulk(self, which: int, bits: int, value: int, way: int) -> Any:
        """What came before `insert()` in a session, and an update by key."""
        model = self.model(which)
        many = [self.given(model, bits, (value + n) % 9) for n in range(1 + way % 3)]
        keys = [inspect(model).get_property_by_column(each).key for each in inspect(model).primary_key]
        keyed = [each | {key: value_of(model, key, n + 1) for key in keys} for n, each in enumerate(many)]

        def do(session: Any) -> Any:
            if way % 4 == 0:
                return session.bulk_save_objects([made(model, bits, (value + n) % 9) for n in range(2)])
            if way % 4 == 1:
                return session.bulk_insert_mappings(model, many)
            if way % 4 == 2:
                return session.bulk_update_mappings(model, keyed)
            return session.execute(update(model), keyed) and None

        return await self.session.run_sync(do)

    async def without_autoflush(self, number: int, which: int, value: int) -> Any:
        with self.session.no_autoflush:
            await self.set(number, which, value)
            return await self.find(number, value)

    async def outside(self, which: int, number: int, way: int) -> Any:
        """Somebody else changes or deletes a row meanwhile."""
        model = self.model(which)
        mapper = inspect(model)
        table = mapper.local_table
        row = [each for each in self.kept if isinstance(each, model) and inspect(each).identity]
        if not row:
            return None
        instance = row[number % len(row)]
        key = inspect(instance).identity
        where = " AND ".join(
            f'"{column.name}" = {self.literal(each)}'
            for column, each in zip(table.primary_key.columns, key, strict=True)
        )
        names = [
            each.name for each in table.columns if each.name in ("version", "level", "name", "per%cent (x)")
        ]
        if way % 2 or not names:
            command = f'DELETE FROM "{table.name}" WHERE {where}'
        else:
            name = names[way % len(names)]
            value = (
                "77" if isinstance(table.columns.get(name, table.columns[0]).type, Integer) else "'outside'"
            )
            command = f'UPDATE "{table.name}" SET "{name}" = {value} WHERE {where}'
        return await self.elsewhere(command)

    @staticmethod
    def literal(value: Any) -> str:
        if isinstance(value, (str, int)):
            return repr(value)
        return f"'{value.hex}'"  # a UUID, as both databases take it

    async def elsewhere(self, command: str) -> str:
        """Send a statement by another connection, unless the session is in its way."""
        url = self.session.bind.url
        if url.get_backend_name() == "sqlite":
            connection = sqlite3.connect(url.database, timeout=0, isolation_level=None)
            try:
                return str(connection.execute(command).rowcount)
            except sqlite3.Error as error:
                return str(error)
            finally:
                connection.close()
        other = await asyncpg.connect(url.set(drivername="postgresql").render_as_string())
        try:
            await other.execute("SET lock_timeout = '40ms'")
            return await other.execute(command)
        except asyncpg.PostgresError as error:
            return type(error).__name__
        finally:
            await other.close()

    async def listen(self, which: int, way: int) -> None:
        """Hear the session's events from now on; a listener may fail, once."""
        names = SESSION_EVENTS[which % len(SESSION_EVENTS)]
        if "after_begin" in names:  # a read of ours takes the connection when somebody wants to hear of it
            await self.session.rollback()
        for name in names:
            if name not in self.listening:
                self.listening.add(name)
                self.hear(name, fails=way > 6 and "after_begin" not in names)

    def hear(self, name: str, *, fails: bool) -> None:
        failing = [name] if fails else []

        def heard(session: Any, *of: Any) -> None:
            if name not in self.listening:
                return
            names = [type(each).__name__ for each in of if is_instance(each)]
            counts = [len(session.new), len(session.dirty), len(session.deleted)]
            counter.heard(name, names, counts if "flush" in name else None)
            if failing:
                raise RuntimeError(f"{failing.pop()}{FAILS}")

        event.listen(self.session.sync_session, name, heard)

    async def close(self, way: int) -> None:
        if way > 6:
            await self.session.close()
        elif way > 3:
            self.session.expunge_all()


INHERITING = (Vehicle, Car, Taxi, Cart, Playlist)
