"""CPU of one exchange through the application, without a server around it.

SQLite is on the disk and every commit is durable, as it is when served; what the
kernel spends on that for this process is counted, and waiting is not.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flask import Flask

from tests.bench.brokers import Bench
from tests.bench.exchanges import Exchange, Kind, Step, prepare
from tests.bench.tables import Cell, Section
from tests.bench.unit import in_units

WARM = 10
"""Exchanges before any is measured: caches fill, modules load."""

BLOCK = 10
"""Requests in a row, as a busy server has them: one alone finds cold caches."""


def section(
    benches: Mapping[str, Bench],
    floors: Callable[[Kind], tuple[float, float]],
    count: int,
) -> Section:
    """Measure each exchange beside its two floors, which `floors` gives in units."""
    rows: list[tuple[Cell, ...]] = []
    for kind in Kind:
        bench = benches[kind.evidence]
        exchanges = prepare(bench, kind, WARM + count)
        for work in works(bench.world.app, exchanges[:WARM]):
            work()
        steps = list(zip(*exchanges[WARM:], strict=True))
        parts = [
            in_units(_of_step(bench.world.app, step), block=BLOCK) for step in steps
        ]
        whole = sum(units for _, units in parts)
        rows.append((kind, sum(cost for cost, _ in parts) * 1e6, whole, *floors(kind)))
        for step, (cost, units) in zip(steps, parts, strict=True):
            rows.append((f"  {step[0].name}", cost * 1e6, units, "", ""))
    return Section(
        "cpu",
        "CPU per release, in process",
        ("exchange", "us", "P-256", "crypto floor", "with Flask and SQLite"),
        rows,
    )


def works(app: Flask, exchanges: Sequence[Exchange]) -> list[Callable[[], None]]:
    """Whole exchanges, ready to be run."""

    def run(calls: list[Callable[[], None]]) -> None:
        for one in calls:
            one()

    return [
        partial(run, [partial(call, app, environ_of(step), step) for step in exchange])
        for exchange in exchanges
    ]


def call(app: Flask, environ: dict[str, Any], step: Step) -> None:
    """Send one request and read the answer."""
    statuses: list[str] = []

    def start(status: str, _: object, __: object = None) -> Callable[[bytes], object]:
        statuses.append(status)
        return lambda _: None

    pieces = app.wsgi_app(environ, start)
    body = b"".join(pieces)
    if hasattr(pieces, "close"):
        pieces.close()
    if statuses != ["200 OK"]:
        raise RuntimeError(f"{step.name}: {statuses} {body[:500]!r}")


def environ_of(step: Step) -> dict[str, Any]:
    """A request as the gateway hands it over (PEP 3333)."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": step.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": step.path,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(step.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(step.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in step.headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    return environ


def _of_step(app: Flask, steps: Sequence[Step]) -> list[Callable[[], None]]:
    return [partial(call, app, environ_of(step), step) for step in steps]
