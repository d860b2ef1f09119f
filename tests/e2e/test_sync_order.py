"""By the system calls of a real server: the log is synced before an answer is sent.

`strace` watches one worker on loopback without TLS, so that answers are seen as they
are. What the process promised with a status must be on disk by then.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.rcar_client import Answer, RcarClient
from tests.fakes.rcar_evidence import PATH, POLICY, SECRET
from tests.fakes.served import Folders, kbs, made

# strace's own words: a thread's number, then a call, whole or in two parts.
_SYNC = re.compile(
    r"(?:fdatasync|fsync)\((\d+)(<[^>]*>)?\)\s*= 0|<\.\.\. f\w*sync resumed>\)\s*= 0"
)
_JWE = b"encrypted_key"


@dataclass
class Watched:
    """A broker under strace."""

    port: int
    trace: Path

    def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            answer = connection.getresponse()
            names = {name.title(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()


def may_trace() -> bool:
    """Whether this machine lets one process watch another."""
    try:
        done = subprocess.run(
            ["strace", "-o", os.devnull, "true"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    if not may_trace():
        pytest.skip("strace is not here, or may not watch: the order is not shown")
    folders = Folders(tmp_path)
    made(folders)
    trace, stdout = tmp_path / "trace", tmp_path / "stdout"
    watching = ["strace", "-f", "-y", "-s", "4096", "-o", str(trace)]
    watching += ["-e", "trace=fsync,fdatasync,write,writev,sendto,sendmsg"]
    command = [
        *(sys.executable, "-m", "kbs", "serve", *folders.options(), "--json"),
        *("--listen", "127.0.0.1:0", "--plain-http", "--dev", "--rate-limit", "0"),
    ]
    with stdout.open("wb") as out:
        process = subprocess.Popen(
            [*watching, *command],
            stdout=out,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while not stdout.read_text().endswith("\n"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        url = str(json.loads(stdout.read_text())["url"])
        found = Watched(int(url.rpartition(":")[2]), trace)
        _administer(folders, tmp_path, url)
        yield found
    finally:
        # To the broker: strace ends with what it watches.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def _administer(folders: Folders, folder: Path, url: str) -> None:
    policy, secret = folder / "policy.yaml", folder / "secret"
    policy.write_text(POLICY)
    secret.write_bytes(SECRET)
    for arguments in (
        ("policy", "register", str(policy)),
        ("key", "import", PATH, str(secret), "--kind", "opaque"),
    ):
        environ = {"KBS_PROFILE": str(folders.profile)}
        done = kbs(*arguments, "--server", url, environ=environ)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_log_is_synced_before_the_key_is_sent(watched: Watched) -> None:
    client = RcarClient(watched.send)
    begin = len(watched.trace.read_bytes())
    assert client.fetch(PATH) == SECRET
    time.sleep(0.5)
    lines = watched.trace.read_bytes()[begin:].splitlines()
    sent = next(n for n, line in enumerate(lines) if _JWE in line)
    # What is between the request's predecessor and the answer: a durable commit.
    token = next(
        n for n, line in enumerate(lines) if b'"token' in line or b'\\"token' in line
    )
    assert token < sent
    for first, last in ((0, token), (token, sent)):
        synced = [
            line for line in lines[first:last] if _SYNC.search(line.decode("latin-1"))
        ]
        assert synced, lines[first:last]
    assert any(
        b"kbs.db-wal" in line or b"resumed" in line for line in lines[token:sent]
    )
