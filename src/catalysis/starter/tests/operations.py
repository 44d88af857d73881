"""Every operation of the API with a request that succeeds, and the statements it sends to the database.

They are those of an administrator looking at somebody else's things.
"""

import json
from dataclasses import dataclass, field
from string import Template
from typing import Any

from catalysis import Database
from catalysis.starter.tests.world import PASSWORD, World


@dataclass(frozen=True)
class Operation:
    """A request, with `$name` for the ids of the world."""

    method: str
    path: str
    sends: str
    """The statements, each by a word or two; `caller` finds out who is calling, with role and permissions."""
    on_postgresql: str = ""
    """Statements that only PostgreSQL needs."""
    json: Any = None
    form: dict[str, str] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    status: int = 200

    def statements(self, database: Database) -> list[str]:
        """What is sent to this database."""
        only_here = self.on_postgresql if database.engine.dialect.name == "postgresql" else ""
        return [each for each in f"{self.sends}, {only_here}".split(", ") if each]

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
    "log_in": Operation("POST", "/auth/token", "user", form={"username": "ann", "password": PASSWORD}),
    "get_me": Operation("GET", "/auth/me", "caller"),
    "update_me": Operation("PATCH", "/auth/me", "caller, UPDATE", json={"full_name": "Ada"}),
    "change_password": Operation(
        "PUT",
        "/auth/me/password",
        "caller, UPDATE",
        json={"current_password": PASSWORD, "new_password": "another long password"},
    ),
    # tasks
    "list_tasks": Operation("GET", "/tasks", "caller, page, count", params=PAGE),
    "read_feed": Operation("GET", "/tasks/feed", "caller, page", params=PAGE),
    "get_statistics": Operation("GET", "/tasks/statistics", "caller, counts"),
    "explain_tasks": Operation(
        "GET",
        "/tasks/explain",
        "caller, EXPLAIN",
        params={"status": "todo"},
        on_postgresql="SAVEPOINT, ROLLBACK TO",
    ),
    "create_task": Operation(
        "POST",
        "/tasks",
        "caller, category, INSERT",
        json={"title": "x", "category_id": "$category"},
        status=201,
    ),
    "create_task_in_category": Operation(
        "POST",
        "/tasks/in-category",
        "caller, category INSERT, its id, task INSERT",
        json={"title": "x", "category_name": "new"},
        status=201,
    ),
    "create_tasks": Operation(
        "POST",
        "/tasks/bulk",
        "caller, categories, INSERT",
        json=[{"title": f"t{n}", "category_id": "$category"} for n in range(50)],
        status=201,
    ),
    "complete_tasks": Operation("POST", "/tasks/complete", "caller, UPDATE", json={"ids": "all"}),
    "get_task": Operation("GET", "/tasks/$ann_task", "caller, task"),
    "update_task": Operation(
        "PATCH",
        "/tasks/$ann_task",
        "caller, task, category, UPDATE",
        json={"status": "done", "category_id": "$category"},
    ),
    "delete_task": Operation("DELETE", "/tasks/$ann_task", "caller, UPDATE", status=204),
    "restore_task": Operation("POST", "/tasks/$deleted_task/restore", "caller, task, UPDATE"),
    # categories
    "list_categories": Operation("GET", "/categories", "caller, page, count", params=PAGE),
    "create_category": Operation("POST", "/categories", "caller, INSERT", json={"name": "new"}, status=201),
    "save_categories": Operation(
        "PUT",
        "/categories",
        "caller, upsert, ids",
        json=[{"name": f"category{n}", "color": "#123456"} for n in range(50)],
    ),
    "get_category": Operation("GET", "/categories/$category", "caller, category"),
    "update_category": Operation(
        "PATCH", "/categories/$category", "caller, category, UPDATE", json={"color": "#123456"}
    ),
    "delete_category": Operation("DELETE", "/categories/$category", "caller, category, UPDATE", status=204),
    "restore_category": Operation(
        "POST", "/categories/$deleted_category/restore", "caller, category, UPDATE"
    ),
    # users
    "list_users": Operation("GET", "/users", "caller, page, count", params=PAGE),
    "create_user": Operation(
        "POST",
        "/users",
        "caller, role, INSERT",
        json={"username": "new", "email": "new@example.org", "password": "long enough"},
        status=201,
    ),
    "get_user": Operation("GET", "/users/$ann", "caller, user"),
    "update_user": Operation("PATCH", "/users/$ann", "caller, user, UPDATE", json={"full_name": "Ann"}),
    "delete_user": Operation("DELETE", "/users/$ann", "caller, user, UPDATE, UPDATE of tasks", status=204),
    "restore_user": Operation(
        "POST", "/users/$deleted_user/restore", "caller, user, UPDATE of tasks, UPDATE"
    ),
    "get_user_role": Operation("GET", "/users/$ann/role", "caller, user"),
    "set_user_role": Operation(
        "PUT",
        "/users/$ann/role",
        "caller, user, role, its permissions, UPDATE",
        json={"role_id": "$spare_role"},
    ),
    "list_user_groups": Operation("GET", "/users/$ann/groups", "caller, user, page, count", params=PAGE),
    "list_user_tasks": Operation("GET", "/users/$ann/tasks", "caller, user, page, count", params=PAGE),
    "get_user_statistics": Operation("GET", "/users/$ann/statistics", "caller, user, counts"),
    # roles
    "list_permissions": Operation("GET", "/permissions", "caller, page, count", params=PAGE),
    "list_roles": Operation("GET", "/roles", "caller, page, their permissions, count", params=PAGE),
    "create_role": Operation(
        "POST",
        "/roles",
        "caller, permissions, INSERT, INSERT of grants",
        json={"name": "new", "permissions": ["tasks:read", "tasks:write"]},
        status=201,
    ),
    "get_role": Operation("GET", "/roles/$role", "caller, role"),
    "update_role": Operation(
        "PATCH",
        "/roles/$spare_role",
        "caller, role, permissions, UPDATE, INSERT of grants",
        json={"name": "renamed", "permissions": ["tasks:read", "tasks:write"]},
    ),
    "delete_role": Operation("DELETE", "/roles/$spare_role", "caller, role, DELETE", status=204),
    "list_role_users": Operation("GET", "/roles/$role/users", "caller, role, page, count", params=PAGE),
    # groups
    "list_groups": Operation("GET", "/groups", "caller, page, count", params=PAGE),
    "create_group": Operation("POST", "/groups", "caller, INSERT", json={"name": "new"}, status=201),
    "get_group": Operation("GET", "/groups/$group", "caller, group"),
    "update_group": Operation("PATCH", "/groups/$group", "caller, group, UPDATE", json={"name": "renamed"}),
    "delete_group": Operation("DELETE", "/groups/$group", "caller, group, UPDATE", status=204),
    "restore_group": Operation("POST", "/groups/$deleted_group/restore", "caller, group, UPDATE"),
    "list_members": Operation("GET", "/groups/$group/members", "caller, group, page, count", params=PAGE),
    "set_member": Operation(
        "PUT",
        "/groups/$group/members/$ann",
        "caller, group, user, upsert, membership",
        json={"standing": "lead"},
    ),
    "remove_member": Operation("DELETE", "/groups/$group/members/$ann", "caller, DELETE", status=204),
    # the rest
    "clean_up": Operation(
        "POST", "/maintenance/clean-up", "caller, DELETE", json={"older_than_days": 1}, status=202
    ),
    "live": Operation("GET", "/health/live", ""),
    "ready": Operation("GET", "/health/ready", "SELECT 1"),
}

OPEN = {"log_in", "live", "ready"}
"""Operations for which nobody needs to be logged in."""

LISTS = [name for name, operation in OPERATIONS.items() if operation.params == PAGE]
