"""Broker processes that kill themselves at a step of a release.

`python -m tests.e2e.killer` imports everything once, reads one order a line, and forks
a fresh process for each, which opens the database itself and is gone by SIGKILL at the
`nth` time that it reaches `step` (`never`: it answers everything and ends). What it
answered before lies in `answers`, one line each, written without any buffer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kbs.adapters.files import FileHighwater
from kbs.adapters.sql.database import connect
from kbs.app import Parts, create_app_with
from kbs.core.clock import format_time, parse_time
from kbs.core.encode import b64, parse_b64
from kbs.keys.wrap import KeyEncryptionKey
from kbs.settings import Settings
from tests.fakes.world import KEK, FakeClock

_LIMIT = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Call:
    """One HTTP request; `body` in base64."""

    body: str = ""
    method: str = "POST"
    path: str = "/v1/release"
    cookie: str | None = None
    authorization: str | None = None


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one process has to do."""

    data: str
    trust: str
    url: str | None
    instance: str
    genesis: str
    now: str
    step: str
    nth: int
    threads: int
    calls: list[Call]
    answers: str


@dataclass(frozen=True)
class Answered:
    """What left a process before its end: the request's place, status, body."""

    place: int
    status: int
    body: bytes


def parts_of(
    *,
    data: Path,
    trust: Path,
    url: str | None,
    instance: str,
    genesis: str,
    now: datetime,
    steps: Callable[[str], None] = lambda _: None,
    kek: KeyEncryptionKey = KEK,
) -> Parts:
    """The parts of one process, with a connection of its own."""
    database = connect(url, data_dir=data)
    return Parts(
        database=database,
        highwater=FileHighwater(trust),
        kek=kek,
        instance=instance,
        genesis_digest=genesis,
        clock=FakeClock(now),
        steps=steps,
        close=database.close,
    )


class Killer:
    """The process that forks the others."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, order: Order) -> tuple[int, list[Answered]]:
        """Run one process; return its wait status and what it answered before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return status, _read(Path(order.answers))


@contextmanager
def running_killer() -> Iterator[Killer]:
    """Start the process that forks the others."""
    command = [sys.executable, "-m", "tests.e2e.killer"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Killer(process)
        assert process.stdin is not None
        process.stdin.close()


def _read(path: Path) -> list[Answered]:
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        place, status, body = json.loads(line)
        found.append(Answered(place, status, parse_b64(body, "body", limit=_LIMIT)))
    return found


def _main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _serve(_order_of(json.loads(line)))
                code = 0
            except BaseException:  # noqa: BLE001 - said, before the process ends
                traceback.print_exc()
            finally:
                # Not the parent's exit handlers, nor its buffers.
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


def _order_of(members: dict[str, Any]) -> Order:
    return Order(**{**members, "calls": [Call(**one) for one in members["calls"]]})


def _serve(order: Order) -> None:
    parts = parts_of(
        data=Path(order.data),
        trust=Path(order.trust),
        url=order.url,
        instance=order.instance,
        genesis=order.genesis,
        now=parse_time(order.now, "now"),
        steps=_dying_at(order.step, order.nth),
    )
    settings = Settings(data=Path(order.data), trust=Path(order.trust), rate_limit=0)
    app = create_app_with(parts, settings)
    handle = os.open(order.answers, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def send(places: Sequence[int]) -> None:
        client = app.test_client(use_cookies=False)
        for place in places:
            call = order.calls[place]
            given = {"Cookie": call.cookie, "Authorization": call.authorization}
            headers = {name: value for name, value in given.items() if value}
            response = client.open(
                call.path,
                method=call.method,
                data=parse_b64(call.body, "request", limit=_LIMIT),
                content_type="application/json",
                headers=headers,
            )
            answered = [place, response.status_code, b64(response.get_data())]
            os.write(handle, json.dumps(answered).encode() + b"\n")

    workers = [
        threading.Thread(target=send, args=(range(n, len(order.calls), order.threads),))
        for n in range(order.threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _dying_at(step: str, nth: int) -> Callable[[str], None]:
    left = nth
    lock = threading.Lock()

    def reached(name: str) -> None:
        nonlocal left
        with lock:
            left -= name == step
            dies = left == 0
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


def order_time(now: datetime) -> str:
    """A time as an order has it."""
    return format_time(now)


if __name__ == "__main__":
    _main()
