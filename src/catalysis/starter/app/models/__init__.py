"""The tables.  Importing this package knows them all; what is asked of them is said in `services`."""

from catalysis.starter.app.models.base import Model
from catalysis.starter.app.models.category import Category
from catalysis.starter.app.models.group import Group, Membership, Standing
from catalysis.starter.app.models.role import Permission, Role, RolePermission
from catalysis.starter.app.models.task import Task, TaskStatus
from catalysis.starter.app.models.user import User

__all__ = [
    "Category",
    "Group",
    "Membership",
    "Model",
    "Permission",
    "Role",
    "RolePermission",
    "Standing",
    "Task",
    "TaskStatus",
    "User",
]
