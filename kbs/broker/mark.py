"""The high-water mark: written outside the database, checked at start.

It is written before a statement is acknowledged, and at least each second while
entries come in. At start the database must extend it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from kbs.audit import merkle
from kbs.audit.events import LogState, RollbackAccepted
from kbs.audit.highwater import (
    HighWaterMark,
    check_extends,
    sign_mark,
    verify_mark,
)
from kbs.broker.identity import Identity
from kbs.broker.ports import Database, Highwater, Transaction
from kbs.core.errors import IntegrityError

INTERVAL_SECONDS = 1.0
"""How old the mark may get while entries come in."""


class MarkKeeper:
    """Keeps the mark up with the database."""

    def __init__(
        self, database: Database, highwater: Highwater, identity: Identity
    ) -> None:
        """Know where the mark lies and who signs it."""
        self._database = database
        self._highwater = highwater
        self._identity = identity
        self._lock = threading.Lock()
        self._size = -1

    def write(self) -> None:
        """Write the mark now, unless the file is further already.

        Raises:
            UnavailableError: the file cannot be written.
        """
        # Read, compare and write in one turn, or a slower worker takes the mark back.
        with self._lock, self._highwater.locked():
            with self._database.read() as tx:
                mark = self._current(tx)
            if self._is_further(mark):
                self._highwater.write(sign_mark(mark, self._identity.log_signer))
            self._size = mark.size

    def replace(self) -> None:
        """Write the mark of a database whose rollback the operator accepted.

        Raises:
            UnavailableError: the file cannot be written.
        """
        with self._lock, self._highwater.locked():
            with self._database.read() as tx:
                mark = self._current(tx)
            self._highwater.write(sign_mark(mark, self._identity.log_signer))
            self._size = mark.size

    def _is_further(self, mark: HighWaterMark) -> bool:
        data = self._highwater.read()
        if data is None:
            return True
        try:
            written = verify_mark(data, keys=[self._identity.log_key])
        except IntegrityError:
            # Damaged while we run: what the database proves is better than nothing.
            return True
        return (mark.size, mark.seq) > (written.size, written.seq)

    def write_if_behind(self) -> None:
        """Write the mark if the log has grown since.

        Raises:
            UnavailableError: the file cannot be written.
        """
        with self._database.read() as tx:
            size = tx.log.head().size
        if size != self._size:
            self.write()

    def check(self) -> None:
        """Return if the database extends the mark.

        Raises:
            IntegrityError: it does not, or there is no mark beside a used database.
        """
        data = self._highwater.read()
        with self._database.read() as tx:
            if data is None:
                raise IntegrityError(
                    "high-water mark",
                    got="none in the trust folder",
                    expected=f"a mark beside a log of {tx.log.head().size} entries",
                    hint="restore it, or start with --accept-rollback REASON",
                    code="audit.mark",
                )
            mark = verify_mark(data, keys=[self._identity.log_key])
            check_extends(
                mark,
                instance=self._identity.instance,
                seq=tx.governance.head(),
                size=tx.log.head().size,
                root_at=lambda size: merkle.root(tx.log, size),
            )

    def accepted(self, reason: str) -> RollbackAccepted:
        """Return the event of an operator who starts all the same."""
        data = self._highwater.read()
        with self._database.read() as tx:
            found = self._current(tx)
        mark = found if data is None else self._readable(data, found)
        return RollbackAccepted(reason=reason, mark=_state(mark), found=_state(found))

    def _readable(self, data: bytes, found: HighWaterMark) -> HighWaterMark:
        try:
            return verify_mark(data, keys=[self._identity.log_key])
        except IntegrityError:
            return found

    def _current(self, tx: Transaction) -> HighWaterMark:
        size = tx.log.head().size
        return HighWaterMark(
            instance=self._identity.instance,
            seq=tx.governance.head(),
            size=size,
            root=merkle.root(tx.log, size),
        )


def _state(mark: HighWaterMark) -> LogState:
    return LogState(seq=mark.seq, size=mark.size, root=mark.root.hex())


class Ticker:
    """Runs upkeep in a thread of its own until it is stopped."""

    def __init__(self, run: Callable[[], None], seconds: float, *, name: str) -> None:
        """Start nothing yet."""
        self._run = run
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run, the first time after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """Run once more and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._seconds + 5)

    def _loop(self) -> None:
        while not self._stop.wait(self._seconds):
            self._run()
        self._run()
