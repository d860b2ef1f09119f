"""How often something may happen that strangers can cause."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Pace:
    """Lets something happen at most once in an interval; safe for threads."""

    def __init__(self, monotonic: Callable[[], float], seconds: float) -> None:
        """Read time from `monotonic`, in seconds."""
        self._monotonic = monotonic
        self._seconds = seconds
        self._lock = threading.Lock()
        self._last: float | None = None

    def is_due(self) -> bool:
        """Whether the interval is over; if so, the next one begins."""
        with self._lock:
            now = self._monotonic()
            if self._last is not None and now - self._last < self._seconds:
                return False
            self._last = now
            return True
