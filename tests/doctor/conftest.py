"""A database for the doctor, with the models that it is told of."""

from collections.abc import AsyncIterator, Iterable
from uuid import uuid4

import pytest
from sqlalchemy import MetaData, text

from catalysis import Database
from catalysis.doctor import Complaint, Diagnosis, Limits, examine


async def send(database: Database, *statements: str) -> None:
    """Each committed by itself, and outside of a transaction."""
    async with database.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in statements:
            await connection.execute(text(statement))


def of(diagnosis: Diagnosis, *codes: str) -> list[Complaint]:
    """The complaints by some rules."""
    return [each for each in diagnosis.complaints if each.code in codes]


def said(diagnosis: Diagnosis, *codes: str) -> list[tuple[str, str, str]]:
    """Code, severity and subject of all complaints, or of those by some rules."""
    found: Iterable[Complaint] = of(diagnosis, *codes) if codes else diagnosis.complaints
    return [(each.code, each.severity, each.subject) for each in found]


@pytest.fixture
async def empty(backend_url: str) -> AsyncIterator[Database]:
    """A `Database` without tables, on each backend."""
    database = Database(backend_url)
    await database.create_all(MetaData())
    yield database
    await database.close()


@pytest.fixture
async def stranger(postgres: Database) -> AsyncIterator[Database]:
    """The PostgreSQL database as a role sees it that may use the schema and read no table."""
    role = f"stranger_{uuid4().hex}"
    await send(postgres, f"CREATE ROLE {role} LOGIN", f"GRANT USAGE ON SCHEMA public TO {role}")
    database = Database(postgres.settings.url.replace("postgres@", f"{role}@"))
    yield database
    await database.close()
    await send(postgres, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def alone(database: Database, **limits: float) -> Diagnosis:
    """The database examined without models."""
    return await examine(database, (), limits=Limits(**limits))  # type: ignore[arg-type]
