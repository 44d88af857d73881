"""Whether a flush saves instances of one class alone, in which no relationship has a say: then none need be asked."""

from typing import Any

from sqlalchemy.orm.base import NO_VALUE, RelationshipDirection

_SAVED = (False, False)
"""What a flush notes of an instance that is neither deleted nor there to be looked at alone."""


def saves_one_class(flush: Any) -> bool:
    """Whether SQLAlchemy would ask each relationship of each instance twice, and come to nothing."""
    if len(flush.mappers) != 1 or set(flush.states.values()) != {_SAVED}:
        return False
    (mapper,) = flush.mappers
    relations = mapper.relationships._data.keys()
    if (watched := _watched(mapper)) is None:
        return False
    for state in flush.states:
        before = state.committed_state
        if (
            not relations.isdisjoint(state.dict.keys())
            or not relations.isdisjoint(before.keys())
            or state.__dict__.get("_pending_mutations")
            or (watched and any(before.get(name, NO_VALUE) is not NO_VALUE for name in watched))
        ):
            return False
    return True


_WATCHED = "_catalysis_watched"


def _watched(mapper: Any) -> tuple[str, ...] | None:
    """As `_watch` has it, until the mapper gets another relationship, or is what another one leads to."""
    leading_here = len(mapper._dependency_processors)
    kept = mapper.__dict__.get(_WATCHED)  # SQLAlchemy forgets it when the mapper gets another attribute
    if kept is None or kept[0] != leading_here:
        kept = leading_here, _watch(mapper)
        mapper._set_memoized_attribute(_WATCHED, kept)
    return kept[1]


def _watch(mapper: Any) -> tuple[str, ...] | None:
    """The attributes that other rows refer to by a relationship, and would have to follow; None if it has others.

    None as well where SQLAlchemy loads a relationship to see whether somebody has become an orphan.
    """
    many_to_one = [each for each in mapper.relationships if each.direction is RelationshipDirection.MANYTOONE]
    if any(each.cascade.delete_orphan for each in many_to_one):
        return None
    others = [each for each in mapper.relationships if each not in many_to_one]
    columns = [column for each in others for column in each.local_columns]
    columns += [ours for each in mapper._dependency_processors for ours, _ in each.prop.synchronize_pairs]
    if not all(column in mapper._columntoproperty for column in columns):
        return None
    return tuple({mapper._columntoproperty[column].key for column in columns})
