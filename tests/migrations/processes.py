"""Runs processes at the same time, each with commands one after the other, and prints codes and outputs as JSON.

The processes are forked after the imports, which would otherwise take most of the test's time.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

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
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for number, commands in enumerate(json.loads(sys.argv[1])):
            output = Path(folder) / str(number)
            process = os.fork()
            if process == 0:
                descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                code = max(run(program, arguments) for program, *arguments in commands)
                sys.stdout.flush()
                os._exit(code)
            started.append((process, output))
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process, _ in started]
        print(
            json.dumps([(code, output.read_text()) for code, (_, output) in zip(codes, started, strict=True)])
        )


if __name__ == "__main__":
    main()
