"""The command line of an administrator against a real broker on loopback.

`serving(folder)` gives a `Bench`: a `World` behind an HTTP server of its own, a profile
folder, and `run`, which calls the program as a shell would. `tamper` changes answers on
their way, as somebody in between would.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from werkzeug.serving import WSGIRequestHandler, make_server

from kbs.adapters.sql.database import SqlDatabase
from kbs.cli.context import main_with
from kbs.cli.main import kbs
from kbs.core.clock import Clock
from kbs.governance.signature import key_id
from tests.fakes.world import World

Tamper = Callable[[str, bytes], bytes | None]
"""Gets path and body of an answer, returns another body, or None to leave it."""


@dataclass
class Ran:
    """What one run of the program gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def assert_one_error_line(self) -> None:
        """Errors are one line on stderr, and nothing else is there."""
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def run(
    *arguments: str,
    stdin: bytes | None = None,
    clock: Clock | None = None,
    terminal: bool = False,
) -> Ran:
    """Call the program as a shell would; time is the clock's, if one is given."""
    err = io.StringIO()
    # As the real one: what is not text goes to its buffer.
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="", write_through=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        wrapper = _Terminal if terminal else io.TextIOWrapper
        given = wrapper(io.BytesIO(stdin or b""))
        stack.enter_context(mock.patch.object(sys, "stdin", given))
        if clock is not None:
            for module in ("kbs.cli.admin_client", "kbs.cli.evidence"):
                stack.enter_context(
                    mock.patch(f"{module}.SystemClock", return_value=clock)
                )
        code = main_with(kbs, list(arguments))
    out.seek(0)
    return Ran(code, out.read(), err.getvalue())


@dataclass
class Bench:
    """A broker, its administrator's profile, and a way to change answers."""

    world: World
    url: str
    profile: Path
    tamper: Tamper | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)

    def run(
        self, *arguments: str, stdin: bytes | None = None, terminal: bool = False
    ) -> Ran:
        """Run a command with the profile."""
        return run(
            *arguments,
            "--profile",
            str(self.profile),
            stdin=stdin,
            clock=self.world.clock,
            terminal=terminal,
        )

    def must(self, *arguments: str, stdin: bytes | None = None) -> Any:
        """Run a command with --json, expect success, return the document."""
        ran = self.run(*arguments, "--json", stdin=stdin)
        assert ran.code == 0, ran.err
        assert ran.err == ""
        assert ran.out.count("\n") == 1
        return ran.json

    def by(self, profile: Path) -> Bench:
        """The same broker, called with another profile."""
        return replace(self, profile=profile)

    @contextmanager
    def tampering(self, tamper: Tamper) -> Iterator[None]:
        """Change answers while the block runs."""
        self.tamper = tamper
        try:
            yield
        finally:
            self.tamper = None

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        """Answer as the broker does, or as `tamper` likes."""
        path = environ["PATH_INFO"]
        self.requests.append((environ["REQUEST_METHOD"], path))
        said: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], exc: Any = None) -> Any:
            said.update(status=status, headers=headers)
            return lambda _: None

        chunks = self.world.app.wsgi_app(environ, start)
        body = b"".join(chunks)
        changed = self.tamper(path, body) if self.tamper is not None else None
        headers = [
            pair for pair in said["headers"] if pair[0].lower() != "content-length"
        ]
        start_response(said["status"], headers)
        return [body if changed is None else changed]


@contextmanager
def serving(folder: Path, database: SqlDatabase) -> Iterator[Bench]:
    """Serve a fresh broker on loopback, with a profile of its administrator."""
    world = World.create(folder, database=database, development=True)
    bench = Bench(world, "", folder / "profile")
    server = make_server("127.0.0.1", 0, bench, threaded=True, request_handler=_Quiet)
    bench.url = f"http://127.0.0.1:{server.server_port}"
    write_profile(bench.profile, world, bench.url)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with closing(server.socket):
            yield bench
    finally:
        server.shutdown()
        thread.join()


def write_profile(folder: Path, world: World, url: str | None) -> None:
    """Write a profile as `kbs init` does."""
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "profile.json").write_text(json.dumps(document_of(world, url)))
    write_key(folder, world.admin)


def write_key(folder: Path, key: Ed25519PrivateKey, mode: int = 0o600) -> None:
    """Write an administrator's private key."""
    path = folder / "admin.key"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    path.chmod(mode)


def document_of(world: World, url: str | None) -> dict[str, object]:
    """The content of profile.json."""
    return {
        "server": url,
        "instance": world.parts.instance,
        "tls_sha256": None,
        "log_key": world.broker.identity.log_vkey,
        "response_key": "/nowhere/response.pub",
        "keyid": key_id(world.admin.public_key()),
    }
