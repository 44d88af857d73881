"""The Python of docs/cluster.md runs: its models on SQLite, and their rows from there to PostgreSQL."""

import ast
import asyncio
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"

NAMES = """
from collections.abc import Iterable
from uuid import UUID
from sqlalchemy import ForeignKeyConstraint, Table
from sqlmodel import Field, Relationship, SQLModel, func, insert, select, update
from catalysis import *
from catalysis.distribution import Distributed, Local, Reference
"""

BEFORE_ROWS = """
await db.create_all()
organisation_id = UUID(int=1)
async with db.session() as session:
    session.add_all([Country(code="x"), Organisation(id=organisation_id, name="y")])
    await session.commit()
"""

COPYING = """
assert total == 1
assert found is task
target = Database(postgres_url)
await target.create_all()
"""

COPIED = """
async with target.session(tenant=organisation_id) as session:
    (copied,) = (await session.exec(select(Task))).all()
    assert (copied.id, copied.title, copied.created_at) == (task.id, "weave", task.created_at)
await target.close()
await db.close()
"""


async def run_the_page(postgres_url: str) -> None:
    """The copying is last, though it comes first on the page: there have to be rows."""
    from sybil.document import Document
    from sybil.parsers.markdown import CodeBlockParser

    parser = CodeBlockParser("python", lambda example: None)
    blocks = [str(each.parsed) for each in Document.parse(str(PAGE), parser).examples()]
    copying, models, getting, revision, checking = blocks
    assert revision.startswith("op.")
    namespace: dict[str, Any] = {"__name__": "page", "postgres_url": postgres_url}
    exec(NAMES, namespace)
    namespace["db"] = namespace["Database"]("sqlite:///app.db")
    for source in (models, BEFORE_ROWS, getting, checking, COPYING, copying, COPIED):
        code = compile(source, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            await result


def test_the_page(postgres_url: str, tmp_path: Path):
    """In a process of its own: its models have names that others have too."""
    command = [sys.executable, __file__, postgres_url]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "table 'task' without a value for 'organisation_id'" in done.stdout


if __name__ == "__main__":
    asyncio.run(run_the_page(sys.argv[1]))
