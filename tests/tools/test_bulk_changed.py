"""`bulk_update` with instances of the session: what is sent, what counts as saved, and what stays."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import ForeignKey, func, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.orm.exc import StaleDataError

from catalysis import Database, Session, bulk_update, watch_queries
from catalysis.errors import BulkError
from tests.models import Label

LONG_AGO = datetime(2001, 2, 3, tzinfo=UTC)


class Base(DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column("book_title", unique=True)
    pages: Mapped[int] = mapped_column(default=0)
    touched: Mapped[str | None] = mapped_column(onupdate=func.lower("SEEN"))
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey(Shelf.id))
    shelf: Mapped[Shelf | None] = relationship()


class Counted(Base):
    __tablename__ = "counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}


@pytest.fixture
async def session(database: Database) -> AsyncIterator[Session]:
    await database.create_all(Base.metadata)
    async with database.session() as session:
        yield session
        await session.rollback()


@pytest.fixture
async def books(session: Session) -> list[Book]:
    books = [Book(title=f"book {i}", pages=i) for i in range(10)]
    session.add_all(books)
    await session.flush()
    return books


async def titles(session: AsyncSession) -> list[str]:
    return list(await session.scalars(select(Book.__table__.c.book_title).order_by(Book.__table__.c.id)))


async def test_what_is_changed_is_sent_and_counts_as_saved(session: Session, books: list[Book]):
    for book in books[:5]:
        book.title += "!"
    with watch_queries() as queries:
        assert await bulk_update(session, Book, books) == 10
    assert [query.sql.split()[0] for query in queries] == ["UPDATE", "SELECT"]
    assert "pages" not in queries[0].sql
    assert not session.dirty
    with watch_queries() as queries:
        await session.flush()
    assert len(queries) == 0
    assert await titles(session) == [f"book {i}{'!' if i < 5 else ''}" for i in range(10)]
    assert inspect(books[0]).attrs.title.history.unchanged == ["book 0!"]
    assert inspect(books[0]).expired_attributes == {"touched"}
    await session.refresh(books[0])
    assert (books[0].touched, books[0].title) == ("seen", "book 0!")


async def test_onupdate_values_of_ours_are_set(session: Session):
    labels = [Label(name=f"label {i}", created_at=LONG_AGO, updated_at=LONG_AGO) for i in range(3)]
    session.add_all(labels)
    await session.flush()
    labels[0].name = "new"
    await bulk_update(session, Label, labels)
    stored = await session.scalar(select(Label.__table__.c.updated_at).where(Label.__table__.c.name == "new"))
    assert labels[0].updated_at == stored
    assert datetime.now(UTC) - labels[0].updated_at < timedelta(minutes=1)
    assert labels[1].updated_at == LONG_AGO
    assert not session.dirty


async def test_other_changes_are_flushed_before_and_relationships_stay(session: Session, books: list[Book]):
    shelf = Shelf(id=7)
    books[0].title, books[0].shelf = "new", shelf
    books[1].title = "flushed"
    await bulk_update(session, Book, [books[0]])
    await session.flush()
    assert (await titles(session))[:2] == ["new", "flushed"]
    assert (
        await session.scalar(select(Book.__table__.c.shelf_id).where(Book.__table__.c.id == books[0].id)) == 7
    )


async def test_after_a_failure_everything_is_as_unsaved_as_before(session: Session, books: list[Book]):
    await session.commit()
    books[0].title, books[1].pages = "book 5", 99
    with session.no_autoflush, pytest.raises(IntegrityError, match=r"bulk_update Book: in rows 1 to 2"):
        await bulk_update(session, Book, books[:2])
    assert set(session.dirty) == {books[0], books[1]}
    history: Any = inspect(books[0]).attrs.title.history
    assert (history.added, history.deleted) == (["book 5"], ["book 0"])
    await session.rollback()
    await session.refresh(books[0])
    assert books[0].title == "book 0"


async def test_a_savepoint_taken_back_takes_back_what_counted_as_saved(session: Session, books: list[Book]):
    async with session.begin_nested() as savepoint:
        books[0].title = "new"
        await bulk_update(session, Book, books)
        await savepoint.rollback()
    await session.refresh(books[0])
    assert books[0].title == "book 0"
    assert not session.dirty


async def test_a_row_that_is_gone_is_no_silent_loss(session: Session, books: list[Book]):
    await session.execute(text("DELETE FROM book WHERE id = :id"), {"id": books[3].id})
    for book in books:
        book.pages += 100
    with pytest.raises(
        StaleDataError,
        match=r"of the 10 instances in rows 1 to 10, 1 have no row|to update 10 row.s.; 9 were",
    ):
        await bulk_update(session, Book, books)
    assert set(session.dirty) == set(books)


async def test_instances_and_dicts_together(session: Session, books: list[Book]):
    books[0].pages = 50
    await bulk_update(session, Book, [books[0], {"id": books[1].id, "pages": 60}])
    assert list(await session.scalars(select(Book.__table__.c.pages).order_by(Book.__table__.c.id)))[:2] == [
        50,
        60,
    ]
    assert books[1].pages == 60


async def test_nothing_changed_nothing_sent(session: Session, books: list[Book]):
    with watch_queries() as queries:
        assert await bulk_update(session, Book, books) == 10
    assert len(queries) == 0


async def test_what_only_a_flush_can_save(session: Session, books: list[Book]):
    new, counted = Book(title="x"), Counted(name="a")
    session.add_all([new, counted])
    with session.no_autoflush, pytest.raises(BulkError, match="row 1 cannot be updated in bulk: it is new"):
        await bulk_update(session, Book, [new])
    await session.flush()
    books[0].id = 1000
    with pytest.raises(BulkError, match="row 1 cannot be updated in bulk: its primary key is changed"):
        await bulk_update(session, Book, books)
    books[0].id = inspect(books[0]).identity[0]  # pyright: ignore[reportOptionalSubscript]
    books[0].pages = Book.pages + 1
    with pytest.raises(BulkError, match="row 1 cannot be updated in bulk: it has an SQL expression"):
        await bulk_update(session, Book, books)
    books[0].pages = 1
    counted.name = "b"
    with pytest.raises(BulkError, match=r"the model counts versions\.  Flush the session instead"):
        await bulk_update(session, Counted, [counted])
    with pytest.raises(BulkError, match=r"row 1 is a Counted\.  Give instances of Book"):
        await bulk_update(session, Book, [counted])


async def test_any_async_session_will_do(database: Database):
    await database.create_all(Base.metadata)
    async with AsyncSession(database.engine, expire_on_commit=False) as stock:
        book = Book(title="a")
        stock.add(book)
        await stock.commit()
        book.title = "b"
        await bulk_update(stock, Book, [book])
        assert not stock.dirty
        await stock.commit()
        assert await titles(stock) == ["b"]
