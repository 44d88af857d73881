"""Where sessions come from: a `Database` for one set of settings, and `DatabaseService` for the process's own.

Engines are made here and nowhere else; above this module nobody asks which database it is.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import MetaData, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import NoReferencedTableError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel

from catalysis.diagnosis import check_tables
from catalysis.distribution import check_distribution
from catalysis.engine.alchemy.lending import Holder, holders
from catalysis.engine.alchemy.pooling import wait_until_closed
from catalysis.engine.drivers import make_engine
from catalysis.engine.drivers.isolation import Isolation
from catalysis.engine.positions import primary_position
from catalysis.engine.routing import position_of, token_of
from catalysis.errors import SettingsError
from catalysis.events import DatabaseAddress, address_in, address_of
from catalysis.pools import PoolFigures, figures_of, together
from catalysis.replicas import ReplicaHealth, Replicas
from catalysis.session import Session
from catalysis.settings import DatabaseSettings, each_host
from catalysis.transactions import Nesting, Terms, Transactional, Work, run_transaction

T = TypeVar("T")

ONE_SERVERS = frozenset({"pool", "creator", "async_creator", "async_creator_fn"})
"""Options of an engine that decide where it connects to, whatever its URL says."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the database answered, how long it took in seconds, and the pool's figures."""

    ready: bool
    seconds: float
    pool: PoolFigures
    error: str | None
    """The class of the error, without its text, which may name hosts and users."""
    replicas: tuple[ReplicaHealth, ...] = ()
    """As they were found last; whether they answer does not decide whether the database is ready."""


