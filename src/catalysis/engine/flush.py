"""The trip of a flush: SQLAlchemy's unit of work decides what is sent and in which order, and our drivers send it.

Each mapper's statements go through a `Gateway`, or through SQLAlchemy's own connection where that has to be; the event
of the statement says why.  The last flush of a transaction, if it is one statement for one row, is sent outside of
one: it is a transaction by itself.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.util.concurrency import await_only

from catalysis.engine.alchemy.committing import has_committed_by_itself, outcome_unknown, was_lost
from catalysis.engine.alchemy.flushing import (
    Gateway,
    NativeFlush,
    OwnersConnection,
    Write,
    Written,
    become_native,
    row_listener,
)
from catalysis.engine.alchemy.greenlets import can_wait
from catalysis.engine.alchemy.pooling import adapted, check_out, discard, proxy_of
from catalysis.engine.alchemy.pooling import hears_begin as engine_hears_begin
from catalysis.engine.alchemy.sessions import (
    HookedSession,
    bind_of,
    ends_with_flush,
    keep_order,
)
from catalysis.engine.alchemy.sharding import chooses_connections
from catalysis.engine.coverage import refused_by
from catalysis.engine.drivers import Answer, driver_of
from catalysis.engine.lease import OUR_LISTENERS, Lease, is_out_of_the_ordinary
from catalysis.engine.leftovers import leaves_state
from catalysis.engine.telling import tell
from catalysis.events import call_line, fallback_reason, is_heard, sent_from

P = ParamSpec("P")
T = TypeVar("T")


def flush_natively(session: HookedSession, flush: Any) -> bool:
    """Take over where a flush that begins sends its statements; inside a greenlet, or nothing changes (False)."""
    keep_order(flush)
    if not can_wait() or chooses_connections(session):
        return False
    become_native(flush, partial(_connect, session))
    return True


def _connect(session: HookedSession, flush: NativeFlush, mapper: Any) -> Any:
    """What the statements of a mapper are executed on: a `Gateway`, or SQLAlchemy's connection."""
    bind = bind_of(session, mapper, None)
    reason = refused_by(session, bind)
    if reason is None and (event := row_listener(mapper)) is not None:
        reason = f"a listener to {event}"

    def sqlalchemys(reason: str) -> Any:
        fallback_reason.set(reason)  # until the end of the flush, see `UnitOfWork.flush`
        return flush.own_connection(mapper)

    owned = session.owned_by(mapper)
    if reason is not None:
        connection = sqlalchemys(reason)
        return connection if owned is None else OwnersConnection(connection, owned)
    alone = (
        flush.is_alone
        and ends_with_flush(session, bind)
        and not engine_hears_begin(bind.engine, OUR_LISTENERS)
    )
    sender = _Sender(flush, mapper, bind, alone)
    versioned = mapper.version_id_col is not None
    return Gateway(
        bind.engine, sender.send, sqlalchemys, can_send=sender.can_send, versioned=versioned, owned=owned
    )


_WRITES_ALONE = "_catalysis_writes_alone"
"""Under this name an engine keeps that its connections were seen to be fit for a write outside of a transaction."""


class _Sender:
    """Sends the statements of one mapper."""

    def __init__(self, flush: NativeFlush, mapper: Any, bind: Engine | Connection, alone: bool) -> None:
        self._flush, self._mapper, self._engine = flush, mapper, bind.engine
        self._alone = alone
        self._can: bool | None = None
        self._driver = driver_of(self._engine.dialect)

    def can_send(self) -> bool:
        """Whether our driver can use the connection for what is about to be sent; it is taken if need be."""
        if self._can is None:
            if self._alone and _WRITES_ALONE not in self._engine.__dict__:
                self._alone = await_only(self._can_send_by_itself())
            self._can = self._alone or self._held() is not None
        return self._can

    def _held(self) -> Lease | None:
        """The transaction's connection; None if only SQLAlchemy can use it."""
        held = self._flush.own_connection(self._mapper)
        proxy = proxy_of(held)
        if (
            proxy is None
            or is_out_of_the_ordinary(held)
            or not self._driver.can_write(adapted(proxy), self._engine)
        ):
            return None
        return Lease.of(self._engine, proxy, held)

    def send(self, write: Write) -> Written | None:
        """Send and wait; None if only SQLAlchemy can use the connection."""
        if self._alone and len(write.rows) == 1 and write.is_final and not leaves_state(write.sql):
            self._alone = False
            if (answer := _waited(self._send_by_itself, write)) is not None:
                return _written(answer)
        lent = self._held()
        return None if lent is None else _written(_waited(self._send, write, lent))

    async def _can_send_by_itself(self) -> bool:
        lent = Lease.of(self._engine, await check_out(self._engine, self._flush.session))
        fit = self._is_fit(lent)
        if fit:
            setattr(self._engine, _WRITES_ALONE, True)
        await lent.give_back()
        return fit

    def _is_fit(self, lent: Lease) -> bool:
        """Whether a connection that holds no transaction writes by itself as it does in one."""
        return self._driver.reads_outside(lent.connection, self._engine.dialect) and self._driver.can_write(
            lent.connection, self._engine
        )

    async def _send_by_itself(self, write: Write) -> Answer | None:
        lent = Lease.of(self._engine, await check_out(self._engine, self._flush.session))
        if not self._is_fit(lent):
            await lent.give_back()
            return None
        try:
            answer = await self._send(write, lent)
        except Exception as error:
            if not was_lost(error):
                raise
            discard(self._engine, lent.lent, None, error)
            raise outcome_unknown(error) from error
        finally:
            self._flush.session.may_have_committed()
            has_committed_by_itself(self._engine)
            self._flush.session.has_ended()
        await lent.give_back()
        return answer

    async def _send(self, write: Write, lent: Lease) -> Answer:
        lent.note(write.sql)
        values = write.rows if len(write.rows) > 1 else write.rows[0]
        ended = tell(lent, write.sql, values, self._mapper) if is_heard() else None
        try:
            answer = await self._driver.write(
                lent.connection,
                write.sql,
                write.rows,
                dialect=self._engine.dialect,
                in_transaction=lent.held is not None,
                returns=write.returns,
                counts=write.counts,
            )
        except Exception as error:
            if ended is not None:
                ended(None, type(error).__name__)
            await lent.fail(error, write.sql, values)
        except BaseException as cancelled:
            if ended is not None:
                ended(None, type(cancelled).__name__)
            lent.give_up(cancelled, survives=self._driver.survives_cancellation)
            raise
        if ended is not None:
            count = answer.rowcount if answer.rowcount >= 0 else len(write.rows)
            ended(count, None)
        return answer


def _waited(send: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    line = call_line() if is_heard() else None
    return await_only(sent_from(line, send, *args, **kwargs))


def _written(answer: Answer) -> Written:
    return Written(answer.describe(), answer.rows, answer.rowcount, answer.lastrowid)
