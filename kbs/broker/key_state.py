"""The state of the key table (`kbs.broker.table_state`).

Every row of a key version carries a MAC over its state; that no row was put back as it
once was (a destroyed version, a retired one), only the sealed state says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from kbs.broker.ports import TableState, Transaction
from kbs.broker.table_state import TableSeal
from kbs.core.errors import IntegrityError
from kbs.keys.secret import Secret

TAMPERED = "keys.tampered"
"""Code of a key table that is not as the last change left it."""

# Of the uses of the state key, no context is a prefix of another one.
_CONTEXT = b"kbs.keys/1\x00"


def digest_keys(macs: Mapping[str, bytes]) -> bytes:
    """Return the digest of a set of versions, each named with its row's MAC."""
    # A reference has neither spaces nor line ends in it.
    lines = (f"{ref} {macs[ref].hex()}\n" for ref in sorted(macs))
    return hashlib.sha256("".join(lines).encode("ascii")).digest()


def key_seal(key: Secret) -> TableSeal:
    """Return what seals the state of the table."""
    return TableSeal(key, _CONTEXT, digest_keys({}), tampered)


def read_key_state(tx: Transaction, seal: TableSeal) -> TableState:
    """Return the row, proven to be this broker's; that of change 0 if there is none.

    Raises:
        IntegrityError: it was changed.
    """
    stored = tx.keys.state()
    if stored is None:
        return seal.proven(None)
    seq, digest, mac = stored
    return seal.proven(TableState(seq=seq, digest=digest, mac=mac))


def tampered(
    got: str, expected: str = "the table as the last change left it"
) -> IntegrityError:
    """Return the fault of a table that was changed behind the broker."""
    return IntegrityError(
        "keys",
        got=got,
        expected=expected,
        hint="the database was changed behind the broker; restore the newest one",
        code=TAMPERED,
    )
