"""The Python of docs/telemetry.md runs."""

import ast
import inspect
import logging
from pathlib import Path

from fastapi import FastAPI
from prometheus_client import REGISTRY
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser

from catalysis import Database
from catalysis.events import is_heard

PAGE = Path(__file__).parents[2] / "docs" / "telemetry.md"


async def test_the_page(database: Database):
    async def serve() -> None:
        pass

    ends = []
    namespace = {"db": database, "app": FastAPI(), "serve": serve, "logging": logging}
    blocks = list(Document.parse(str(PAGE), CodeBlockParser("python", lambda example: None)).examples())
    for block in blocks:
        code = compile(str(block.parsed), str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            await result
        if (end := namespace.pop("end", None)) is not None:
            ends.append(end)
    assert (len(blocks), len(ends)) == (4, 2)
    for end in ends:
        end()
    from catalysis.integrations.prometheus import _measured

    while (measured := _measured.get(REGISTRY)) is not None:
        measured._end(None)
    assert not is_heard()
