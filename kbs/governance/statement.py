"""Signed statements: the only way in which what is in force changes.

::

    {"typ": "kbs.statement/1", "instance", "seq", "prev", "action", "kind", "tenant",
     "name", "version", "digest", "not_before", "expires"}

Signed bytes are "kbs.statement/1" 0x00 JCS(statement) (`kbs.governance.signature`).
`seq` has no gaps from 1; `prev` is the hash of the statement before, for the first one
the digest of the genesis authority. `not_before` and `expires` bound when a statement
may be accepted (null: unbounded); what it made active stays active.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from kbs.core.clock import format_time, parse_time
from kbs.core.encode import (
    MAX_INTEGER,
    b64u,
    canonical_json,
    parse_b64u,
    parse_hex,
    parse_json,
    require_integer,
    require_list,
    require_members,
)
from kbs.core.errors import MalformedError
from kbs.core.ids import ScopedName, parse_hex32, parse_name

STATEMENT_TYPE = "kbs.statement/1"
STATEMENT_CONTEXT = b"kbs.statement/1\x00"

EVERY_TENANT = "*"
"""The tenant of statements that concern the whole instance."""

MAX_ENVELOPE_BYTES = 64 * 1024
MAX_VERSION = 999_999_999
_MAX_SIGNATURES = 16
_MAX_SIGNATURE_BYTES = 2048
_DIGEST_SIZE = 32


class Action(StrEnum):
    """What a statement does to an object."""

    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    ADD = "add"
    REMOVE = "remove"
    DENY = "deny"
    LIFT = "lift"


class Kind(StrEnum):
    """Which sort of governed object a statement concerns."""

    RELEASE_POLICY = "release-policy"
    WORKLOAD_POLICY = "workload-policy"
    REFERENCE_SET = "reference-set"
    AK = "ak"
    CA = "ca"
    TOKEN_ISSUER = "token-issuer"  # noqa: S105 - the name of a kind, no token
    DENY = "deny"
    AUTHORITY = "authority"


class SignatureAlgorithm(StrEnum):
    """How a statement is signed."""

    EDDSA = "EdDSA"
    ES256 = "ES256"
    SSHSIG = "sshsig"


ACTIONS: Mapping[Kind, frozenset[Action]] = {
    Kind.RELEASE_POLICY: frozenset({Action.ACTIVATE, Action.DEACTIVATE}),
    Kind.WORKLOAD_POLICY: frozenset({Action.ACTIVATE, Action.DEACTIVATE}),
    Kind.REFERENCE_SET: frozenset({Action.ADD, Action.REMOVE}),
    Kind.AK: frozenset({Action.ADD, Action.REMOVE}),
    Kind.CA: frozenset({Action.ADD, Action.REMOVE}),
    Kind.TOKEN_ISSUER: frozenset({Action.ADD, Action.REMOVE}),
    Kind.DENY: frozenset({Action.DENY, Action.LIFT}),
    Kind.AUTHORITY: frozenset({Action.ACTIVATE}),
}
"""Which actions make sense for which kind."""

BRINGING = frozenset({Action.ACTIVATE, Action.ADD, Action.DENY})
"""Actions that put an object in force; the others take one out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement; its fields are those of the specification."""

    instance: str
    seq: int
    prev: str
    action: Action
    kind: Kind
    tenant: str
    name: str
    version: int
    digest: str
    not_before: datetime | None = None
    expires: datetime | None = None

    @property
    def subject(self) -> ScopedName:
        """The object that it concerns."""
        return ScopedName(self.tenant, self.name)

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, every member present."""
        return {
            "typ": STATEMENT_TYPE,
            "instance": self.instance,
            "seq": self.seq,
            "prev": self.prev,
            "action": self.action.value,
            "kind": self.kind.value,
            "tenant": self.tenant,
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "not_before": _written(self.not_before),
            "expires": _written(self.expires),
        }

    def canonical(self) -> bytes:
        """Return JCS(statement)."""
        return canonical_json(self.to_json())

    def hash(self) -> str:
        """Return hex SHA-256(JCS(statement)), the `prev` of the next one."""
        return hashlib.sha256(self.canonical()).hexdigest()


@dataclass(frozen=True, slots=True)
class StatementSignature:
    """One signature, not yet verified; `keyid` is hex SHA-256 of the signer's SPKI."""

    keyid: str
    algorithm: SignatureAlgorithm
    value: bytes

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "keyid": self.keyid,
            "alg": self.algorithm.value,
            "sig": b64u(self.value),
        }


