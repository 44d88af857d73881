"""Models with all that a mapping can have to say about writing, and a few rows of each; see FAMILIES.

What one backend has and the other has not (arrays, BEFORE triggers that change a row) is the nearest thing there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DDL,
    JSON,
    CheckConstraint,
    Column,
    Computed,
    FetchedValue,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
    UniqueConstraint,
    event,
    func,
    insert,
    literal_column,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.ext.orderinglist import ordering_list
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    composite,
    deferred,
    mapped_column,
    reconstructor,
    relationship,
    synonym,
    validates,
)
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, Relationship, SQLModel

from catalysis.models import ModelWithIdAndTimestamps
from tests.differential.models import Mood, Point, Upper

# ruff: noqa: A003 - in a class body, `id` is the column


class Counter:
    """What is generated comes from here, and starts anew with each program: both sides get the same."""

    def __init__(self) -> None:
        self.value = self.hashes = 0
        self.log: list[Any] = []

    def next(self) -> int:
        self.value += 1
        return self.value

    def skip(self) -> None:
        """Go on from the next thousand, wherever it was."""
        self.value += -self.value % 1000

    def hash(self) -> int:
        self.hashes += 1
        return self.hashes

    def uuid(self) -> UUID:
        return UUID(int=self.next())

    def heard(self, *what: Any) -> None:
        self.log.append(what)


counter = Counter()


@contextmanager
def counted() -> Iterator[None]:
    """Start the counter anew; the clock and the keys of `ModelWithIdAndTimestamps` come from it too."""
    counter.__init__()
    counter.value = 1000  # what the rows have taken is below

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 1, 1, tzinfo=tz) + timedelta(seconds=counter.next())

    with (
        mock.patch("catalysis.models.datetime", Clock),
        mock.patch("catalysis.models.time", SimpleNamespace(time_ns=lambda: counter.next() * 1_000_000)),
        mock.patch("catalysis.models.secrets", SimpleNamespace(randbits=lambda bits: counter.next())),
    ):
        yield


class Base(DeclarativeBase):
    pass


class Hashed:
    """Walked in one order where it is held in a set."""

    def __hash__(self) -> int:
        if "_number" not in self.__dict__:
            self.__dict__["_number"] = counter.hash()
        return self.__dict__["_number"]


class SQLModelBase(SQLModel, registry=Base.registry):
    metadata = Base.metadata


class TimedBase(ModelWithIdAndTimestamps, registry=Base.registry):
    metadata = Base.metadata


class Folded(TypeDecorator[str]):
    """Folded by the database on its way in and out."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.lower(bindparam, type_=String)

    def column_expression(self, column: Any) -> Any:
        return func.upper(column, type_=String)


class Picky(TypeDecorator[str]):
    """Some values cannot be read back, after they have been written."""

    impl = String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        if value == "NAME 5":
            raise ValueError("unreadable")
        return value


# --- Defaults: in Python, in the database, at an update


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    balance: Mapped[int] = mapped_column(default=10)
    title: Mapped[str | None] = mapped_column("title of", default="mr", key="title_of")
    copied: Mapped[str | None] = mapped_column(
        default=lambda context: f"copy of {context.get_current_parameters()['name']}"
    )
    serial: Mapped[int | None] = mapped_column(default=counter.next, onupdate=counter.next)
    level: Mapped[int] = mapped_column(server_default="1")
    expression: Mapped[int | None] = mapped_column(default=literal_column("3 + 4"))
    doubled: Mapped[int | None] = mapped_column(Computed("balance * 2", persisted=True))
    notes: Mapped[Any] = mapped_column(MutableDict.as_mutable(JSON()), nullable=True)
    __table_args__ = (CheckConstraint("balance >= 3", name="ck_balance"),)


class Eager(Base):
    __tablename__ = "eager"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    level: Mapped[int] = mapped_column(server_default="1")
    changes: Mapped[int | None] = mapped_column(server_default="0", onupdate=literal_column("changes + 1"))
    doubled: Mapped[int | None] = mapped_column(Computed("level * 2", persisted=True))
    serial: Mapped[int | None] = mapped_column(onupdate=counter.next)
    __mapper_args__ = {"eager_defaults": True}


class Reread(Base):
    """What is written comes back changed, or not at all."""

    __tablename__ = "reread"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    loud: Mapped[str | None] = mapped_column(Picky(20), Computed("upper(name)", persisted=True))
    __mapper_args__ = {"eager_defaults": True}


