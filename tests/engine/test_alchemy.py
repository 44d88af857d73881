"""Tripwires: SQLAlchemy's private names mean what `engine/alchemy/` takes them for."""

import asyncio
import inspect
import re
from pathlib import Path

import pytest
import sqlalchemy
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy import inspect as inspect_mapped
from sqlalchemy.orm import (
    InstanceState,
    SessionTransaction,
    instrumentation,
    joinedload,
    persistence,
    selectinload,
)
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlalchemy.orm.unitofwork import UOWTransaction
from sqlalchemy.pool import QueuePool
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import concurrency
from sqlalchemy.util.queue import AsyncAdaptedQueue
from sqlmodel import SQLModel, _compat, select

import catalysis
from catalysis import Database
from catalysis.engine.alchemy.committing import CommittingTransaction
from catalysis.engine.alchemy.sessions import HookedSession
from catalysis.engine.alchemy.touches import Touch
from catalysis.unit_of_work import UnitOfWork
from tests.models import Job, Person

PRIVATE = re.compile(r"(?<!self)(?<!cls)\.(_(?!_)(?!sa_registry)\w+)")


def test_the_version_is_the_one_looked_at():
    assert sqlalchemy.__version__.startswith("2.1."), "read engine/alchemy/ against the new version first"


def test_overridden_methods_exist():
    for name in ("_execute_internal", "_identity_lookup", "_save_or_update_state"):
        assert name in vars(HookedSession)
        assert inspect.isfunction(getattr(SQLAlchemySession, name))


def test_every_execution_passes_the_hook():
    """`execute`, `scalars` and `scalar` all call `_execute_internal`, or uniquing would depend on the door."""
    for name in ("execute", "scalar", "scalars"):
        assert "_execute_internal" in inspect.getsource(getattr(SQLAlchemySession, name))


async def test_requires_uniquing_is_told_by_the_result(database: Database):
    async with database.session() as session:
        joined = await session.run_sync(
            lambda sync: SQLAlchemySession.execute(sync, select(Person).options(joinedload(Person.jobs)))
        )
        assert joined.context.requires_uniquing is True
        plain = await session.run_sync(
            lambda sync: SQLAlchemySession.execute(sync, select(Person).options(selectinload(Person.jobs)))
        )
        assert plain.context.requires_uniquing is False


def test_options_of_a_statement_are_where_we_look():
    option = joinedload(Job.person)
    assert option in select(Job).options(option)._with_options


def test_the_select_in_loader_is_called_as_it_asks():
    loader = inspect_mapped(Job).relationships["person"]._get_strategy((("lazy", "selectin"),))
    assert list(inspect.signature(loader._load_for_path).parameters) == [
        "context",
        "path",
        "states",
        "load_only",
        "effective_entity",
        "loadopt",
        "recursion_depth",
        "execution_options",
    ]
    assert loader._query_info.load_only_child
    assert [column.name for column in loader._query_info.child_lookup_cols] == ["person_id"]
    source = inspect.getsource(type(loader))
    asked = set(re.findall(r"(?<![\w.])context\.(\w+)", source[source.index("def _load_for_path") :]))
    # `context.session` is ours for `execute`; the others are of options we do not give.
    assert asked == {"session", "populate_existing", "_loader_strategy_options"}
    assert source.count("context.session.execute(") == 2
    assert source.count('params={"primary_keys": primary_keys}') == 2


async def test_a_touch_is_told_by_its_statement(database: Database, monkeypatch: pytest.MonkeyPatch):
    touches: list[Touch] = []
    monkeypatch.setattr(HookedSession, "touched", lambda self, touch, *_: touches.append(touch))
    monkeypatch.delattr(UnitOfWork, "touched")
    async with database.session() as session:
        session.add(Person(name="one", jobs=[Job(title="a job")]))
        await session.commit()
        session.expunge_all()
        job = (await session.exec(select(Job))).one()
        await session.refresh(job)
        await session.run_sync(lambda _: (job.person, job.person.jobs))
        session.expire(job, ["title"])
        await session.run_sync(lambda _: job.title)
    assert [(touch.name, touch.relationship and touch.relationship.key) for touch in touches] == [
        ("person", "person"),
        ("jobs", "jobs"),
        ("title", None),
    ]


def test_greenlets_of_sqlalchemy_and_ours():
    assert concurrency._concurrency_shim._AsyncIoGreenlet.__sqlalchemy_greenlet_provider__
    assert "current.parent.switch(awaitable)" in inspect.getsource(concurrency.await_)


def test_a_flush_keeps_its_states_by_mapper():
    assert "self.mappers = util.defaultdict(set)" in inspect.getsource(UOWTransaction.__init__)
    assert InstanceState.insert_order is None


