"""Releases over loopback: a server process, and clients that keep it busy.

Clients are threads of this process with a TLS connection each; each sends its next
request when it has the answer to the last one.
"""

from __future__ import annotations

import http.client
import ssl
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import chain

from tests.bench import unit
from tests.bench.brokers import Bench
from tests.bench.exchanges import Exchange, Kind, prepare
from tests.bench.processes import Usage, usage
from tests.bench.tables import Cell, Section, progress
from tests.fakes.served import Served, serving

SECONDS = 30.0
CLIENTS = (1, 8, 32)
PINNED = "--pin-workers"
WANDERING = 8
"""With how many clients the server is also measured where its threads may wander."""


@dataclass(frozen=True)
class Plan:
    """How much is done: exchanges for each number of clients, and starts."""

    exchanges: tuple[int, ...]
    starts: int
    kinds: tuple[Kind, ...] = tuple(Kind)

    @property
    def loads(self) -> list[tuple[int, int]]:
        """Numbers of clients, each with that of their exchanges."""
        return list(zip(CLIENTS, self.exchanges, strict=True))


@dataclass(frozen=True)
class Timed:
    """What clients saw."""

    seconds: float
    latencies: list[float]

    def percentile(self, share: float) -> float:
        ranked = sorted(self.latencies)
        return ranked[min(int(share * len(ranked)), len(ranked) - 1)]


def measure(bench: Bench, plan: Plan) -> tuple[list[tuple[Cell, ...]], ...]:
    """Rows of the start, of memory, and of each load on one broker."""
    rows: list[tuple[Cell, ...]] = []
    memory: list[tuple[Cell, ...]] = []
    starts = []
    kinds = [kind for kind in plan.kinds if kind.evidence == bench.evidence]
    for remaining in reversed(range(plan.starts)):
        started = time.monotonic()
        with _served(bench, PINNED) as served:
            status, _, _ = served.call("GET", "/v1/broker")
            starts.append(time.monotonic() - started)
            if status != 200:
                raise RuntimeError(f"first answer: {status}")
            if remaining:
                continue
            memory.append(_memory(bench, "at rest", usage(served.process.pid)))
            for kind in kinds:
                rows += _loads(bench, served, kind, plan.loads, where="one")
            memory.append(_memory(bench, "after the load", usage(served.process.pid)))
    with _served(bench) as served:
        loads = [load for load in plan.loads if load[0] == WANDERING]
        for kind in kinds:
            rows += _loads(bench, served, kind, loads, where="any")
    start: tuple[Cell, ...] = (bench.evidence, statistics.median(starts), max(starts))
    return rows, memory, [start]


def _served(bench: Bench, *options: str) -> AbstractContextManager[Served]:
    return serving(bench.folders, *bench.options, *options, program=bench.program)


def sections(measured: Sequence[tuple[list[tuple[Cell, ...]], ...]]) -> list[Section]:
    loads, memory, starts = (
        list(chain.from_iterable(rows)) for rows in zip(*measured, strict=True)
    )
    return [
        Section(
            "load",
            "Releases over loopback, TLS, durable SQLite, one worker",
            (
                *("exchange", "clients", "processor", "count"),
                *("per s", "p50 ms", "p99 ms"),
                *("P-256 each", "p50 P-256", "p99 P-256", "server CPU P-256"),
            ),
            loads,
        ),
        Section(
            "memory",
            "Memory of the server's processes",
            ("broker", "when", "processes", "RSS MiB", "largest MiB", "PSS MiB"),
            memory,
        ),
        Section(
            "start",
            "From start to first answer",
            ("broker", "median s", "slowest s"),
            starts,
        ),
    ]


def _memory(bench: Bench, when: str, found: Usage) -> tuple[Cell, ...]:
    return (
        *(bench.evidence, when),
        *(found.processes, found.rss_mib, found.largest_mib, found.pss_mib),
    )


def _loads(
    bench: Bench,
    served: Served,
    kind: Kind,
    loads: Sequence[tuple[int, int]],
    *,
    where: str,
) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for clients, count in loads:
        progress(f"load: {kind}, {clients} clients, on {where} processor")
        # The first of each client opens its connection and is not counted.
        exchanges = prepare(bench, kind, count + clients)
        one = unit.measure()
        before = usage(served.process.pid).cpu_seconds
        timed = run(served, exchanges, clients)
        spent = usage(served.process.pid).cpu_seconds - before
        one = (one + unit.measure()) / 2
        p50, p99 = timed.percentile(0.5), timed.percentile(0.99)
        rows.append(
            (
                *(kind, clients, where, count),
                *(count / timed.seconds, p50 * 1e3, p99 * 1e3),
                *(timed.seconds / count / one, p50 / one, p99 / one),
                spent / (count + clients) / one,
            )
        )
    return rows


def run(served: Served, exchanges: Sequence[Exchange], clients: int) -> Timed:
    """Run all exchanges, shared among clients; each runs one before the clock starts.

    Raises:
        RuntimeError: an answer was not 200.
    """
    failures: list[BaseException] = []
    latencies: list[float] = []
    barrier = threading.Barrier(clients + 1, timeout=SECONDS)

    def work(share: Sequence[Exchange]) -> None:
        connection = connect(served)
        try:
            send(connection, share[0])
            barrier.wait()
            latencies.extend(send(connection, exchange) for exchange in share[1:])
        except BaseException as exc:  # noqa: BLE001 - told by the thread that waits
            failures.append(exc)
            barrier.abort()
        finally:
            connection.close()

    threads = [
        threading.Thread(target=work, args=(exchanges[number::clients],))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return Timed(time.perf_counter() - started, latencies)


def connect(served: Served) -> http.client.HTTPConnection:
    context: ssl.SSLContext = served.context
    return http.client.HTTPSConnection(
        "127.0.0.1", served.port, timeout=SECONDS, context=context
    )


def send(connection: http.client.HTTPConnection, exchange: Exchange) -> float:
    """Run one exchange; return how long it took."""
    started = time.perf_counter()
    for step in exchange:
        connection.request(step.method, step.path, step.body, dict(step.headers))
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{step.name}: {answer.status} {body[:500]!r}")
    return time.perf_counter() - started
