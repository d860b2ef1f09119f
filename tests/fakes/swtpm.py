"""A software TPM as a child process on free loopback ports."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_SECONDS = 10.0
_LOOPBACK = "127.0.0.1"
_GET_CAPABILITY = b"\0\0\0\1"


@contextmanager
def held_port_pair() -> Iterator[int]:
    """Give p such that p and p + 1 are free: the TCTI expects them side by side.

    They are held until the block ends, so that nobody else is given them. Who sets
    SO_REUSEADDR, as swtpm does, can listen on them all the same.
    """
    for _ in range(5000):
        with socket.socket() as first, socket.socket() as second:
            first.bind((_LOOPBACK, 0))
            port: int = first.getsockname()[1]
            try:
                second.bind((_LOOPBACK, port + 1))
            except (OSError, OverflowError):
                continue
            for held in (first, second):
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            yield port
            return
    message = "no two neighbouring ports are free"
    raise RuntimeError(message)


def free_port_pair() -> int:
    """Return p such that p and p + 1 were free a moment ago."""
    with held_port_pair() as port:
        return port


class SoftwareTpm:
    """swtpm over one state folder; `stop` and `start` are a power cycle."""

    def __init__(self, state: Path) -> None:
        """Keep the TPM's state in `state`, which must exist."""
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def tcti(self) -> str:
        """How tpm2-tss names it."""
        return f"swtpm:host={_LOOPBACK},port={self.port}"

    def start(self) -> None:
        """Power it on; returns once it answers."""
        for _ in range(5):
            with held_port_pair() as self.port:
                self._process = self._spawn(self.port)
                if self._answers(self._process):
                    return
            self.stop()
        message = "swtpm did not start"
        raise RuntimeError(message)

    def stop(self) -> None:
        """Power it off."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=_START_SECONDS)
            self._process = None

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                "swtpm",
                "socket",
                "--tpm2",
                "--tpmstate",
                f"dir={self._state}",
                "--server",
                f"type=tcp,port={port},bindaddr={_LOOPBACK}",
                "--ctrl",
                f"type=tcp,port={port + 1},bindaddr={_LOOPBACK}",
                "--flags",
                "not-need-init,startup-clear",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        # The control port is asked, since the other one serves a single connection; it
        # accepts before the other one listens, and answers once both do.
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with socket.create_connection((_LOOPBACK, self.port + 1), 1) as control:
                    control.sendall(_GET_CAPABILITY)
                    if control.recv(64):
                        return True
            except OSError:
                time.sleep(0.01)
        return False


@contextmanager
def software_tpm(state: Path) -> Iterator[SoftwareTpm]:
    """Run a software TPM for as long as the block lasts."""
    tpm = SoftwareTpm(state)
    tpm.start()
    try:
        yield tpm
    finally:
        tpm.stop()
