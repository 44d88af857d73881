"""Every operation of the API with a request that succeeds, and the number of statements it may cost.

The counts are those of an administrator looking at somebody else's things.  One of them, in each, finds out who is
calling, with role and permissions.
"""

import json
from dataclasses import dataclass, field
from string import Template
from typing import Any

from catalysis.starter.tests.world import PASSWORD, World


@dataclass(frozen=True)
class Operation:
    """A request, with `$name` for the ids of the world."""

    method: str
    path: str
    statements: int
    why: str
    """What the statements beyond the first are for."""
    json: Any = None
    form: dict[str, str] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    status: int = 200

    def request(self, world: World, **params: Any) -> dict[str, Any]:
        """What `client.request(**…)` takes."""
        ids = {name: str(each) for name, each in world.ids.items()}
        body = None if self.json is None else json.loads(Template(json.dumps(self.json)).substitute(ids))
        return {
            "method": self.method,
            "url": Template(self.path).substitute(ids),
            "json": body,
            "data": self.form,
            "params": {**self.params, **params},
        }


PAGE = {"size": 3}

OPERATIONS: dict[str, Operation] = {
    # auth
    "log_in": Operation("POST", "/auth/token", 1, "", form={"username": "ann", "password": PASSWORD}),
    "get_me": Operation("GET", "/auth/me", 1, ""),
    "update_me": Operation("PATCH", "/auth/me", 2, "UPDATE", json={"full_name": "Ada"}),
    "change_password": Operation(
        "PUT",
        "/auth/me/password",
        2,
        "UPDATE",
        json={"current_password": PASSWORD, "new_password": "another long password"},
    ),
    # tasks
    "list_tasks": Operation("GET", "/tasks", 3, "page, count", params=PAGE),
    "read_feed": Operation("GET", "/tasks/feed", 2, "page", params=PAGE),
    "get_statistics": Operation("GET", "/tasks/statistics", 2, "counts"),
    "explain_tasks": Operation("GET", "/tasks/explain", 2, "EXPLAIN", params={"status": "todo"}),
    "create_task": Operation(
        "POST", "/tasks", 3, "category, INSERT", json={"title": "x", "category_id": "$category"}, status=201
    ),
    "create_task_in_category": Operation(
        "POST",
        "/tasks/in-category",
        4,
        "category INSERT, its id, task INSERT",
        json={"title": "x", "category_name": "new"},
        status=201,
    ),
    "create_tasks": Operation(
        "POST",
        "/tasks/bulk",
        3,
        "categories, INSERT",
        json=[{"title": f"t{n}", "category_id": "$category"} for n in range(50)],
        status=201,
    ),
    "complete_tasks": Operation("POST", "/tasks/complete", 2, "UPDATE", json={"ids": "all"}),
    "get_task": Operation("GET", "/tasks/$ann_task", 2, "task"),
    "update_task": Operation(
        "PATCH",
        "/tasks/$ann_task",
        4,
        "task, category, UPDATE",
        json={"status": "done", "category_id": "$category"},
    ),
    "delete_task": Operation("DELETE", "/tasks/$ann_task", 2, "UPDATE", status=204),
    "restore_task": Operation("POST", "/tasks/$deleted_task/restore", 3, "task, UPDATE"),
    # categories
    "list_categories": Operation("GET", "/categories", 3, "page, count", params=PAGE),
    "create_category": Operation("POST", "/categories", 2, "INSERT", json={"name": "new"}, status=201),
    "save_categories": Operation(
        "PUT",
        "/categories",
        3,
        "upsert, ids",
        json=[{"name": f"category{n}", "color": "#123456"} for n in range(50)],
    ),
    "get_category": Operation("GET", "/categories/$category", 2, "category"),
    "update_category": Operation(
        "PATCH", "/categories/$category", 3, "category, UPDATE", json={"color": "#123456"}
    ),
    "delete_category": Operation("DELETE", "/categories/$category", 3, "category, UPDATE", status=204),
    "restore_category": Operation("POST", "/categories/$deleted_category/restore", 3, "category, UPDATE"),
    # users
    "list_users": Operation("GET", "/users", 3, "page, count", params=PAGE),
    "create_user": Operation(
        "POST",
        "/users",
        3,
        "role, INSERT",
        json={"username": "new", "email": "new@example.org", "password": "long enough"},
        status=201,
    ),
    "get_user": Operation("GET", "/users/$ann", 2, "user"),
    "update_user": Operation("PATCH", "/users/$ann", 3, "user, UPDATE", json={"full_name": "Ann"}),
    "delete_user": Operation("DELETE", "/users/$ann", 4, "user, UPDATE, UPDATE of tasks", status=204),
    "restore_user": Operation("POST", "/users/$deleted_user/restore", 4, "user, UPDATE of tasks, UPDATE"),
    "get_user_role": Operation("GET", "/users/$ann/role", 2, "user"),
    "set_user_role": Operation(
        "PUT", "/users/$ann/role", 5, "user, role, its permissions, UPDATE", json={"role_id": "$spare_role"}
    ),
    "list_user_groups": Operation("GET", "/users/$ann/groups", 4, "user, page, count", params=PAGE),
    "list_user_tasks": Operation("GET", "/users/$ann/tasks", 4, "user, page, count", params=PAGE),
    "get_user_statistics": Operation("GET", "/users/$ann/statistics", 3, "user, counts"),
    # roles
    "list_permissions": Operation("GET", "/permissions", 3, "page, count", params=PAGE),
    "list_roles": Operation("GET", "/roles", 4, "page, their permissions, count", params=PAGE),
    "create_role": Operation(
        "POST",
        "/roles",
        4,
        "permissions, INSERT, INSERT of grants",
        json={"name": "new", "permissions": ["tasks:read", "tasks:write"]},
        status=201,
    ),
    "get_role": Operation("GET", "/roles/$role", 2, "role"),
    "update_role": Operation(
        "PATCH",
        "/roles/$spare_role",
        5,
        "role, permissions, UPDATE, INSERT of grants",
        json={"name": "renamed", "permissions": ["tasks:read", "tasks:write"]},
    ),
    "delete_role": Operation("DELETE", "/roles/$spare_role", 3, "role, DELETE", status=204),
    "list_role_users": Operation("GET", "/roles/$role/users", 4, "role, page, count", params=PAGE),
    # groups
    "list_groups": Operation("GET", "/groups", 3, "page, count", params=PAGE),
    "create_group": Operation("POST", "/groups", 2, "INSERT", json={"name": "new"}, status=201),
    "get_group": Operation("GET", "/groups/$group", 2, "group"),
    "update_group": Operation("PATCH", "/groups/$group", 3, "group, UPDATE", json={"name": "renamed"}),
    "delete_group": Operation("DELETE", "/groups/$group", 3, "group, UPDATE", status=204),
    "restore_group": Operation("POST", "/groups/$deleted_group/restore", 3, "group, UPDATE"),
    "list_members": Operation("GET", "/groups/$group/members", 4, "group, page, count", params=PAGE),
    "set_member": Operation(
        "PUT", "/groups/$group/members/$ann", 5, "group, user, upsert, membership", json={"standing": "lead"}
    ),
    "remove_member": Operation("DELETE", "/groups/$group/members/$ann", 2, "DELETE", status=204),
    # the rest
    "clean_up": Operation(
        "POST", "/maintenance/clean-up", 2, "DELETE", json={"older_than_days": 1}, status=202
    ),
    "live": Operation("GET", "/health/live", 0, ""),
    "ready": Operation("GET", "/health/ready", 1, ""),
}

OPEN = {"log_in", "live", "ready"}
"""Operations for which nobody needs to be logged in."""

LISTS = [name for name, operation in OPERATIONS.items() if operation.params == PAGE]
