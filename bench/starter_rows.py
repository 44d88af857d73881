"""The starter's schema filled by the server itself, with skewed and correlated values, and requests to its API.

PostgreSQL only.  Users have very different numbers of tasks, most tasks are done, few are deleted.
"""

from dataclasses import dataclass, field
from typing import Any

import httpx
from sqlmodel import col, select

from catalysis import Database
from catalysis.starter.app.main import create_app
from catalysis.starter.app.models import Category, Group, Membership, Role, Task, User
from catalysis.starter.app.permissions import ADMIN, MEMBER
from catalysis.starter.app.seed import install_roles
from catalysis.starter.app.settings import AppSettings
from catalysis.starter.app.tokens import sign_token

SETTINGS = AppSettings.load(secret_key="only for a benchmark, and long enough")  # noqa: S106 - of nothing

FILL = """
SELECT setseed(0.42);

INSERT INTO "user" (id, username, email, full_name, password_hash, token_generation, is_active, role_id, created_at)
SELECT gen_random_uuid(), 'user' || n, 'user' || n || '@example.org',
       (ARRAY['Ada', 'Ben', 'Chen', 'Diego', 'Elif', 'Freya'])[1 + n % 6] || ' ' || md5(n::text),
       'hash', 0, random() < 0.95,
       (SELECT id FROM role WHERE name = CASE WHEN n = 1 THEN 'admin' WHEN n % 50 = 2 THEN 'manager' ELSE 'member' END),
       now() - random() * interval '4 years'
FROM generate_series(1, {users}) n;

INSERT INTO category (id, name, color) SELECT gen_random_uuid(), 'category ' || n, '#808080'
FROM generate_series(1, {categories}) n;

INSERT INTO "group" (id, name, description) SELECT gen_random_uuid(), 'group ' || n, 'about ' || n
FROM generate_series(1, {groups}) n;

CREATE TEMPORARY TABLE users AS SELECT row_number() OVER (ORDER BY username) AS n, id FROM "user";
CREATE TEMPORARY TABLE categories AS SELECT row_number() OVER (ORDER BY name) AS n, id FROM category;
CREATE TEMPORARY TABLE groups AS SELECT row_number() OVER (ORDER BY name) AS n, id FROM "group";
CREATE UNIQUE INDEX ON users (n);
CREATE UNIQUE INDEX ON categories (n);
CREATE UNIQUE INDEX ON groups (n);
ANALYZE users, categories, groups;

INSERT INTO membership (group_id, user_id, standing, joined_at)
SELECT g.id, u.id, (CASE WHEN random() < 0.1 THEN 'lead' ELSE 'member' END)::standing, now()
FROM (SELECT DISTINCT 1 + floor(random() * {groups})::int AS g, 1 + floor(random() * {users})::int AS u
      FROM generate_series(1, {memberships})) pair
JOIN users u ON u.n = pair.u JOIN groups g ON g.n = pair.g;

INSERT INTO task (id, title, description, status, completed, priority, due, user_id, category_id, created_at,
                  deleted_at)
SELECT gen_random_uuid(),
       (ARRAY['Plan', 'Book', 'Buy', 'Repair', 'Call about', 'Sort out', 'Clean', 'Cancel'])[1 + made.n % 8]
       || ' ' || md5(made.n::text) || ' ' || made.n,
       repeat('what is to be done, ', (random() * 5)::int),
       made.status, made.status = 'done', 1 + floor(5 * random() * random())::int,
       CASE WHEN random() < 0.7 THEN made.created + random() * interval '90 days' END,
       u.id, c.id, made.created,
       CASE WHEN random() < 0.03 THEN made.created + interval '100 days' END
FROM (SELECT n, now() - ({tasks} - n) * (interval '3 years' / {tasks}) AS created,
             1 + floor({users} * random() * random())::int AS u,
             CASE WHEN random() < 0.8 THEN 1 + floor({categories} * random() * random())::int END AS c,
             (CASE WHEN n < {tasks} * 0.9 AND random() < 0.97 THEN 'done' WHEN random() < 0.2 THEN 'doing'
              ELSE 'todo' END)::taskstatus AS status
      FROM generate_series(1, {tasks}) n) made
JOIN users u ON u.n = made.u LEFT JOIN categories c ON c.n = made.c;

DROP TABLE users, categories, groups;
"""


async def fill(database: Database, tasks: int) -> None:
    """Make the starter's tables and fill them, `tasks` rows in the largest."""
    await database.create_all()
    async with database.session() as db:
        await install_roles(db)
        await db.commit()
    sizes = {
        "tasks": tasks,
        "users": tasks // 50,
        "categories": 200,
        "groups": tasks // 500,
        "memberships": tasks // 16,
    }
    async with database.engine.begin() as connection:
        for statement in FILL.format(**sizes).strip().split(";\n"):
            await connection.exec_driver_sql(statement)
    async with database.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.exec_driver_sql("VACUUM ANALYZE")


