"""A receipt in a file, verified without the broker that gave it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kbs.artifacts.files import reading
from kbs.audit.logkey import LogKey
from kbs.audit.receipt import (
    MAX_RECEIPT,
    RECEIPT_FORMAT,
    Receipt,
    VerifiedReceipt,
    read_receipt,
    verify_receipt,
)
from kbs.core.clock import format_time
from kbs.core.encode import parse_json_object
from kbs.core.errors import MalformedError


@dataclass(frozen=True, slots=True)
class Proven:
    """What a receipt proves, as a document and in words."""

    receipt: VerifiedReceipt

    def to_json(self) -> dict[str, object]:
        """Return what --json shows."""
        proven = self.receipt
        return {
            "holds": True,
            "origin": proven.checkpoint.origin,
            "index": proven.index,
            "size": proven.checkpoint.size,
            "root": proven.checkpoint.root.hex(),
            "key": proven.key.vkey,
            "entry": proven.leaf.id,
            "kind": proven.leaf.kind.value,
            "time": format_time(proven.leaf.time),
            "body": None if proven.body is None else dict(proven.body.members),
        }

    def line(self) -> str:
        """Say which entry of which log it is about."""
        proven = self.receipt
        return (
            f"entry {proven.index} of {proven.checkpoint.size} of "
            f"{proven.checkpoint.origin}: {proven.leaf.kind}, {proven.leaf.id}"
        )


def find_receipt(path: Path) -> Receipt | None:
    """Read the receipt in a file; None where the file is something else.

    Raises:
        MalformedError: it cannot be read, or says to be a receipt and lacks its shape.
    """
    with reading(path) as file:
        data = file.read(MAX_RECEIPT + 1) or b""
    try:
        document = parse_json_object(data, "receipt", limit=MAX_RECEIPT)
    except MalformedError:
        # An export has many lines, each a document.
        return None
    return read_receipt(document) if document.get("format") == RECEIPT_FORMAT else None


def prove_receipt(receipt: Receipt, keys: tuple[LogKey, ...]) -> Proven:
    """Verify a receipt under the log keys that the caller trusts.

    Raises:
        MalformedError: none is known; unlike an export, a receipt names none.
        VerificationError: it does not hold.
    """
    if not keys:
        raise MalformedError(
            "log key",
            got="none",
            expected="the key of the log that the receipt is from",
            hint="give --log-key VKEY, or --profile DIR of its administrator",
            code="usage",
        )
    return Proven(verify_receipt(receipt, keys=keys, origin=keys[0].origin))
