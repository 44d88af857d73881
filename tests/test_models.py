"""The base model: keys, times, and what becomes of naive ones."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import JSON, create_engine, insert, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry
from sqlalchemy.orm import Session as SyncSession
from sqlmodel import select

from catalysis import Database, ModelWithIdAndTimestamps, uuid7
from tests.models import Label


def test_uuid7_is_of_rfc_9562_and_grows_with_time():
    before = time.time_ns() // 1_000_000
    keys = [uuid7() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert {key.version for key in keys} == {7}
    assert {key.variant for key in keys} == {"specified in RFC 4122"}
    assert all(before <= key.int >> 80 <= after for key in keys)
    assert len(set(keys)) == 1000
    spaced = []
    for _ in range(20):
        spaced.append(uuid7())
        time.sleep(0.0001)
    assert spaced == sorted(spaced)


async def test_times_are_aware_and_kept_by_every_write(database: Database):
    async with database.session() as session:
        label = Label(name="a")
        assert isinstance(label.id, UUID)
        session.add(label)
        await session.commit()
        assert label.created_at.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - label.created_at) < timedelta(seconds=10)
        first = label.updated_at

        label.name = "b"
        await session.commit()
        second = label.updated_at
        assert second > first

        await session.exec(update(Label).values(name="c"))
        await session.commit()
        await session.refresh(label)
        assert label.updated_at > second
        assert label.created_at == (await session.exec(select(Label.created_at))).one()


async def test_bulk_and_textual_inserts_get_their_times(database: Database):
    async with database.session() as session:
        await session.execute(insert(Label), [{"name": "x"}, {"name": "y"}])
        await session.execute(
            text("INSERT INTO label (id, name) VALUES (:id, 'z')").bindparams(id=uuid7().hex)
            if database.settings.url.startswith("sqlite")
            else text("INSERT INTO label (id, name) VALUES (gen_random_uuid(), 'z')")
        )
        await session.commit()
        labels = (await session.exec(select(Label).order_by(Label.name))).all()
        now = datetime.now(UTC)
        assert [label.name for label in labels] == ["x", "y", "z"]
        for label in labels:
            assert timedelta(seconds=-1) < now - label.created_at < timedelta(seconds=10)
            assert label.updated_at.tzinfo is not None


def test_an_unmapped_model_is_a_value_like_any_other():
    class Preferences(ModelWithIdAndTimestamps):
        theme: str = "dark"

    class Base(DeclarativeBase):
        pass

    class Account(Base):
        __tablename__ = "account"
        id: Mapped[int] = mapped_column(primary_key=True)
        preferences: Mapped[Any] = mapped_column(JSON)

    engine = create_engine("sqlite://", json_serializer=lambda value: value.model_dump_json())
    Base.metadata.create_all(engine)
    with SyncSession(engine) as session:
        session.add(Account(id=1, preferences=Preferences()))
        session.commit()
    engine.dispose()
    with pytest.raises(AttributeError, match="nothing"):
        _ = Preferences().nothing
    Base.registry.dispose()


@pytest.mark.filterwarnings(
    "ignore:Field name", "ignore:Attribute name 'registry'"
)  # the second is SQLAlchemy's own
def test_a_field_may_be_called_registry():
    class Base(ModelWithIdAndTimestamps, registry=registry()):
        pass

    class Schema(Base):
        registry: str

    class Package(Schema, table=True):
        name: str

    class Image(Base, table=True):
        registry: str

    assert Package(name="x", registry="npm").registry == "npm"
    assert Image(registry="docker").registry == Schema(registry="docker").registry == "docker"
    assert Schema.model_fields["registry"].is_required()
    assert "registry" in Package.__table__.c
    assert Base.registry is Base._sa_registry
    Base.registry.dispose()
