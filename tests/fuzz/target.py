"""What a fuzz target is: one function that takes any bytes, and what it may raise.

A family of evidence registers a target and nothing else: a `run` of `bytes -> None`,
the errors that are its documented answers, seeds, and globs of recorded evidence.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType

from kbs.core.errors import KbsError, MalformedError
from kbs.wire.problem import problem_of

SECONDS_PER_INPUT = 10
"""CPU time after which an input counts as a hang; the slowest good one takes 0.1 s."""

MAX_SHOWN = 8192
"""Most bytes that an error may be as an answer to whoever sent the input."""

KIB = 1024


class Shape(Enum):
    """How inputs are changed: byte by byte, or value by value of the JSON they are."""

    BYTES = "bytes"
    JSON = "json"


class HangError(Exception):
    """An input that took more than its share of CPU time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parser or verifier under any input.

    `run` raises one of `allowed` or returns; what else comes out of it is a finding.
    `recorded`: globs below the folder of recorded evidence. `most_bytes` is as much as
    the door lets through, for inputs that are made long.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    allowed: tuple[type[KbsError], ...] = (MalformedError,)
    recorded: tuple[str, ...] = ()
    shape: Shape = Shape.BYTES
    most_bytes: int = 64 * KIB

    def corpus(self, vectors: Path | None) -> list[bytes]:
        """Return the seeds, with recorded evidence where there is some."""
        found = list(self.seeds())
        for pattern in self.recorded if vectors else ():
            assert vectors is not None
            found += [path.read_bytes() for path in sorted(vectors.glob(pattern))]
        return [data for data in found if len(data) <= self.most_bytes]

    def check(self, data: bytes) -> bool:
        """Run one input; return whether it was taken.

        What it raises otherwise has to be an answer: JSON in UTF-8, and short.
        """
        try:
            self.run(data)
        except self.allowed as error:
            document = problem_of(error, reveal=True)
            told = json.dumps(document, ensure_ascii=False).encode("utf-8")
            assert len(told) <= MAX_SHOWN, f"{len(told)} bytes: {told[:200]!r}"
            return False
        return True


@contextmanager
def limited(seconds: int = SECONDS_PER_INPUT) -> Iterator[Callable[[], None]]:
    """Raise `HangError` when what runs between two calls of `start` takes longer.

    CPU time of this process: a busy machine makes nothing a hang.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise HangError(f"more than {seconds} s of CPU time")

    def start() -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        yield start
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
