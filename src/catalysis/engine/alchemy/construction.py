"""Constructors generated for SQLModel's table models: what `SQLModel.__init__` does, decided once for a class.

SQLModel walks over the fields of each new instance and sets each through SQLAlchemy and Pydantic.  Where nobody
listens, that comes to filling two dictionaries.  A class whose construction means more keeps SQLModel's.
"""

from collections.abc import Iterator
from typing import Any

from pydantic._internal._utils import smart_deepcopy
from sqlalchemy import event
from sqlalchemy.orm import InstanceState, Mapper, mapperlib
from sqlalchemy.orm.attributes import set_attribute
from sqlalchemy.orm.base import NO_VALUE
from sqlalchemy.util import safe_reraise
from sqlmodel import SQLModel
from sqlmodel._compat import finish_init

from catalysis.engine.alchemy.states import NAMES
from catalysis.models import is_validated

_private: Any = mapperlib
_ORIGINAL = "_sa_original_init"
"""Under this name SQLAlchemy keeps the constructor that it wrapped."""
_OURS = "_catalysis_constructor"
_SHARED = (int, float, complex, str, bytes, bool, type(None), frozenset, type)
"""Defaults of these types are handed out as they are; all others are copied."""


def generate_constructors() -> None:
    """Give each table model the constructor made for it, as soon as it is mapped."""
    if not event.contains(Mapper, "mapper_configured", _when_configured):
        event.listen(Mapper, "after_mapper_constructed", _when_mapped)
        event.listen(Mapper, "mapper_configured", _when_configured)
        for registry in _private._all_registries():
            for mapper in registry.mappers:
                _when_mapped(mapper, mapper.class_)
                if mapper.configured:
                    _when_configured(mapper, mapper.class_)


def _when_mapped(mapper: Any, cls: type[Any]) -> None:
    if (instrumented := _sqlmodels(cls)) is not None and is_validated(cls):
        _install(cls, _validating(cls, instrumented), instrumented)


def _when_configured(mapper: Any, cls: type[Any]) -> None:
    instrumented = _sqlmodels(cls)
    if instrumented is not None and _is_plain(cls, mapper.class_manager):
        constructor = _generated(cls, mapper.class_manager, instrumented)
        _install(cls, _validating(cls, constructor) if is_validated(cls) else constructor, instrumented)


def _sqlmodels(cls: type[Any]) -> Any:
    """The constructor that SQLAlchemy made of SQLModel's for a class; None where it is another's."""
    constructor: Any = cls.__dict__.get("__init__") if issubclass(cls, SQLModel) else None
    first = constructor
    while hasattr(first, _ORIGINAL):
        first = getattr(first, _ORIGINAL)
    if first is not SQLModel.__init__:
        return None
    return getattr(constructor, _ORIGINAL) if hasattr(constructor, _OURS) else constructor


def _install(cls: type[Any], constructor: Any, instrumented: Any) -> None:
    setattr(constructor, _ORIGINAL, instrumented)
    setattr(constructor, _OURS, True)
    type.__setattr__(cls, "__init__", constructor)


# --- What a class must be like --------------------------------------------------------------------


def _is_plain(cls: Any, manager: Any) -> bool:
    """Whether SQLModel's constructor does no more with the class than fill in its columns and relationships."""
    config = cls.model_config
    changed = config.get("validate_assignment") or config.get("frozen") or config.get("extra") == "allow"
    own = cls.__pydantic_post_init__ or cls.__pydantic_root_model__ or cls.__private_attributes__
    return (
        not (changed or own)
        and cls.__setattr__ is SQLModel.__setattr__
        and cls.__new__ is SQLModel.__new__
        and list(manager.dispatch.init) == [_private._event_on_init]
        and manager.mapper._set_polymorphic_identity is None
        and manager._state_constructor is InstanceState
        and all(_is_plain_field(manager, name, field) for name, field in cls.model_fields.items())
    )


def _is_plain_field(manager: Any, name: str, field: Any) -> bool:
    """Whether a field is a column that nobody listens to, and is given by its own name."""
    attribute = manager.get(name)
    return (
        attribute is not None
        and name in manager.mapper.column_attrs
        and attribute.impl.send_modified_events
        and not attribute.impl.collection
        and not attribute.impl.dispatch.set
        and not field.alias
        and not (field.default_factory and field.default_factory_takes_validated_data)
    )


# --- The constructor ------------------------------------------------------------------------------


