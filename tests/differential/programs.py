"""Programs of session calls: generated, run on a session, and traced."""

import enum
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import Row, delete, insert, inspect, update
from sqlalchemy.exc import IntegrityError, MissingGreenlet, OperationalError
from sqlalchemy.orm import InstanceState, joinedload, selectinload
from sqlalchemy.orm.exc import StaleDataError

from catalysis.soft_delete import ONLY_UNMARKED
from tests.differential.models import (
    MODELS,
    Animal,
    Author,
    Book,
    Branch,
    Dog,
    Gadget,
    Mood,
    Passport,
    Point,
    Spot,
    Stamp,
    Tag,
)
from tests.differential.statements import STATEMENTS

small = st.integers(0, 9)
Step = tuple[Any, ...]


def step(name: str, *numbers: st.SearchStrategy[int]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), *numbers)


queries = step("query", st.integers(0, len(STATEMENTS) - 1), small, small, st.integers(0, 6))
steps = st.one_of(
    queries,
    queries,
    queries,
    step("get", st.integers(0, len(MODELS) - 1), small, st.integers(0, 5)),
    step("get", st.integers(0, len(MODELS) - 1), small, st.integers(0, 5)),
    step("touch", small, small),
    step("touch", small, small),
    step("set", small, small, small),
    step("set", small, small, small),
    step("relate", small, small, small),
    step("add", small, small),
    step("delete", small),
    step("refresh", small, small),
    step("expire", small, small),
    step("flush"),
    step("commit"),
    step("rollback"),
    step("begin"),
    step("nested", small),
    step("expunge", small),
    step("expire_all"),
    step("expunge_all"),
    step("merge", small, small),
    step("bulk", small, small),
    step("stream", st.integers(0, len(STATEMENTS) - 1), small, small),
    step("forget", small),
)
programs = st.lists(steps, min_size=1, max_size=14)

RELATIONS = {
    Author: ["books", "passport"],
    Book: ["author", "tags"],
    Tag: ["books"],
    Passport: ["author", "stamps"],
    Stamp: ["passport"],
    Branch: ["parent", "children"],
    Animal: ["keeper"],
    Dog: ["keeper"],
}
VALUES: dict[str, Callable[[int], Any]] = {
    "name": lambda n: f"name {n}" if n else None,
    "title": lambda n: f"title {n}",
    "label": lambda n: f"LABEL {n}",
    "mood": lambda n: [None, Mood.CALM, Mood.WILD][n % 3],
    "notes": lambda n: {"n": n},
    "biography": lambda n: f"new life {n}",
    "copies": lambda n: n,
    "tricks": lambda n: n,
    "weight": lambda n: n / 4,
    "x": lambda n: n,
    "author_id": lambda n: n or None,
    "keeper_id": lambda n: n or None,
    "id": lambda n: n,
}


