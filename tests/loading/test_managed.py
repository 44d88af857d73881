"""A managed scope is an await: what is awaited, set, raised, cancelled and closed inside is as without it."""

import asyncio
import gc
import importlib.util
import random
import sys
import threading
import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from sqlalchemy import select

import catalysis
from catalysis import Database, RelationshipNotLoaded, managed
from catalysis.engine.alchemy.greenlets import ScopeGreenlet, in_scope
from catalysis.loading.managed import IDLE, _greenlets
from tests.models import Job, Person, made

variable: ContextVar[int] = ContextVar("variable", default=0)
LOOPS = [
    "asyncio",
    pytest.param(
        "uvloop",
        marks=pytest.mark.skipif(not importlib.util.find_spec("uvloop"), reason="uvloop is not installed"),
    ),
]


@pytest.fixture
async def world(backend_url: str) -> AsyncIterator[Database]:
    async with made(backend_url) as database:
        async with database.session() as session:
            for n in range(6):
                session.add(Person(name=f"person {n}", jobs=[Job(title=f"job {n}.{i}") for i in range(n)]))
            await session.commit()
        yield database


def scopes() -> int:
    """How many there are, beside those that are kept for the next."""
    gc.collect()
    assert len(_greenlets.idle) <= IDLE
    return sum(isinstance(each, ScopeGreenlet) for each in gc.get_objects()) - len(_greenlets.idle)


def in_loop(kind: str, debug: bool, main: Any) -> Any:
    factory = None
    if kind == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        return runner.run(main)


async def everything() -> list[Any]:
    """One of each that a coroutine may do."""
    seen: list[Any] = []
    variable.set(1)
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)
    except TimeoutError:
        seen.append("timeout")

    async def numbers() -> AsyncIterator[int]:
        try:
            for n in range(3):
                await asyncio.sleep(0)
                yield n
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    seen.append([n async for n in numbers()])
    half = numbers()
    seen.append(await anext(half))
    await half.aclose()

    async def fail(n: int) -> None:
        await asyncio.sleep(0)
        raise ValueError(n)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(1))
            group.create_task(asyncio.sleep(10))
    except* ValueError as several:
        seen.append([each.args for each in several.exceptions])
    seen.append(await asyncio.gather(asyncio.sleep(0, "a"), asyncio.sleep(0, "b")))
    seen.append(await asyncio.to_thread(lambda: 7))
    seen.append(await managed(asyncio.sleep(0, "nested")))
    seen.append(await asyncio.create_task(managed(asyncio.sleep(0, "own"))))
    seen.append(await asyncio.wait_for(asyncio.shield(asyncio.sleep(0, "shielded")), 1))
    seen.append(asyncio.current_task() is not None)
    return seen


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("kind", LOOPS)
def test_a_scope_changes_nothing(kind: str, debug: bool) -> None:
    async def main() -> None:
        bare = await everything()
        variable.set(0)
        assert await managed(everything()) == bare
        assert variable.get() == 1  # as after any await
        with pytest.raises(ValueError, match="from inside") as raised:
            await managed(raising())
        assert raised.traceback[-1].name == "raising"

    async def raising() -> None:
        await asyncio.sleep(0)
        raise ValueError("from inside")

    before = scopes()
    in_loop(kind, debug, main())
    assert scopes() == before


async def test_any_awaitable() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 3)
    assert await managed(future) == 3
    assert await managed(asyncio.create_task(asyncio.sleep(0, 4))) == 4