class Database:
    """One database.  Safe to keep for the life of the process and to share between tasks; sessions are not.

    An engine belongs to one event loop, so each loop that uses the database gets its own, at its first use.
    """

    def __init__(
        self,
        where: str | URL | DatabaseSettings | None = None,
        *,
        replicas: tuple[str, ...] | list[str] = (),
        **engine_options: Any,
    ) -> None:
        """`where` is a URL or settings; None reads `DATABASE_*`.  Other options go to `create_async_engine`.

        `replicas`: URLs, which go before those of the settings.

        Raises:
            SettingsError: the URL or a setting cannot be used.
        """
        given: dict[str, Any] = {"replicas": list(replicas)} if replicas else {}
        if isinstance(where, URL):
            where = where.render_as_string(hide_password=False)
        if isinstance(where, str):
            given["url"] = where
        if isinstance(where, DatabaseSettings):
            given = {**{name: getattr(where, name) for name in where.model_fields_set}, **given}
            self.settings = where if not replicas else DatabaseSettings.load(**given)
        else:
            self.settings = DatabaseSettings.load(**given)
        if self.settings.replicas and (fixed := engine_options.keys() & ONE_SERVERS):
            raise SettingsError(f"{min(fixed)} leads to one server: give no replicas with it.")
        self._engine_options = engine_options
        self._replicas: WeakKeyDictionary[asyncio.AbstractEventLoop, Replicas] = WeakKeyDictionary()
        self._engines: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncEngine] = WeakKeyDictionary()

    def __repr__(self) -> str:
        shown = make_url(self.settings.url).set(query={})  # a query may hold secrets too
        return f"Database({shown.render_as_string(hide_password=True)!r})"

    @property
    def engine(self) -> AsyncEngine:
        """SQLAlchemy's engine for the running event loop.

        Raises:
            RuntimeError: no event loop is running.
        """
        loop = asyncio.get_running_loop()
        engine = self._engines.get(loop)
        if engine is None:
            self._forget_dead_loops()
            engine = self._engines[loop] = self._make_engine(make_url(self.settings.url))
        return engine

    def _make_engine(self, url: URL) -> AsyncEngine:
        return make_engine(url, self.settings, self._engine_options)

    @property
    def replica_engines(self) -> tuple[AsyncEngine, ...]:
        """SQLAlchemy's engines of the replicas for the running event loop, to listen to as to `engine`."""
        return () if (replicas := self._replicas_here()) is None else replicas.engines

    def _replicas_here(self) -> Replicas | None:
        if not self.settings.replicas:
            return None
        loop = asyncio.get_running_loop()
        found = self._replicas.get(loop)
        if found is None:
            urls = [url for each in self.settings.replicas for url in each_host(make_url(each))]
            found = self._replicas[loop] = Replicas(
                self.engine,
                list(dict.fromkeys(urls)),
                self._make_engine,
                interval=self.settings.replica_check_interval,
                max_lag=self.settings.replica_max_lag,
            )
        return found

    def _forget_dead_loops(self) -> None:
        """An engine's connections hold their loop, so the weak keys alone would forget neither."""
        for reference in self._engines.keyrefs():
            loop = reference()
            if loop is not None and loop.is_closed() and (engine := self._engines.pop(loop, None)):
                engine.sync_engine.dispose(close=False)  # there is no loop left to close them on
                if (replicas := self._replicas.pop(loop, None)) is not None:
                    replicas.abandon()

    def session(self, *, after: str | None = None, **options: Any) -> Session:
        """A new session, for `async with`; nothing expires at its commits unless `expire_on_commit=True`.

        `after`: a write token; what had been written when it was made is seen by the session, on whatever server.

        Raises:
            InvalidToken: `after` is no write token.
            ValueError: an option is none of those that there are.
        """
        position = position_of(after)
        options.setdefault("expire_on_commit", False)
        options.setdefault("strict_loading", self.settings.strict_loading)
        options.setdefault("distribution_check", self.settings.distribution_check)
        options.setdefault("tenant_setting", self.settings.tenant_setting)
        session = Session(self.engine, **options)
        if (replicas := self._replicas_here()) is not None:
            session.sync_session.route = replicas.route(position)
        return session

    async def write_token(self) -> str | None:
        """A token of all that has been committed so far, by whomever, for `session(after=token)`: one round trip.

        None where the database can have no replicas.

        Raises:
            PoolExhausted: no connection came free in time.
            DBAPIError: the database did not answer.
        """
        position = await primary_position(self.session().sync_session, self.engine.sync_engine)
        return None if position is None else token_of(position)

    async def transaction(
        self,
        work: Work[T],
        *,
        retries: int = 5,
        isolation: Isolation | None = None,
        nested: Nesting = "join",
        tenant: Any = None,
    ) -> T:
        """Run `work(session)` in one transaction, commit it, and return its result.

        After a serialization failure or a deadlock, also one that COMMIT reports, after SQLite's "database is
        locked", and where the connection is lost before COMMIT, the whole of it is run again in a new session, up
        to `retries` times with a growing, jittered pause; so `work` must be safe to repeat.  `isolation` asks for a
        level, without which serialization failures hardly occur.  `tenant`: see `Session.for_tenant`.

        While one of this database is running in this task, `nested` decides: "join" makes `work` a part of it;
        "savepoint" too, and takes it back alone if it raises; "new" runs it apart.  A part is never run again alone.

        Raises:
            DBAPIError: the last failure, once the retries are used up; any other error at once.
            CommitOutcomeUnknown: the reply to COMMIT was lost; never run again.
            TransactionMisused: a part failed and its error was caught, or asked for more isolation than there is.
            ValueError: an option is none of those that there are.
        """
        return await run_transaction(self, work, Terms(retries, isolation, nested, tenant))

    def transactional(
        self, *, retries: int = 5, isolation: Isolation | None = None, nested: Nesting = "join"
    ) -> Transactional:
        """A decorator: the function takes a session first, which its callers do not pass; see `transaction`."""
        return Transactional(lambda: self, Terms(retries, isolation, nested))

    async def create_all(self, metadata: MetaData | None = None) -> None:
        """Make the tables of `metadata` (default: SQLModel's) that are not there yet, in one transaction.

        On a cluster of Citus they are distributed as they say (`__distribution__`).

        Raises:
            ModelError: a foreign key names no table, or no cluster would take what a table says.
        """
        metadata = SQLModel.metadata if metadata is None else metadata
        check_distribution(metadata)
        try:
            async with self.engine.begin() as connection:
                await connection.run_sync(metadata.create_all)
        except NoReferencedTableError:
            check_tables(metadata)
            raise

    async def drop_all(self, metadata: MetaData | None = None) -> None:
        """Drop the tables of `metadata` (default: SQLModel's), data and all, in one transaction."""
        async with self.engine.begin() as connection:
            await connection.run_sync((SQLModel.metadata if metadata is None else metadata).drop_all)

    async def health(self, *, timeout: float = 2) -> Health:
        """Ask the database for a sign of life, waiting `timeout` seconds at most.  Never raises."""
        clock = asyncio.get_running_loop().time
        started, error = clock(), None
        try:
            async with asyncio.timeout(timeout), self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except Exception as failure:  # whatever it is, it is the answer
            error = type(failure).__name__
        replicas = () if (here := self._replicas_here()) is None else here.health()
        return Health(error is None, clock() - started, self.pool_figures(), error, replicas)

    def replica_health(self) -> tuple[ReplicaHealth, ...]:
        """How the replicas were found last, on each event loop that uses them; from any thread."""
        return tuple(health for each in _living(self._replicas) for health in each.health())

    @property
    def address(self) -> DatabaseAddress:
        """Which database this is, as events name it: its primary."""
        return address_in(make_url(self.settings.url))

    @property
    def addresses(self) -> frozenset[DatabaseAddress]:
        """The same, and those of its replicas."""
        urls = (url for each in self.settings.replicas for url in each_host(make_url(each)))
        return frozenset((self.address, *(address_in(url, "replica") for url in urls)))

    def pool_figures(self, *, all_loops: bool = False) -> PoolFigures:
        """The pool of the running loop's engine; zeros for one that does not count.

        `all_loops`: of all engines there are, together, and from any thread; none is made.
        """
        engines = _living(self._engines) if all_loops else [self.engine]
        return together(figures_of(engine, self._overflow) for engine in engines)

    def pools(self) -> dict[DatabaseAddress, PoolFigures]:
        """The pools of the primary and of each replica, those of all event loops together; from any thread."""
        found: dict[DatabaseAddress, list[PoolFigures]] = {self.address: []}
        replicas = [engine for each in _living(self._replicas) for engine in each.engines]
        for engine in (*_living(self._engines), *replicas):
            place = address_of(engine.sync_engine)
            found.setdefault(place, []).append(figures_of(engine, self._overflow))
        return {place: together(figures) for place, figures in found.items()}

    @property
    def _overflow(self) -> int | None:
        given = self._engine_options
        return None if "pool" in given else given.get("max_overflow", self.settings.max_overflow)

    def leases(self) -> tuple[Holder, ...]:
        """Who holds connections of the running loop's pools now, longest first; not those taken without a session."""
        found = [holders(each.sync_engine) for each in (self.engine, *self.replica_engines)]
        return tuple(sorted((holder for each in found for holder in each), key=lambda each: -each.seconds))

    async def close(self) -> None:
        """Close the running loop's connections; the database may be used again afterwards."""
        loop = asyncio.get_running_loop()
        if (replicas := self._replicas.pop(loop, None)) is not None:
            await wait_until_closed()
            await replicas.close()
        engine = self._engines.pop(loop, None)
        if engine is not None:
            await wait_until_closed()
            await engine.dispose()


