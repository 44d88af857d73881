"""A condition that a session adds wherever a class appears, with a value of the session's own.

`with_loader_criteria` writes a value into the statement it is added to, or finds it by reading a lambda's code.  Here
the value is one bound parameter, known by its class wherever SQLAlchemy copies it to, so that a statement compiled for
one session serves another: what is bound is always the value of the session that runs it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from sqlalchemy import BinaryExpression, BindParameter, ColumnElement, true
from sqlalchemy.orm.util import LoaderCriteriaOption
from sqlalchemy.sql import util as sql_util
from sqlalchemy.sql.operators import eq
from sqlalchemy.types import NullType


class OwnParameter(BindParameter[Any]):
    """A parameter whose value is the session's."""

    inherit_cache = True

    def __init__(self, value: Any) -> None:
        # Without a type it takes that of the column; unique, so that no value given by name can take its place.
        super().__init__("tenant", value, type_=NullType(), unique=True)


def is_own(condition: BinaryExpression[Any]) -> bool:
    """Whether it says that something has the session's value."""
    compared: Any = condition
    return compared.operator is eq and isinstance(compared.right, OwnParameter)


class OwnCriterion(LoaderCriteriaOption):
    """`attribute == parameter` for every class below a mixin, aliases and later loads included.

    Without a parameter it raises what `missing` makes of the mapper, where it would have to be added.
    """

    _traverse_internals = cast("Any", LoaderCriteriaOption)._traverse_internals
    __slots__ = ("missing", "parameter")

    def __init__(
        self,
        mixin: type[Any],
        parameter: OwnParameter | None,
        missing: Callable[[Any], Exception] | None = None,
    ) -> None:
        super().__init__(mixin, true() if parameter is None else parameter, include_aliases=True)
        self.parameter, self.missing = parameter, missing

    def __reduce__(self) -> Any:
        """An instance that is pickled takes no session's value along."""
        return _stripped, (self.root_entity,)

    def condition(self, mapper: Any, entity: Any) -> ColumnElement[bool]:
        """The condition on a class or an alias of it."""
        if self.parameter is None:
            raise (self.missing or _missing)(mapper)
        return getattr(entity, mapper.class_.__tenant__) == self.parameter

    def _resolve_where_criteria(self, ext_info: Any) -> ColumnElement[bool]:
        condition = self.condition(ext_info.mapper, ext_info.entity)
        annotate = cast("Any", sql_util)._deep_annotate
        return annotate(
            condition, {"for_loader_criteria": self}, detect_subquery_cols=True, ind_cols_on_fromclause=True
        )


def _stripped(mixin: type[Any]) -> OwnCriterion:
    return OwnCriterion(mixin, None)


def _missing(mapper: Any) -> Exception:
    return LookupError(f"{mapper.class_.__name__} came out of a pickle, and belongs to no session")


def with_own(options: tuple[Any, ...], own: OwnCriterion | None) -> tuple[Any, ...]:
    """The options with this criterion in the place of any other of its kind; None takes it away."""
    if not any(isinstance(each, OwnCriterion) and each is not own for each in options):
        return options
    places = [number for number, each in enumerate(options) if isinstance(each, OwnCriterion)]
    kept = [each for number, each in enumerate(options) if number not in places[1:]]
    kept[places[0] : places[0] + 1] = [] if own is None else [own]  # in its place, as parameters go by theirs
    return tuple(kept)


def with_criterion(statement: Any, own: OwnCriterion | None) -> Any:
    """The statement with this criterion alone among those of its kind, where it has one."""
    options = with_own(statement._with_options, own)
    if options is statement._with_options:
        return statement
    changed = statement.options()
    changed._with_options = options
    return changed


def own_positions(given: Iterable[Any]) -> tuple[int, ...]:
    """The places of the session's own among a statement's bound parameters."""
    return tuple(number for number, each in enumerate(given) if isinstance(each, OwnParameter))


def with_own_values(
    given: Sequence[Any], positions: tuple[int, ...], *, is_there: bool, parameter: Any
) -> Sequence[Any]:
    """A statement's bound parameters with the session's own at these places; `is_there`: in the place of another's."""
    filled = [*given]
    for position in positions:
        if is_there:
            filled[position] = parameter
        else:
            filled.insert(position, parameter)
    return filled