class Lazy(Base):
    __tablename__ = "lazy"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    level: Mapped[int] = mapped_column(server_default="1")
    changes: Mapped[int | None] = mapped_column(server_default="0", onupdate=literal_column("changes + 1"))
    fetched: Mapped[int | None] = mapped_column(server_default="5", server_onupdate=FetchedValue())
    __mapper_args__ = {"eager_defaults": False}


class Plain(Base):
    """Without RETURNING, and one statement for each."""

    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    level: Mapped[int] = mapped_column(server_default="1")
    __table_args__ = {"implicit_returning": False}


class Numbered(Base):
    __tablename__ = "numbered"
    id: Mapped[int] = mapped_column(Identity(start=200, always=False), primary_key=True)
    name: Mapped[str | None]


class Ticket(SQLModelBase, table=True):
    __tablename__ = "ticket"
    id: UUID = Field(default_factory=counter.uuid, primary_key=True)
    name: str = Field(unique=True)
    price: float | None = None
    seats: int = 2
    desk_id: int | None = Field(default=None, foreign_key="desk.id")
    desk: "Desk" = Relationship(back_populates="tickets")


class Desk(SQLModelBase, table=True):
    __tablename__ = "desk"
    id: int | None = Field(default=None, primary_key=True)
    name: str = "front"
    opened: int | None = Field(default=None, sa_column_kwargs={"server_default": "4"})
    tickets: list[Ticket] = Relationship(
        back_populates="desk", sa_relationship_kwargs={"cascade": "all, delete-orphan", "order_by": Ticket.id}
    )


class Memo(TimedBase, table=True):
    __tablename__ = "memo"
    name: str
    price: float | None = None


class Card(MappedAsDataclass, Base):
    __tablename__ = "card"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str] = mapped_column(default="joker")
    level: Mapped[int | None] = mapped_column(default=8)


# --- Types


class Sample(Base):
    __tablename__ = "sample"
    id: Mapped[int] = mapped_column(primary_key=True)
    mood: Mapped[Mood | None]
    price: Mapped[Any] = mapped_column(Numeric(8, 2), nullable=True)
    blob: Mapped[bytes | None] = mapped_column(LargeBinary)
    upper: Mapped[str | None] = mapped_column(Upper(20))
    folded: Mapped[str | None] = mapped_column(Folded(20))
    document: Mapped[Any] = mapped_column(JSON, nullable=True)
    nullish: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)
    kept: Mapped[str | None] = mapped_column(String(20).evaluates_none(), server_default="kept")
    day: Mapped[datetime | None]
    size: Mapped[int | None]
    essay: Mapped[str | None] = deferred(mapped_column(String))
    x: Mapped[int | None]
    y: Mapped[int | None]
    place: Mapped[Point] = composite(Point, "x", "y")
    length: Mapped[int | None] = synonym("size")

    @validates("size")
    def check_size(self, name: str, value: Any) -> Any:
        if value == 9:
            raise ValueError("9 is too much")
        return 80 if value == 8 else value


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    numbers: Mapped[Any] = mapped_column(
        MutableList.as_mutable(JSON().with_variant(ARRAY(Integer), "postgresql")), nullable=True
    )
    data: Mapped[Any] = mapped_column(
        MutableDict.as_mutable(JSON().with_variant(JSONB(), "postgresql")), nullable=True
    )


class Odd(Base):
    """Names that have to be quoted."""

    __tablename__ = "odd table"
    id: Mapped[int] = mapped_column("the:id", primary_key=True)
    order: Mapped[int | None] = mapped_column("order", server_default="6")
    percent: Mapped[str | None] = mapped_column("per%cent (x)")
    colon: Mapped[str | None] = mapped_column("a:b.c", onupdate="updated")


# --- Versions


class Counted(Base):
    __tablename__ = "counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(unique=True)
    level: Mapped[int] = mapped_column(server_default="1")
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}


class Stamped(Base):
    __tablename__ = "stamped"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=counter.uuid)
    name: Mapped[str | None]
    version: Mapped[str] = mapped_column()
    __mapper_args__ = {
        "version_id_col": version,
        "version_id_generator": lambda before: f"{before or ''}{counter.next() % 10}"[-9:],
    }


class Served(Base):
    """Counted by the database: on PostgreSQL by a trigger, on SQLite not at all."""

    __tablename__ = "served"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    version: Mapped[int] = mapped_column(server_default="1", server_onupdate=FetchedValue())
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}