def _living(by_loop: "WeakKeyDictionary[asyncio.AbstractEventLoop, T]") -> list[T]:
    """What there is of each loop; from any thread, while other loops come and go."""
    found = [by_loop.get(loop) for each in by_loop.keyrefs() if (loop := each()) is not None]
    return [each for each in found if each is not None]


class DatabaseService:
    """The process's own `Database`: configured once at the start, or from `DATABASE_*` at its first use."""

    _database: ClassVar[Database | None] = None

    @classmethod
    def configure(cls, where: str | URL | DatabaseSettings | Database | None = None) -> Database:
        """Set the process's database and return it; a database set before is forgotten, not closed.

        Raises:
            SettingsError: the URL or a setting cannot be used.
        """
        cls._database = where if isinstance(where, Database) else Database(where)
        return cls._database

    @classmethod
    def database(cls) -> Database:
        """The process's database."""
        return cls._database or cls.configure()

    @classmethod
    def get_session(cls, **options: Any) -> Session:
        """A new session of it, for `async with`; see `Database.session`."""
        return cls.database().session(**options)

    @classmethod
    async def transaction(
        cls,
        work: Work[T],
        *,
        retries: int = 5,
        isolation: Isolation | None = None,
        nested: Nesting = "join",
        tenant: Any = None,
    ) -> T:
        """See `Database.transaction`."""
        return await cls.database().transaction(
            work, retries=retries, isolation=isolation, nested=nested, tenant=tenant
        )

    @classmethod
    def transactional(
        cls, *, retries: int = 5, isolation: Isolation | None = None, nested: Nesting = "join"
    ) -> Transactional:
        """See `Database.transactional`; the database is looked for at each call."""
        return Transactional(cls.database, Terms(retries, isolation, nested))

    @classmethod
    async def create_all(cls, metadata: MetaData | None = None) -> None:
        """See `Database.create_all`."""
        await cls.database().create_all(metadata)

    @classmethod
    async def drop_all(cls, metadata: MetaData | None = None) -> None:
        """See `Database.drop_all`."""
        await cls.database().drop_all(metadata)

    @classmethod
    async def close(cls) -> None:
        """Close its connections; it stays configured."""
        await cls.database().close()