async def drop_secondary_indexes(database: Database) -> list[str]:
    """Drop all indexes that are neither unique nor a constraint's; their names."""
    async with database.engine.begin() as connection:
        found = await connection.exec_driver_sql(
            "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid "
            "WHERE t.relnamespace = 'public'::regnamespace AND NOT i.indisunique AND NOT i.indisprimary ORDER BY 1"
        )
        names = [row[0] for row in found]
        for name in names:
            await connection.exec_driver_sql(f"DROP INDEX {name}")
    return names


LAST_CURSOR = "that of the answer before"


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the starter's API; `who` bears it."""

    name: str
    who: str
    method: str
    path: str
    params: dict[str, Any] = field(default_factory=dict)
    json: Any = None


async def requests(database: Database) -> list[Request]:
    """The list pages, searches, counts and changes that people make, about rows that are there."""
    async with database.session() as db:
        ann = (await db.exec(select(User).where(User.username == "user100"))).one()
        group = (await db.exec(select(Membership).where(Membership.user_id == ann.id).limit(1))).first()
        group_id = group.group_id if group else (await db.exec(select(Group.id).limit(1))).one()
        category = (await db.exec(select(Category.id).where(Category.name == "category 3"))).one()
        member = (await db.exec(select(Role.id).where(Role.name == "manager"))).one()
        task = (
            await db.exec(select(Task.id).where(Task.user_id == ann.id, ~col(Task.completed)).limit(1))
        ).one()
    user = ann.id
    tasks = "/tasks"
    return [
        Request("own tasks, newest first", MEMBER, "GET", tasks),
        Request("own open tasks by due", MEMBER, "GET", tasks, {"completed": "false", "order": "due"}),
        Request("own tasks of a category", MEMBER, "GET", tasks, {"category_id": str(category)}),
        Request("own tasks, searched", MEMBER, "GET", tasks, {"search": "boiler"}),
        Request("own feed", MEMBER, "GET", "/tasks/feed"),
        Request("own feed, second page", MEMBER, "GET", "/tasks/feed", {"after": LAST_CURSOR}),
        Request("own statistics", MEMBER, "GET", "/tasks/statistics"),
        Request("own task", MEMBER, "GET", f"/tasks/{task}"),
        Request("complete own tasks", MEMBER, "POST", "/tasks/complete", json={"ids": [str(task)]}),
        Request("own groups", MEMBER, "GET", f"/users/{user}/groups"),
        Request("everybody's tasks, newest first", ADMIN, "GET", tasks),
        Request("everybody's tasks of a category", ADMIN, "GET", tasks, {"category_id": str(category)}),
        Request("everybody's tasks by title", ADMIN, "GET", tasks, {"order": "title"}),
        Request(
            "everybody's tasks due in a week",
            ADMIN,
            "GET",
            tasks,
            {
                "due_from": "2026-01-01T00:00:00Z",
                "due_before": "2026-01-08T00:00:00Z",
                "order": "due",
                "completed": "false",
            },
        ),
        Request("everybody's feed", ADMIN, "GET", "/tasks/feed"),
        Request("everybody's feed, second page", ADMIN, "GET", "/tasks/feed", {"after": LAST_CURSOR}),
        Request("users by name", ADMIN, "GET", "/users"),
        Request("users of a role", ADMIN, "GET", "/users", {"role_id": str(member)}),
        Request("users, newest first", ADMIN, "GET", "/users", {"order": "-created_at"}),
        Request("groups", ADMIN, "GET", "/groups"),
        Request("members of a group", ADMIN, "GET", f"/groups/{group_id}/members"),
        Request("categories", MEMBER, "GET", "/categories"),
        Request("clean up", ADMIN, "POST", "/maintenance/clean-up", json={"older_than_days": 900}),
        Request("delete own task", MEMBER, "DELETE", f"/tasks/{task}"),
        Request("log in", MEMBER, "POST", "/auth/token"),
    ]


async def send(database: Database, wanted: list[Request]) -> dict[str, int]:
    """Send them, one after the other; the status of each."""
    app = create_app(SETTINGS, database)
    async with database.session() as db:
        admin = (await db.exec(select(User).where(User.username == "user1"))).one()
        ann = (await db.exec(select(User).where(User.username == "user100"))).one()
    statuses: dict[str, int] = {}
    cursor = ""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bench") as client:
        for each in wanted:
            token = sign_token(admin if each.who == ADMIN else ann, SETTINGS)
            form = {"username": "stranger", "password": "whatever"} if each.path == "/auth/token" else None
            response = await client.request(
                each.method,
                each.path,
                params={k: cursor if v == LAST_CURSOR else v for k, v in each.params.items()},
                json=each.json,
                data=form,
                headers={"Authorization": f"Bearer {token}"},
            )
            statuses[each.name] = response.status_code
            cursor = response.json().get("next_cursor", "") if each.path.endswith("/feed") else cursor
    return statuses