def _generated(cls: Any, manager: Any, instrumented: Any) -> Any:
    names: dict[str, Any] = {
        "C": cls,
        "instrumented": instrumented,
        "finishes": finish_init.get,
        "registry": manager.registry,
        "manager": manager,
        "heard_init": manager.dispatch.init.listeners,
        "State": InstanceState,
        "NO_VALUE": NO_VALUE,
        "set_attribute": set_attribute,
        "set_fields_set": NAMES["set_fields_set"],
        "safe_reraise": safe_reraise,
        "smart_deepcopy": smart_deepcopy,
    }
    source = "\n".join(_lines(cls, manager, names))
    exec(compile(source, f"<constructor of {cls.__qualname__}>", "exec"), names)  # noqa: S102 - our own source
    return names["__init__"]


def _lines(cls: Any, manager: Any, names: dict[str, Any]) -> Iterator[str]:
    fields = cls.model_fields
    unheard = list[str]()
    for n, name in enumerate(fields):
        names[f"D{n}"] = heard = manager[name].impl.dispatch
        names[f"E{n}"] = heard.set  # replaced by another when somebody begins to listen
        unheard.append(f"D{n}.set is E{n}")
    yield "def __init__(__pydantic_self__, /, **data):"  # SQLModel's name for it, which no field can have
    yield "    self = __pydantic_self__"
    yield "    if self.__class__ is not C or not finishes() or registry._new_mappers or len(heard_init) != 1 or not ("
    yield f"        {' and '.join(unheard)}"
    yield "    ):"
    yield "        return instrumented(self, **data)"
    yield "    known = self.__dict__"
    yield "    if '_sa_instance_state' in known:"
    yield "        return instrumented(self, **data)"
    yield "    known['_sa_instance_state'] = state = State(self, manager)"
    yield "    try:"
    yield "        values = {}"
    for name in fields:
        yield f"        if {name!r} in data: values[{name!r}] = data[{name!r}]"
    yield "        given = set(values)"
    for n, (name, field) in enumerate(fields.items()):
        if (default := _default(n, field, names)) is not None:
            yield f"        if {name!r} not in given: values[{name!r}] = {default}"
    yield "        if values:"
    yield "            known.update(values)"
    yield "            state.committed_state = dict.fromkeys(values, NO_VALUE)"
    yield "            state.modified = True"
    yield "        set_fields_set(self, given)"
    for name in cls.__sqlmodel_relationships__:
        yield f"        if {name!r} in data: set_attribute(self, {name!r}, data[{name!r}])"
    yield "    except:"
    yield "        with safe_reraise():"
    yield "            manager.dispatch.init_failure(state, (), data)"


def _default(n: int, field: Any, names: dict[str, Any]) -> str | None:
    """An expression of what `FieldInfo.get_default` gives; None where the value is required."""
    if field.is_required():
        return None
    if field.default_factory is not None:
        names[f"F{n}"] = field.default_factory
        return f"F{n}()"
    names[f"F{n}"] = field.default
    return f"F{n}" if type(field.default) in _SHARED else f"smart_deepcopy(F{n})"


def _validating(cls: Any, constructor: Any) -> Any:
    """The constructor after Pydantic's validation, which SQLModel leaves out for table models."""
    relationships = frozenset(cls.__sqlmodel_relationships__)

    def validating(__pydantic_self__: Any, /, **data: Any) -> None:
        if not finish_init.get():  # `model_validate` is at work, which validates by itself
            return constructor(__pydantic_self__, **data)
        related = {name: value for name, value in data.items() if name in relationships}
        values = {name: value for name, value in data.items() if name not in relationships}
        _add_foreign_keys(cls, related, values)
        checked = SQLModel.__new__(cls)
        cls.__pydantic_validator__.validate_python(values, self_instance=checked)
        constructor(__pydantic_self__, **checked.__dict__, **related)
        NAMES["set_fields_set"](__pydantic_self__, checked.__pydantic_fields_set__)

    return validating


def _add_foreign_keys(cls: Any, related: dict[str, Any], values: dict[str, Any]) -> None:
    """Take a required foreign key that is not given from the related instance that is, as the flush would."""
    mapper: Any = cls.__mapper__
    for name, other in related.items():
        relationship = mapper.relationships[name]
        if other is None or relationship.direction.name != "MANYTOONE":
            continue
        for local, remote in relationship.local_remote_pairs:
            mine = mapper.get_property_by_column(local).key
            key = getattr(other, relationship.mapper.get_property_by_column(remote).key, None)
            if key is not None and mine not in values:
                values[mine] = key
