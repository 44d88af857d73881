"""A generated constructor makes what SQLModel's makes."""

from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, field_validator
from sqlalchemy import JSON, event, inspect
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import registry, validates
from sqlmodel import Field, Relationship, SQLModel

from catalysis import ModelWithIdAndTimestamps

made = iter(range(10**9))


class Plain(SQLModel, registry=registry()):
    """The models here have a registry of their own."""


class Parcel(Plain, table=True):
    """Every kind of field: required, optional, with a default, a copied default, a factory."""

    id: int | None = Field(default=None, primary_key=True)
    label: str
    weight: float = 1.5
    marks: dict[str, Any] = Field(default={"fragile": [True]}, sa_type=JSON)
    number: int = Field(default_factory=lambda: next(made))
    sender_id: int | None = Field(default=None, foreign_key="sender.id")
    sender: "Sender" = Relationship(back_populates="parcels")


class Sender(Plain, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    parcels: list[Parcel] = Relationship(back_populates="sender")


class Heavy(Plain, table=True):
    """Its attribute is listened to, so that it keeps SQLModel's constructor."""

    id: int | None = Field(default=None, primary_key=True)
    weight: float

    @validates("weight")
    def check(self, key: str, weight: float) -> float:
        if weight > 1000:
            raise ValueError("too heavy")
        return weight


class Simple(Plain, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str


class Changing(Plain, table=True):
    id: int | None = Field(default=None, primary_key=True)
    marks: dict[str, int] = Field(default={}, sa_type=MutableDict.as_mutable(JSON()))


inspect(Sender).attrs  # noqa: B018 - configures the mappers


def stock(model: type[Any], **values: Any) -> Any:
    """Made by the constructor that SQLAlchemy put around SQLModel's."""
    instance: Any = cast("Any", model).__new__(model)
    constructor: Any = model.__init__
    constructor._sa_original_init(instance, **values)
    return instance


def is_generated(model: Any) -> bool:
    return model.__init__.__code__.co_filename.startswith("<constructor")


def seen(instance: Any) -> Any:
    state: Any = inspect(instance)
    return (
        [(name, value) for name, value in instance.__dict__.items() if name != "_sa_instance_state"],
        instance.model_fields_set,
        instance.__pydantic_extra__,
        instance.__pydantic_private__,
        dict(state.committed_state),
        state.modified,
        state.transient,
        {each.key: each.history for each in state.attrs},
        instance.model_dump(),
    )


VALUES: dict[str, Any] = {
    "id": 7,
    "label": "fresh",
    "weight": 2.5,
    "marks": None,
    "number": 3,
    "sender_id": 9,
    "sender": None,
    "unknown": "ignored",
}


@given(st.sets(st.sampled_from([*VALUES])))
def test_makes_what_sqlmodel_makes(names: set[str]) -> None:
    values = {name: VALUES[name] for name in sorted(names)}
    if "number" not in values:
        values["number"] = 5
    assert is_generated(Parcel)
    ours, theirs = seen(Parcel(**values)), seen(stock(Parcel, **values))
    assert ours == theirs


def test_defaults_are_copied_and_factories_called() -> None:
    one, other = Parcel(label="a"), Parcel(label="b")
    assert one.marks == other.marks
    assert one.marks is not other.marks
    assert other.number == one.number + 1
    assert one.model_fields_set == {"label"}


def test_relationships_tell_their_other_side() -> None:
    sender = Sender(name="Ada")
    parcel = Parcel(label="a", sender=sender)
    assert sender.parcels == [parcel]
    assert Sender(name="Bo", parcels=[parcel]).parcels == [parcel]
    assert sender.parcels == []


def test_a_validator_keeps_sqlmodels_constructor() -> None:
    assert not is_generated(Heavy)
    with pytest.raises(ValueError, match="too heavy"):
        Heavy(weight=2000)


def test_a_mutable_type_is_told_of_what_it_is_given() -> None:
    assert seen(Changing(marks={"a": 1})) == seen(stock(Changing, marks={"a": 1}))


def test_who_begins_to_listen_is_heard() -> None:
    class Later(Plain, table=True):
        id: int | None = Field(default=None, primary_key=True)
        name: str = ""

    Later(name="before")
    assert is_generated(Later)
    heard = list[Any]()

    @event.listens_for(Later.name, "set")
    def changed(target: Any, value: Any, before: Any, initiator: Any) -> None:
        heard.append(value)

    @event.listens_for(Later, "init")
    def began(target: Any, args: Any, values: Any) -> None:
        values["name"] = values["name"].upper()

    assert Later(name="after").name == "AFTER"
    assert heard == ["AFTER"]


def test_a_subclass_without_a_table_is_made_by_sqlmodel() -> None:
    class Special(Heavy):
        pass

    assert Special(weight=1).weight == 1


def test_a_failing_factory_is_told_of_and_raised() -> None:
    def fail() -> int:
        raise ValueError("no number")

    class Failing(Plain, table=True):
        id: int | None = Field(default=None, primary_key=True)
        number: int = Field(default_factory=fail)

    with pytest.raises(ValueError, match="no number"):
        Failing()  # configures the mapper
    failed = list[Any]()

    def note(target: Any, args: Any, values: Any) -> None:
        failed.append(values)

    event.listen(Failing, "init_failure", note)
    with pytest.raises(ValueError, match="no number"):
        Failing(id=1)
    assert failed == [{"id": 1}]


def test_model_validate_validates_once() -> None:
    assert Parcel.model_validate({"label": "a", "weight": "2"}).weight == 2
    with pytest.raises(ValidationError):
        Parcel.model_validate({"weight": "x"})


# --- validate=True --------------------------------------------------------------------------------


class Checked(ModelWithIdAndTimestamps, registry=registry(), validate=True):
    pass


class Owner(Checked, table=True):
    name: str = Field(max_length=5)
    born: datetime | None = None

    @field_validator("name")
    @classmethod
    def capital(cls, name: str) -> str:
        return name.capitalize()


class Pet(Checked, table=True):
    owner_id: UUID = Field(foreign_key="owner.id")
    owner: Owner = Relationship()


class Loose(Checked, table=True, validate=False):
    name: str = Field(max_length=5)


def test_validated_models_validate_when_constructed() -> None:
    owner = Owner(name="ada", born="2000-01-01T00:00:00Z")  # pyright: ignore[reportArgumentType]
    assert owner.name == "Ada"
    assert owner.born == datetime(2000, 1, 1, tzinfo=UTC)
    assert owner.model_fields_set == {"name", "born"}
    assert inspect(owner).modified
    with pytest.raises(ValidationError, match="at most 5"):
        Owner(name="far too long")
    with pytest.raises(ValidationError, match="name"):
        Owner()  # pyright: ignore[reportCallIssue]
    assert Loose(name="far too long").name == "far too long"
    assert Owner.model_validate({"name": "bo"}).name == "Bo"


def test_a_related_instance_stands_for_its_foreign_key() -> None:
    owner = Owner(name="ada")
    pet = Pet(owner=owner)  # pyright: ignore[reportCallIssue]
    assert pet.owner is owner
    assert pet.owner_id == owner.id
    with pytest.raises(ValidationError, match="owner_id"):
        Pet()  # pyright: ignore[reportCallIssue]
    assert Pet(owner_id=uuid4()).owner_id != owner.id
