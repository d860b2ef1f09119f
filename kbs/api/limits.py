"""Caps and rates on what strangers may send."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_BODY_BYTES = 2 * 1024 * 1024
"""Largest body that any endpoint takes: one bundle, or one policy with its base64."""

SHORT_BODY_BYTES = 16 * 1024
"""Largest body of a door to which anybody comes first, with next to nothing to say."""

_SHORT_DOORS = frozenset({"/v1/challenge", "/kbs/v0/auth"})

MAX_CLIENTS = 10_000
"""Clients whose rate is remembered; the one not seen for longest is forgotten."""

WORK_MILLISECONDS = 10
"""What a request may cost of a processor on average, so that few that are made to be
costly count as the many that they are."""

LEAST_WORK_MILLISECONDS = 500
"""What a client may cost in a second, however few requests it may send."""

DEBT_SECONDS = 16
"""How long a client that was more costly is refused at most."""

BURST_SECONDS = 4
"""A client that was quiet may send this many seconds' worth at once."""


def largest_body(path: str) -> int:
    """Return how many bytes of body the endpoint at this path takes at most."""
    return SHORT_BODY_BYTES if path in _SHORT_DOORS else MAX_BODY_BYTES


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

    def charge(self, client: str, tokens: float) -> None:
        """Take what a request cost when it was done; the client may come to owe it."""
        with self._lock:
            bucket = self._buckets.get(client)
            if bucket is not None:
                least = -float(self._rate * DEBT_SECONDS)
                bucket.tokens = max(least, bucket.tokens - tokens)


def work_limit(rate: int, monotonic: Callable[[], float]) -> RateLimit:
    """Return the limit, in milliseconds of a processor, that goes with a rate."""
    if rate == 0:
        return RateLimit(0, monotonic)
    return RateLimit(max(rate * WORK_MILLISECONDS, LEAST_WORK_MILLISECONDS), monotonic)
