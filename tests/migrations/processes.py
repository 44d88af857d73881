"""Runs commands at the same time, each in a process of its own, and prints their exit codes and outputs as JSON.

The processes are forked after the imports, which would otherwise take most of the test's time.
"""

import json
import os
import sys
import tempfile

from alembic.config import main as alembic

import catalysis.migrations  # noqa: F401 - imported before the fork
from catalysis.cli import app

PROGRAMS = {"catalysis": app, "alembic": alembic}


def run(program: str, arguments: list[str]) -> int:
    try:
        PROGRAMS[program](arguments)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException as failure:
        print(repr(failure))
        return 99
    return 0


def main() -> None:
    started = []
    for program, *arguments in json.loads(sys.argv[1]):
        output = tempfile.TemporaryFile()
        process = os.fork()
        if process == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            code = run(program, arguments)
            sys.stdout.flush()
            os._exit(code)
        started.append((process, output))
    outcomes = []
    for process, output in started:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        output.seek(0)
        outcomes.append((code, output.read().decode()))
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
