"""Remembers signatures between certificates that were found good.

A link is the pair of digests of two whole encodings, so a remembered answer cannot
go stale: the same bytes verify the same way for ever. Dates, revocation and trust
are not remembered. Losing the cache costs time only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from threading import Lock
from typing import Generic, TypeVar

_DEFAULT_LIMIT = 4096
_DEFAULT_FINDINGS = 512
_LISTS = 64

Found = TypeVar("Found")


class Findings(Generic[Found]):
    """What was found out about immutable objects, least recently used out first.

    Objects are known by identity, and held for as long as what was found out about
    them is: no other object can take their place meanwhile. Only what follows from the
    objects alone may be kept, never what hangs on the time or on what is trusted; and
    only of objects that proved themselves, since what is kept takes memory.
    """

    __slots__ = ("_entries", "_limit", "_lock")

    def __init__(self, limit: int = _DEFAULT_FINDINGS) -> None:
        """Start empty; hold at most `limit` findings."""
        self._limit = limit
        self._lock = Lock()
        self._entries: OrderedDict[
            tuple[Hashable, ...], tuple[Sequence[object], Found]
        ] = OrderedDict()

    def find(self, objects: Sequence[object], *values: Hashable) -> Found | None:
        """Return what is known about these objects together with these values."""
        key = (*map(id, objects), *values)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[1]

    def keep(self, objects: Sequence[object], *values: Hashable, found: Found) -> Found:
        """Keep what was found out, and return it."""
        key = (*map(id, objects), *values)
        with self._lock:
            self._entries[key] = (objects, found)
            self._entries.move_to_end(key)
            while len(self._entries) > self._limit:
                self._entries.popitem(last=False)
        return found

    def __len__(self) -> int:
        """Return how many findings are held."""
        return len(self._entries)


class LinkCache:
    """A bounded set of (issued, issuer) digests, least recently used out first.

    Beside it, what the links led to before: `chains` to a root, and the `lists` and
    `answers` that an issuer signed, by the objects as they lie in memory.
    """

    __slots__ = ("_limit", "_links", "_lock", "answers", "chains", "lists")

    def __init__(self, limit: int = _DEFAULT_LIMIT) -> None:
        """Start empty; hold at most `limit` links."""
        self.chains: Findings[object] = Findings()
        self.lists: Findings[bool] = Findings(_LISTS)
        self.answers: Findings[bool] = Findings()
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