# --- Cascades


class Parent(Base):
    __tablename__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    children: Mapped[list["Child"]] = relationship(
        back_populates="parent", cascade="all, delete-orphan", order_by="Child.id"
    )


class Child(Base):
    __tablename__ = "child"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(unique=True)
    balance: Mapped[int] = mapped_column(default=1)
    parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))
    parent: Mapped[Parent] = relationship(back_populates="children")
    badge_id: Mapped[int | None] = mapped_column(ForeignKey("badge.id"))
    badge: Mapped["Badge | None"] = relationship(cascade="all, delete-orphan", single_parent=True)
    toys: Mapped[set["Toy"]] = relationship(cascade="all, delete-orphan")
    __table_args__ = (CheckConstraint("balance < 7", name="ck_child"),)


class Badge(Base):
    __tablename__ = "badge"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]


class Toy(Hashed, Base):
    __tablename__ = "toy"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    child_id: Mapped[int | None] = mapped_column(ForeignKey("child.id"))


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    things: Mapped[list["Thing"]] = relationship(
        back_populates="owner", cascade="all, delete-orphan", passive_deletes=True, order_by="Thing.id"
    )
    loose: Mapped[list["Loose"]] = relationship(
        back_populates="owner", passive_deletes="all", order_by="Loose.id"
    )
    pass_: Mapped["Pass | None"] = relationship(back_populates="owner", cascade="all, delete-orphan")


class Thing(Base):
    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id", ondelete="CASCADE"))
    owner: Mapped[Owner | None] = relationship(back_populates="things")
    __mapper_args__ = {"confirm_deleted_rows": False}


class Loose(Base):
    __tablename__ = "loose"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id", ondelete="SET NULL"))
    owner: Mapped[Owner | None] = relationship(back_populates="loose")


class Pass(Base):
    """One to one, under a composite key."""

    __tablename__ = "pass"
    country: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"), unique=True)
    owner: Mapped[Owner | None] = relationship(back_populates="pass_")
    stamps: Mapped[list["Visa"]] = relationship(back_populates="pass_", passive_updates=True)


class Visa(Base):
    __tablename__ = "visa"
    id: Mapped[int] = mapped_column(primary_key=True)
    country: Mapped[str | None]
    number: Mapped[int | None]
    pass_: Mapped[Pass | None] = relationship(back_populates="stamps")
    __table_args__ = (
        ForeignKeyConstraint(
            ["country", "number"], ["pass.country", "pass.number"], onupdate="CASCADE", ondelete="SET NULL"
        ),
    )


# --- Many to many


attends = Table(
    "attends",
    Base.metadata,
    Column("student_id", ForeignKey("student.id"), primary_key=True),
    Column("course_id", ForeignKey("course.id"), primary_key=True),
    Column("since", Integer, server_default="3"),
)


class Student(Hashed, Base):
    __tablename__ = "student"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    courses: Mapped[list["Course"]] = relationship(
        secondary=attends, back_populates="students", order_by="Course.id"
    )
    grades: Mapped[list["Grade"]] = relationship(
        back_populates="student", cascade="all, delete-orphan", order_by="Grade.course_id"
    )
    graded: AssociationProxy[list["Course"]] = association_proxy(
        "grades", "course", creator=lambda course: Grade(course=course, mark=5)
    )


class Course(Base):
    __tablename__ = "course"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    students: Mapped[set[Student]] = relationship(secondary=attends, back_populates="courses")


class Grade(Base):
    __tablename__ = "grade"
    student_id: Mapped[int] = mapped_column(ForeignKey("student.id"), primary_key=True)
    course_id: Mapped[int] = mapped_column(ForeignKey("course.id"), primary_key=True)
    mark: Mapped[int | None]
    student: Mapped[Student] = relationship(back_populates="grades")
    course: Mapped[Course] = relationship()


class Playlist(Base):
    __tablename__ = "playlist"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    tracks: Mapped[list["Track"]] = relationship(
        order_by="Track.position", collection_class=ordering_list("position"), cascade="all, delete-orphan"
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.made = True

    @reconstructor
    def loaded(self) -> None:
        self.made = False


class Track(Base):
    __tablename__ = "track"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    position: Mapped[int | None]
    playlist_id: Mapped[int | None] = mapped_column(ForeignKey("playlist.id"))


# --- Cycles


class Node(Base):
    __tablename__ = "node"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("node.id"))
    favourite_id: Mapped[int | None] = mapped_column(ForeignKey("node.id"))
    parent: Mapped["Node | None"] = relationship(
        back_populates="children",
        remote_side=id,
        foreign_keys=parent_id,
    )
    children: Mapped[list["Node"]] = relationship(
        back_populates="parent",
        foreign_keys=parent_id,
        order_by=id,
        cascade="all",
    )
    favourite: Mapped["Node | None"] = relationship(
        remote_side=id,
        foreign_keys=favourite_id,
        post_update=True,
    )


