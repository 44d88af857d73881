"""The soak, for twenty seconds: `python -m bench.soak` tells by its exit code whether all of it held."""

import subprocess
import sys

import pytest


@pytest.mark.long
def test_a_short_soak():
    """Mutations seen to fail: see `docs/load.md`, which `bench.soak` prints the figures for."""
    command = [sys.executable, "-m", "bench.soak", "--minutes", "0.34"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
