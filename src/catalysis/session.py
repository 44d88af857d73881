"""`Session`: SQLModel's `AsyncSession`, with the traps removed.

What differs from the parent is decided here: soft delete, errors that name the relationship, parents that come
out once, and a warning when work is left behind.  A reading statement goes to the engine first (`engine/run.py`)
and through SQLAlchemy where that says so.
"""

import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVarTuple, overload

from sqlalchemy import Executable, Result
from sqlalchemy.exc import InvalidRequestError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncResult
from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm.base import instance_str
from sqlalchemy.sql.selectable import TypedReturnsRows
from sqlalchemy.util import EMPTY_DICT as EMPTY
from sqlalchemy.util import greenlet_spawn
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from catalysis.distribution.statements import DISTRIBUTION_CHECKS, DistributionCheck
from catalysis.engine.alchemy.by_key import ABSENT, UNSURE, known_instance, plain_key
from catalysis.engine.alchemy.construction import generate_constructors
from catalysis.engine.alchemy.sessions import commits_by_itself, holds_nothing, is_unflushed, must_flush_first
from catalysis.engine.coverage import getting_of, reading_of
from catalysis.engine.positions import primary_position
from catalysis.engine.refresh import refresh
from catalysis.engine.routing import token_of
from catalysis.engine.run import run, run_one
from catalysis.engine.stream import stream
from catalysis.engine.waiting import flush_first
from catalysis.errors import TransactionMisused, UncommittedChanges, no_choice
from catalysis.events import fallback_reason
from catalysis.soft_delete import MARK, SoftDelete
from catalysis.tenancy.models import tenancy_of
from catalysis.unit_of_work import STRICTNESSES, Strictness, UnitOfWork, with_unit_of_work

generate_constructors()