class Person(Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    best_id: Mapped[int | None] = mapped_column(ForeignKey("ball.id", name="fk_best", use_alter=True))
    best: Mapped["Ball | None"] = relationship(foreign_keys=best_id, post_update=True)
    balls: Mapped[list["Ball"]] = relationship(
        back_populates="person", foreign_keys="Ball.person_id", order_by="Ball.id", cascade="all"
    )


class Ball(Base):
    __tablename__ = "ball"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    person_id: Mapped[int | None] = mapped_column(ForeignKey("person.id"))
    person: Mapped[Person | None] = relationship(back_populates="balls", foreign_keys=person_id)


# --- Inheritance


class Garage(Base):
    __tablename__ = "garage"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    vehicles: Mapped[list["Vehicle"]] = relationship(
        back_populates="garage", order_by="Vehicle.id", cascade="all, delete-orphan"
    )


class Vehicle(Base):
    __tablename__ = "vehicle"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str | None]
    version: Mapped[int] = mapped_column()
    garage_id: Mapped[int | None] = mapped_column(ForeignKey("garage.id"))
    garage: Mapped[Garage | None] = relationship(back_populates="vehicles")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle", "version_id_col": version}


class Car(Vehicle):
    __tablename__ = "car"
    id: Mapped[int] = mapped_column(ForeignKey("vehicle.id"), primary_key=True)
    doors: Mapped[int] = mapped_column(server_default="4")
    balance: Mapped[int] = mapped_column(default=3, onupdate=counter.next)
    __table_args__ = (CheckConstraint("doors > 1", name="ck_doors"),)
    __mapper_args__ = {"polymorphic_identity": "car"}


class Taxi(Car):
    __tablename__ = "taxi"
    id: Mapped[int] = mapped_column(ForeignKey("car.id"), primary_key=True)
    sign: Mapped[str | None] = mapped_column("roof sign", unique=True)
    __mapper_args__ = {"polymorphic_identity": "taxi"}


class Cart(Vehicle):
    wheels: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "cart"}


# --- Keys that change


class Country(Base):
    __tablename__ = "country"
    code: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    cities: Mapped[list["City"]] = relationship(back_populates="country", order_by="City.id")


class City(Base):
    __tablename__ = "city"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    country_code: Mapped[str | None] = mapped_column(ForeignKey("country.code", onupdate="CASCADE"))
    country: Mapped[Country | None] = relationship(back_populates="cities")


class Region(Base):
    """Its key is changed in the rows that refer to it by SQLAlchemy, after the fact: the key is deferred."""

    __tablename__ = "region"
    code: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    towns: Mapped[list["Town"]] = relationship(
        back_populates="region", order_by="Town.id", passive_updates=False
    )


class Town(Base):
    __tablename__ = "town"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    region_code: Mapped[str | None] = mapped_column(
        ForeignKey("region.code", deferrable=True, initially="DEFERRED")
    )
    region: Mapped[Region | None] = relationship(back_populates="towns", passive_updates=False)


class Cell(Base):
    """A composite key, all of it given."""

    __tablename__ = "cell"
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    level: Mapped[int] = mapped_column(server_default="1")


# --- Events, triggers, constraints


class Audit(Base):
    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]


class Watched(Base):
    __tablename__ = "watched"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    level: Mapped[int] = mapped_column(server_default="1")
    seen: Mapped[int | None]
    keeper_id: Mapped[int | None] = mapped_column(ForeignKey("watched.id"))
    keeper: Mapped["Watched | None"] = relationship(remote_side=id)


class Sighted(Base):
    """The same without sending anything in an event, and saved one by one."""

    __tablename__ = "sighted"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    __mapper_args__ = {"batch": False}


