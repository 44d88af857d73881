"""A DTO reads what is loaded and says what is not, under whatever name it reads it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import AliasChoices, AliasPath, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlmodel import select

from catalysis import DTO, Database, RelationshipNotLoaded


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    pet_list: Mapped[list["Pet"]] = relationship()

    @property
    def pet_count(self) -> int:
        return len(self.pet_list)

    @property
    def shown(self) -> int:
        return self.id


class Pet(Base):
    __tablename__ = "pet"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))


class PetDTO(DTO):
    id: int


class ByName(DTO):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    pet_list: list[PetDTO]


class ByAlias(DTO):
    pets: list[PetDTO] = Field(alias="pet_list")


class ByChoice(DTO):
    pets: list[PetDTO] = Field(validation_alias=AliasChoices("pets", "pet_list"))


class ByPath(DTO):
    first: PetDTO = Field(validation_alias=AliasPath("pet_list", 0))


class ByChoiceOfPath(DTO):
    first: PetDTO = Field(validation_alias=AliasChoices("first", AliasPath("pet_list", 0)))


class Elsewhere(DTO):
    pet_list: int = Field(validation_alias="shown")


class FirstChoice(DTO):
    number: int = Field(validation_alias=AliasChoices("shown", "pet_list"))


class Counted(DTO):
    pet_count: int


@pytest.fixture
async def owner(backend_url: str) -> AsyncIterator[Owner]:
    database = Database(backend_url)
    await database.create_all(Base.metadata)
    async with database.session() as session:
        session.add(Owner(id=7, pet_list=[Pet(id=1)]))
        await session.commit()
    async with database.session() as session:
        yield (await session.exec(select(Owner))).one()
    await database.close()


@pytest.mark.parametrize("dto", [ByName, ByAlias, ByChoice, ByPath, ByChoiceOfPath])
async def test_what_is_not_loaded_is_named(owner: Owner, dto: type[DTO]):
    with pytest.raises(
        RelationshipNotLoaded, match=rf"Owner\.pet_list was not loaded, and {dto.__name__} reads"
    ):
        dto.model_validate(owner)


async def test_what_is_not_read_need_not_be_loaded(owner: Owner):
    assert Elsewhere.model_validate(owner).pet_list == 7
    assert FirstChoice.model_validate(owner).number == 7


async def test_a_property_that_needs_a_relationship_says_so(owner: Owner):
    with pytest.raises(ValidationError, match=r"RelationshipNotLoaded: Owner\.pet_list was not loaded"):
        Counted.model_validate(owner)


@pytest.mark.parametrize("dto", [ByName, ByAlias, ByChoice, ByPath, ByChoiceOfPath, Counted])
def test_what_is_loaded_is_read(dto: Any):
    assert dto.model_validate(Owner(id=7, pet_list=[Pet(id=1)]))
