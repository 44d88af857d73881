"""Where the database is and how patiently to wait for it: read from the environment, checked once.

No connection is opened here, and no message made here carries a password.
"""

import re
from math import inf
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from catalysis.errors import SettingsError

ANSWER_TIMEOUT = 3600.0
"""Seconds, where nothing is set.  Long enough for what a server is asked to do on purpose (an index, a report); what
stops answering is mostly found out much sooner, by `keepalive`.
"""
GRACE = 5.0
"""Seconds that an answer may be on its way after `statement_timeout`."""

EMBEDDED_URL = "sqlite+aiosqlite:///catalysis.db"

ASYNC_DRIVERS = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+psycopg2": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+pysqlite": "sqlite+aiosqlite",
}


_HOSTS = re.compile(
    r"(?P<scheme>[\w+]+://)(?P<user>(?:[^:/?@]*(?::[^@]*)?@)?)(?P<hosts>[^/?@]*,[^/?@]*)(?P<name>/[^?]*)?(?P<query>\?.*)?"
)
_BETWEEN_URLS = re.compile(r",(?=\s*[\w+]+://)")
_PORT = "5432"


def _with_hosts_in_query(given: str) -> str:
    """libpq's `h1:5432,h2:5432` in the way of SQLAlchemy: `?host=h1:5432&host=h2:5432`."""
    found = _HOSTS.fullmatch(given.strip())
    if found is None:
        return given
    hosts = (each if ":" in each else f"{each}:{_PORT}" for each in found["hosts"].split(","))
    more = "".join(f"&{each}" for each in [(found["query"] or "")[1:]] if each)
    query = "&".join(f"host={each}" for each in hosts)
    return f"{found['scheme']}{found['user']}{found['name'] or '/'}?{query}{more}"


def hosts_of(url: URL) -> tuple[tuple[str | None, int | None], ...]:
    """The hosts of a URL and their ports, in the order in which they are tried; one for a plain URL."""
    given = url.query.get("host")
    if url.host is not None or given is None:
        return ((url.host, url.port),)
    several = given.split(",") if isinstance(given, str) else given
    ports = url.query.get("port", ())
    ports = ports.split(",") if isinstance(ports, str) else ports
    if ports:
        return tuple((host, int(port)) for host, port in zip(several, ports, strict=True))
    split = (each.partition(":") for each in several)
    return tuple((host, int(port) if port else None) for host, _, port in split)


def each_host(url: URL) -> tuple[URL, ...]:
    """The same database on each of the hosts alone."""
    hosts = hosts_of(url)
    if len(hosts) == 1:
        return (url,)
    alone = url.difference_update_query(["host", "port", "target_session_attrs"])
    return tuple(alone.set(host=host, port=port) for host, port in hosts)


def async_url(given: str | URL) -> URL:
    """The same database through its async driver.

    `postgres://` and `postgresql://` become `postgresql+asyncpg://`, `sqlite://` becomes
    `sqlite+aiosqlite://`; libpq's `sslmode=` becomes asyncpg's `ssl=`, and its `h1:5432,h2:5432` SQLAlchemy's
    `?host=h1:5432&host=h2:5432`.  Other async drivers pass unchanged.

    Raises:
        SettingsError: the URL cannot be parsed, or asks for what asyncpg cannot do.
    """
    try:
        url = make_url(_with_hosts_in_query(given) if isinstance(given, str) else given)
        if any("@" in (host or "") for host, _ in hosts_of(url)):
            raise ValueError  # the rest of a password, which would be shown as the host
        url = url.set(drivername=ASYNC_DRIVERS.get(url.drivername, url.drivername))
    except (ArgumentError, ValueError):  # the cause quotes the URL, password and all
        raise SettingsError(
            "The database URL cannot be parsed.  Write it as postgresql://user:password@host:5432/name "
            "or sqlite:///file.db, with special characters in the password percent-encoded."
        ) from None
    try:
        is_async = url.get_dialect().get_async_dialect_cls(url).is_async
    except NoSuchModuleError:
        raise SettingsError(f"There is no database driver {url.drivername!r}.") from None
    except ImportError as missing:
        raise SettingsError(f"The database driver {url.drivername!r} is not installed: {missing}.") from None
    if not is_async:
        raise SettingsError(
            f"The driver of {url.drivername!r} is synchronous.  Use postgresql:// or sqlite://, which are mapped "
            "to asyncpg and aiosqlite, or name an async driver."
        )
    return _asyncpg_query(url) if url.get_driver_name() == "asyncpg" else url


def _asyncpg_query(url: URL) -> URL:
    if "channel_binding" in url.query:
        raise SettingsError(
            "asyncpg knows no channel binding: take channel_binding=… out of the database URL."
        )
    if sslmode := url.query.get("sslmode"):
        return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
    return url