@dataclass(frozen=True, slots=True)
class Envelope:
    """A statement and the signatures over it, by distinct keys."""

    statement: Statement
    signatures: tuple[StatementSignature, ...]

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "statement": self.statement.to_json(),
            "signatures": [signature.to_json() for signature in self.signatures],
        }

    def canonical(self) -> bytes:
        """Return the one spelling that is stored and logged."""
        return canonical_json(self.to_json())


def parse_statement(value: object) -> Statement:
    """Accept a statement from parsed JSON: every member, no other.

    Raises:
        MalformedError: anything else, or an action that the kind does not know.
    """
    names = {"typ", "instance", "seq", "prev", "action", "kind", "tenant", "name"}
    names |= {"version", "digest", "not_before", "expires"}
    members = require_members(value, "statement", required=names)
    if members["typ"] != STATEMENT_TYPE:
        raise MalformedError(
            "statement typ", got=repr(members["typ"])[:40], expected=STATEMENT_TYPE
        )
    kind = Kind(_one_of(members["kind"], "kind", {kind.value for kind in Kind}))
    allowed = {action.value for action in ACTIONS[kind]}
    return Statement(
        instance=parse_hex32(members["instance"], "statement instance"),
        seq=require_integer(members["seq"], "statement seq", least=1, most=MAX_INTEGER),
        prev=_parse_digest(members["prev"], "statement prev"),
        action=Action(_one_of(members["action"], f"action on {kind}", allowed)),
        kind=kind,
        tenant=_parse_tenant(members["tenant"]),
        name=parse_name(members["name"], "statement name"),
        version=require_integer(
            members["version"], "statement version", least=1, most=MAX_VERSION
        ),
        digest=_parse_digest(members["digest"], "statement digest"),
        not_before=_parse_bound(members["not_before"], "statement not_before"),
        expires=_parse_bound(members["expires"], "statement expires"),
    )


def parse_envelope(value: object) -> Envelope:
    """Accept an envelope from parsed JSON; nothing in it is verified yet.

    Raises:
        MalformedError: anything else, no signature, or two by one key.
    """
    members = require_members(value, "envelope", required={"statement", "signatures"})
    listed = require_list(
        members["signatures"], "envelope signatures", limit=_MAX_SIGNATURES
    )
    signatures = tuple(_parse_signature(element) for element in listed)
    keyids = {signature.keyid for signature in signatures}
    if not signatures or len(keyids) != len(signatures):
        raise MalformedError(
            "envelope signatures",
            got=f"{len(signatures)} by {len(keyids)} keys",
            expected="at least one, each by another key",
        )
    return Envelope(parse_statement(members["statement"]), signatures)


def read_envelope(data: bytes) -> Envelope:
    """Accept the bytes of an envelope as they are stored: its canonical spelling.

    Raises:
        MalformedError: they are no envelope, or another spelling of one.
    """
    envelope = parse_envelope(parse_json(data, "envelope", limit=MAX_ENVELOPE_BYTES))
    if envelope.canonical() != data:
        raise MalformedError(
            "envelope", got="another spelling", expected="canonical JSON"
        )
    return envelope


def _parse_signature(value: object) -> StatementSignature:
    members = require_members(value, "signature", required={"keyid", "alg", "sig"})
    known = {algorithm.value for algorithm in SignatureAlgorithm}
    return StatementSignature(
        keyid=_parse_digest(members["keyid"], "signature keyid"),
        algorithm=SignatureAlgorithm(_one_of(members["alg"], "signature alg", known)),
        value=parse_b64u(members["sig"], "signature sig", limit=_MAX_SIGNATURE_BYTES),
    )


def _parse_digest(value: object, what: str) -> str:
    return parse_hex(value, what, size=_DIGEST_SIZE).hex()


def _parse_tenant(value: object) -> str:
    return EVERY_TENANT if value == EVERY_TENANT else parse_name(value, "tenant")


def _parse_bound(value: object, what: str) -> datetime | None:
    if value is None:
        return None
    time = parse_time(value, what)
    # One spelling only: "…00.000000Z" would be written back without its zeros.
    if format_time(time) != value:
        raise MalformedError(what, got=repr(value)[:40], expected=format_time(time))
    return time


def _written(time: datetime | None) -> str | None:
    return None if time is None else format_time(time)


def _one_of(value: object, what: str, known: set[str]) -> str:
    if isinstance(value, str) and value in known:
        return value
    raise MalformedError(what, got=repr(value)[:40], expected=", ".join(sorted(known)))
