"""Administrators with real keys, who write and sign a chain of statements."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.governance.authority import Administrator, Authority, Role, RoleGrant
from kbs.governance.signature import SigningKey, key_id, sign_statement, spki_of
from kbs.governance.state import StoredStatement
from kbs.governance.statement import (
    BRINGING,
    Action,
    Envelope,
    Kind,
    Statement,
)

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
INSTANCE = "0123456789abcdef" * 2


@dataclass(frozen=True)
class Governor:
    """One administrator's private key with the roles that it has."""

    name: str
    key: SigningKey
    roles: tuple[RoleGrant, ...]

    @property
    def keyid(self) -> str:
        return key_id(self.key.public_key())

    @property
    def administrator(self) -> Administrator:
        return Administrator(self.name, spki_of(self.key.public_key()), self.roles)


def ed25519_key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 31 + b"\x01")


def governor(
    name: str,
    seed: int,
    roles: Mapping[str, tuple[str, ...]],
    *,
    curve: ec.EllipticCurve | None = None,
) -> Governor:
    """A governor with roles by name, with an Ed25519 key unless a curve is given."""
    key = ed25519_key(seed) if curve is None else ec.derive_private_key(seed, curve)
    grants = tuple(RoleGrant(Role(role), names) for role, names in roles.items())
    return Governor(name, key, grants)


ROOT = governor("root", 1, {"policy-admin": ("*",), "key-admin": ("*",)})
SECOND = governor("second", 2, {"policy-admin": ("*",)}, curve=ec.SECP256R1())
ACME = governor("acme", 3, {"policy-admin": ("acme",)})
ACME_KEYS = governor("acme-keys", 4, {"key-admin": ("acme",)})
AUDITOR = governor("auditor", 5, {"auditor": ("*",), "approver": ("*",)})
STRANGER = governor("stranger", 6, {"policy-admin": ("*",)})


def authority(*members: Governor, threshold: int = 1) -> Authority:
    """An authority document of these members; acme may use `shared/`."""
    return Authority(tuple(one.administrator for one in members), threshold, ("acme",))


EVERYBODY = authority(ROOT, SECOND, ACME, ACME_KEYS, AUDITOR)


@dataclass
class Chain:
    """Writes statements one after another; keeps rows and contents as a store does."""

    genesis: Authority = EVERYBODY
    rows: list[StoredStatement] = field(default_factory=list)
    contents: dict[tuple[Kind, str], bytes] = field(default_factory=dict)
    seq: int = 0
    head: str = ""

    def __post_init__(self) -> None:
        self.head = self.keep(Kind.AUTHORITY, self.genesis.canonical())
        self.genesis_digest = self.head

    def keep(self, kind: Kind, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.contents[kind, digest] = content
        return digest

    def load(self, kind: Kind, digest: str) -> bytes | None:
        return self.contents.get((kind, digest))

    def draft(
        self,
        kind: Kind,
        action: Action,
        content: bytes,
        *,
        name: str = "acme/thing",
        version: int = 1,
    ) -> Statement:
        tenant, _, rest = name.partition("/")
        return Statement(
            instance=INSTANCE,
            seq=self.seq + 1,
            prev=self.head,
            action=action,
            kind=kind,
            tenant=tenant,
            name=rest,
            version=version,
            digest=self.keep(kind, content),
        )

    def add(self, envelope: Envelope, *, accepted: datetime = NOW) -> None:
        self.rows.append(StoredStatement(envelope.canonical(), accepted))
        self.seq = envelope.statement.seq
        self.head = envelope.statement.hash()

    def state(
        self,
        kind: Kind,
        action: Action,
        content: bytes,
        *,
        name: str = "acme/thing",
        version: int = 1,
        by: tuple[Governor, ...] = (ROOT,),
    ) -> Envelope:
        statement = self.draft(kind, action, content, name=name, version=version)
        envelope = signed(statement, *by)
        self.add(envelope)
        return envelope

    def content_of(self, envelope: Envelope) -> bytes | None:
        statement = envelope.statement
        if statement.action not in BRINGING:
            return None
        return self.load(statement.kind, statement.digest)


def signed(statement: Statement, *by: Governor) -> Envelope:
    """The statement with a signature of each governor."""
    return Envelope(statement, tuple(sign_statement(statement, one.key) for one in by))


def changed(statement: Statement, **fields: object) -> Statement:
    """The statement with some fields changed."""
    return replace(statement, **fields)  # type: ignore[arg-type]
