"""What is there once for all clients, and of which one client gets a part."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

CLIENT_PART = 4
"""One client (an address, in IPv6 a /64 network) gets no more than a quarter."""


class Share:
    """What one holder has taken of `Shares`; given back once, all of it."""

    def __init__(
        self, take: Callable[[int], bool], give: Callable[[int], None]
    ) -> None:
        """Begin with nothing."""
        self._take = take
        self._give = give
        self._held = 0

    def grow(self, amount: int) -> bool:
        """Take more; False, and nothing is taken, when there is no more."""
        taken = self._take(amount)
        if taken:
            self._held += amount
        return taken

    def give_back(self) -> None:
        """Give back what is held."""
        held, self._held = self._held, 0
        self._give(held)


class Shares:
    """An amount that is shared out; safe for threads."""

    def __init__(self, total: int, *, per_client: bool) -> None:
        """Share out `total`; `per_client` False gives all of it to whoever asks."""
        self._total = total
        self._part = total // CLIENT_PART if per_client else total
        self._taken: Counter[str] = Counter()
        self._taken_by_all = 0
        self._lock = threading.Lock()

    def of(self, client: str) -> Share:
        """Return an empty share of this client."""
        return Share(
            lambda amount: self._take(client, amount),
            lambda amount: self._give(client, amount),
        )

    def _take(self, client: str, amount: int) -> bool:
        with self._lock:
            if self._taken[client] + amount > self._part:
                return False
            if self._taken_by_all + amount > self._total:
                return False
            self._taken[client] += amount
            self._taken_by_all += amount
            return True

    def _give(self, client: str, amount: int) -> None:
        with self._lock:
            self._taken[client] -= amount
            self._taken_by_all -= amount
            if not self._taken[client]:
                del self._taken[client]
