"""What a table holds, sealed: which rows, after how many changes.

Rows of the collateral and the key table prove themselves, but nothing in them says
that a newer one was there. So the set of rows is digested into one row beside them,
with the number of the change and a MAC under a key that the database does not show.
The numbers are in the high-water mark as well: table and row put back together are
found older.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from kbs.broker.governance import StaleReadError
from kbs.broker.ports import TableState
from kbs.core.encode import canonical_json
from kbs.core.errors import IntegrityError
from kbs.keys.secret import Secret

Fault = Callable[[str, str], IntegrityError]
"""Makes the fault of a table that was changed, from got and expected."""


class TableSeal:
    """Seals the state of one table."""

    def __init__(
        self, key: Secret, context: bytes, nothing: bytes, fault: Fault
    ) -> None:
        """Seal under a key; no context is a prefix of another one.

        `nothing` is the digest of the empty table, which no row is needed for.
        """
        self._key = key
        self._context = context
        self._fault = fault
        self._empty = self.seal(0, nothing)
        # The row that was proven last: the same one needs no second proof.
        self._proven = self._empty

    def seal(self, seq: int, digest: bytes) -> TableState:
        """Return the row that says what was there after change number `seq`."""
        message = self._context + canonical_json({"seq": seq, "digest": digest.hex()})
        mac = hmac.digest(self._key.reveal(), message, "sha256")
        return TableState(seq=seq, digest=digest, mac=mac)

    def proven(self, stored: TableState | None) -> TableState:
        """Return a row that this broker wrote; that of change 0 if there is none.

        Raises:
            IntegrityError: it was changed.
        """
        if stored is None:
            return self._empty
        proven = self._proven
        if stored == proven:
            return proven
        if not hmac.compare_digest(
            stored.mac, self.seal(stored.seq, stored.digest).mac
        ):
            raise self._fault("a state row that this broker did not write", "its own")
        self._proven = stored
        return stored


class Reached:
    """How far a table had come, by what this process saw and the high-water mark."""

    def __init__(
        self,
        what: str,
        *,
        marked: Callable[[], int],
        newest: Callable[[], int],
        fault: Fault,
    ) -> None:
        """`marked` is the mark's number, `newest` that of a transaction of its own."""
        self._what = what
        self._marked = marked
        self._newest = newest
        self._fault = fault
        self._reached = 0

    def require(self, state: TableState, *, committed: bool = True) -> None:
        """Return if the table is no older than it is known to have been.

        A state that is not `committed` may never be: it is not remembered.

        Raises:
            IntegrityError: it went back.
            StaleReadError: the transaction began before the last change.
        """
        known = max(self._reached, self._marked())
        if state.seq >= known:
            if committed:
                self._reached = max(self._reached, state.seq)
            return
        # A transaction that began before a change committed is no tampering.
        newest = self._newest()
        if newest < known:
            raise self._fault(f"change {newest}", f"at least change {known}")
        raise StaleReadError(
            self._what,
            got=f"a view of change {state.seq}",
            expected=f"one of change {known}",
            hint="try again",
            code=f"{self._what}.stale",
        )
