"""Relationships that are loaded with their owner and lead back to where they began."""

from pathlib import Path
from typing import Any

from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import Mapped, declarative_base, mapped_column, relationship

from catalysis import Database

Base: Any = declarative_base()


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", lazy="selectin")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books", lazy="selectin")


async def test_selectin_stops_where_it_began(tmp_path: Path):
    """There SQLAlchemy notes nothing to load after the rows."""
    database = Database(f"sqlite:///{tmp_path / 'cycle.db'}")
    await database.create_all(Base.metadata)
    async with database.session() as session:
        session.add_all([Author(id=n, books=[Book(id=10 * n + m) for m in range(2)]) for n in (1, 2)])
        await session.commit()
        for _ in range(2):
            session.expunge_all()
            authors = (await session.scalars(select(Author).order_by(Author.id))).all()
            assert [len(each.books) for each in authors] == [2, 2]
            assert [each.books[0].author for each in authors] == authors
    await database.close()
