"""What models and the data that enters and leaves by them inherit from.

No session is known here: a model is mapped, a DTO reads attributes, and neither waits for a database.
"""

import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, cast
from uuid import UUID

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo
from sqlalchemy import event, inspect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstanceState, RelationshipProperty, registry
from sqlalchemy.orm.interfaces import EXT_CONTINUE
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import DateTime
from sqlalchemy.util.concurrency import in_greenlet
from sqlmodel import Field, SQLModel
from sqlmodel.main import SQLModelMetaclass
from typing_extensions import Format, get_annotations

from catalysis.errors import AttributeNotLoaded, ModelError, RelationshipNotLoaded
from catalysis.events import origin_of

NAMING_CONVENTION = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Names for constraints, for `MetaData(naming_convention=…)` or `SQLModel.metadata.naming_convention`.

A migration can only drop what has a name, and the two databases name the unnamed differently.
"""

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:

    def uuid7() -> UUID:
        """A UUID of version 7: milliseconds since 1970, twelve bits of the fraction, 62 random bits.

        Source: RFC 9562, sections 5.7 and 6.2 (method 3).
        """
        milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
        fraction = nanoseconds * 4096 // 1_000_000
        version, variant = 7, 0b10
        return UUID(
            int=milliseconds << 80 | version << 76 | fraction << 64 | variant << 62 | secrets.randbits(62)
        )


class _DatabaseClock(FunctionElement[datetime]):
    """The current time, for rows that arrive by plain SQL; on SQLite with the microseconds we store."""

    type = DateTime(timezone=True)
    inherit_cache = True


@compiles(_DatabaseClock)
def _now(element: _DatabaseClock, compiler: Any, **_: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(_DatabaseClock, "sqlite")
def _now_on_sqlite(element: _DatabaseClock, compiler: Any, **_: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"


def _flush_clock() -> datetime:
    return datetime.now(UTC)


class _NeedsATable:
    """`__clause_element__` of an unmapped model: says so, where SQLAlchemy would only say it expected a column.

    SQLAlchemy asks every argument of `select()`, `join()`… for this attribute before anything else.
    """

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        if instance is None and inspect(owner, raiseerr=False) is None:
            raise ModelError(
                f"{owner.__name__} is used in a statement but has no table.  Add table=True: "
                f"`class {owner.__name__}({owner.__bases__[0].__name__}, table=True)`."
            )
        raise AttributeError("__clause_element__")


class _RegistryOfModel:
    """`Model.registry`, as SQLAlchemy's own declarative bases have it; SQLModel keeps it under a private name.

    It gives way to a field called `registry`, in whose place Pydantic would otherwise find this as the default.
    """

    def __get__(self, instance: object, owner: Any) -> registry:
        models = owner.__mro__[: owner.__mro__.index(ModelWithIdAndTimestamps)]
        if any("registry" in get_annotations(each, format=Format.FORWARDREF) for each in models):
            raise AttributeError("registry")
        return owner._sa_registry


if TYPE_CHECKING:  # for a type checker, a metaclass of its own would hide what SQLModel's declares
    _ModelMeta = SQLModelMetaclass
else:

    class _ModelMeta(SQLModelMetaclass):
        """SQLModel's metaclass, which also takes `validate=True`."""

        def __new__(
            cls, name: str, bases: Any, namespace: Any, *, validate: bool | None = None, **options: Any
        ) -> Any:
            model = super().__new__(cls, name, bases, namespace, **options)
            if validate is not None:
                type.__setattr__(model, _VALIDATED, validate)
            return model

        def __init__(
            self, name: str, bases: Any, namespace: Any, *, validate: bool | None = None, **options: Any
        ) -> None:
            super().__init__(name, bases, namespace, **options)


_VALIDATED = "__catalysis_validated__"


def is_validated(model: type[Any]) -> bool:
    """Whether a table model, or the nearest base that says so, was declared with `validate=True`."""
    return getattr(model, _VALIDATED, False)


class ModelWithIdAndTimestamps(SQLModel, metaclass=_ModelMeta):
    """Base of models with a UUID key and three times, all aware (a naive datetime is refused on its way in).

    The key is a UUIDv7, made on construction: keys grow with time, so new rows land on the last pages of the
    index instead of all over it, and no round trip is needed to know one.  `created_at` and `updated_at` are set
    by the flush, `updated_at` again by every update, set-based ones included; rows that arrive by plain SQL get
    the database's clock.  `deleted_at` is a plain column until the model also inherits `SoftDelete`.

    With `validate=True` beside `table=True`, Pydantic validates what the constructor is given, as it does for
    models without a table (SQLModel validates no table model); a foreign key that is missing is taken from the
    related instance that is given.
    """

    __mapper_args__: ClassVar[dict[str, Any]] = {"eager_defaults": True}
    __clause_element__: ClassVar[_NeedsATable] = _NeedsATable()

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    created_at: datetime = Field(
        default=None,
        nullable=False,
        sa_column_kwargs={"default": _flush_clock, "server_default": _DatabaseClock()},
    )
    updated_at: datetime = Field(
        default=None,
        nullable=False,
        sa_column_kwargs={
            "default": _flush_clock,
            "onupdate": _flush_clock,
            "server_default": _DatabaseClock(),
        },
    )
    deleted_at: datetime | None = Field(default=None)

    if not TYPE_CHECKING:  # a type checker would take it for every attribute

        def __getattr__(self, name: str) -> Any:
            if name == "__clause_element__":  # Pydantic asks the class then, and an instance is a mere value
                raise AttributeError(name)
            return super().__getattr__(name)


