"""Whether the clock went on as time did, or was set meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from kbs.audit.log import CLOCK_TOLERANCE
from kbs.core.clock import Clock

log = logging.getLogger("kbs.upkeep")

STEADY_SECONDS = 3600.0
"""How long a clock that jumped has to go on without another jump to be believed."""


class SteadyClock:
    """Compares the clock with what only counts seconds, each time that it is asked."""

    def __init__(self, clock: Clock, monotonic: Callable[[], float]) -> None:
        """Believe the clock until it jumps."""
        self._clock = clock
        self._monotonic = monotonic
        self._seen: tuple[datetime, float] | None = None
        self._jumped: float | None = None

    def is_steady(self) -> bool:
        """Whether what has expired by this clock may be erased for good."""
        now, ticks = self._clock.now(), self._monotonic()
        if self._seen is not None:
            before, counted = self._seen
            jump = (now - before).total_seconds() - (ticks - counted)
            if abs(jump) > CLOCK_TOLERANCE.total_seconds():
                log.warning(
                    "clock: it jumped by %.0f s; nothing is erased for %.0f s",
                    *(jump, STEADY_SECONDS),
                )
                self._jumped = ticks
        self._seen = (now, ticks)
        return self._jumped is None or ticks - self._jumped >= STEADY_SECONDS
