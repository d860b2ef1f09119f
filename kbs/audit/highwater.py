"""The high-water mark: how far log and governance had come, kept outside the database.

`decisions.md`, section 5. A database restored from an old copy is whole in itself; only
something that it cannot take back shows that it is old. The mark is signed by the log's
key, so that nobody can lower it who can merely write the file. This module has no
files: an adapter replaces them atomically.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kbs.audit.logkey import HASH_SIZE as KEY_HASH_SIZE
from kbs.audit.logkey import SIGNATURE_SIZE, LogKey, LogSigner, find_key, parse_origin
from kbs.audit.proof import HASH_SIZE
from kbs.core.encode import (
    MAX_INTEGER,
    b64,
    canonical_json,
    parse_b64,
    parse_hex,
    parse_json_object,
    require_integer,
    require_members,
)
from kbs.core.errors import IntegrityError, MalformedError
from kbs.core.ids import parse_hex32

MARK_TYPE = "kbs.highwater/1"
MAX_MARK = 4096

_CONTEXT = b"kbs.highwater/1\x00"
_ACCEPT = (
    "if you restored a backup on purpose, start with --accept-rollback REASON; "
    "otherwise restore the newest database"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HighWaterMark:
    """How far the database had come.

    `seq` is the last statement, `head` its hash (hex), which all before it lead to;
    `root` is that of the first `size` entries; `collateral` counts the imports, `keys`
    the changes of the key table.
    """

    instance: str
    seq: int
    head: str
    size: int
    root: bytes
    collateral: int
    keys: int

    def to_json(self) -> dict[str, object]:
        """Return the part that is signed."""
        return {
            "typ": MARK_TYPE,
            "instance": self.instance,
            "seq": self.seq,
            "head": self.head,
            "size": self.size,
            "root": self.root.hex(),
            "collateral": self.collateral,
            "keys": self.keys,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedMark:
    """The file, parsed; nothing about it is proven before `verify_mark`."""

    mark: HighWaterMark
    log: str
    key_hash: bytes
    signature: bytes

    def serialize(self) -> bytes:
        """Return the one spelling of the file, a line of canonical JSON."""
        document = {
            "mark": self.mark.to_json(),
            "log": self.log,
            "key": self.key_hash.hex(),
            "signature": b64(self.signature),
        }
        return canonical_json(document) + b"\n"


def sign_mark(mark: HighWaterMark, signer: LogSigner) -> bytes:
    """Return the content of the high-water file: one line of canonical JSON."""
    return SignedMark(
        mark=mark,
        log=signer.key.origin,
        key_hash=signer.key.key_hash,
        signature=signer.sign(_CONTEXT + canonical_json(mark.to_json())),
    ).serialize()


def parse_mark(data: bytes) -> SignedMark:
    """Read the file.

    Raises:
        MalformedError: anything that would not be written back byte for byte.
    """
    what = "high-water mark"
    members = require_members(
        parse_json_object(data, what, limit=MAX_MARK),
        what,
        required={"mark", "log", "key", "signature"},
    )
    signed = SignedMark(
        mark=_read_mark(members["mark"], what),
        log=parse_origin(members["log"], f"{what} log"),
        key_hash=parse_hex(members["key"], f"{what} key", size=KEY_HASH_SIZE),
        signature=parse_b64(
            members["signature"], f"{what} signature", limit=SIGNATURE_SIZE
        ),
    )
    if signed.serialize() != data:
        raise MalformedError(what, got="another spelling", expected="one line of JCS")
    return signed


def verify_mark(data: bytes, *, keys: Sequence[LogKey]) -> HighWaterMark:
    """Read the high-water file and check that one of the log's keys signed it.

    Raises:
        IntegrityError: it is damaged, of another log, or not signed by its key.
    """
    try:
        signed = parse_mark(data)
    except MalformedError as exc:
        raise IntegrityError(f"{exc}", hint=_ACCEPT) from exc
    key = find_key(keys, signed.log, signed.key_hash)
    message = _CONTEXT + canonical_json(signed.mark.to_json())
    if key is None or not key.is_signature(signed.signature, message):
        raise IntegrityError(
            "high-water mark signature",
            got=f"none that verifies, by {signed.log}+{signed.key_hash.hex()}",
            expected=" or ".join(
                f"{known.origin}+{known.key_hash.hex()}" for known in keys
            ),
            hint="the file was changed, or belongs to another instance",
        )
    return signed.mark


def check_extends(
    mark: HighWaterMark,
    *,
    instance: str,
    seq: int,
    size: int,
    collateral: int,
    keys: int,
    root_at: Callable[[int], bytes],
    head_at: Callable[[int], str],
) -> None:
    """Check that the database contains everything that the mark says was there.

    `root_at` computes the root of the first n entries of the database, for example
    `lambda n: merkle.root(store, n)`; `head_at` the hash of statement n. They are asked
    only for what the database has.

    Raises:
        IntegrityError: it was rolled back, rewritten, or is another instance's.
    """
    if mark.instance != instance:
        raise IntegrityError(
            "database: instance",
            got=instance,
            expected=f"{mark.instance}, as in the high-water mark",
            hint="this trust folder belongs to another broker",
            code="audit.instance",
        )
    _check_reached("log entries", size, mark.size)
    _check_reached("signed statements", seq, mark.seq)
    _check_reached("imports of collateral", collateral, mark.collateral)
    _check_reached("changes of keys", keys, mark.keys)
    head = head_at(mark.seq)
    if head != mark.head:
        raise IntegrityError(
            f"database: signed statement {mark.seq} is another one",
            got=head,
            expected=f"{mark.head}, as in the high-water mark",
            hint=_ACCEPT,
            code="governance.mark",
        )
    found = root_at(mark.size)
    if found != mark.root:
        raise IntegrityError(
            f"database: the first {mark.size} log entries were rewritten: root",
            got=found.hex(),
            expected=f"{mark.root.hex()}, as in the high-water mark",
            hint=_ACCEPT,
            code="audit.log",
        )


def _check_reached(what: str, found: int, marked: int) -> None:
    if found < marked:
        raise IntegrityError(
            f"database is older than its high-water mark: {what}",
            got=str(found),
            expected=f"at least {marked}",
            hint=_ACCEPT,
            code="audit.rollback",
        )


def _read_mark(value: object, what: str) -> HighWaterMark:
    names = {"typ", "instance", "seq", "head", "size", "root", "collateral", "keys"}
    members = require_members(value, what, required=names)
    if members["typ"] != MARK_TYPE:
        raise MalformedError(
            f"{what} typ", got=repr(members["typ"])[:40], expected=MARK_TYPE
        )
    return HighWaterMark(
        instance=parse_hex32(members["instance"], f"{what} instance"),
        seq=require_integer(members["seq"], f"{what} seq", least=0, most=MAX_INTEGER),
        head=parse_hex(members["head"], f"{what} head", size=HASH_SIZE).hex(),
        size=require_integer(
            members["size"], f"{what} size", least=0, most=MAX_INTEGER
        ),
        root=parse_hex(members["root"], f"{what} root", size=HASH_SIZE),
        collateral=require_integer(
            members["collateral"], f"{what} collateral", least=0, most=MAX_INTEGER
        ),
        keys=require_integer(
            members["keys"], f"{what} keys", least=0, most=MAX_INTEGER
        ),
    )
