"""Who sees what is deleted."""

from typing import TypeVar

from sqlmodel.sql.expression import SelectOfScalar

from catalysis import include_deleted
from catalysis.starter.app.errors import NotPermitted
from catalysis.starter.app.models import User
from catalysis.starter.app.permissions import PermissionName

T = TypeVar("T")


def deleted_too(statement: SelectOfScalar[T], viewer: User, needs: PermissionName) -> SelectOfScalar[T]:
    """The statement with deleted rows in it, for a viewer who has the permission.

    Raises:
        NotPermitted: the viewer has not.
    """
    if not viewer.may(needs):
        raise NotPermitted(needs)
    return statement.options(include_deleted())
