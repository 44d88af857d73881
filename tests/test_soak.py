"""The soak, for twenty seconds: `python -m bench.soak` tells by its exit code whether all of it held."""

import subprocess
import sys

import pytest


@pytest.mark.long
def test_a_short_soak():
    """Mutations seen to fail: `get_session` leaves its session open; `_overloaded` says no Retry-After; `lease` takes
    the transaction's connection for every read.
    """
    command = [sys.executable, "-m", "bench.soak", "--minutes", "0.34"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
