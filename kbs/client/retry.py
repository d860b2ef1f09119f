"""Patience at boot: exponential back-off with full jitter, until a deadline.

Only "could not check" is tried again. A refusal is a decision and stays one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from kbs.client.refusal import BusyError
from kbs.core.errors import UnavailableError

T = TypeVar("T")

# What waiting does not mend: another certificate than the pinned one, a library that
# is not installed, a state folder that was damaged.
_HOPELESS = frozenset({"tls.pin", "tpm.library", "guest.state"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to try, and how to wait; the defaults are a real clock and real dice."""

    total_seconds: float = 0.0
    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    dice: Callable[[], float] = field(default=random.random)
    notify: Callable[[UnavailableError, float], None] = lambda _error, _seconds: None

    def persist(self, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns, once it does.

        Raises:
            UnavailableError: the last one, when the time is up.
            KbsError: anything else, at once.
        """
        deadline = self.monotonic() + self.total_seconds
        tries = 0
        while True:
            try:
                return attempt()
            except UnavailableError as exc:
                delay = self.delay(tries, exc)
                if exc.code in _HOPELESS or self.monotonic() + delay > deadline:
                    raise
                self.notify(exc, delay)
                self.sleep(delay)
            tries += 1

    def delay(self, tries: int, error: UnavailableError) -> float:
        """Return how long to wait after this many failures, and what a server asks.

        Full jitter, so that a fleet that boots at once does not come back at once.
        """
        doubled = self.first_seconds * float(2 ** min(tries, 30))
        ceiling = min(self.longest_seconds, doubled)
        asked = error.retry_after if isinstance(error, BusyError) else None
        return (asked or 0) + ceiling * self.dice()
