"""Instances of the session as rows of `bulk_update`: what of them is sent, and that it counts as saved afterwards."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from sqlalchemy import ClauseElement, func, inspect, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstanceState
from sqlalchemy.orm.exc import StaleDataError

from catalysis.engine.alchemy.unflushed import Taken, changed_attributes, put_back, take_as_saved
from catalysis.errors import BulkError
from catalysis.soft_delete import include_deleted
from catalysis.tools.rows import Row, RowReader, values_on_update


class ChangedInstances:
    """Reads the rows of an update, those that are instances of the session too."""

    def __init__(self, session: AsyncSession, reader: RowReader) -> None:
        self._session, self._reader = session, reader
        self._sync = session.sync_session
        self._read: list[tuple[InstanceState[Any], frozenset[str], frozenset[str]]] = []

    def read(self, number: int, row: Any) -> Row:
        """The row; of an instance of the session its key and what is changed and not flushed.

        Raises:
            BulkError: it cannot be read, or only a flush can send what is changed.
        """
        state: Any = inspect(row, raiseerr=False)
        if not isinstance(state, InstanceState) or state.session is not self._sync:
            return self._reader.read(number, row)
        return self._read_state(number, cast("InstanceState[Any]", state))

    def _read_state(self, number: int, state: InstanceState[Any]) -> Row:
        reader = self._reader
        if state.mapper is not reader.mapper:
            raise BulkError(
                f"{reader.at(number)} is a {state.mapper.class_.__name__}.  Give instances of {reader.model.__name__}."
            )
        names = changed_attributes(state)
        if not state.persistent:
            self._refuse(number, "it is new or deleted")
        if reader.mapper.version_id_col is not None:
            self._refuse(number, "the model counts versions")
        if names & set(reader.key):
            self._refuse(number, "its primary key is changed")
        values = {name: state.dict[name] for name in names}
        if any(isinstance(value, ClauseElement) for value in values.values()):
            self._refuse(number, "it has an SQL expression for a value")
        computed: set[str] = set()
        if names:
            changed = {column for name in names for column in reader.columns[name]}
            for column, value in values_on_update(reader, changed).items():
                name = reader.mapper.get_property_by_column(column).key
                if isinstance(value, ClauseElement):
                    computed.add(name)
                else:
                    values[name] = value
        self._read.append((state, frozenset(names), frozenset(computed)))
        given = frozenset(values)
        values.update(zip(reader.key, state.identity or (), strict=True))
        return Row(number, values, given)

    def _refuse(self, number: int, why: str) -> None:
        raise BulkError(
            f"{self._reader.at(number)} cannot be updated in bulk: {why}.  Flush the session instead."
        )

    @asynccontextmanager
    async def saved(self, first: int, last: int) -> AsyncGenerator[None]:
        """Around the statement: what the instances read last had to save counts as saved, unless it fails.

        Before it, so that the autoflush does not send the same once more.

        Raises:
            StaleDataError: (SQLAlchemy's) an instance's row is gone.
        """
        read, self._read = [each for each in self._read if each[1]], []
        taken: list[Taken] = []
        try:
            taken += [take_as_saved(self._sync, state, names) for state, names, _ in read]
            yield
            await self._check_found([state for state, _, _ in read], first, last)
        except BaseException:
            for each in reversed(taken):
                put_back(self._sync, each)
            raise
        for state, _, computed in read:
            if computed and (instance := state.obj()) is not None:
                self._sync.expire(instance, list(computed))

    async def _check_found(self, states: Sequence[InstanceState[Any]], first: int, last: int) -> None:
        keys: set[Any] = {state.identity for state in states if state.identity is not None}
        if not keys:
            return
        mapper: Any = self._reader.mapper
        columns: tuple[Any, ...] = mapper.primary_key
        single = len(columns) == 1
        wanted = columns[0].in_([key[0] for key in keys]) if single else tuple_(*columns).in_(keys)
        counting = select(func.count()).select_from(mapper.class_).where(wanted)
        found = await self._session.scalar(counting.options(include_deleted()))
        if found != len(keys):
            raise StaleDataError(
                f"{self._reader.operation} {self._reader.model.__name__}: of the {len(keys)} instances in rows {first} "
                f"to {last}, {len(keys) - (found or 0)} have no row any more; what they changed is not saved."
            )
