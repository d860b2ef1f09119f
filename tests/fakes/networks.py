"""A network of a thread's own, with addresses that this machine does not have."""

from __future__ import annotations

import ctypes
import errno
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

import pytest

# Linux, include/uapi/linux/sched.h
_CLONE_NEWNET = 0x40000000
_ROUTES_SECONDS = 10.0
_ALIKE = 10


def in_a_network_of_its_own(
    addresses: Sequence[str], run: Callable[[], object]
) -> None:
    """Run in a thread whose loopback has these IPv6 addresses, or skip the test."""
    refused: list[str] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            # It counts for this thread, for its sockets and the programs it starts.
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
                refused.append(f"errno {ctypes.get_errno()}")
                return
            _ip("link", "set", "lo", "up")
            for address in addresses:
                _ip("-6", "addr", "add", f"{address}/128", "dev", "lo", "nodad")
            _await_routes(addresses)
            run()
        except BaseException as exc:  # noqa: BLE001 - told by the thread that waits
            failures.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if refused:
        pytest.skip(f"no network of its own may be made here: {refused[0]}")
    if failures:
        raise failures[0]


def _await_routes(addresses: Sequence[str]) -> None:
    # The kernel makes them a moment after the addresses, and once more thereafter.
    deadline = time.monotonic() + _ROUTES_SECONDS
    alike = 0
    while alike < _ALIKE:
        assert time.monotonic() < deadline
        alike = alike + 1 if all(map(_has_route, addresses)) else 0
        time.sleep(0.02)


def _has_route(address: str) -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        return probe.connect_ex((address, 9)) == errno.ECONNREFUSED


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
