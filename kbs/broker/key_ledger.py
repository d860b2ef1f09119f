"""Key versions as the last change left them: no row of the past counts again.

The MACs of all rows lie in memory, proven by the sealed state, and are read again only
when that state changed. What is asked for is compared with them, so that a row which
somebody put back, changed or took away is found where it would matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from kbs.broker.governance import StaleReadError
from kbs.broker.identity import Identity
from kbs.broker.key_state import digest_keys, key_seal, read_key_state, tampered
from kbs.broker.mark import MarkKeeper
from kbs.broker.ports import Database, TableState, Transaction
from kbs.broker.table_state import Reached
from kbs.broker.vault import Vault
from kbs.core.errors import IntegrityError, KbsError
from kbs.core.ids import KeyId
from kbs.keys.store import StoredKeyVersion

_Found = TypeVar("_Found")

MAX_TOLD = 64
"""Faults that are told apart until the table is whole again."""


class KeyLedger:
    """Reads key versions and proves them; takes in their changes."""

    def __init__(
        self,
        *,
        database: Database,
        identity: Identity,
        vault: Vault,
        mark: MarkKeeper,
        report: Callable[[IntegrityError], None] = lambda _: None,
    ) -> None:
        """Start without a snapshot; tell `report` of a table that was changed."""
        self._database = database
        self._vault = vault
        self._seal = key_seal(identity.state_key)
        self._mark = mark
        self._report = report
        self._told: set[str] = set()
        self._snapshot: tuple[TableState, Mapping[str, bytes]] | None = None
        self._reached = Reached(
            "keys", marked=self._marked, newest=self._newest, fault=tampered
        )

    def versions(
        self, tx: Transaction, key_id: KeyId, *, writing: bool = False
    ) -> tuple[StoredKeyVersion, ...]:
        """Return all versions of a key, oldest first, as the last change left them.

        A transaction that is `writing` sees what may still be rolled back.

        Raises:
            IntegrityError: they are not, or the table went back; reported as well.
            StaleReadError: keys change faster than they can be read.
        """
        return self._reporting(lambda: self._newest_versions(tx, key_id, writing))

    def check(self, tx: Transaction) -> None:
        """Return if the table has the rows that the last change left, by their MACs.

        What a MAC covers is verified where a row is asked for.

        Raises:
            IntegrityError: it is not; reported as well.
            StaleReadError: the transaction began before the last change.
        """
        self._reporting(lambda: self._check(tx))
        # Whole again: what breaks from here on is news.
        self._told.clear()

    def watch(self) -> None:
        """Check the whole table; what is found is reported, not raised."""
        with suppress(KbsError), self._database.read() as tx:
            self.check(tx)

    def changed(self, tx: Transaction, rows: Sequence[StoredKeyVersion]) -> None:
        """Seal the state with rows that were just written in this transaction.

        From what was proven before, never from the table: a row that somebody put
        back does not become good by another one's change.

        Raises:
            IntegrityError: the table was not what the change before left.
        """
        state, macs = self._proven(tx)
        after = {**macs, **{str(row.key.ref): row.mac for row in rows}}
        self._write(tx, state.seq + 1, after)

    def reseal(self, tx: Transaction) -> None:
        """Take the table as it is: the operator accepted what was found at start."""
        known = 0
        # Either may be what the operator accepts: a mark or a state nobody can read.
        with suppress(IntegrityError):
            known = self._marked()
        with suppress(IntegrityError):
            known = max(known, read_key_state(tx, self._seal).seq)
        # A number of its own, so that no state of before is ever good again.
        self._write(tx, known + 1, tx.keys.macs())

    def _write(self, tx: Transaction, seq: int, macs: Mapping[str, bytes]) -> None:
        state = self._seal.seal(seq, digest_keys(macs))
        tx.keys.set_state((state.seq, state.digest, state.mac))
        # Found again by the state alone: one that is rolled back is never asked for.
        self._snapshot = (state, macs)

    def _newest_versions(
        self,
        tx: Transaction,
        key_id: KeyId,
        writing: bool,  # noqa: FBT001 - of the method above
    ) -> tuple[StoredKeyVersion, ...]:
        try:
            return self._versions(tx, key_id, writing)
        except StaleReadError:
            # Some key changed since the transaction began, this one or another: what
            # it is by now counts, and what is released is compared again when it is
            # recorded (`kbs.broker.recheck`).
            with self._database.read() as fresh:
                return self._versions(fresh, key_id, writing)

    def _versions(
        self,
        tx: Transaction,
        key_id: KeyId,
        writing: bool,  # noqa: FBT001 - of the method above
    ) -> tuple[StoredKeyVersion, ...]:
        state, macs = self._proven(tx)
        self._reached.require(state, committed=not writing)
        rows = tx.keys.versions(key_id)
        for row in rows:
            if macs.get(str(row.key.ref)) != row.mac:
                raise tampered(f"another row of {row.key.ref}")
            self._vault.verify(row)
        # Versions count from 1 without gaps; the one after the last must be unknown.
        expected = [row.key.version for row in rows] == list(range(1, len(rows) + 1))
        if not expected or f"{key_id}@{len(rows) + 1}" in macs:
            raise tampered(f"{len(rows)} versions of {key_id}")
        return rows

    def _check(self, tx: Transaction) -> None:
        state = read_key_state(tx, self._seal)
        self._reached.require(state)
        self._load(tx, state)

    def _proven(self, tx: Transaction) -> tuple[TableState, Mapping[str, bytes]]:
        state = read_key_state(tx, self._seal)
        snapshot = self._snapshot
        if snapshot is not None and snapshot[0] == state:
            return snapshot
        return self._load(tx, state)

    def _load(
        self, tx: Transaction, state: TableState
    ) -> tuple[TableState, Mapping[str, bytes]]:
        macs = tx.keys.macs()
        if digest_keys(macs) != state.digest:
            raise tampered(f"{len(macs)} versions that are another set")
        self._snapshot = (state, macs)
        return self._snapshot

    def _reporting(self, run: Callable[[], _Found]) -> _Found:
        try:
            return run()
        except IntegrityError as exc:
            # Asked for at every decision: each fault is said once.
            if str(exc) not in self._told and len(self._told) < MAX_TOLD:
                self._told.add(str(exc))
                self._report(exc)
            raise

    def _marked(self) -> int:
        floor = self._mark.floor()
        return 0 if floor is None else floor.keys

    def _newest(self) -> int:
        with self._database.read() as fresh:
            return read_key_state(fresh, self._seal).seq
