"""The README is a test: its Python runs, and its SQL is what that Python sent."""

import ast
import asyncio
import inspect
import os
import re
import tempfile
from typing import Any

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

NAMES = """
import asyncio
from uuid import UUID
from fastapi import FastAPI
from sqlalchemy.orm import joinedload
from sqlmodel import Field, Relationship, col, select
from catalysis import *
from catalysis import DatabaseDep
from catalysis.integrations.fastapi import add_error_handlers, health_router, lifespan
"""


def start(namespace: dict[str, Any]) -> None:
    namespace["__name__"] = "readme"
    namespace["_cwd"] = os.getcwd()
    namespace["_runner"] = asyncio.Runner()
    os.chdir(tempfile.mkdtemp())
    exec(NAMES, namespace)  # noqa: S102 - the README's own imports


def end(namespace: dict[str, Any]) -> None:
    namespace["_runner"].close()
    os.chdir(namespace["_cwd"])


def run_python(example: Example) -> None:
    """Run a block, with `await` at its top level as in the README; line numbers are the README's."""
    source = "\n" * (example.line + example.parsed.line_offset - 1) + example.parsed
    code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, example.namespace)  # noqa: S307 - the README's own code
    if inspect.iscoroutine(result):
        example.namespace["_runner"].run(result)


def compare_sql(example: Example) -> None:
    """The SQL shown is all the SQL that was sent; … stands for more columns."""
    pattern = re.escape(" ".join(example.parsed.split())).replace("…", "[^()]*?")
    sent = [" ".join(query.sql.replace('"', "").split()) for query in example.namespace["sent"]]
    assert len(sent) == 1, f"sent: {sent}"
    assert re.fullmatch(pattern, sent[0]), f"sent: {sent[0]}"


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("python", run_python), CodeBlockParser("sql", compare_sql)],
    patterns=["README.md"],
    setup=start,
    teardown=end,
).pytest()
