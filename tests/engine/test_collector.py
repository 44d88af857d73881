"""What was loaded and is garbage is found, though the collector is kept away from what lives."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import gc
from catalysis.engine import collector

class Node:
    pass

def cycle():
    node = Node()
    node.itself = node
    return node

alive = [cycle() for _ in range(50_000)]
most = 0
for turn in range(60):
    with collector.paused(10_000):
        for _ in range(10_000):
            cycle()
    most = max(most, sum(type(each) is Node for each in gc.get_objects()))
print(most)
"""


@pytest.mark.parametrize("allocator", ["pymalloc", "malloc"])
def test_garbage_is_bounded(allocator: str):
    """Mutation: without counting objects where Python's blocks are not counted, all 650,000 are there in the end."""
    environment = {**os.environ, "PYTHONMALLOC": allocator}
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert 50_000 <= int(said.stdout) < 450_000
