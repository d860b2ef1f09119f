"""Remembers what a pure function gave for an equal key; losing it costs time only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Memo(Generic[_Value]):
    """Bounded results by key, least recently used out first."""

    __slots__ = ("_limit", "_lock", "_values")

    def __init__(self, limit: int = 256) -> None:
        """Start empty; hold at most `limit` results."""
        self._limit = limit
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()
        self._lock = Lock()

    def recall(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """Return what was made for an equal key, or make it now."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        # Made outside of the lock: two threads may make the same, which is harmless.
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._limit:
                self._values.popitem(last=False)
        return value
