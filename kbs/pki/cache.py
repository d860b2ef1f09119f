"""Remembers signatures between certificates that were found good.

A link is the pair of digests of two whole encodings, so a remembered answer cannot
go stale: the same bytes verify the same way for ever. Dates, revocation and trust
are not remembered. Losing the cache costs time only.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

_DEFAULT_LIMIT = 4096


class LinkCache:
    """A bounded set of (issued, issuer) digests, least recently used out first."""

    __slots__ = ("_limit", "_links", "_lock")

    def __init__(self, limit: int = _DEFAULT_LIMIT) -> None:
        """Start empty; hold at most `limit` links."""
        self._limit = limit
        self._links: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()
        self._lock = Lock()

    def holds(self, issued: bytes, issuer: bytes) -> bool:
        """Whether `issued` is known to carry a good signature by `issuer`."""
        with self._lock:
            if (issued, issuer) not in self._links:
                return False
            self._links.move_to_end((issued, issuer))
            return True

    def remember(self, issued: bytes, issuer: bytes) -> None:
        """Keep that `issued` carries a good signature by `issuer`."""
        with self._lock:
            self._links[(issued, issuer)] = None
            self._links.move_to_end((issued, issuer))
            while len(self._links) > self._limit:
                self._links.popitem(last=False)

    def __len__(self) -> int:
        """Return how many links are held."""
        return len(self._links)
