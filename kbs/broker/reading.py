"""Reading what is in force while others change it.

A transaction sees the database as it was when it began. Where more is in force by the
time that it is looked at (this process or the high-water mark knows), what it shows is
not taken; one that begins now shows it. Administrators are not told to try again for
that, least of all when their own statement was accepted already.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from kbs.broker.governance import StaleReadError
from kbs.broker.ports import Database, Transaction

T = TypeVar("T")

_ATTEMPTS = 10


def read_latest(database: Database, read: Callable[[Transaction], T]) -> T:
    """Return what `read` finds in a transaction that is not older than what is known.

    Raises:
        StaleReadError: every one was, so quickly do others change it.
        KbsError: as `read`.
    """
    for _ in range(_ATTEMPTS - 1):
        with suppress(StaleReadError), database.read() as tx:
            return read(tx)
    with database.read() as tx:
        return read(tx)
