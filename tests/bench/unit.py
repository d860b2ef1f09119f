"""The unit of all figures: one P-256 verification with `cryptography`.

It is measured beside the work, on the same core and in the same minute, so that the
ratio survives a busy machine and can be compared with that of another one.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

MESSAGE = b"what is signed"

_SHA256 = ec.ECDSA(hashes.SHA256())
_KEY = ec.generate_private_key(ec.SECP256R1())
_PUBLIC = _KEY.public_key()
_SIGNATURE = _KEY.sign(MESSAGE, _SHA256)


def verify() -> None:
    """One unit."""
    _PUBLIC.verify(_SIGNATURE, MESSAGE, _SHA256)


def cpu_seconds(run: Callable[[], object], times: int = 1) -> float:
    """CPU time of one call, all threads of this process included."""
    started = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - started) / times


def measure(times: int = 200, rounds: int = 5) -> float:
    """CPU seconds of one unit now."""
    return statistics.median(cpu_seconds(verify, times) for _ in range(rounds))


def in_units(
    works: Sequence[Callable[[], object]], *, block: int = 1
) -> tuple[float, float]:
    """Median cost of several works of one kind: CPU seconds, and units.

    The unit is measured before each block of them, so that both see the same machine.
    """
    costs, ratios = [], []
    for start in range(0, len(works), block):
        piece = works[start : start + block]
        unit = cpu_seconds(verify, 100)
        cost = cpu_seconds(partial(_run, piece)) / len(piece)
        costs.append(cost)
        ratios.append(cost / unit)
    return statistics.median(costs), statistics.median(ratios)


def _run(works: Sequence[Callable[[], object]]) -> None:
    for work in works:
        work()


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread on one core until the block ends."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
