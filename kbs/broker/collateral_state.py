"""What the collateral table holds, sealed: which rows, after how many imports.

Certificates and revocation lists prove themselves, but nothing in them says that a
newer list was there. So the set of rows is digested into one row beside them, with the
number of the import and a MAC under a key that the database does not show. The number
is in the high-water mark as well: table and row put back together are found older.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from kbs.broker.ports import CollateralState, StoredCollateral, Transaction
from kbs.core.encode import canonical_json
from kbs.core.errors import IntegrityError
from kbs.keys.secret import Secret

TAMPERED = "collateral.tampered"
"""Code of a table that is not as the last import left it."""

# Of the uses of the state key, no context is a prefix of another one.
_CONTEXT = b"kbs.collateral/1\x00"


def digest_rows(rows: Sequence[StoredCollateral]) -> bytes:
    """Return the digest of a set of rows, whatever their order and description."""
    return hashlib.sha256(
        canonical_json(
            sorted([row.kind, hashlib.sha256(row.der).hexdigest()] for row in rows)
        )
    ).digest()


def seal_state(key: Secret, seq: int, digest: bytes) -> CollateralState:
    """Return the row that says which set was there after import number `seq`."""
    message = _CONTEXT + canonical_json({"seq": seq, "digest": digest.hex()})
    return CollateralState(
        seq=seq, digest=digest, mac=hmac.digest(key.reveal(), message, "sha256")
    )


def read_state(tx: Transaction, key: Secret) -> CollateralState:
    """Return the row, proven to be this broker's; that of import 0 if there is none.

    Raises:
        IntegrityError: it was changed.
    """
    stored = tx.collateral.state()
    if stored is None:
        return seal_state(key, 0, digest_rows(()))
    if not hmac.compare_digest(
        stored.mac, seal_state(key, stored.seq, stored.digest).mac
    ):
        raise tampered("a state row that this broker did not write")
    return stored


def check_rows(state: CollateralState, rows: Sequence[StoredCollateral]) -> None:
    """Return if the rows are those of the last import.

    Raises:
        IntegrityError: one was added, changed or taken away.
    """
    if digest_rows(rows) != state.digest:
        raise tampered(f"{len(rows)} rows that are another set")


def tampered(
    got: str, expected: str = "the table as the last import left it"
) -> IntegrityError:
    """Return the fault of a table that was changed behind the broker."""
    return IntegrityError(
        "collateral",
        got=got,
        expected=expected,
        hint="import what was taken away again, or restore the newest database",
        code=TAMPERED,
    )