def _listen(name: str) -> None:
    @event.listens_for(Watched, name)
    def heard_and_sent(mapper: Any, connection: Any, target: Any) -> None:
        counter.heard(name, target.id, target.name)
        if name.startswith("before") and name != "before_delete":
            target.seen = (target.seen or 0) + 1
        if target.name == "name 5":
            raise RuntimeError(f"{name}: 5")
        connection.execute(insert(Audit).values(what=f"{name} {target.name}"))

    @event.listens_for(Sighted, name)
    def heard(mapper: Any, connection: Any, target: Any) -> None:
        counter.heard(name, target.id, target.name)


for _name in (
    "before_insert",
    "after_insert",
    "before_update",
    "after_update",
    "before_delete",
    "after_delete",
):
    _listen(_name)


@event.listens_for(Sighted, "init")
def _initialised(target: Any, args: Any, values: Any) -> None:
    counter.heard("init", sorted(values))
    if values.get("name") == "name 4":
        values["name"] = "of init"


@event.listens_for(Sighted.name, "set", retval=True)
def _set(target: Any, value: Any, before: Any, initiator: Any) -> Any:
    counter.heard("set", value if isinstance(value, str | None) else "expression")
    return "of set" if value == "name 3" else value


@event.listens_for(Sighted, "refresh_flush")
def _refreshed(target: Any, context: Any, names: Any) -> None:
    counter.heard("refresh_flush", sorted(names or ()))


class Triggered(Base):
    """`name 5` is changed, `name 6` is refused and `name 7` ignored by a trigger."""

    __tablename__ = "triggered"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    level: Mapped[int] = mapped_column(server_default="1")
    __mapper_args__ = {"eager_defaults": True}


class Ignored(Base):
    """The same triggers on a table whose key is given and which has nothing to fetch."""

    __tablename__ = "ignored"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=counter.uuid)
    name: Mapped[str | None]


class Late(Base):
    """What it refers to is looked for at the commit."""

    __tablename__ = "late"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    late_id: Mapped[int | None] = mapped_column(
        ForeignKey("parent.id", deferrable=True, initially="DEFERRED")
    )


