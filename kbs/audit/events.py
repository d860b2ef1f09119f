"""What can be logged: one frozen dataclass per sort of entry.

A field is a member of the body under the same name; fields without a default are
required, the others are left out when they say nothing. No field holds a secret, and
what names a device (chip id, PPID, EK) comes as a pseudonym (`kbs.audit.pseudonym`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import ClassVar, NamedTuple

from kbs.audit.kinds import KeyOrigin, Kind, Mode, Outcome, Purpose
from kbs.core.checks import Check, Status
from kbs.core.clock import format_time
from kbs.core.decision import Decision, Granted, PolicyRef, Reason

# What JSON has as it is.
_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def plain_members(event: object) -> dict[str, object]:
    """Return the fields of an event, or of a part of one, as plain JSON.

    Raises:
        TypeError: it is no dataclass.
    """
    names, optional, read = _fields_of(type(event))
    return {
        name: value if type(value) in _AS_THEY_ARE else _plain(value)
        for name, value in zip(names, read(event), strict=True)
        if not (name in optional and _says_nothing(value))
    }


class _Fields(NamedTuple):
    """The fields of an event: all, those with a default, and what reads all of them.

    Every event and part of one has two fields at least.
    """

    names: tuple[str, ...]
    optional: frozenset[str]
    read: Callable[[object], tuple[object, ...]]


_FIELDS: dict[type, _Fields] = {}


def _fields_of(event: type) -> _Fields:
    known = _FIELDS.get(event)
    if known is None:
        own = [field for field in fields(event) if field.name != "kind"]
        names = [field.name for field in own]
        optional = {field.name for field in own if field.default is not MISSING}
        known = _Fields(tuple(names), frozenset(optional), attrgetter(*names))
        _FIELDS[event] = known
    return known


def _says_nothing(value: object) -> bool:
    return value is None or value is False or value == ()


def _plain(value: object) -> object:
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    to_json = getattr(value, "to_json", None)
    return value if to_json is None else to_json()


TOLD = frozenset({Status.FAIL, Status.UNCHECKED})
"""How a check ended of which an entry tells more than that."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Every check of a bundle by id and status, and those that are `TOLD` in full.

    Of `checks` no text is written; in `told` no device is named (`pseudonym`).
    """

    checks: tuple[Check, ...]
    told: tuple[Check, ...]

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "all": [
                {"id": check.id, "item": check.item, "status": str(check.status)}
                for check in self.checks
            ],
            "failed": [check.to_json() for check in self.told],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDecision:
    """What was decided for one key, and by which policies.

    `policies` are those that decided: for a grant each with the rule that granted.
    """

    id: str
    version: int | None
    outcome: Outcome
    policies: tuple[tuple[PolicyRef, str | None], ...]
    reasons: tuple[Reason, ...] = ()

    @staticmethod
    def of(key_id: str, version: int | None, decision: Decision) -> KeyDecision:
        """Record a decision of the appraisal."""
        if isinstance(decision, Granted):
            return KeyDecision(
                id=key_id,
                version=version,
                outcome=Outcome.GRANTED,
                policies=decision.by,
            )
        return KeyDecision(
            id=key_id,
            version=version,
            outcome=Outcome.DENIED,
            policies=tuple((policy, None) for policy in decision.policies),
            reasons=decision.reasons,
        )

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "id": self.id,
            "version": self.version,
            "decision": str(self.outcome),
            "policies": [
                policy.to_json() | ({} if rule is None else {"rule": rule})
                for policy, rule in self.policies
            ],
            "reasons": [reason.to_json() for reason in self.reasons],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One decision about keys, whichever front door asked for it.

    `appraised` is the one time at which everything was verified, so that the decision
    can be recomputed. `recipient`, `answer`, `evidence` and `request` are hex SHA-256
    of the recipient's JWK, of the sealed answer (or problem document), of the evidence
    bundle and of the request body. `governance` is the sequence number of the last
    statement in force. `reasons` are those that no single key is to blame for.
    """

    decision: str
    door: str
    mode: Mode
    outcome: Outcome
    keys: tuple[KeyDecision, ...]
    governance: int
    request: str
    freshness: str
    appraised: datetime
    reasons: tuple[Reason, ...] = ()
    checks: CheckReport | None = None
    recipient: str | None = None
    answer: str | None = None
    evidence: str | None = None
    primary: str | None = None
    tolerated: tuple[str, ...] = ()
    development: bool = False

    @property
    def kind(self) -> Kind:
        """A dry run is a probe; else the outcome says it."""
        if self.mode is Mode.CHECK:
            return Kind.RELEASE_PROBE
        if self.outcome is Outcome.GRANTED:
            return Kind.RELEASE_GRANTED
        return Kind.RELEASE_DENIED


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalSample:
    """One of the refusals that an aggregate stands for."""

    decision: str
    time: datetime
    check: str
    detail: str
    got: str | None = None
    expected: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return plain_members(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """Refusals before the evidence authenticated: one entry a minute and reason."""

    kind: ClassVar[Kind] = Kind.REFUSALS
    door: str
    reason: str
    count: int
    since: datetime
    until: datetime
    samples: tuple[RefusalSample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernanceChange:
    """A signed statement that was accepted, whole, so that its chain can be checked."""

    kind: ClassVar[Kind] = Kind.STATEMENT
    statement: Mapping[str, object]
    signatures: Sequence[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A version of a key came to be, or changed its state.

    `kind` is one of the `key.…` kinds; `key` an id without version. `origin` is said of
    versions that come to be (`decisions.md`, section 5).
    """

    kind: Kind
    key: str
    version: int
    actor: str
    key_kind: str | None = None
    origin: KeyOrigin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentPending:
    """A guest proved EK and AK; an administrator has not decided yet.

    `ak_name` is the TPM name in hex, `ek` the pseudonym of the EK.
    """

    kind: ClassVar[Kind] = Kind.ENROLMENT_PENDING
    enrolment: str
    tenant: str
    group: str
    ak_name: str
    ek: str
    ca: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminAction:
    """An administrator's call that was allowed; `actor` is the id of the key used."""

    kind: ClassVar[Kind] = Kind.ADMIN_ACTION
    actor: str
    action: str
    target: str | None = None
    tenant: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRefused:
    """An administrator's call that was refused, and why."""

    kind: ClassVar[Kind] = Kind.ADMIN_REFUSED
    action: str
    reason: str
    actor: str | None = None
    target: str | None = None
    tenant: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAnnouncement:
    """A new signing key of the broker, signed by the one before it.

    `log` is the log's origin; keys are b64url SubjectPublicKeyInfo, `signature` as made
    by `kbs.audit.announcement`.
    """

    log: str
    purpose: Purpose
    public_key: str
    previous: str
    signature: str

    @property
    def kind(self) -> Kind:
        """The log's own keys have a kind of their own."""
        return Kind.LOG_KEY if self.purpose is Purpose.LOG else Kind.BROKER_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceInit:
    """The first entry: which instance this is, and the keys that it starts with.

    `authority` is the digest of the genesis authority; `public_keys` maps each
    `Purpose` in use to a b64url SubjectPublicKeyInfo, the log's among them.
    """

    kind: ClassVar[Kind] = Kind.INSTANCE_INIT
    instance: str
    log: str
    authority: str
    public_keys: Mapping[str, str]
    development: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """A point of the log and of governance, as a high-water mark holds it."""

    seq: int
    size: int
    root: str

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"seq": self.seq, "size": self.size, "root": self.root}


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackAccepted:
    """The operator started from a database that does not extend the mark."""

    kind: ClassVar[Kind] = Kind.ROLLBACK_ACCEPTED
    reason: str
    mark: LogState
    found: LogState


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceExpired:
    """Stored evidence was erased: its retention ended, or it made room.

    Where it made room, `before` lies ahead of the entry's time.
    """

    kind: ClassVar[Kind] = Kind.EVIDENCE_EXPIRED
    count: int
    before: datetime
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralFetched:
    """The broker fetched newer collateral by itself; `source` is the vendor's URL."""

    kind: ClassVar[Kind] = Kind.COLLATERAL_FETCHED
    source: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralPruned:
    """Collateral was taken away: newer of the same had taken its place by `before`.

    `digests` are the SHA-256 (hex) of the items.
    """

    kind: ClassVar[Kind] = Kind.COLLATERAL_PRUNED
    count: int
    before: datetime
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrityReported:
    """Stored state did not match its proof (a policy changed behind the broker)."""

    kind: ClassVar[Kind] = Kind.INTEGRITY_REPORTED
    subject: str
    detail: str
    tenant: str | None = None
    got: str | None = None
    expected: str | None = None


Event = (
    InstanceInit
    | Release
    | Refusals
    | GovernanceChange
    | KeyChange
    | EnrolmentPending
    | AdminAction
    | AdminRefused
    | KeyAnnouncement
    | RollbackAccepted
    | EvidenceExpired
    | CollateralFetched
    | CollateralPruned
    | IntegrityReported
)
