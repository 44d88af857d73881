"""The README is a test: its Python runs, and the SQL beside it is what that Python sent."""

import ast
import asyncio
import inspect
import re
import subprocess
import sys
from pathlib import Path

from sybil import Example
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser

README = Path(__file__).parent.parent / "README.md"

NAMES = """
import asyncio
from uuid import UUID
from fastapi import FastAPI
from sqlalchemy.orm import joinedload
from sqlmodel import Field, Relationship, col, select
from catalysis import *
from catalysis import DatabaseDep
from catalysis.inspector import add_inspector
from catalysis.integrations.fastapi import add_error_handlers, health_router, lifespan
"""


def run_python(example: Example) -> None:
    """Run a block, with `await` at its top level as in the README; line numbers are the README's."""
    source = "\n" * (example.line + example.parsed.line_offset - 1) + example.parsed
    code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, example.namespace)
    if inspect.iscoroutine(result):
        example.namespace["runner"].run(result)


def compare_sql(example: Example) -> None:
    """The SQL shown is all the SQL that was sent; … stands for more columns."""
    pattern = re.escape(" ".join(example.parsed.split())).replace("…", "[^()]*?")
    sent = [" ".join(query.sql.replace('"', "").split()) for query in example.namespace["sent"]]
    assert len(sent) == 1, f"sent: {sent}"
    assert re.fullmatch(pattern, sent[0]), f"sent: {sent[0]}"


def run_the_readme() -> None:
    document = Document.parse(
        str(README), CodeBlockParser("python", run_python), CodeBlockParser("sql", compare_sql)
    )
    document.namespace["__name__"] = "readme"
    exec(NAMES, document.namespace)
    with asyncio.Runner() as runner:
        document.namespace["runner"] = runner
        blocks = list(document.examples())
        for block in blocks:
            block.evaluate()
    assert len(blocks) >= 8


def test_the_readme(tmp_path):
    """In a process of its own: its models have the names of the starter's, and one process has one metadata."""
    done = subprocess.run(
        [sys.executable, __file__], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    run_the_readme()