class Strict(Base):
    """Every kind of constraint."""

    __tablename__ = "strict"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    level: Mapped[int]
    balance: Mapped[int | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parent.id"))
    __table_args__ = (
        UniqueConstraint("name", "level", name="uq_strict"),
        CheckConstraint("balance <> 5", name="ck_strict"),
    )


def _on(dialect: str, statement: str, table: Any) -> None:
    event.listen(table, "after_create", DDL(statement).execute_if(dialect=dialect))


def _triggers() -> None:
    for table in (Triggered.__table__, Ignored.__table__):
        name: Any = table.name
        _on(
            "postgresql",
            f"""CREATE FUNCTION {name}_before() RETURNS trigger AS $$ BEGIN
                IF TG_OP = 'DELETE' THEN
                    IF OLD.name = 'name 7' THEN RETURN NULL; END IF;
                    RETURN OLD;
                END IF;
                IF NEW.name = 'name 5' THEN NEW.name = 'changed'; END IF;
                IF NEW.name = 'name 6' THEN RAISE EXCEPTION 'refused'; END IF;
                IF NEW.name = 'name 7' THEN RETURN NULL; END IF;
                RETURN NEW;
            END $$ LANGUAGE plpgsql""",
            table,
        )
        _on(
            "postgresql",
            f"CREATE TRIGGER {name}_t BEFORE INSERT OR UPDATE OR DELETE ON {name} "
            f"FOR EACH ROW EXECUTE FUNCTION {name}_before()",
            table,
        )
        for verb, row in [("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")]:
            _on(
                "sqlite",
                f"CREATE TRIGGER {name}_{verb} BEFORE {verb} ON {name} BEGIN "
                f"SELECT RAISE(ABORT, 'refused') WHERE {row}.name = 'name 6' AND '{verb}' <> 'DELETE'; "
                f"SELECT RAISE(IGNORE) WHERE {row}.name = 'name 7'; END",
                table,
            )
        for verb in ("INSERT", "UPDATE"):
            _on(
                "sqlite",
                f"CREATE TRIGGER {name}_after_{verb} AFTER {verb} ON {name} WHEN NEW.name = 'name 5' "
                f"BEGIN UPDATE {name} SET name = 'changed' WHERE id = NEW.id; END",
                table,
            )
    _on(
        "postgresql",
        """CREATE FUNCTION served_before() RETURNS trigger AS $$ BEGIN
            NEW.version = OLD.version + 1; RETURN NEW; END $$ LANGUAGE plpgsql""",
        Served.__table__,
    )
    _on(
        "postgresql",
        "CREATE TRIGGER served_t BEFORE UPDATE ON served FOR EACH ROW EXECUTE FUNCTION served_before()",
        Served.__table__,
    )


_triggers()

FAMILIES: list[list[Any]] = [
    [Account],
    [Eager, Lazy, Plain, Reread],
    [Numbered, Cell],
    [Ticket, Desk],
    [Memo, Card],
    [Sample],
    [Shelf, Odd],
    [Counted, Stamped, Served],
    [Parent, Child, Badge, Toy],
    [Owner, Thing, Loose, Pass, Visa],
    [Student, Course, Grade],
    [Playlist, Track],
    [Node],
    [Person, Ball],
    [Garage, Vehicle, Car, Taxi, Cart],
    [Country, City],
    [Region, Town],
    [Watched, Sighted],
    [Triggered, Ignored],
    [Late, Parent],
    [Strict, Parent],
]
"""Models that have to do with one another; a program is about one family, or two."""


def rows() -> list[Any]:
    """What every program starts from."""
    counter.__init__()
    few = range(1, 4)
    parents = [Parent(id=n, name=f"parent {n}") for n in few]
    owners = [Owner(id=n, name=f"owner {n}") for n in few]
    students = [Student(id=n, name=f"student {n}") for n in few]
    courses = [Course(id=n, name=f"course {n}", students=set(students[:n])) for n in few]
    nodes = [Node(id=1, name="root")]
    nodes += [Node(id=n, name=f"node {n}", parent=nodes[0], favourite=nodes[0]) for n in (2, 3)]
    people = [Person(id=n, name=f"person {n}") for n in few]
    balls = [Ball(id=n, name=f"ball {n}", person=people[n % 2]) for n in few]
    people[0].best = balls[1]
    garage = Garage(id=1, name="garage")
    countries = [Country(code=f"code {n}", name=f"country {n}") for n in few]
    regions = [Region(code=f"code {n}", name=f"region {n}") for n in few]
    passes = [Pass(country="xy", number=n, owner=owners[n - 1]) for n in (1, 2)]
    return [
        *[Account(id=n, name=f"account {n}", notes={"n": n}) for n in few],
        *[
            model(id=n, name=f"row {n}")
            for n in few
            for model in (Eager, Lazy, Plain, Numbered, Counted, Reread)
        ],
        *[model(name=f"row {n}") for n in few for model in (Stamped, Memo)],
        *[model(id=n, name=f"row {n}") for n in few for model in (Served, Watched, Sighted, Late)],
        *[Triggered(id=n, name=f"row {n}") for n in few],
        *[Ignored(name=f"row {n}") for n in few],
        *[Cell(line=1, place=n, name=f"cell {n}") for n in few],
        *[Desk(id=n, tickets=[Ticket(name=f"ticket {n}")] if n < 3 else []) for n in few],
        *[Card(name=f"card {n}") for n in few],
        *[Sample(id=n, size=n, place=Point(n, 1), upper="UP", document={"n": [n]}) for n in few],
        *[Shelf(id=n, numbers=[n], data={"n": n}) for n in few],
        *[Odd(id=n, percent=f"row {n}") for n in few],
        *[Strict(id=n, name=f"strict {n}", level=n) for n in few],
        *parents,
        *[
            Child(
                id=n,
                name=f"child {n}",
                parent=parents[n % 2],
                badge=Badge(id=n, name=f"badge {n}"),
                toys={Toy(id=n, name="toy")},
            )
            for n in few
        ],
        *owners,
        *[Thing(id=n, name=f"thing {n}", owner=owners[n % 2]) for n in few],
        *[Loose(id=n, name=f"loose {n}", owner=owners[n % 2]) for n in few],
        *passes,
        *[Visa(id=n, pass_=passes[n % 2]) for n in few],
        *students,
        *courses,
        *[Grade(student=students[n - 1], course=courses[0], mark=n) for n in few],
        Playlist(id=1, tracks=[Track(id=n, name=f"track {n}") for n in few]),
        Playlist(id=2),
        *nodes,
        *people,
        *balls,
        garage,
        Vehicle(id=1, name="sled", garage=garage),
        Car(id=2, name="car", garage=garage),
        Taxi(id=3, name="taxi", sign="sign", garage=garage),
        Cart(id=4, name="cart", wheels=2),
        *countries,
        *[City(id=n, name=f"city {n}", country=countries[n % 2]) for n in few],
        *regions,
        *[Town(id=n, name=f"town {n}", region=regions[n % 2]) for n in few],
    ]
