"""The statements that programs run: each a function of two small numbers."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import and_, case, exists, func, literal, or_, select, tuple_, union, union_all
from sqlalchemy.orm import (
    Bundle,
    aliased,
    contains_eager,
    defaultload,
    defer,
    immediateload,
    joinedload,
    lazyload,
    load_only,
    raiseload,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    undefer,
    with_loader_criteria,
    with_polymorphic,
)

from tests.differential.models import (
    Animal,
    Author,
    Book,
    Branch,
    Dog,
    Fish,
    Gadget,
    Mood,
    Passport,
    Spot,
    Stamp,
    Tag,
    tagged,
)

STATEMENTS: list[Callable[[int, int], Any]] = [
    lambda a, b: select(Author).order_by(Author.id),
    lambda a, b: select(Author).where(Author.id == a),
    lambda a, b: select(Author).where(Author.id.in_([a, b])).order_by(Author.id.desc()),
    lambda a, b: select(Author).where(Author.id.in_([])),
    lambda a, b: (
        select(Author).where(or_(Author.name == f"author {a}", Author.mood == Mood.WILD)).order_by(Author.id)
    ),
    lambda a, b: select(Author.id, Author.name, Author.shout).order_by(Author.id),
    lambda a, b: select(Author.mood, Author.born, Author.notes).order_by(Author.id),
    lambda a, b: select(Author, Book).join(Author.books).order_by(Book.id),
    lambda a, b: select(Book, Author.name).outerjoin(Book.author).order_by(Book.id),
    lambda a, b: select(Author, Author.id + a).order_by(Author.id),
    lambda a, b: select(func.count(Book.id)).where(Book.id > a),
    lambda a, b: select(func.count()).select_from(Book),
    lambda a, b: (
        select(Author.name, func.count(Book.id).label("books"))
        .join(Author.books)
        .group_by(Author.name)
        .order_by(Author.name)
    ),
    lambda a, b: select(Book).where(Book.tags.any(Tag.id == a)).order_by(Book.id),
    lambda a, b: select(Author).where(exists().where(Book.author_id == Author.id)).order_by(Author.id),
    lambda a, b: select(Book).order_by(Book.id).limit(a).offset(b),
    lambda a, b: select(Book).distinct().join(Book.tags).order_by(Book.id),
    lambda a, b: select(case((Book.id > a, literal("big")), else_="small"), Book.price).order_by(Book.id),
    lambda a, b: select(Author).options(joinedload(Author.books)).order_by(Author.id),
    lambda a, b: select(Author).options(joinedload(Author.books).joinedload(Book.tags)).order_by(Author.id),
    lambda a, b: (
        select(Author)
        .options(joinedload(Author.books), joinedload(Author.passport))
        .order_by(Author.id)
        .limit(a)
    ),
    lambda a, b: select(Book).options(joinedload(Book.author)).order_by(Book.id),
    lambda a, b: select(Book).options(joinedload(Book.author).joinedload(Author.books)).order_by(Book.id),
    lambda a, b: (
        select(Book)
        .options(joinedload(Book.author, innerjoin=True))
        .where(Book.author_id.is_not(None))
        .order_by(Book.id)
    ),
    lambda a, b: select(Author).options(selectinload(Author.books)).order_by(Author.id),
    lambda a, b: (
        select(Author)
        .options(selectinload(Author.books).selectinload(Book.tags), selectinload(Author.passport))
        .order_by(Author.id)
    ),
    lambda a, b: select(Book).options(selectinload(Book.author), selectinload(Book.tags)).order_by(Book.id),
    lambda a, b: select(Author).options(selectinload(Author.books.and_(Book.id > a))).order_by(Author.id),
    lambda a, b: select(Author).options(joinedload(Author.books.and_(Book.id > a))).order_by(Author.id),
    lambda a, b: select(Author).options(subqueryload(Author.books)).order_by(Author.id),
    lambda a, b: select(Author).options(immediateload(Author.books)).order_by(Author.id),
    lambda a, b: (
        select(Author)
        .join(Author.books)
        .options(contains_eager(Author.books))
        .where(Book.id > a)
        .order_by(Author.id, Book.id)
    ),
    lambda a, b: select(Book).join(Book.author).options(contains_eager(Book.author)).order_by(Book.id),
    lambda a, b: select(Author).options(load_only(Author.name)).order_by(Author.id),
    lambda a, b: select(Author).options(defer(Author.name), undefer(Author.biography)).order_by(Author.id),
    lambda a, b: select(Author).options(defer(Author.name, raiseload=True)).order_by(Author.id),
    lambda a, b: select(Author).options(raiseload(Author.books)).order_by(Author.id),
    lambda a, b: select(Author).options(raiseload("*")).order_by(Author.id),
    lambda a, b: select(Author).options(lazyload(Author.books)).order_by(Author.id),
    lambda a, b: select(Book).options(defaultload(Book.author).load_only(Author.name)).order_by(Book.id),
    lambda a, b: select(Book).options(joinedload(Book.author).load_only(Author.name)).order_by(Book.id),
    lambda a, b: (
        select(Author)
        .options(with_loader_criteria(Book, Book.id > a), selectinload(Author.books))
        .order_by(Author.id)
    ),
    lambda a, b: (
        select(Author)
        .options(with_loader_criteria(Book, lambda cls: cls.id > a), joinedload(Author.books))
        .order_by(Author.id)
    ),
    lambda a, b: select(Passport).order_by(Passport.number),
    lambda a, b: (
        select(Passport)
        .options(joinedload(Passport.stamps), joinedload(Passport.author))
        .order_by(Passport.number)
    ),
    lambda a, b: select(Passport).options(selectinload(Passport.stamps)).order_by(Passport.number),
    lambda a, b: (
        select(Stamp).options(joinedload(Stamp.passport).joinedload(Passport.author)).order_by(Stamp.id)
    ),
    lambda a, b: (
        select(Branch).options(joinedload(Branch.children), joinedload(Branch.parent)).order_by(Branch.id)
    ),
    lambda a, b: (
        select(Branch).options(selectinload(Branch.children, recursion_depth=2)).where(Branch.id == 1)
    ),
    lambda a, b: (
        select(Branch)
        .options(selectinload(Branch.children).selectinload(Branch.children))
        .order_by(Branch.id)
    ),
    lambda a, b: select(Animal).order_by(Animal.id),
    lambda a, b: select(Dog).order_by(Dog.id),
    lambda a, b: select(Fish).order_by(Fish.id),
    lambda a, b: select(Animal).options(selectin_polymorphic(Animal, [Dog])).order_by(Animal.id),
    lambda a, b: select(with_polymorphic(Animal, [Dog])).order_by("id"),
    lambda a, b: select(Animal).options(joinedload(Animal.keeper)).order_by(Animal.id),
    lambda a, b: select(Gadget).order_by(Gadget.id),
    lambda a, b: select(Spot).order_by(Spot.id),
    lambda a, b: select(Spot.place).order_by(Spot.id),
    lambda a, b: select(Bundle("pair", Book.id, Book.title)).order_by(Book.id),
    lambda a, b: select(Bundle("pair", Book.id, Book.title), Book).order_by(Book.id),
    lambda a, b: select(aliased(Book, name="other")).order_by("id"),
    lambda a, b: _two_aliases(a),
    lambda a, b: _from_subquery(a),
    lambda a, b: _from_cte(a),
    lambda a, b: _from_union(a, b),
    lambda a, b: union_all(select(Book.id), select(Tag.id)).order_by("id"),
    lambda a, b: select(tagged).order_by(tagged.c.book_id, tagged.c.tag_id),
    lambda a, b: select(tagged.c.tag_id, func.count()).group_by(tagged.c.tag_id).order_by(tagged.c.tag_id),
    lambda a, b: select(Book.__table__.c.title).where(Book.__table__.c.id == a),
    lambda a, b: select(literal(a), literal("x")),
    lambda a, b: select(Book).with_for_update().where(Book.id == a),
    lambda a, b: (
        select(Book)
        .where(and_(Book.id > a, Book.id < a + b))
        .execution_options(populate_existing=True)
        .order_by(Book.id)
    ),
    lambda a, b: (
        select(Author)
        .execution_options(populate_existing=True)
        .options(joinedload(Author.books))
        .order_by(Author.id)
    ),
    lambda a, b: select(Author).execution_options(autoflush=False).order_by(Author.id),
    lambda a, b: select(Author.books).where(Author.id == a),
    lambda a, b: select(Book, Book).order_by(Book.id),
    lambda a, b: select(Author.name, Author.name).order_by(Author.id),
    lambda a, b: select(Author).where(Author.id.is_(None)),
    lambda a, b: select(func.no_such_function(Author.id)),
    lambda a, b: select(Passport).where(
        tuple_(Passport.country, Passport.number).in_([("xy", a), ("xy", b)])
    ),
]


def _two_aliases(a: int) -> Any:
    one, two = aliased(Book), aliased(Book)
    return (
        select(one, two)
        .join(two, one.author_id == two.author_id)
        .where(one.id < two.id)
        .order_by(one.id, two.id)
    )


def _from_subquery(a: int) -> Any:
    inner = select(Book).where(Book.id > a).subquery()
    return select(aliased(Book, inner)).order_by("id")


def _from_cte(a: int) -> Any:
    busy = select(Book.author_id, func.count().label("n")).group_by(Book.author_id).cte("busy")
    return select(Author, busy.c.n).join(busy, busy.c.author_id == Author.id).order_by(Author.id)


def _from_union(a: int, b: int) -> Any:
    both = union(select(Book).where(Book.id == a), select(Book).where(Book.id == b)).subquery()
    return select(aliased(Book, both)).order_by("id")