def test_a_flush_executes_as_ours_was_copied_from_it():
    """`NativeFlush.execute` is the parent's but for one line, and `saving.py` does what `_save_obj` does."""
    source = inspect.getsource(UOWTransaction.execute)
    for line in (
        "_generate_actions()",
        "item.sort_key",
        "execute_aggregate(self, set_)",
        "rec.execute(self)",
    ):
        assert line in source
    assert "flush_context = UOWTransaction(self)" in inspect.getsource(SQLAlchemySession._flush)
    names = set(re.findall(r"mapper\.(_\w+)", inspect.getsource(persistence._collect_insert_commands)))
    known = {"_pks_by_table", "_propkey_to_col", "_insert_cols_evaluating_none", "_insert_cols_as_none"}
    known |= {"_insert_orm_defaults", "_pk_keys_by_table", "_server_default_col_keys", "_cols_by_table"}
    known |= {"_prefer_eager_defaults", "_set_polymorphic_identity", "_polymorphic_attr_key"}
    assert names <= known, "what else goes into an INSERT?"


def test_the_constructor_does_what_the_generated_one_does():
    assert "finish_init" in inspect.getsource(SQLModel.__init__)
    source = inspect.getsource(_compat.sqlmodel_table_construct)
    for line in (
        "field.get_default(call_default_factory=True)",
        "__sqlmodel_relationships__",
        "__pydantic_extra__",
    ):
        assert line in source
    assert "_new_state_if_none" in inspect.getsource(instrumentation._generate_init)


def test_a_transaction_that_begins_keeps_four_tables_for_its_rollback():
    source = inspect.getsource(SessionTransaction._take_snapshot)
    assert source.count("self._new = ") == 2, "for a savepoint's parts, and for what begins"
    for name in ("_new", "_deleted", "_dirty", "_key_switches"):
        assert f"self.{name} = weakref.WeakKeyDictionary()" in source
        assert name in vars(CommittingTransaction)
    assert source.count("WeakKeyDictionary()") == 4


def test_a_record_of_the_pool_is_lent_and_taken_back_as_we_do():
    source = inspect.getsource(_ConnectionRecord.checkin)
    for step in ("self.fairy_ref = None", "self.finalize_callback", "pool.dispatch.checkin", "_return_conn"):
        assert step in source
    assert "_pool.put(record, False)" in inspect.getsource(QueuePool._do_return_conn)
    lent = inspect.getsource(_ConnectionRecord.checkout)
    for step in (
        "_do_get()",
        "get_connection()",
        "_ConnectionFairy(pool, dbapi_connection, rec, echo)",
        "rec.fairy_ref =",
    ):
        assert step in lent
    asked = inspect.getsource(_ConnectionRecord.get_connection)
    for reason in ("dbapi_connection is None", "_recycle", "_invalidate_time >", "_soft_invalidate_time >"):
        assert reason in asked, "what makes a connection of the pool unfit to be lent"
    assert asked.count("recycle = True") == 3


def test_the_queue_of_a_pool_is_asyncios_own():
    """What is taken and put here passes by `get_nowait` and `put_nowait`, which do this and count for `join`."""
    queue = AsyncAdaptedQueue[int](2, use_lifo=True)
    assert type(queue._queue) is asyncio.LifoQueue
    assert type(AsyncAdaptedQueue[int](2)._queue) is asyncio.Queue
    for name in ("_queue", "_getters", "_putters", "_maxsize"):
        assert hasattr(queue._queue, name)
    taking, putting = inspect.getsource(asyncio.Queue.get_nowait), inspect.getsource(asyncio.Queue.put_nowait)
    assert "item = self._get()\n        self._wakeup_next(self._putters)\n        return item" in taking
    assert "self._put(item)" in putting
    assert "self._wakeup_next(self._getters)" in putting


def test_a_prepared_statement_is_fetched_as_asyncpg_does():
    source = inspect.getsource(PreparedStatement)
    assert "protocol.bind_execute(\n                self._state, args, '', limit, True, timeout)" in source
    assert "except exceptions.OutdatedSchemaCacheError" in source
    assert "await self._connection.reload_schema_state()" in source
    assert "self._state.mark_closed()" in source
    assert source.count("def _check_") == 2, "what else makes a statement unfit?"


def test_private_names_are_touched_in_one_package_alone():
    root = Path(catalysis.__file__).parent
    for path in root.rglob("*.py"):
        if "alchemy" not in path.parts and "starter" not in path.parts:
            found = [m[1] for m in PRIVATE.finditer(path.read_text()) if m[1] not in OWN]
            assert not found, f"{path.relative_to(root)} touches {found}"


OWN = {"_autogen", "_repr_type", "_conn", "_tx"}
"""Private names of others: Alembic's, for comparing indexes and rendering types; aiosqlite's, for its thread."""