class Player:
    """Runs a program on one session and writes down what can be seen."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.kept: list[Any] = []
        self.trace: list[Any] = []

    async def play(self, program: list[Step]) -> list[Any]:
        for each in program:
            unflushed = {type(one) for one in (*self.session.new, *self.session.dirty, *self.session.deleted)}
            try:
                outcome = await getattr(self, each[0])(*each[1:])
            except Exception as error:
                outcome = ("raised", kind_of(error))
                if isinstance(error, (IntegrityError, StaleDataError)) and len(unflushed) > 1:
                    # SQLAlchemy flushes unrelated classes in the order of a set, so what came first is chance.
                    self.trace.append((each, "a flush failed on its way"))
                    break
            self.trace.append((each, outcome, self.seen()))
        return self.trace

    # --- What can be seen

    def seen(self) -> Any:
        session = self.session
        return (
            session.in_transaction(),
            session.in_nested_transaction(),
            sorted((type(each).__name__, str(key_of(each))) for each in session.new),
            sorted((type(each).__name__, str(key_of(each))) for each in session.dirty),
            sorted((type(each).__name__, str(key_of(each))) for each in session.deleted),
            [describe(each) for each in self.kept],
        )

    def keep(self, found: Any) -> Any:
        self.kept.append(found)
        del self.kept[:-10]
        return found

    def one(self, number: int) -> Any:
        if not self.kept:
            raise LookupError
        return self.kept[number % len(self.kept)]

    def normal(self, value: Any) -> Any:
        if isinstance(value, (tuple, Row)):
            return tuple(self.normal(each) for each in value)
        if is_instance(value):
            return describe(value)
        return value if isinstance(value, (int, str, float, type(None), enum.Enum)) else repr(value)

    def keep_rows(self, rows: list[Any]) -> Any:
        for row in rows:
            for value in row if isinstance(row, (tuple, Row)) else (row,):
                if is_instance(value) and all(value is not each for each in self.kept):
                    self.keep(value)
        return [self.normal(tuple(row) if isinstance(row, (tuple, Row)) else row) for row in rows]

    # --- Steps

    async def query(self, which: int, a: int, b: int, way: int) -> Any:
        result = await self.session.execute(STATEMENTS[which](a, b))
        if getattr(getattr(result, "context", None), "requires_uniquing", False):
            result = result.unique()
        keys = list(result.keys())
        if way == 0:
            return keys, self.keep_rows(list(result.scalars().all()))
        if way == 1:
            row = result.first()
            return keys, row and self.keep_rows([row])
        if way == 2:
            return keys, self.keep_rows([result.one()])
        if way == 3:
            return keys, [sorted(map(str, row)) for row in result.mappings().all()]
        if way == 4:
            return keys, [self.keep_rows(list(part)) for part in result.partitions(2)]
        if way == 5:
            return keys, self.normal(result.scalar_one_or_none())
        return keys, self.keep_rows(list(result.all()))

    async def get(self, which: int, number: int, way: int) -> Any:
        model = MODELS[which]
        key = ("xy", number) if model is Passport else number
        if way == 1:
            return self.keep_rows([await self.session.get_one(model, key)])
        options: dict[str, Any] = {}
        if way == 2:
            options["populate_existing"] = True
        if way == 3 and model in RELATIONS:
            options["options"] = [selectinload(getattr(model, RELATIONS[model][0]))]
        if way == 4 and model in RELATIONS:
            options["options"] = [joinedload(getattr(model, RELATIONS[model][0]))]
        found = await self.session.get(model, key, **options)
        return self.keep_rows([found])

    async def touch(self, number: int, which: int) -> Any:
        instance = self.one(number)
        names = sorted(inspect(type(instance)).attrs.keys())
        name = names[which % len(names)]

        def read(_: Any) -> Any:
            value = getattr(instance, name)
            values = (
                sorted(value, key=lambda each: str(key_of(each)))
                if isinstance(value, (list, set))
                else [value]
            )
            return [self.normal(each) for each in values]

        return name, await self.session.run_sync(read)

    async def set(self, number: int, which: int, value: int) -> Any:
        instance = self.one(number)
        names = sorted(VALUES.keys() & set(inspect(type(instance)).attrs.keys()))
        name = names[which % len(names)]
        await self.session.run_sync(lambda _: setattr(instance, name, VALUES[name](value)))
        return name

    async def relate(self, number: int, which: int, other: int) -> Any:
        instance, target = self.one(number), self.one(other)
        names = RELATIONS.get(type(instance), ["nothing"])
        name = names[which % len(names)]

        def change(_: Any) -> Any:
            value = getattr(instance, name)
            if isinstance(value, set):
                value.symmetric_difference_update({target})
            elif isinstance(value, list):
                value.remove(target) if target in value else value.append(target)
            else:
                setattr(instance, name, None if value is target else target)

        await self.session.run_sync(change)
        return name

    async def add(self, which: int, number: int) -> Any:
        number += 5
        made: Any = [
            lambda: Author(
                id=number, name=f"new {number}", books=[Book(id=number + 10, title=f"of {number}")]
            ),
            lambda: Book(id=number, title=f"book {number}"),
            lambda: Tag(id=number, label=f"TAG {number}"),
            lambda: Passport(country="xy", number=number, stamps={Stamp(id=number + 20)}),
            lambda: Branch(id=number, name="new", children=[Branch(id=number + 10, name="below")]),
            lambda: Dog(id=number, name="new"),
            lambda: Gadget(id=number, name="new"),
            lambda: Spot(id=number, place=Point(number, 1)),
        ][which % 8]()
        self.session.add(made)
        self.keep(made)
        return describe(made)

    async def delete(self, number: int) -> None:
        await self.session.delete(self.one(number))

    async def refresh(self, number: int, which: int) -> None:
        instance = self.one(number)
        names = sorted(inspect(type(instance)).attrs.keys())
        await self.session.refresh(instance, None if which < 5 else [names[which % len(names)]])

    async def expire(self, number: int, which: int) -> None:
        instance = self.one(number)
        names = sorted(inspect(type(instance)).attrs.keys())
        self.session.expire(instance, None if which < 5 else [names[which % len(names)]])

    async def flush(self) -> None:
        await self.session.flush()

    async def commit(self) -> None:
        await self.session.commit()

    async def rollback(self) -> None:
        await self.session.rollback()

    async def begin(self) -> None:
        await self.session.begin()

    async def nested(self, way: int) -> Any:
        savepoint = await self.session.begin_nested()
        if self.kept and way % 3:
            await self.set(0, way, way)
            await self.session.flush()
        await (savepoint.commit() if way % 2 else savepoint.rollback())

    async def expunge(self, number: int) -> None:
        self.session.expunge(self.one(number))

    async def expire_all(self) -> None:
        self.session.expire_all()

    async def expunge_all(self) -> None:
        self.session.expunge_all()

    async def merge(self, number: int, way: int) -> Any:
        made: Any = [
            lambda: Author(id=number, name=f"merged {number}"),
            lambda: Book(id=number, title=f"merged {number}", author=Author(id=1, name="merged")),
            lambda: Gadget(id=number, name="merged"),
        ][way % 3]()
        merged = await self.session.merge(made)
        self.keep(merged)
        return describe(merged)

    async def bulk(self, way: int, number: int) -> Any:
        how = ["auto", "evaluate", "fetch", False][number % 4]
        statement: Any = [
            update(Book).where(Book.id < number).values(copies=Book.copies + 1),
            update(Author).where(Author.id == number).values(name="bulk"),
            delete(Stamp).where(Stamp.id == number),
            update(Gadget).values(weight=number),
        ][way % 4]
        if way % 5 == 4:
            return (
                await self.session.execute(insert(Gadget), [{"id": number + 50, "name": "bulk"}])
            ).rowcount
        result = await self.session.execute(statement, execution_options={"synchronize_session": how})
        return result.rowcount

    async def stream(self, which: int, a: int, b: int) -> Any:
        result = await self.session.stream(STATEMENTS[which](a, b).execution_options(yield_per=2))
        return self.keep_rows([row async for row in result])

    async def forget(self, number: int) -> None:
        if self.kept:
            del self.kept[number % len(self.kept)]


def kind_of(error: BaseException) -> str:
    """Our errors are SQLAlchemy's too; the trace names SQLAlchemy's."""
    if isinstance(error, OperationalError):
        return f"OperationalError: {error.orig}"
    return "MissingGreenlet" if isinstance(error, MissingGreenlet) else type(error).__name__


def is_instance(value: Any) -> bool:
    return isinstance(inspect(value, raiseerr=False), InstanceState)


def key_of(instance: Any) -> Any:
    state: Any = inspect(instance)
    return state.identity or tuple(state.dict.get(each.key) for each in state.mapper.primary_key)


def describe(instance: Any) -> Any:
    """Everything about an instance that can be seen without loading anything."""
    if instance is None:
        return None
    state: Any = inspect(instance)
    loaded = {}
    for name in sorted(state.mapper.attrs.keys()):
        if name in state.dict:
            loaded[name] = _flat(state.dict[name])
    flags = ["transient", "pending", "persistent", "deleted", "detached", "modified", "expired"]
    fields_set = getattr(instance, "model_fields_set", None)
    return (
        type(instance).__name__,
        key_of(instance),
        loaded,
        sorted(state.expired_attributes),
        sorted(state.unloaded),
        [name for name in flags if getattr(state, name)],
        sorted(state.committed_state),
        sorted(state.callables),
        str(state.load_path),
        [
            type(each).__name__ for each in state.load_options if each is not ONLY_UNMARKED
        ],  # ours, and of no effect here
        fields_set and sorted(fields_set),
    )


def _flat(value: Any) -> Any:
    if isinstance(value, (list, set)) and all(is_instance(each) for each in value):
        keys = [(type(each).__name__, str(key_of(each))) for each in value]
        return keys if isinstance(value, list) else sorted(keys)
    if is_instance(value):
        return type(value).__name__, str(key_of(value))
    return repr(value)