async def test_cancellation_reaches_what_is_awaited() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned")

    task = asyncio.create_task(managed(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled", "cleaned"]


async def test_one_that_is_closed_or_forgotten_is_unwound() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("unwound")

    before = scopes()
    closed = managed(work())
    closed.send(None)
    closed.close()
    forgotten = managed(work())
    forgotten.send(None)
    del closed, forgotten
    assert scopes() == before
    assert ended == ["unwound"] * 2


async def test_a_thread_that_ends_takes_its_greenlets_along() -> None:
    def several() -> None:
        async def at_once() -> None:
            await asyncio.gather(*[managed(asyncio.sleep(0.001)) for _ in range(20)])

        asyncio.run(at_once())

    before = scopes()
    for _ in range(3):
        await asyncio.to_thread(several)
        thread = threading.Thread(target=several)
        thread.start()
        await asyncio.to_thread(thread.join)
    assert scopes() <= before + 3 * 20  # those of the executor's threads, which live on
    await asyncio.get_running_loop().shutdown_default_executor()
    assert scopes() == before


async def test_an_exception_leaves_no_cycle() -> None:
    class Marked(Exception):
        pass

    async def work() -> None:
        try:
            await asyncio.wait_for(asyncio.sleep(10), 0.001)
        except TimeoutError as late:
            raise Marked from late

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Marked) as raised:
            await managed(work())
        reference = weakref.ref(raised.value)
        del raised
        assert reference() is None
    finally:
        gc.enable()


async def test_touching_waits(world: Database) -> None:
    async def work() -> list[int]:
        async with world.session() as session:
            people = (await session.exec(select(Person).order_by(Person.name))).scalars().all()
            return [len(person.jobs) for person in people]

    with catalysis.watch_queries() as queries:
        assert await managed(work()) == [0, 1, 2, 3, 4, 5]
    assert len(queries) == 2


async def test_touching_in_places(world: Database) -> None:
    """In an async generator, under a timeout, in an except block, in a nested scope, in `run_sync`."""

    async def work() -> list[int]:
        found: list[int] = []
        async with world.session() as session:

            async def people() -> AsyncIterator[Person]:
                for person in (await session.scalars(select(Person).order_by(Person.name))).all():
                    yield person

            async for person in people():
                found.append(len(person.jobs))
            session.expire_all()
            async with asyncio.timeout(5):
                await asyncio.sleep(0)
                try:
                    raise KeyError
                except KeyError:
                    found.append(len(person.jobs))
            session.expire_all()

            async def nested() -> None:
                found.append(len(person.jobs))

            await managed(nested())
            session.expire_all()
            found.append(await session.run_sync(lambda _: len(person.jobs)))
        return found

    assert await managed(work()) == [0, 1, 2, 3, 4, 5, 5, 5, 5]


async def test_a_child_task_is_outside(world: Database) -> None:
    async def work() -> None:
        async with world.session() as session:
            people = (await session.scalars(select(Person).order_by(Person.name))).all()

            async def child(person: Person) -> int:
                return len(person.jobs)

            with pytest.raises(RelationshipNotLoaded, match=r"Person\.jobs"):
                await asyncio.create_task(child(people[2]))
            assert await asyncio.create_task(managed(child(people[2]))) == 2
            with pytest.raises(RelationshipNotLoaded):
                await asyncio.to_thread(lambda: people[2].teams)

    await managed(work())


async def test_a_task_started_eagerly_does_not_suspend_its_parent(world: Database) -> None:
    """An eager task (Python 3.12) runs its first step inside the greenlet of whoever starts it."""

    async def child() -> None:
        assert not in_scope()
        async with world.session() as session:
            people = (await session.scalars(select(Person).order_by(Person.name))).all()
            with pytest.raises(RelationshipNotLoaded):
                _ = people[1].jobs
            assert await managed(touched(people[3])) == 3

    async def touched(person: Person) -> int:
        return len(person.jobs)

    async def work() -> None:
        if sys.version_info >= (3, 12):
            await asyncio.eager_task_factory(asyncio.get_running_loop(), child())
        else:
            await as_if_eager(child())

    await managed(work())


async def as_if_eager(coroutine: Any) -> None:
    """What an eager task does, on Python 3.11: a first step at once, the others from the loop."""
    from catalysis.engine.alchemy import greenlets

    loop, original = asyncio.get_running_loop(), greenlets._shim._concurrency_shim._AsyncIoGreenlet
    greenlets.allow_eager_tasks()
    stub = asyncio.Task(asyncio.sleep(0), loop=loop)
    parent = asyncio.current_task()
    asyncio._leave_task(loop, parent)
    asyncio._enter_task(loop, stub)
    try:
        waited = coroutine.send(None)
    finally:
        asyncio._leave_task(loop, stub)
        asyncio._enter_task(loop, parent)

    class Rest:
        def __await__(self) -> Any:
            try:
                yield waited
            except BaseException as error:
                given = coroutine.throw(error)
            else:
                given = coroutine.send(None)
            while True:
                try:
                    result = yield given
                except BaseException as error:
                    given = coroutine.throw(error)
                else:
                    given = coroutine.send(result)

    async def rest() -> None:
        try:
            await Rest()
        except RuntimeError as ended:  # a StopIteration of the coroutine's end
            if not isinstance(ended.__cause__, StopIteration):
                raise

    try:
        await asyncio.create_task(rest())
        await stub
    finally:
        greenlets._shim._concurrency_shim._AsyncIoGreenlet = original


def test_run(tmp_path: Any) -> None:
    async def main() -> str:
        async with made(f"sqlite+aiosqlite:///{tmp_path / 'run.db'}") as database:
            async with database.session() as session:
                session.add(Person(name="one", jobs=[Job(title="a job")]))
                await session.commit()
            async with database.session() as session:
                person = (await session.scalars(select(Person))).one()
                return person.jobs[0].title

    assert catalysis.run(main()) == "a job"


@pytest.mark.parametrize("requests", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
async def test_concurrent_scopes_with_random_cancellation(postgres_url: str, requests: int) -> None:
    """No greenlet, task, connection or context variable is left in the wrong place."""
    chance = random.Random(requests)
    async with made(postgres_url) as database:
        async with database.session() as session:
            session.add_all(Person(name=f"person {n}", jobs=[Job(title=f"job {n}")]) for n in range(20))
            await session.commit()
        ended = {"done": 0, "cancelled": 0}

        async def request(n: int) -> None:
            variable.set(n)
            async with database.session() as session:
                people = (await session.scalars(select(Person))).all()
                assert all(person.jobs[0].title == person.name.replace("person", "job") for person in people)
                assert variable.get() == n
                people[0].jobs[0].done = True
                await session.flush()
                assert people[0].jobs[0].person is people[0]
                await session.rollback()
                assert people[1].teams == []
            assert variable.get() == n
            assert in_scope()

        async def client(n: int) -> None:
            task = asyncio.create_task(managed(request(n)))
            if chance.random() < 0.5:
                asyncio.get_running_loop().call_later(chance.random() * 0.05, task.cancel)
            try:
                await task
                ended["done"] += 1
            except asyncio.CancelledError:
                ended["cancelled"] += 1

        before, tasks = scopes(), len(asyncio.all_tasks())
        waiting = iter(range(requests))

        async def worker() -> None:
            for n in waiting:
                await client(n)

        await asyncio.gather(*[worker() for _ in range(50)])
        await asyncio.sleep(0.1)
        assert ended["done"] + ended["cancelled"] == requests
        assert ended["cancelled"] > requests / 10
        assert database.pool_figures().lent == 0
        assert len(asyncio.all_tasks()) == tasks
        assert variable.get() == 0
    assert scopes() == before
    idle = {id(each) for each in [*_greenlets.idle, getcurrent()]}
    assert not [
        each
        for each in gc.get_objects()
        if isinstance(each, greenlet) and not each.dead and id(each) not in idle
    ]
