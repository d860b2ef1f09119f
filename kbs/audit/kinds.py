"""The closed list of what the log records, and the words that entries use."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What one entry says happened; public, it stands in the leaf."""

    INSTANCE_INIT = "instance.init"
    RELEASE_GRANTED = "release.granted"
    RELEASE_DENIED = "release.denied"
    RELEASE_PROBE = "release.probe"
    REFUSALS = "refusals"
    STATEMENT = "statement"
    KEY_CREATED = "key.created"
    KEY_IMPORTED = "key.imported"
    KEY_ROTATED = "key.rotated"
    KEY_RETIRED = "key.retired"
    KEY_DESTROYED = "key.destroyed"
    ENROLMENT_PENDING = "enrolment.pending"
    ADMIN_ACTION = "admin.action"
    ADMIN_REFUSED = "admin.refused"
    LOG_KEY = "log.key"
    BROKER_KEY = "broker.key"
    ROLLBACK_ACCEPTED = "rollback.accepted"
    EVIDENCE_EXPIRED = "evidence.expired"
    COLLATERAL_FETCHED = "collateral.fetched"
    COLLATERAL_PRUNED = "collateral.pruned"
    INTEGRITY_REPORTED = "integrity.reported"


INSTANCE_WIDE = frozenset(
    {
        Kind.INSTANCE_INIT,
        Kind.LOG_KEY,
        Kind.BROKER_KEY,
        Kind.ROLLBACK_ACCEPTED,
    }
)
"""Kinds that concern every tenant and name none: every auditor may read their bodies,
and an export carries them always, because it cannot be checked without them."""


class Outcome(StrEnum):
    """How a request, or one key of it, ended."""

    GRANTED = "granted"
    DENIED = "denied"


class Mode(StrEnum):
    """What the workload asked for: keys, or only whether it would get them."""

    RELEASE = "release"
    CHECK = "check"


class KeyOrigin(StrEnum):
    """Where the bytes of a key version come from (decisions.md, section 5)."""

    GENERATED = "generated"
    IMPORTED = "imported"


class Purpose(StrEnum):
    """Which of the broker's own signing keys an announcement is about."""

    LOG = "log"
    RESPONSE = "response"
    TOKEN = "token"  # noqa: S105 - the name of a purpose, no token
    TLS = "tls"
