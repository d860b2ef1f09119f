"""The local collateral table: what vendors publish, without any trust.

Certificates, revocation lists, OCSP answers, vendors' documents, and reference
integrity manifests (RIMs): each proves itself when it is used.

Verifiers get a snapshot in memory; it is read again only when the table changed, and
then it must be what the last import left (`kbs.broker.collateral_state`): a newer
revocation list cannot be taken away. What a newer one superseded long ago goes when
something is added (`kbs.broker.collateral_pruning`). Fetching from vendors is done
elsewhere (`kbs.broker.vendors`), never for a request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from kbs.audit.events import CollateralFetched, CollateralPruned
from kbs.broker.actors import Actor
from kbs.broker.collateral_items import collateral_of, row_json, rows_of
from kbs.broker.collateral_pruning import superseded
from kbs.broker.collateral_state import (
    check_rows,
    collateral_seal,
    digest_rows,
    read_state,
    tampered,
)
from kbs.broker.commit import Work
from kbs.broker.identity import Identity
from kbs.broker.journal import Journal
from kbs.broker.mark import MarkKeeper
from kbs.broker.ports import (
    Database,
    StoredCollateral,
    TableState,
    Transaction,
)
from kbs.broker.table_state import Reached
from kbs.broker.vendors.source import Source
from kbs.core.clock import Clock
from kbs.core.encode import b64, parse_b64, parse_hex, require_list, require_members
from kbs.core.errors import IntegrityError, NotFoundError
from kbs.evidence.model import GivenCollateral
from kbs.governance.authority import Role
from kbs.governance.statement import EVERY_TENANT
from kbs.pki.certificates import MAX_CRL_BYTES

_Version = tuple[TableState, tuple[int, str]]

MAX_ITEMS = 256
"""Most files in one import."""

KEPT = timedelta(days=30)
"""How long what was superseded stays at least, for verdicts as of a time of then."""

PRUNED_AT_ONCE = 1000
"""Most rows that one change takes away; all their digests are in its entry."""


class CollateralTable:
    """Imports, lists and hands out vendor collateral."""

    def __init__(
        self,
        *,
        database: Database,
        journal: Journal,
        identity: Identity,
        mark: MarkKeeper,
        clock: Clock,
        report: Callable[[IntegrityError], None] = lambda _: None,
        kept: timedelta = KEPT,
        is_steady: Callable[[], bool] = lambda: True,
    ) -> None:
        """Start without a snapshot; tell `report` of a table that was changed.

        What was superseded is `kept` for at least so long, and `KEPT` in any case, by
        a clock that `is_steady`.
        """
        self._kept = max(kept, KEPT)
        self._is_steady = is_steady
        self._journal = journal
        self._seal = collateral_seal(identity.state_key)
        self._mark = mark
        self._clock = clock
        self._report = report
        self._fault: str | None = None
        self._database = database
        self._reached = Reached(
            "collateral", marked=self._marked, newest=self._newest, fault=tampered
        )
        self._snapshot: tuple[_Version, GivenCollateral] | None = None

    def current(self, tx: Transaction) -> GivenCollateral:
        """Return everything in the table, from memory while it did not change.

        Raises:
            IntegrityError: it is not what the last import left; reported as well.
            StaleReadError: the transaction began before the last import.
        """
        try:
            found = self._current(tx)
        except IntegrityError as exc:
            # Asked for at every decision: said once for as long as it stays so.
            if self._fault != str(exc):
                self._fault = str(exc)
                self._report(exc)
            raise
        self._fault = None
        return found

    def imports(self, tx: Transaction) -> int:
        """Return the number of the last import.

        Raises:
            IntegrityError: the state row is not this broker's.
        """
        return read_state(tx, self._seal).seq

    def _current(self, tx: Transaction) -> GivenCollateral:
        state = read_state(tx, self._seal)
        self._reached.require(state)
        version = (state, tx.collateral.fingerprint())
        snapshot = self._snapshot
        if snapshot is not None and snapshot[0] == version:
            return snapshot[1]
        rows = tx.collateral.list()
        check_rows(state, rows)
        loaded = collateral_of(rows)
        self._snapshot = (version, loaded)
        return loaded

    def _marked(self) -> int:
        floor = self._mark.floor()
        return 0 if floor is None else floor.collateral

    def _newest(self) -> int:
        with self._database.read() as fresh:
            return read_state(fresh, self._seal).seq

    def reseal(self, tx: Transaction) -> None:
        """Take the table as it is: the operator accepted what was found at start."""
        known = 0
        # Either may be what the operator accepts: a mark or a state nobody can read.
        with suppress(IntegrityError):
            known = self._marked()
        with suppress(IntegrityError):
            known = max(known, read_state(tx, self._seal).seq)
        # A number of its own, so that no state of before is ever good again.
        digest = digest_rows(tx.collateral.list())
        tx.collateral.set_state(self._seal.seal(known + 1, digest))

    def list(self, actor: Actor) -> dict[str, object]:
        """Return what is in the table; any administrator may see it."""
        actor.require_any()
        return {"collateral": [row_json(row) for row in self.rows()]}

    def item(self, actor: Actor, digest: str) -> dict[str, object]:
        """Return one item with its bytes; any administrator may see it.

        Raises:
            NotFoundError: there is none of this SHA-256.
            MalformedError: that is no SHA-256.
        """
        actor.require_any()
        wanted = parse_hex(digest, "collateral SHA-256", size=32)
        for row in self.rows():
            if row.digest == wanted:
                return {**row_json(row), "data": b64(row.der)}
        raise NotFoundError(f"collateral {digest}")

    def rows(self) -> Sequence[StoredCollateral]:
        """Return what is in the table, as it is now."""
        with self._database.read() as tx:
            return tx.collateral.list()

    def import_items(self, actor: Actor, body: dict[str, object]) -> dict[str, object]:
        """Keep what vendors publish: certificates, status, documents, manifests.

        Raises:
            MalformedError: a file is none of these; nothing of the import is kept.
            ForbiddenError: the caller is no policy administrator everywhere.
            IntegrityError: rows were taken away or changed, and these are not they.
        """
        # The table is the instance's: every tenant's evidence meets what is in it.
        actor.require(Role.POLICY_ADMIN, EVERY_TENANT)
        members = require_members(body, "collateral", required={"items"})
        items = require_list(members["items"], "collateral items", limit=MAX_ITEMS)
        now = self._clock.now()
        rows = [
            row
            for place, item in enumerate(items, 1)
            for row in rows_of(_decoded(item, place), place, now)
        ]
        done = self._journal.administer(
            actor,
            "collateral.import",
            lambda work: self._insert(work, rows),
            detail=f"{len(rows)} certificates, revocation lists and the like",
        )
        self._mark.write()
        return {
            "read": len(rows),
            "added": done.value,
            "entry": done.placed[-1].entry.id,
        }

    def keep(self, source: Source, items: Sequence[bytes]) -> int:
        """Keep what the broker fetched by itself; return how many were new.

        The log tells of it when something was.

        Raises:
            IntegrityError: rows were taken away or changed.
        """
        now = self._clock.now()
        rows = [
            row
            for place, data in enumerate(items, 1)
            for row in rows_of(data, place, now)
        ]
        if self._knows(rows):
            return 0
        event = CollateralFetched(source=source.log_name, count=len(rows))

        def both(work: Work) -> int:
            added = self._insert(work, rows)
            work.append(self._journal.entry(event))
            return added

        added = self._journal.change(both).value
        self._mark.write()
        return added

    def _knows(self, rows: Sequence[StoredCollateral]) -> bool:
        known = {row.digest for row in self.rows()}
        return all(row.digest in known for row in rows)

    def _insert(self, work: Work, rows: Sequence[StoredCollateral]) -> int:
        store = work.tx.collateral
        state = read_state(work.tx, self._seal)
        self._reached.require(state, committed=False)
        whole = _is_whole(state, store.list())
        added = sum(store.insert(row) for row in rows)
        after = store.list()
        if not whole:
            # Good again only if exactly what was taken away came back.
            check_rows(state, after)
        if added:
            after = self._prune(work, after)
            store.set_state(self._seal.seal(state.seq + 1, digest_rows(after)))
        return added

    def _prune(
        self, work: Work, rows: Sequence[StoredCollateral]
    ) -> Sequence[StoredCollateral]:
        """Take away what no verdict hangs on any more; return what is left.

        Only when something new came, and in the same change: so the table cannot grow
        for ever, and nothing that rests on it has to be decided once more for this.
        """
        before = self._clock.now() - self._kept
        # What a wrong clock takes for old would be lost.
        gone = superseded(rows, before)[:PRUNED_AT_ONCE] if self._is_steady() else ()
        if not gone:
            return rows
        work.tx.collateral.delete(gone)
        event = CollateralPruned(
            count=len(gone), before=before, digests=tuple(one.hex() for one in gone)
        )
        work.append(self._journal.entry(event))
        return [row for row in rows if row.digest not in set(gone)]


def _is_whole(state: TableState, rows: Sequence[StoredCollateral]) -> bool:
    return digest_rows(rows) == state.digest


def _decoded(item: object, place: int) -> bytes:
    return parse_b64(item, f"collateral item {place}", limit=MAX_CRL_BYTES * 2)
