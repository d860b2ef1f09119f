"""The state of the collateral table (`kbs.broker.table_state`).

Certificates and revocation lists prove themselves; that none was taken away, and no
older set put back, only the sealed state says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kbs.broker.ports import StoredCollateral, TableState, Transaction
from kbs.broker.table_state import TableSeal
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


def collateral_seal(key: Secret) -> TableSeal:
    """Return what seals the state of the table."""
    return TableSeal(key, _CONTEXT, digest_rows(()), tampered)


def read_state(tx: Transaction, seal: TableSeal) -> TableState:
    """Return the row, proven to be this broker's; that of import 0 if there is none.

    Raises:
        IntegrityError: it was changed.
    """
    return seal.proven(tx.collateral.state())


def check_rows(state: TableState, rows: Sequence[StoredCollateral]) -> None:
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