Ts = TypeVarTuple("Ts")
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class Session(AsyncSession):
    """SQLModel's `AsyncSession` by constructor, methods and results; also `async_sessionmaker(class_=Session)`.

    Differs from it in this: `execute` is as welcome as `exec`; joined collections need no `.unique()`;
    `SoftDelete` models are filtered and marked; touching what was not loaded raises `RelationshipNotLoaded`;
    leaving with work that was not committed warns `UncommittedChanges`.
    """

    sync_session_class = UnitOfWork
    sync_session: UnitOfWork  # pyright: ignore[reportIncompatibleVariableOverride] - narrowed, and set once

    _left_by_error = False

    def __init__(
        self,
        bind: AsyncEngine | AsyncConnection | None = None,
        *,
        binds: dict[Any, AsyncEngine | AsyncConnection] | None = None,
        sync_session_class: type[SyncSession] | None = None,
        strict_loading: Strictness = "allow",
        batch_loading: bool = True,
        tenant: Any = None,
        tenant_setting: str | None = None,
        distribution_check: DistributionCheck = "allow",
        **kw: Any,
    ) -> None:
        """As SQLAlchemy's `AsyncSession`; a session class given is made to do what `UnitOfWork` does.

        `strict_loading`: whether touching what was not loaded, in a managed scope, is silent, warns
        `LoadedWhenTouched`, or raises `AttributeNotLoaded`; a relationship's own
        `info={"strict_loading": …}` goes before it.  `batch_loading`: whether a touch loads for all peers.
        `tenant`: as for `for_tenant`, or `ALL_TENANTS`.  `tenant_setting`: the setting that the policies of a
        PostgreSQL database read the tenant from.  `distribution_check`: whether a statement over a distributed table
        that gives its distribution column no value is sent in silence, warns `CrossShardQuery`, or raises
        `DistributionError`.

        Raises:
            ValueError: `strict_loading` or `distribution_check` is none of those that there are.
        """
        if strict_loading not in STRICTNESSES:
            raise no_choice("strict_loading", strict_loading, STRICTNESSES)
        if distribution_check not in DISTRIBUTION_CHECKS:
            raise no_choice("distribution_check", distribution_check, DISTRIBUTION_CHECKS)
        own = with_unit_of_work(sync_session_class or self.sync_session_class)
        super().__init__(bind, binds=binds, sync_session_class=own, **kw)
        self.sync_session.strictness = strict_loading
        self.sync_session.batches = batch_loading
        self.sync_session.tenant_setting = tenant_setting
        self.sync_session.distribution_check = distribution_check
        if tenant is not None:
            self.sync_session.tenancy = tenancy_of(tenant)

    @property
    def tenant(self) -> Any:
        """Whose rows of `TenantScoped` models the session sees: a tenant, `ALL_TENANTS`, or None for nobody's."""
        return self.sync_session.tenancy.tenant

    def for_tenant(self, tenant: Any) -> Self:
        """Limit the session to the rows of one tenant, for as long as it lives; returns the session.

        `tenant` is a value of the models' tenant columns, or `ALL_TENANTS`.

        Raises:
            TenantError: the session has another tenant, or its transaction has begun at the database.
        """
        self.sync_session.for_tenant(tenant)
        return self

    def on_primary(self) -> Self:
        """Read from the primary alone, for as long as the session lives; returns the session.

        Without replicas nothing changes.
        """
        if (route := self.sync_session.route) is not None:
            route.only_primary = True
        return self

    async def write_token(self) -> str | None:
        """A token of what the session has written, for `Database.session(after=token)` elsewhere: one round trip.

        None if the session has committed nothing, or the database can have no replicas.

        Raises:
            TransactionMisused: what it has written is not committed.
            PoolExhausted: no connection came free in time.
            DBAPIError: the database did not answer.
        """
        session = self.sync_session
        if not holds_nothing(session):
            raise TransactionMisused(
                "write_token() inside a transaction: what it writes is behind no position yet.  Commit first."
            )
        if not session.may_have_written:
            return None
        position = await primary_position(session, session.get_bind().engine)
        return None if position is None else token_of(position)

    @overload
    async def execute(
        self,
        statement: TypedReturnsRows[*Ts],
        params: Parameters | None = None,
        *,
        execution_options: Mapping[str, Any] = EMPTY,
        bind_arguments: dict[str, Any] | None = None,
        **internal: Any,
    ) -> Result[*Ts]: ...
    @overload
    async def execute(
        self,
        statement: Executable,
        params: Parameters | None = None,
        *,
        execution_options: Mapping[str, Any] = EMPTY,
        bind_arguments: dict[str, Any] | None = None,
        **internal: Any,
    ) -> Result[*tuple[Any, ...]]: ...
    async def execute(
        self, statement: Executable, params: Parameters | None = None, **options: Any
    ) -> Result[*tuple[Any, ...]]:
        """The statement's rows, as SQLAlchemy's own; SQLModel deprecates it for `exec`, here both are welcome."""
        return await self._execute(statement, params, **options)

    async def _execute(
        self,
        statement: Any,
        params: Any = None,
        *,
        execution_options: Mapping[str, Any] = EMPTY,
        bind_arguments: dict[str, Any] | None = None,
        **internal: Any,
    ) -> Any:
        session = self.sync_session
        reason = "an internal option of SQLAlchemy's" if any(internal.values()) else None
        if reason is None:
            reading = reading_of(session, statement, params, execution_options, bind_arguments)
            if isinstance(reading, str):
                reason = reading
            else:
                if must_flush_first(session) and reading.wants_autoflush:
                    await flush_first(session)
                result = await run(session, reading)
                if result is not None:
                    return result
                reason = "only SQLAlchemy can say what is wrong with it"
        async with self._through_sqlalchemy(reason):
            return await SQLAlchemyAsyncSession.execute(
                self,
                statement,
                params,
                execution_options=execution_options,
                bind_arguments=bind_arguments,
                **internal,
            )

    @asynccontextmanager
    async def _through_sqlalchemy(self, reason: str) -> AsyncGenerator[None]:
        """One at a time, since SQLAlchemy's session is not made for more; their events say why."""
        token = fallback_reason.set(reason)
        try:
            async with self.sync_session.turn:
                yield
        finally:
            fallback_reason.reset(token)

    if not TYPE_CHECKING:  # the parent's overloads stand

        async def exec(self, statement: Any, *, params: Any = None, **options: Any) -> Any:
            """As SQLModel's: scalars where one thing is selected, rows where several are."""
            result = await self._execute(statement, params, **options)
            return result.scalars() if isinstance(statement, SelectOfScalar) else result

        async def get(self, entity: Any, ident: Any, **options: Any) -> Any:
            """The instance with this key, from the session if it is there, or None."""
            if not options and (plain := plain_key(entity, ident)) is not None:
                session = self.sync_session
                found = known_instance(session, *plain)
                if found is ABSENT:
                    reading = getting_of(session, *plain)
                    if not isinstance(reading, str):
                        if must_flush_first(session):
                            await flush_first(session)
                        loaded = await run_one(session, reading)
                        if loaded is not None:
                            return loaded[0]
                elif found is not UNSURE:
                    return found
            return await super().get(entity, ident, **options)

        async def get_one(self, entity: Any, ident: Any, **options: Any) -> Any:
            """The instance with this key; raises `NoResultFound` if there is none."""
            if options:
                return await super().get_one(entity, ident, **options)
            instance = await self.get(entity, ident)
            if instance is None:
                raise NoResultFound("No row was found when one was required")
            return instance

        async def refresh(
            self, instance: Any, attribute_names: Any = None, with_for_update: Any = None
        ) -> None:
            """Load the instance anew; those written by the same flush cost no statement of their own in a loop.

            Raises:
                InvalidRequestError: it is not persistent, or its row is gone.
            """
            if not attribute_names and with_for_update is None:
                session = self.sync_session
                found = await refresh(session, session.flushed, instance)
                if found:
                    return
                if found is False:
                    raise InvalidRequestError(f"Could not refresh instance '{instance_str(instance)}'")
            await super().refresh(instance, attribute_names, with_for_update)

        async def stream(
            self,
            statement: Any,
            params: Any = None,
            *,
            execution_options: Mapping[str, Any] = EMPTY,
            bind_arguments: dict[str, Any] | None = None,
            **internal: Any,
        ) -> Any:
            """The rows as they are asked for, through a cursor on the server, in a transaction."""
            session, options = self.sync_session, execution_options
            reason = "an internal option of SQLAlchemy's" if any(internal.values()) else None
            if reason is None:
                reading = reading_of(session, statement, params, options, bind_arguments, streams=True)
                if isinstance(reading, str):
                    reason = reading
                else:
                    if reading.wants_autoflush:
                        await flush_first(session)
                    streamed = await stream(session, reading)
                    if streamed is not None:
                        size = reading.options.get("yield_per")
                        return AsyncResult(streamed.yield_per(size) if size else streamed)
                    reason = "rows that only SQLAlchemy can load part by part"
            async with self._through_sqlalchemy(reason):
                return await super().stream(
                    statement, params, execution_options=options, bind_arguments=bind_arguments, **internal
                )

        async def scalars(self, statement: Any, params: Any = None, **options: Any) -> Any:
            """The first of each row."""
            return (await self._execute(statement, params, **options)).scalars()

        async def scalar(self, statement: Any, params: Any = None, **options: Any) -> Any:
            """The first of the first row; None if there is none."""
            result = await self._execute(statement, params, **options)
            return result.scalar() if isinstance(result, Result) else result  # of a sequence: its value

    async def commit(self) -> None:
        """As the parent; without a task switch where nothing was sent and nothing has to be."""
        session = self.sync_session
        if holds_nothing(session) and not is_unflushed(session) and not _hears_outcome(session):
            session.commit()
        else:
            async with session.turn:
                await super().commit()

    async def rollback(self) -> None:
        """As the parent; without a task switch where nothing was sent."""
        if holds_nothing(self.sync_session) and not _hears_outcome(self.sync_session):
            self.sync_session.rollback()
        else:
            async with self.sync_session.turn:
                await super().rollback()

    async def flush(self, objects: Sequence[Any] | None = None) -> None:
        """As the parent; what other tasks touch meanwhile waits for it."""
        async with self.sync_session.turn:
            await super().flush(objects)

    async def delete(self, instance: object, *, hard: bool = False) -> None:
        """Mark the instance as deleted at the next flush.

        An instance of a `SoftDelete` model is marked, together with the `SoftDelete` instances that its "delete"
        cascades reach; anything else, and everything with `hard=True`, is removed with its cascades.

        Raises:
            InvalidRequestError: the instance is not persistent.
        """
        remove = self.sync_session.hard_delete if hard else self.sync_session.delete
        await greenlet_spawn(remove, instance)

    async def restore(self, instance: SoftDelete) -> None:
        """Take the mark off a deleted instance; what its deletion cascaded to stays deleted."""
        setattr(instance, MARK, None)
        self.add(instance)

    async def close(self) -> None:
        """Close as the parent does, and warn `UncommittedChanges` if work is lost by it."""
        try:
            if not self._left_by_error:
                self._report_left_behind()
        finally:  # warnings may be errors, and the connection goes back all the same
            self._left_by_error = False
            if holds_nothing(self.sync_session) and not _hears_end(self.sync_session):
                self.sync_session.close()
            else:
                await super().close()

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        self._left_by_error = type_ is not None  # the error is the report; the rollback is on purpose
        if holds_nothing(self.sync_session):
            await self.close()  # waits for nothing, so that nothing can interrupt it
        else:
            await super().__aexit__(type_, value, traceback)

    def _report_left_behind(self) -> None:
        session = self.sync_session
        if not session.unsaved.count and not is_unflushed(session):
            return
        kept = session.sent_is_kept or commits_by_itself(session)
        if not (lost := session.unsaved.left_behind(session, sent_is_kept=kept)):
            return
        site = session.opened_at
        message = UncommittedChanges(
            f"The session opened at {site} was left without a commit, and this is lost: {', '.join(lost)}.  "
            "Add `await session.commit()`, or `await session.rollback()` to give it up on purpose."
        )
        if site is None:
            warnings.warn(message, stacklevel=3)
        else:
            warnings.warn_explicit(message, None, site.file, site.line)


def _hears_end(session: Any) -> bool:
    """Whether somebody but us, who may want to wait for the database, hears of the end of a transaction."""
    return len(session.dispatch.after_transaction_end) > 1


def _hears_outcome(session: Any) -> bool:
    """The same for a commit or rollback, which more is told of."""
    heard = session.dispatch
    soft = len(heard.after_soft_rollback) > 1
    return bool(heard.before_commit or heard.after_commit or heard.after_rollback or soft) or _hears_end(
        session
    )
