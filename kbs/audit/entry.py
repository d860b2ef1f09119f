"""Entries: the body that auditors read, and the leaf that everyone may see.

::

    body = JCS({"v": 1, "id", "time", "kind", …members of the kind…})
    leaf = JCS({"v": 1, "id", "time", "kind", "body_sha256"})
    body_sha256 = hex SHA-256("kbs.entry/1" 0x00 ‖ salt ‖ body)

The salt lies beside the body and goes where it goes: without both, a leaf in a public
tile tells nothing of the body, not even to who can guess it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kbs.audit.events import Event
from kbs.audit.kinds import Kind
from kbs.audit.log import PreparedEntry
from kbs.audit.schema import check_members, members_of
from kbs.core.clock import format_time, parse_time
from kbs.core.encode import (
    canonical_json,
    parse_hex,
    parse_json_object,
    require_members,
)
from kbs.core.errors import MalformedError, VerificationError
from kbs.core.ids import parse_hex32

ENTRY_VERSION = 1
BODY_CONTEXT = b"kbs.entry/1\x00"
SALT_SIZE = 16

MAX_LEAF = 1024
MAX_BODY = 1024 * 1024

_COMMON = frozenset({"v", "id", "time", "kind"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What the public sees of an entry."""

    id: str
    time: datetime
    kind: Kind
    body_sha256: bytes

    def serialize(self) -> bytes:
        """Return the canonical form, which is the leaf of the tree."""
        # In order, and nothing in it that JSON would have to escape.
        return (
            f'{{"body_sha256":"{self.body_sha256.hex()}","id":"{self.id}",'
            f'"kind":"{self.kind}","time":"{format_time(self.time)}",'
            f'"v":{ENTRY_VERSION}}}'
        ).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What an auditor sees; `members` are those of the kind, checked by its schema."""

    id: str
    time: datetime
    kind: Kind
    members: Mapping[str, object]

    def serialize(self) -> bytes:
        """Return the canonical form, which the leaf commits to."""
        return canonical_json(
            {
                **self.members,
                "v": ENTRY_VERSION,
                "id": self.id,
                "time": format_time(self.time),
                "kind": str(self.kind),
            }
        )


def prepare(
    event: Event,
    *,
    time: datetime,
    entry_id: str | None = None,
    salt: bytes | None = None,
) -> PreparedEntry:
    """Turn an event into an entry that `append_batch` takes.

    Id and salt are fresh random values unless given (tests give them).

    Raises:
        MalformedError: a member has not the shape that the schema promises.
    """
    salt = secrets.token_bytes(SALT_SIZE) if salt is None else salt
    body = Body(
        id=secrets.token_hex(16)
        if entry_id is None
        else parse_hex32(entry_id, "entry id"),
        time=time,
        kind=event.kind,
        members=members_of(event),
    )
    text = body.serialize()
    # The members passed the schema that auditors read by; what is left is the size.
    if len(text) > MAX_BODY:
        raise MalformedError(
            "log entry", got=f"{len(text)} bytes", expected=f"at most {MAX_BODY}"
        )
    leaf = Leaf(
        id=body.id,
        time=time,
        kind=body.kind,
        body_sha256=salted_digest(text, salt),
    )
    named = keys(body)
    return PreparedEntry(
        id=body.id,
        time=time,
        kind=str(body.kind),
        leaf=leaf.serialize(),
        body=text,
        salt=salt,
        tenants=_tenants(body, named),
        keys=named,
        policies=policies(body),
        decision=decision(body),
    )


def salted_digest(body: bytes, salt: bytes) -> bytes:
    """Return the digest by which a leaf commits to a body.

    Raises:
        MalformedError: the salt is not 16 bytes.
    """
    if len(salt) != SALT_SIZE:
        raise MalformedError(
            "salt", got=f"{len(salt)} bytes", expected=f"{SALT_SIZE} bytes"
        )
    return hashlib.sha256(BODY_CONTEXT + salt + body).digest()


def parse_leaf(data: bytes) -> Leaf:
    """Read a leaf.

    Raises:
        MalformedError: anything that would not be written back byte for byte.
    """
    members = parse_json_object(data, "leaf", limit=MAX_LEAF)
    require_members(members, "leaf", required=_COMMON | {"body_sha256"})
    entry_id, time, kind = _parse_common(members, "leaf")
    leaf = Leaf(
        id=entry_id,
        time=time,
        kind=kind,
        body_sha256=parse_hex(members["body_sha256"], "leaf body_sha256", size=32),
    )
    if leaf.serialize() != data:
        raise MalformedError("leaf", got="another spelling", expected="canonical JSON")
    return leaf


def parse_body(data: bytes) -> Body:
    """Read a body under the schema of its kind.

    Raises:
        MalformedError: not canonical, or not what its kind promises.
    """
    members = parse_json_object(data, "body", limit=MAX_BODY)
    require_members(members, "body", required=_COMMON, optional=set(members) - _COMMON)
    entry_id, time, kind = _parse_common(members, "body")
    own = {name: value for name, value in members.items() if name not in _COMMON}
    check_members(kind, own)
    body = Body(id=entry_id, time=time, kind=kind, members=own)
    if body.serialize() != data:
        raise MalformedError("body", got="another spelling", expected="canonical JSON")
    return body


def verify_body(leaf: Leaf, body: bytes, salt: bytes) -> Body:
    """Check that this is the body that a leaf commits to, and read it.

    Raises:
        MalformedError: it is no body.
        VerificationError: it is another one, or tells id, time or kind differently.
    """
    digest = salted_digest(body, salt)
    if not hmac.compare_digest(digest, leaf.body_sha256):
        raise VerificationError(
            f"body of entry {leaf.id}",
            got=f"digest {digest.hex()}",
            expected=f"{leaf.body_sha256.hex()}, which its leaf commits to",
            code="audit.body",
        )
    parsed = parse_body(body)
    if (parsed.id, parsed.time, parsed.kind) != (leaf.id, leaf.time, leaf.kind):
        raise VerificationError(
            f"body of entry {leaf.id}",
            got=f"{parsed.id}, {format_time(parsed.time)}, {parsed.kind}",
            expected=f"{leaf.id}, {format_time(leaf.time)}, {leaf.kind}",
            code="audit.body",
        )
    return parsed


def tenants(body: Body) -> tuple[str, ...]:
    """Return the tenants that an entry concerns; none for the instance as a whole."""
    return _tenants(body, keys(body))


def keys(body: Body) -> tuple[str, ...]:
    """Return the ids, without version, of the keys that an entry names."""
    named = {_text(key, "id") for key in _objects(body.members, "keys")}
    named.add(_text(body.members, "key"))
    return tuple(sorted(named - {""}))


def policies(body: Body) -> tuple[str, ...]:
    """Return the names of the policies that decided, or that a statement is about."""
    named = {
        _text(policy, "name")
        for key in _objects(body.members, "keys")
        for policy in _objects(key, "policies")
    }
    statement = body.members.get("statement")
    if isinstance(statement, dict) and statement.get("kind") == "release-policy":
        named.add(f"{statement.get('tenant')}/{statement.get('name')}")
    return tuple(sorted(named - {""}))


def decision(body: Body) -> str | None:
    """Return the id of the decision that an entry records, if it records one."""
    return _text(body.members, "decision") or None


def _tenants(body: Body, named: Sequence[str]) -> tuple[str, ...]:
    found = {key.partition("/")[0] for key in named}
    found.add(_text(body.members, "tenant"))
    statement = body.members.get("statement")
    if isinstance(statement, dict):
        found.add(_text(statement, "tenant"))
    # A statement about the whole instance is written with the tenant `*`.
    return tuple(sorted(found - {"", "*"}))


def _parse_common(
    members: Mapping[str, object], what: str
) -> tuple[str, datetime, Kind]:
    if members["v"] is True or members["v"] != ENTRY_VERSION:
        raise MalformedError(
            f"{what} v", got=repr(members["v"])[:40], expected=str(ENTRY_VERSION)
        )
    entry_id = parse_hex32(members["id"], f"{what} id")
    time = parse_time(members["time"], f"{what} time")
    try:
        kind = Kind(str(members["kind"]))
    except ValueError as exc:
        raise MalformedError(
            f"{what} kind",
            got=repr(members["kind"])[:40],
            expected="one that this version of kbs knows",
        ) from exc
    return entry_id, time, kind


def _objects(members: Mapping[str, object], name: str) -> list[dict[str, object]]:
    value = members.get(name)
    elements = value if isinstance(value, list) else []
    return [element for element in elements if isinstance(element, dict)]


def _text(members: Mapping[str, object], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""
