"""Caps and rates on what strangers may send."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_BODY_BYTES = 2 * 1024 * 1024
"""Largest body that any endpoint takes: one bundle, or one policy with its base64."""

MAX_CLIENTS = 10_000
"""Clients whose rate is remembered; the one not seen for longest is forgotten."""

BURST_SECONDS = 4
"""A client that was quiet may send this many seconds' worth at once."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """A token bucket for each client; `rate` requests a second, 0 is off."""

    def __init__(self, rate: int, monotonic: Callable[[], float]) -> None:
        """Read time from `monotonic`, in seconds."""
        self._rate = rate
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, client: str) -> bool:
        """Take one token of this client; False when it has none left."""
        if self._rate == 0:
            return True
        now = self._monotonic()
        full = float(self._rate * BURST_SECONDS)
        with self._lock:
            bucket = self._buckets.pop(client, None) or _Bucket(full, now)
            bucket.tokens = min(full, bucket.tokens + (now - bucket.at) * self._rate)
            bucket.at = now
            admitted = bucket.tokens >= 1
            if admitted:
                bucket.tokens -= 1
            self._buckets[client] = bucket
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
        return admitted