# Declared in the class it would be a ClassVar, and Pydantic lets no subclass make a field of one.
ModelWithIdAndTimestamps.registry = _RegistryOfModel()  # pyright: ignore[reportAttributeAccessIssue] - as above


@event.listens_for(ModelWithIdAndTimestamps, "before_update", propagate=True, raw=True, retval=True)
def _keep_times(mapper: Any, connection: Any, state: Any) -> Any:
    """A new instance that is merged into a row brings None for the times, which would overwrite them."""
    now = state.dict
    if now.get("created_at", state) is None:
        before: Any = state.attrs.created_at.history.deleted
        state.obj().created_at = before[0] if before else _flush_clock()
    if now.get("updated_at", state) is None:
        state.obj().updated_at = _flush_clock()
    return EXT_CONTINUE


def lacks_times(values: Mapping[str, Any]) -> bool:
    """Whether `_keep_times` would have to do something about an instance with these values."""
    return values.get("created_at", True) is None or values.get("updated_at", True) is None


OWN_MAPPER_HOOKS = frozenset({_keep_times})
"""Listeners of a mapper's rows that use no connection."""


class DTO(BaseModel):
    """Base of the data that enters and leaves the application: built from keywords, JSON or an object's attributes.

    Unknown keys are refused, so that a body cannot set what was not offered (mass assignment).  Reading a
    mapped object never loads anything: a field whose relationship no query loaded raises.  A field that reads a
    property which needs one raises Pydantic's own `ValidationError`, with the error's text in it.

    Raises:
        RelationshipNotLoaded: from validation, naming the relationship and the option that loads it.
        AttributeNotLoaded: the same for an expired or deferred column.
    """

    model_config = ConfigDict(from_attributes=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _read_only_what_is_loaded(cls, data: Any) -> Any:
        state: Any = inspect(data, raiseerr=False)
        if getattr(state, "is_instance", False) and state.has_identity and (unloaded := state.unloaded):
            if state.session is not None and in_greenlet():
                return data  # in a managed scope the read waits
            for name, field in cls.model_fields.items():
                for read in _names_read(name, field, cls.model_config):
                    if read in unloaded:
                        raise not_loaded(state, read, f"{cls.__name__} reads it where {NO_WAIT}")
                    if read in state.dict or hasattr(state.class_, read):
                        break  # Pydantic takes the first it finds
        return data


def _names_read(name: str, field: FieldInfo, config: ConfigDict) -> Iterator[str]:
    """The attributes Pydantic looks a field up under, in its order."""
    alias = field.validation_alias
    if alias is not None and config.get("validate_by_alias", True):
        for each in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            yield str(each.path[0]) if isinstance(each, AliasPath) else each
    if alias is None or config.get("populate_by_name") or config.get("validate_by_name"):
        yield name


NO_WAIT = "nothing can wait for the database"


def not_loaded(state: InstanceState[Any], name: str, occasion: str) -> AttributeNotLoaded:
    """The error for an attribute that is not there and must not be waited for, with the line that mends it."""
    owner = state.mapper.class_.__name__
    relation = state.mapper.relationships.get(name)
    origin = origin_of(state.runid)
    source = f"\n{owner} was loaded by {origin}" if origin else ""
    if relation is None:
        return AttributeNotLoaded(
            f"{owner}.{name} is expired or deferred, and {occasion}.  Load it first: "
            f"`await session.refresh({owner.lower()}, ['{name}'])`, or undefer({owner}.{name}).{source}"
        )
    return RelationshipNotLoaded(
        f"{owner}.{name} was not loaded, and {occasion}.  Add {_option_for(state, relation)}, or "
        f"`await load({owner.lower()}, {owner}.{name})` before.{source}"
    )


def _option_for(state: InstanceState[Any], relation: Any) -> str:
    """The loader option, from the statement's own entity on, and where it goes."""
    option, owner = "selectinload" if relation.uselist else "joinedload", state.mapper.class_.__name__
    root, *path = cast("Any", state).load_path.path or (state.mapper,)
    if root.is_aliased_class:
        return f"{option}() of {relation.key}, from your alias of {owner}, to the statement that loads it"
    leading = [f"defaultload({each})." for each in path if isinstance(each, RelationshipProperty)]
    chain = f"{''.join(leading)}{option}({owner}.{relation.key})"
    return f".options({chain}) to the statement that loads {root.class_.__name__}"
