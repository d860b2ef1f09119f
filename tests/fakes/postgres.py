"""A throw-away PostgreSQL: a server of its own in a temporary folder.

It listens on a unix socket and on a loopback port, syncs its commits like a real one,
and ends with the process that started it. PostgreSQL refuses to run as root, so a test
run as root starts it as another user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

_BINARIES = Path("/usr/lib/postgresql")
_USER = "kbs"
_START_SECONDS = 30.0

_SETTINGS = {
    "shared_buffers": "16MB",
    "max_connections": "60",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_wal_size": "64MB",
    "autovacuum": "off",
    # What is not used costs only start-up time and noise.
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "logging_collector": "off",
}


class PostgresServer:
    """One server with a data folder; can be stopped and started again."""

    def __init__(self) -> None:
        """Make the data folder; nothing runs before `start`."""
        self._binaries = find_binaries()
        # Not pytest's tmp_path: its parents are closed to the other user.
        self._folder = Path(tempfile.mkdtemp(prefix="kbs-postgres-"))
        self._user = _unprivileged_user()
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._free: list[str] = []
        self._run(
            "initdb",
            *("-D", str(self._data), "-U", _USER, "-A", "trust", "-E", "UTF8"),
            *("--no-locale", "--no-sync", "--wal-segsize=1"),
        )

    @property
    def folder(self) -> Path:
        """Where all of its files are, the write-ahead log too."""
        return self._folder

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, over loopback."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str = "postgres") -> str:
        """Return the URL of a database, over the unix socket."""
        folder = str(self._folder).replace("/", "%2F")
        return f"postgresql://{_USER}@{folder}:{self.port}/{database}"

    def start(self, **settings: str) -> None:
        """Start the server and wait until it answers."""
        program = str(self._binaries / "postgres")
        command = [*_dying_with_us(), program, "-D", str(self._data)]
        options = {
            **_SETTINGS,
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._folder),
            **settings,
        }
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        log = self._folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                user=self._user and self._user.pw_uid,
                group=self._user and self._user.pw_gid,
                extra_groups=self._user and [],
            )
        self._await_answer(log)

    @contextlib.contextmanager
    def standby(self, **settings: str) -> Iterator[None]:
        """Be one that follows nobody, and a primary again: what only reads.

        It needs `wal_level=replica` from its first start on.
        """
        signal_file = self._data / "standby.signal"
        self.stop()
        signal_file.touch()
        self.start(**settings)
        try:
            yield
        finally:
            self.stop()
            signal_file.unlink()
            self.start(**settings)

    def stop(self) -> None:
        """Stop at once: open transactions end, what was committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout=_START_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def create_database(self, template: str | None = None) -> str:
        """Return the name of a new database, a copy of `template` if given."""
        self._databases += 1
        name = f"kbs_{self._databases}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY {}").format(
            sql.Identifier(name),
            sql.Identifier(template or "template0"),
            # Copies through the log: quicker for a small template.
            sql.SQL("wal_log"),
        )
        self.execute(statement)
        return name

    def take_database(self, template: str) -> str:
        """Return a database that was given back, or a new copy of `template`."""
        return self._free.pop() if self._free else self.create_database(template)

    def give_back(self, name: str) -> None:
        """Let the next one have a database that is as its template again."""
        self._free.append(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever uses it."""
        self.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
                sql.Identifier(name)
            )
        )

    def run_sql(self, statement: str) -> None:
        """Run one statement as the superuser."""
        self.execute(statement.encode())

    def execute(self, statement: sql.Composed | bytes) -> None:
        """Run one composed statement as the superuser."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / program), *arguments],
            cwd=self._folder,
            capture_output=True,
            check=False,
            user=self._user and self._user.pw_uid,
            group=self._user and self._user.pw_gid,
            extra_groups=self._user and [],
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr!r}")

    def _await_answer(self, log: Path) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                break
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url(), connect_timeout=2).close()
                return
            time.sleep(0.02)
        raise RuntimeError(f"PostgreSQL does not start: {log.read_text()[-2000:]}")


def find_binaries() -> Path:
    """Return the newest PostgreSQL's folder of programs.

    Raises:
        RuntimeError: there is none; a test that cannot run must not look like a pass.
    """
    found = sorted(
        (path.parent for path in _BINARIES.glob("*/bin/postgres")),
        key=lambda path: int(path.parent.name),
    )
    if found:
        return found[-1]
    on_path = shutil.which("postgres")
    if on_path is not None:
        return Path(on_path).resolve().parent
    raise RuntimeError(
        "no PostgreSQL: install it (Debian: postgresql), or set KBS_NO_POSTGRES=1"
    )


@contextlib.contextmanager
def running_server(**settings: str) -> Iterator[PostgresServer]:
    """Run a server for a while."""
    server = PostgresServer()
    try:
        server.start(**settings)
        yield server
    finally:
        server.remove()


def _unprivileged_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL does not run as root, and no other user is here")


def _dying_with_us() -> list[str]:
    # A killed test run leaves no server behind, where util-linux is at hand.
    return ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
