"""Receipts: an entry, its inclusion proof and a checkpoint, checked without the log.

::

    {"format": "kbs.receipt/1", "leaf": text, "index": n, "checkpoint": note,
     "inclusion": [base64, …], "body": {…}, "salt": base64}

`body` and `salt` come together or not at all: a grant's receipt has them, one for a
denial has not (a body holds what an administrator may see and a workload may not).

A receipt proves that this log's key committed to the entry. It does not prove that the
log shows the same tree to everyone; guests keep the last checkpoint and ask for
consistency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kbs.audit.checkpoint import MAX_NOTE, Checkpoint, verify_checkpoint
from kbs.audit.entry import (
    MAX_BODY,
    MAX_LEAF,
    SALT_SIZE,
    Body,
    Leaf,
    parse_leaf,
    verify_body,
)
from kbs.audit.logkey import LogKey
from kbs.audit.proof import HASH_SIZE, MAX_PROOF, leaf_hash, verify_inclusion
from kbs.core.encode import (
    MAX_INTEGER,
    b64,
    canonical_json,
    parse_b64,
    parse_json_object,
    require_integer,
    require_list,
    require_members,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError

RECEIPT_FORMAT = "kbs.receipt/1"
MAX_RECEIPT = MAX_BODY + 64 * 1024

_REQUIRED = frozenset({"format", "leaf", "index", "checkpoint", "inclusion"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A receipt, parsed or made; `verify_receipt` says whether to believe it."""

    leaf: bytes
    index: int
    checkpoint: bytes
    inclusion: tuple[bytes, ...]
    body: bytes | None = None
    salt: bytes | None = None

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        document: dict[str, object] = {
            "format": RECEIPT_FORMAT,
            "leaf": self.leaf.decode(),
            "index": self.index,
            "checkpoint": self.checkpoint.decode(),
            "inclusion": [b64(value) for value in self.inclusion],
        }
        if self.body is not None and self.salt is not None:
            document["body"] = parse_json_object(self.body, "body", limit=MAX_BODY)
            document["salt"] = b64(self.salt)
        return document

    def serialize(self) -> bytes:
        """Return canonical JSON."""
        return canonical_json(self.to_json())


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReceipt:
    """What a receipt proves; only `verify_receipt` makes one.

    `key` signed the checkpoint. `body` is None where the receipt carries none.
    """

    leaf: Leaf
    index: int
    checkpoint: Checkpoint
    key: LogKey
    body: Body | None


def read_receipt(document: object) -> Receipt:
    """Read the JSON form of a receipt, as it stands in an answer.

    Raises:
        MalformedError: it lacks the promised shape.
    """
    members = require_members(
        document, "receipt", required=_REQUIRED, optional={"body", "salt"}
    )
    if members["format"] != RECEIPT_FORMAT:
        raise MalformedError(
            "receipt format", got=repr(members["format"])[:40], expected=RECEIPT_FORMAT
        )
    if ("body" in members) != ("salt" in members):
        raise MalformedError("receipt", got="one of body and salt", expected="both")
    path = require_list(members["inclusion"], "receipt inclusion", limit=MAX_PROOF)
    body, salt = _read_body(members)
    return Receipt(
        leaf=_text(members["leaf"], "receipt leaf", limit=MAX_LEAF),
        index=require_integer(
            members["index"], "receipt index", least=0, most=MAX_INTEGER
        ),
        checkpoint=_text(members["checkpoint"], "receipt checkpoint", limit=MAX_NOTE),
        inclusion=tuple(
            _sized(value, "receipt inclusion", HASH_SIZE) for value in path
        ),
        body=body,
        salt=salt,
    )


def parse_receipt(data: bytes) -> Receipt:
    """Read a receipt from a file; white space is allowed there.

    Raises:
        MalformedError: it is not one.
    """
    return read_receipt(parse_json_object(data, "receipt", limit=MAX_RECEIPT))


def verify_receipt(
    receipt: Receipt, *, keys: Sequence[LogKey], origin: str
) -> VerifiedReceipt:
    """Check a receipt offline: signature, inclusion, leaf, and body where there is one.

    Raises:
        MalformedError: the checkpoint, the leaf or the body does not parse.
        VerificationError: another log, an unknown key, or a proof that does not hold.
    """
    checkpoint, key = verify_checkpoint(receipt.checkpoint, origin=origin, keys=keys)
    verify_inclusion(
        leaf_hash(receipt.leaf),
        index=receipt.index,
        size=checkpoint.size,
        proof=receipt.inclusion,
        root=checkpoint.root,
    )
    leaf = parse_leaf(receipt.leaf)
    body = None
    if receipt.body is not None and receipt.salt is not None:
        body = verify_body(leaf, receipt.body, receipt.salt)
    return VerifiedReceipt(
        leaf=leaf, index=receipt.index, checkpoint=checkpoint, key=key, body=body
    )


def _read_body(members: Mapping[str, object]) -> tuple[bytes | None, bytes | None]:
    if "body" not in members:
        return None, None
    body = canonical_json(require_object(members["body"], "receipt body"))
    return body, _sized(members["salt"], "receipt salt", SALT_SIZE)


def _text(value: object, what: str, *, limit: int) -> bytes:
    try:
        return require_text(value, what, limit=limit).encode()
    except UnicodeEncodeError as exc:
        raise MalformedError(what, got="a lone surrogate") from exc


def _sized(value: object, what: str, size: int) -> bytes:
    data = parse_b64(value, what, limit=size)
    if len(data) != size:
        raise MalformedError(what, got=f"{len(data)} bytes", expected=f"{size} bytes")
    return data
