"""Step 5 of a release: one decision for each key, under one state of governance.

Denials come first, then every active policy that matches the key must grant. Code here
starts from "denied" and has to find every reason to grant; a forgotten branch denies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kbs.broker.snapshot import ActivePolicy, Proven, Snapshot
from kbs.core.claims import Claims
from kbs.core.decision import Decision, Denied, Granted, PolicyRef, Reason
from kbs.core.ids import KeyRef
from kbs.governance.denials import ReleaseSubject, denials_against
from kbs.keys.model import select_version
from kbs.keys.store import StoredKeyVersion
from kbs.policy.appraise import Appraisal, appraise
from kbs.policy.decide import merge

# Claims by these last words are launch measurements, which deny entries can name.
MEASUREMENT_WORDS = frozenset(
    {
        "measurement",
        "mr_td",
        "mr_enclave",
        "initial_measurement",
        # As attestation services call them in their tokens.
        "tdx_mrtd",
        "sgx_mrenclave",
        "x_ms_sgx_mrenclave",
        "x_ms_sevsnpvm_launchmeasurement",
    }
)
# The same by their whole names: the image of a Nitro enclave.
MEASUREMENT_NAMES = frozenset({"nitro.pcrs.0"})

NOT_FOUND = "key.not_found"
"""Reason of a key that is granted to this caller and does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What decisions rest on: what is in force, and what evidence proved.

    `claims` is None where the evidence was not verified; `identities` name devices
    (`ItemResult.identities`).
    """

    snapshot: Snapshot
    claims: Claims | None
    identities: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOutcome:
    """What was decided for one key, and what the decision rests on."""

    asked: KeyRef
    decision: Decision
    stored: StoredKeyVersion | None
    appraisals: tuple[Appraisal, ...]
    used: tuple[Proven, ...]

    @property
    def granted(self) -> bool:
        """Whether this key may leave."""
        return isinstance(self.decision, Granted) and self.stored is not None

    @property
    def version(self) -> int | None:
        """The version that was decided about."""
        return self.asked.version if self.stored is None else self.stored.key.version

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why not, the first the one to mend first."""
        return self.decision.reasons if isinstance(self.decision, Denied) else ()


def decide_key(
    grounds: Grounds,
    versions: Sequence[StoredKeyVersion],
    asked: KeyRef,
    *,
    development: bool,
) -> KeyOutcome:
    """Decide about one key, of which there are these versions.

    1. Deny entries and the emergency stop override everything.
    2. Every active policy that matches must grant; none that matches denies.
    3. Only then is it said whether the key exists, and whether a deny entry names the
       version that would leave: that there is one says that the key exists.
    """
    snapshot, claims = grounds.snapshot, grounds.claims
    governing = snapshot.governing(asked.key_id)
    policies = tuple(_ref(policy) for policy in governing)
    stored = select_version(versions, asked.version)
    used = _used(grounds, asked, governing)
    if claims is None:
        return _denied(
            asked, (Reason(id="evidence", detail="not verified"),), policies, used
        )
    stopped = _stopped(grounds, asked, governing, claims)
    if stopped:
        return _denied(asked, stopped, policies, used)
    appraisals = _appraise(grounds, asked, governing, claims, development=development)
    decision = merge(appraisals, asked.key_id)
    if isinstance(decision, Granted) and stored is None:
        absent = Reason(
            id=NOT_FOUND,
            detail=f"{asked} has no version that can be released",
            expected="an enabled version (a named one may be retired)",
        )
        decision = Denied(reasons=(absent,), policies=policies)
    elif isinstance(decision, Granted) and stored is not None:
        leaving = KeyRef(asked.key_id, stored.key.version)
        stopped = _stopped(grounds, leaving, governing, claims)
        if stopped:
            return _denied(asked, stopped, policies, used)
    return KeyOutcome(
        asked=asked,
        decision=decision,
        stored=stored if isinstance(decision, Granted) else None,
        appraisals=appraisals,
        used=used,
    )


def _denied(
    asked: KeyRef,
    reasons: tuple[Reason, ...],
    policies: tuple[PolicyRef, ...],
    used: tuple[Proven, ...],
) -> KeyOutcome:
    return KeyOutcome(
        asked=asked,
        decision=Denied(reasons=reasons, policies=policies),
        stored=None,
        appraisals=(),
        used=used,
    )


def _stopped(
    grounds: Grounds,
    asked: KeyRef,
    governing: tuple[ActivePolicy, ...],
    claims: Claims,
) -> tuple[Reason, ...]:
    if not grounds.snapshot.state.denials:
        return ()
    subject = ReleaseSubject(
        key=asked,
        policies=frozenset(policy.subject for policy in governing),
        identities=frozenset(grounds.identities),
        measurements=frozenset(_measurements(claims)),
    )
    return tuple(
        Reason(
            id=f"deny.{entry.content.target}",
            detail=f"deny entry {entry.subject}: {entry.content.reason}",
            got=entry.content.value or "everything",
            expected="no deny entry against it",
        )
        for entry in denials_against(grounds.snapshot.state, subject)
    )


def _measurements(claims: Claims) -> set[str]:
    return {
        str(value)
        for item in claims.items
        for name, value in item.values.items()
        if name in MEASUREMENT_NAMES or name.rpartition(".")[2] in MEASUREMENT_WORDS
    }


def _appraise(
    grounds: Grounds,
    asked: KeyRef,
    governing: tuple[ActivePolicy, ...],
    claims: Claims,
    *,
    development: bool,
) -> tuple[Appraisal, ...]:
    tenant = asked.key_id.tenant
    view = grounds.snapshot.view(tenant)
    scoped = claims.scoped_to(tenant, shared=view.shared)
    return tuple(
        appraise(
            policy.parsed,
            scoped,
            view,
            version=policy.version,
            development=development,
        )
        for policy in governing
    )


def _ref(policy: ActivePolicy) -> PolicyRef:
    return PolicyRef(
        name=policy.subject.name, version=policy.version, digest=policy.digest
    )


def _used(
    grounds: Grounds, asked: KeyRef, governing: tuple[ActivePolicy, ...]
) -> tuple[Proven, ...]:
    state = grounds.snapshot.state
    found: list[Proven] = []
    for policy in governing:
        found.append(state.release_policies[policy.subject])
        found.extend(named_objects(grounds.snapshot, policy))
    identities = set(grounds.identities)
    found.extend(
        ak for ak in state.aks.values() if f"ak:{ak.content.name.hex()}" in identities
    )
    # A key may count because a CA certified it: every CA of the tenants that can
    # matter here is read again, since there are few of them.
    scopes = {asked.key_id.tenant, "shared"}
    found.extend(ca for ca in state.cas.values() if ca.subject.tenant in scopes)
    found.extend(
        one for one in state.token_issuers.values() if one.subject.tenant in scopes
    )
    return tuple(found)


def named_objects(snapshot: Snapshot, policy: ActivePolicy) -> tuple[Proven, ...]:
    """Return the reference sets and workload policies that a policy names."""
    dependencies = policy.parsed.dependencies
    view = snapshot.view(policy.subject.tenant)
    references = [view.reference_object(name) for name in dependencies.references]
    workloads = [
        view.workload_object(name, version)
        for name, version in dependencies.workload_policies
    ]
    return tuple(one for one in (*references, *workloads) if one is not None)
