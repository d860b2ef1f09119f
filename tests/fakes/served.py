"""`kbs init` and `kbs serve` as processes of their own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.rcar_client import Answer

READY_SECONDS = 30.0


@dataclass
class Folders:
    """Where one broker lives; `url` is a PostgreSQL database instead of SQLite."""

    base: Path
    url: str | None = None

    @property
    def data(self) -> Path:
        return self.base / "data"

    @property
    def trust(self) -> Path:
        return self.base / "trust"

    @property
    def profile(self) -> Path:
        return self.base / "profile"

    @property
    def database(self) -> Path:
        return self.data / "kbs.db"

    def options(self) -> list[str]:
        chosen = ["--data", str(self.data), "--trust", str(self.trust)]
        chosen += ["--profile", str(self.profile)]
        return chosen + (["--db", self.url] if self.url else [])


def kbs(
    *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "kbs", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(environ or {})},
    )


def made(folders: Folders, *options: str) -> dict[str, object]:
    """Run `kbs init` and return its document."""
    done = kbs("init", *folders.options(), *options, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


@dataclass
class Served:
    """A broker that runs as a process."""

    process: subprocess.Popen[bytes]
    line: dict[str, object]
    stdout: Path
    stderr: Path
    context: ssl.SSLContext = field(repr=False)

    @property
    def url(self) -> str:
        return str(self.line["url"])

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def errors(self) -> str:
        return self.stderr.read_text()

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        request = urllib.request.Request(  # noqa: S310 - our own broker
            self.url + path,
            data=body,
            method=method,
            headers={"Content-Type": "application/json", **(headers or {})},
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=self.context),
        )
        try:
            with opener.open(request, timeout=20) as answer:
                return answer.status, answer.headers.get_content_type(), answer.read()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.headers.get_content_type(), exc.read()

    def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        """Ask over a connection of its own: any worker may get it."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=40, context=self.context
        )
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            answer = connection.getresponse()
            names = {name.title(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def workers(self) -> list[int]:
        """Return the worker processes."""
        parent = self.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        return [int(number) for number in children.split()]

    def terminate(self) -> float:
        """End it with SIGTERM; return how long that took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=20)
        return time.monotonic() - started

    def kill(self) -> None:
        """Kill it and its workers at once, as a machine that loses its power."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=20)


def context_of(folders: Folders) -> ssl.SSLContext:
    """Trust the generated certificate and nothing else."""
    context = ssl.create_default_context(cafile=str(folders.data / "tls.crt"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


@contextmanager
def serving(
    folders: Folders,
    *options: str,
    environ: Mapping[str, str] | None = None,
    plain: bool = False,
    descriptors: tuple[int, int] | None = None,
    name: str = "",
    program: Sequence[str] = ("-m", "kbs", "serve"),
) -> Iterator[Served]:
    """Run `kbs serve` on a free port until the block ends.

    `descriptors`: its soft and hard limit, where that is not this process's.
    `name`: what tells its files from those of another process on the same folders.
    `program`: another composition that takes the same options.
    """
    stdout, stderr = (folders.base / f"{one}{name}" for one in ("stdout", "stderr"))
    command: Sequence[str] = [
        *(sys.executable, *program, *folders.options()),
        *("--listen", "127.0.0.1:0", "--json", *options),
    ]
    if descriptors is not None:
        command = ["prlimit", f"--nofile={descriptors[0]}:{descriptors[1]}", *command]
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **(environ or {})},
        )
    try:
        line = _wait(process, stdout, stderr)
        context = ssl.create_default_context() if plain else context_of(folders)
        yield Served(process, line, stdout, stderr, context)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(
    process: subprocess.Popen[bytes], stdout: Path, stderr: Path
) -> dict[str, object]:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        text = stdout.read_text()
        if text.endswith("\n"):
            document = json.loads(text)
            assert isinstance(document, dict)
            return document
        if process.poll() is not None:
            break
        time.sleep(0.005)
    raise AssertionError(f"no ready line: {stdout.read_text()!r} {stderr.read_text()}")
