"""The permissions there are, and the roles a new database starts with."""

from typing import Literal, get_args

PermissionName = Literal[
    "tasks:read",
    "tasks:write",
    "tasks:admin",
    "users:read",
    "users:write",
    "roles:read",
    "roles:write",
    "groups:read",
    "groups:write",
    "categories:write",
]

PERMISSIONS: dict[PermissionName, str] = {
    "tasks:read": "See one's own tasks",
    "tasks:write": "Create, change and delete one's own tasks",
    "tasks:admin": "The same for everybody's tasks; see and restore deleted ones; explain; clean up",
    "users:read": "See all users",
    "users:write": "Create, change, delete and restore users",
    "roles:read": "See roles and permissions",
    "roles:write": "Change roles and who has them: whoever may do that may do everything",
    "groups:read": "See groups one is not a member of",
    "groups:write": "Create, change and delete groups, add and remove members",
    "categories:write": "Create, change, delete and restore categories",
}

ADMIN = "admin"
"""The role that may do everything."""

MEMBER = "member"
"""The role of a new user."""

ROLES: dict[str, tuple[str, tuple[PermissionName, ...]]] = {
    ADMIN: ("May do everything", get_args(PermissionName)),
    "manager": (
        "Looks after people and groups",
        ("tasks:read", "tasks:write", "users:read", "groups:read", "groups:write", "categories:write"),
    ),
    MEMBER: ("Looks after their own tasks", ("tasks:read", "tasks:write")),
}
"""Name: what it is for, and its permissions."""
