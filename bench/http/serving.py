"""A uvicorn process for an application, and wrk against it; both on this machine, and so on its cores."""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import psutil
from tests.servers import free_port

PATIENCE = 15
"""Seconds that a server has to come to its end."""
SERVE = """
import sys, importlib, uvicorn
module, url, port = sys.argv[1:]
app = importlib.import_module(module).application(url)
uvicorn.run(app, port=int(port), log_level="warning", access_log=False)
"""
REPORT = """
function done(summary, latency, requests)
  io.write(string.format(
    '\\n{"requests": %d, "microseconds": %d, "refused": %d, "broken": %d, "p50": %d, "p99": %d}\\n',
    summary.requests, summary.duration, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Server:
    """A process that serves one application."""

    port: int
    process: psutil.Process

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the process so far, in steps of 10 ms."""
        times = self.process.cpu_times()
        return times.user + times.system

    def settle(self) -> None:
        """Wait until it has done with what clients have left behind, which others must not be measured beside."""
        for _ in range(600):
            before = self.cpu_seconds
            time.sleep(0.1)
            if self.cpu_seconds - before < 0.02:
                return
        raise SystemExit("a server does not come to rest")

    def get(self, path: str) -> bytes:
        """The answer's body, which must be a success."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as reply:
            return reply.read()


@contextmanager
def serving(module: str, url: str, *, stderr: IO[str] | int | None = None) -> Iterator[Server]:
    """The `application` of a module in a process of its own, ready."""
    port = free_port()
    command = [sys.executable, "-c", SERVE, module, url, str(port)]
    started = subprocess.Popen(command, stderr=stderr)  # noqa: S603 - ours
    server = Server(port, psutil.Process(started.pid))
    try:
        _wait_until_ready(server, started)
        yield server
    finally:
        started.terminate()
        try:
            started.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # it waits for what it should have ended
            started.kill()
            started.wait()


def _wait_until_ready(server: Server, started: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        try:
            server.get("/openapi.json")
            return
        except (urllib.error.URLError, ConnectionError):
            if started.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit("a server did not start")


@dataclass(frozen=True)
class Run:
    """What one run of wrk saw, and what it cost the server."""

    rate: float
    """Requests per second."""
    p50: float
    p99: float
    """Milliseconds."""
    refused: int
    """Answers that were not 2xx or 3xx."""
    broken: int
    """Requests without an answer."""
    cpu: float
    """Microseconds of the server's processor time for each request."""

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def wrk(server: Server, path: str, connections: int, seconds: float) -> Run:
    """Ask for one path on so many connections at once."""
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is not installed (Debian: apt-get install wrk)")
    with TemporaryDirectory() as folder:
        script = Path(folder) / "report.lua"
        script.write_text(REPORT)
        url = f"http://127.0.0.1:{server.port}{path}"
        duration = f"{max(round(seconds), 1)}s"
        command = [
            program,
            "-t1",
            f"-c{connections}",
            f"-d{duration}",
            "--timeout",
            "30s",
            "-s",
            str(script),
            url,
        ]
        before = server.cpu_seconds
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
        spent = server.cpu_seconds - before
        server.settle()
    found = json.loads(done.stdout.splitlines()[-1])
    return Run(
        rate=found["requests"] / found["microseconds"] * 1e6,
        p50=found["p50"] / 1000,
        p99=found["p99"] / 1000,
        refused=found["refused"],
        broken=found["broken"],
        cpu=spent / max(found["requests"], 1) * 1e6,
    )
