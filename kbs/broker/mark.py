"""The high-water mark: written outside the database, checked at start.

It is written before a statement is acknowledged, and at least each second while
entries come in. At start the database must extend it.
"""

from __future__ import annotations

import logging
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
from kbs.broker.checking import prove_logged
from kbs.broker.collateral_state import collateral_seal, read_state
from kbs.broker.identity import Identity
from kbs.broker.key_state import key_seal, read_key_state
from kbs.broker.ports import Database, Highwater, Transaction
from kbs.core.errors import IntegrityError, MalformedError
from kbs.governance.statement import read_envelope

log = logging.getLogger("kbs.upkeep")


class MarkKeeper:
    """Keeps the mark up with the database."""

    def __init__(
        self,
        database: Database,
        highwater: Highwater,
        identity: Identity,
        *,
        genesis_digest: str,
    ) -> None:
        """Know where the mark lies and who signs it."""
        self._database = database
        self._highwater = highwater
        self._identity = identity
        self._collateral_seal = collateral_seal(identity.state_key)
        self._key_seal = key_seal(identity.state_key)
        self._genesis_digest = genesis_digest
        self._lock = threading.Lock()
        self._kept: tuple[int, int] | None = None
        self._seen: tuple[object, HighWaterMark | None] = (object(), None)

    def write(self) -> None:
        """Advance the mark to what the database holds now.

        1. The database extends the mark that is written; it is never taken back.
        2. Every statement that the mark does not cover yet is proven by the log.
        3. Only then is the new mark signed.

        Raises:
            IntegrityError: 1 or 2 does not hold; the mark stays.
            UnavailableError: the file cannot be written.
        """
        # Read, compare and write in one turn, or a slower worker takes the mark back.
        with self._lock, self._highwater.locked():
            written = self._written()
            with self._database.read() as tx:
                if written is not None:
                    self._require_extended(tx, written)
                mark = self._current(tx)
                after = 0 if written is None else written.seq
                prove_logged(tx, self._identity.log_key, after=after)
            if mark != written:
                self._highwater.write(sign_mark(mark, self._identity.log_signer))
            self._kept = (mark.size, mark.seq)

    def replace(self) -> None:
        """Write the mark of a database whose rollback the operator accepted.

        Raises:
            UnavailableError: the file cannot be written.
        """
        with self._lock, self._highwater.locked():
            with self._database.read() as tx:
                mark = self._current(tx)
            self._highwater.write(sign_mark(mark, self._identity.log_signer))
            self._kept = (mark.size, mark.seq)

    def write_if_behind(self) -> None:
        """Advance the mark if the database changed since.

        Raises:
            IntegrityError: the database went back.
            UnavailableError: the file cannot be written.
        """
        with self._database.read() as tx:
            state = (tx.log.head().size, tx.governance.head())
        if state != self._kept:
            self.write()

    def floor(self) -> HighWaterMark | None:
        """Return the mark as it stands, by whichever process wrote it.

        Asked for at every decision: the file is read again only when it changed.

        Raises:
            IntegrityError: it is damaged, or of another instance.
        """
        stamp = self._highwater.stamp()
        seen, mark = self._seen
        if stamp != seen:
            found = self._written()
            # A file that is gone does not make the database new.
            mark = mark if found is None else found
            self._seen = (stamp, mark)
        return mark

    def prove_logged(self, tx: Transaction, after: int) -> None:
        """Return if the log tells of every statement after a number.

        Raises:
            IntegrityError: it does not.
        """
        prove_logged(tx, self._identity.log_key, after=after)

    def check(self) -> None:
        """Return if the database extends the mark.

        Raises:
            IntegrityError: it does not, or there is no mark beside a used database.
        """
        written = self._written()
        with self._database.read() as tx:
            if written is None:
                raise IntegrityError(
                    "high-water mark",
                    got="none in the trust folder",
                    expected=f"a mark beside a log of {tx.log.head().size} entries",
                    hint="restore it, or start with --accept-rollback REASON",
                    code="audit.mark",
                )
            self._require_extended(tx, written)

    def _written(self) -> HighWaterMark | None:
        data = self._highwater.read()
        if data is None:
            return None
        return verify_mark(data, keys=[self._identity.log_key])

    def _require_extended(self, tx: Transaction, mark: HighWaterMark) -> None:
        check_extends(
            mark,
            instance=self._identity.instance,
            seq=tx.governance.head(),
            size=tx.log.head().size,
            collateral=read_state(tx, self._collateral_seal).seq,
            keys=read_key_state(tx, self._key_seal).seq,
            root_at=lambda size: merkle.root(tx.log, size),
            head_at=lambda seq: self._head_at(tx, seq),
        )

    def _head_at(self, tx: Transaction, seq: int) -> str:
        if seq == 0:
            return self._genesis_digest
        envelope = tx.governance.statements_at([seq]).get(seq)
        if envelope is None:
            return "no statement"
        try:
            return read_envelope(envelope).statement.hash()
        except MalformedError:
            return "no readable statement"

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
        size, seq = tx.log.head().size, tx.governance.head()
        return HighWaterMark(
            instance=self._identity.instance,
            seq=seq,
            head=self._head_at(tx, seq),
            size=size,
            root=merkle.root(tx.log, size),
            collateral=read_state(tx, self._collateral_seal).seq,
            keys=read_key_state(tx, self._key_seal).seq,
        )


def _state(mark: HighWaterMark) -> LogState:
    return LogState(seq=mark.seq, size=mark.size, root=mark.root.hex())


class Ticker:
    """Runs upkeep in a thread of its own until it is stopped."""

    def __init__(self, run: Callable[[], object], seconds: float, *, name: str) -> None:
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
            self._run_once()
        self._run_once()

    def _run_once(self) -> None:
        try:
            self._run()
        except Exception:
            # A bug; upkeep that ended for it would be missed by nobody.
            log.exception("%s: an internal error; tried again", self._thread.name)