class DatabaseSettings(BaseSettings):
    """Settings of one database, from `DATABASE_*` variables (or a `.env` file) or from keyword arguments.

    All durations are in seconds.  `DATABASE_URL` unset means an embedded SQLite file in the current folder;
    an empty variable counts as unset.
    """

    model_config = SettingsConfigDict(
        env_prefix="DATABASE_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    url: str = Field(default=EMBEDDED_URL, repr=False, description="where the database is, password included")
    replicas: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        repr=False,
        description="PostgreSQL: URLs of read replicas, separated by commas; one of several hosts stands for each",
    )
    replica_check_interval: float = Field(
        default=1, gt=0, description="time between looks at the replicas, and at the primary's position"
    )
    replica_max_lag: float = Field(
        default=10, gt=0, description="a replica that is further behind is not read from until it catches up"
    )
    pool_size: int = Field(default=10, ge=1, description="connections kept open")
    max_overflow: int = Field(default=10, ge=0, description="connections opened beyond them under load")
    pool_timeout: float = Field(default=10, gt=0, description="longest wait for a free connection, a lease")
    pool_recycle: float = Field(default=1800, gt=0, description="age at which a connection is replaced")
    connect_timeout: float = Field(default=10, gt=0, description="longest wait for the server to let us in")
    statement_timeout: float | None = Field(
        default=None,
        gt=0,
        description="longest a statement may run on the server; unset: the server's own setting",
    )
    lock_timeout: float | None = Field(
        default=None,
        gt=0,
        description="PostgreSQL: longest wait for a lock that another transaction holds; unset: the server's own",
    )
    answer_timeout: float | None = Field(
        default=None,
        gt=0,
        description="longest wait for the answer to a statement, after which the connection is given up; "
        "unset: statement_timeout and 5 more, or an hour where that is unset; `inf`: no bound",
    )
    idle_transaction_timeout: float | None = Field(
        default=600,
        gt=0,
        description="longest a transaction may be left without a statement; the server ends it; `inf`: no bound",
    )
    transaction_timeout: float | None = Field(
        default=None,
        gt=0,
        description="longest a transaction may last (PostgreSQL 17); unset: the server's own setting",
    )
    keepalive: float = Field(
        default=60,
        ge=4,
        description="time after which a server that cannot be reached any more counts as gone, by TCP; "
        "`inf`: as the operating system does",
    )
    pooler: Literal["transaction"] | None = Field(
        default=None,
        description="PostgreSQL behind a pooler in transaction mode (PgBouncer): no statement is prepared by name",
    )
    tenant_setting: str | None = Field(
        default=None,
        pattern=r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$",
        description="PostgreSQL: the setting that row-level security policies read the tenant from, such as "
        "catalysis.tenant; sessions set it in each transaction; unset: there are none",
    )
    busy_timeout: float = Field(default=5, ge=0, description="SQLite: longest wait for another writer")
    strict_loading: Literal["allow", "warn", "raise"] = Field(
        default="allow",
        description="in a managed scope, touching what was not loaded loads it, and may warn; or raises",
    )
    distribution_check: Literal["allow", "warn", "raise"] = Field(
        default="allow",
        description="a statement over a distributed table that gives its distribution column no value asks every "
        "shard, and may warn; or raises",
    )
    warn_repeated: int | None = Field(
        default=None,
        ge=2,
        description="development: warn when a request sends a statement from one line so many times",
    )
    inspector: bool = Field(
        default=False, description="development: show the inspector where an application has it"
    )
    slow_query_seconds: float | None = Field(
        default=None,
        gt=0,
        description="log statements that take so long, with their plan; unset: none",
    )
    echo: bool = Field(default=False, description="log every statement, without its parameters")

    @property
    def longest_answer(self) -> float | None:
        """What `answer_timeout` comes to; None for no bound.

        The server's own bound ends a statement first, with an error that says so, and leaves the connection usable.
        """
        if self.answer_timeout is not None:
            return None if self.answer_timeout == inf else self.answer_timeout
        return ANSWER_TIMEOUT if self.statement_timeout is None else self.statement_timeout + GRACE

    @field_validator("url", mode="after")
    @classmethod
    def _url_of_async_driver(cls, given: str) -> str:
        return async_url(given).render_as_string(hide_password=False)

    @field_validator("replicas", mode="before")
    @classmethod
    def _replicas_of_async_driver(cls, given: Any) -> tuple[str, ...]:
        urls = _BETWEEN_URLS.split(given) if isinstance(given, str) else given
        return tuple(
            async_url(url.strip()).render_as_string(hide_password=False) for url in urls if url.strip()
        )

    @model_validator(mode="after")
    def _replicas_are_postgresql(self) -> Self:
        if self.replicas and any(
            make_url(each).get_driver_name() != "asyncpg" for each in (self.url, *self.replicas)
        ):
            raise SettingsError(
                "Replicas are of PostgreSQL through asyncpg, as is their primary: take DATABASE_REPLICAS away, or make "
                "all of these URLs postgresql://…."
            )
        return self

    @classmethod
    def load(cls, **given: Any) -> Self:
        """The settings from the environment, with `given` on top.

        Raises:
            SettingsError: a value cannot be used; every such variable is named, no value is quoted.
        """
        try:
            return cls(**given)
        except ValidationError as invalid:
            faults = (
                f"DATABASE_{str((*e['loc'], 'replicas')[0]).upper()}: {_message(e)}" for e in invalid.errors()
            )
            raise SettingsError("\n".join(faults)) from None


def _message(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")
