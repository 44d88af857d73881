"""What classes are called, and their attributes where a column is called otherwise: for advice that is to be pasted."""

from typing import Any
from weakref import WeakSet

_seen: WeakSet[Any] = WeakSet()
_attributes: dict[tuple[str, str], str] = {}


def name_of(mapper: Any) -> str:
    """The name of the mapped class; how it calls its columns is remembered."""
    name: str = mapper.class_.__name__
    if mapper not in _seen:
        _seen.add(mapper)
        for attribute in mapper.column_attrs:
            for column in attribute.columns:
                if (called := getattr(column, "name", attribute.key)) != attribute.key:
                    _attributes[name, called] = attribute.key
    return name


def attribute_for(entity: str, column: str) -> str:
    """The attribute of a class for a column."""
    return _attributes.get((entity, column), column)
