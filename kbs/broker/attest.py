"""Steps 1 to 4 of a release: what was asked, and what the evidence proves.

1. Parse the bundle and its runtime data, within caps.
2. The challenge: MAC, door, expiry, and the audience beside it.
3. Is it spent?                                  (`kbs.broker.release` asks the store)
4. Verify all items at one time, under the governance in force.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from kbs.broker.collateral import CollateralTable
from kbs.broker.governance import Governance
from kbs.broker.identity import Identity
from kbs.broker.ports import Transaction
from kbs.broker.refusals import Refusal
from kbs.broker.snapshot import ActivePolicy, Snapshot
from kbs.channel.binding import RuntimeBinding, RuntimeData, parse_runtime_data
from kbs.channel.challenge import Challenge, Door
from kbs.core.checks import Check, Status, Verdict
from kbs.core.clock import format_time
from kbs.core.errors import MalformedError
from kbs.core.ids import KeyRef
from kbs.evidence.bundle import Bundle, BundleResult, parse_bundle, verify_bundle
from kbs.evidence.joining import BundleBinding
from kbs.evidence.model import Trust, Verifier

UNKNOWN_KIND = "bundle.kind"
"""Reason under which evidence of kinds that nobody verifies is counted."""


class Presented(Protocol):
    """Evidence that came through some door, well-formed; nothing of it is proven."""

    @property
    def door_name(self) -> str:
        """The door as claims and entries name it."""
        ...

    @property
    def bundle(self) -> Bundle:
        """The items."""
        ...

    @property
    def binding(self) -> BundleBinding:
        """The bytes that the items must carry."""
        ...

    @property
    def keys(self) -> tuple[KeyRef, ...] | None:
        """What is asked for; None where that is not known yet."""
        ...

    @property
    def body(self) -> bytes:
        """The bytes as they came."""
        ...

    @property
    def evidence_digest(self) -> bytes:
        """The digest by which recorded evidence is found again."""
        ...


P = TypeVar("P", bound=Presented)
P_co = TypeVar("P_co", bound=Presented, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A well-formed request; nothing of it is proven."""

    door: Door
    body: bytes = field(repr=False)
    bundle: Bundle
    runtime_data: RuntimeData
    request_digest: bytes

    @property
    def door_name(self) -> str:
        """The door as claims and entries name it."""
        return self.door.name.lower()

    @property
    def binding(self) -> BundleBinding:
        """The bytes that the items must carry."""
        return RuntimeBinding(self.runtime_data)

    @property
    def keys(self) -> tuple[KeyRef, ...]:
        """What is asked for."""
        return self.runtime_data.request.keys

    @property
    def evidence_digest(self) -> bytes:
        """The digest by which recorded evidence is found again.

        The v1 body is the bundle, so that both have the same digest.
        """
        return self.request_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested(Generic[P_co]):
    """What verification found, at one time and under one state of governance.

    `imports` is the number of the last import of collateral that it was made with.
    """

    asked: P_co
    challenge: Challenge
    snapshot: Snapshot
    result: BundleResult
    now: datetime
    tolerated: tuple[str, ...]
    imports: int

    @property
    def primary_kind(self) -> str | None:
        """The kind of the item that binds the set to the request."""
        primary = self.result.primary
        return None if primary is None else self.asked.bundle.kind(primary)

    @property
    def refused(self) -> bool:
        """Whether a check failed."""
        return self.result.verdict is Verdict.REFUSED

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return self.result.failed()


def parse_request(body: bytes, door: Door) -> Asked:
    """Read what was asked.

    Raises:
        MalformedError: it lacks the promised shape.
    """
    bundle = parse_bundle(body)
    if bundle.runtime_data is None:
        raise MalformedError(
            "bundle",
            got="no runtime_data",
            expected="the four members that its evidence is bound to",
        )
    return Asked(
        door=door,
        body=body,
        bundle=bundle,
        runtime_data=parse_runtime_data(dict(bundle.runtime_data)),
        request_digest=hashlib.sha256(body).digest(),
    )


class Attestation:
    """Verifies evidence under the governance in force."""

    def __init__(
        self,
        governance: Governance,
        collateral: CollateralTable,
        verifiers: Mapping[str, Verifier],
        *,
        development: bool,
    ) -> None:
        """Verify with these families; `development` lets sample evidence count."""
        self._governance = governance
        self._collateral = collateral
        self._verifiers = verifiers
        self._development = development

    def attest(
        self, tx: Transaction, asked: P, challenge: Challenge, now: datetime
    ) -> Attested[P]:
        """Run every check of every item (step 4).

        Raises:
            IntegrityError: governance is not what was signed.
        """
        snapshot = self._governance.snapshot(tx)
        trust = Trust(
            now=now,
            collateral=self._collateral.current(tx),
            enrolled_keys=snapshot.enrolled_keys,
            cas=snapshot.cas,
            issuers=snapshot.issuers,
            development=self._development,
        )
        result = self._verify(asked, trust)
        missing = _unknown_revocation(result.checks)
        if missing and _may_miss_revocation(snapshot, asked):
            result = self._verify(asked, replace(trust, require_revocation=False))
        else:
            missing = ()
        return Attested(
            asked=asked,
            challenge=challenge,
            snapshot=snapshot,
            result=result,
            now=now,
            tolerated=missing,
            imports=self._collateral.imports(tx),
        )

    def is_current(self, tx: Transaction, attested: Attested[Presented]) -> bool:
        """Whether all is in force under which this evidence was verified.

        Raises:
            IntegrityError: governance is not what was signed.
        """
        return (
            self._governance.snapshot(tx) is attested.snapshot
            and self._collateral.imports(tx) == attested.imports
        )

    def reason(self, asked: Presented, check: Check) -> str:
        """Return what a refusal is counted under: strangers invent no reasons."""
        known = check.item is None or asked.bundle.kind(check.item) in self._verifiers
        return check.id if known else UNKNOWN_KIND

    def reasons(self, attested: Attested[Presented]) -> tuple[str, ...]:
        """Return the same of every check that failed or stayed open, each once."""
        found = (
            self.reason(attested.asked, check)
            for check in attested.result.checks
            if check.status in {Status.FAIL, Status.UNCHECKED}
        )
        return tuple(dict.fromkeys(found))

    def _verify(self, asked: Presented, trust: Trust) -> BundleResult:
        return verify_bundle(
            asked.bundle,
            trust=trust,
            verifiers=self._verifiers,
            binding=asked.binding,
            request={
                "request.door": asked.door_name,
                "request.freshness": "challenge",
                "request.time": format_time(trust.now),
            },
        )


def refusal_of(
    attestation: Attestation,
    identity: Identity,
    attested: Attested[Presented],
    decision: str,
    now: datetime,
) -> Refusal:
    """Return what is counted: the first check that failed, else one left open."""
    result = attested.result
    open_checks = [one for one in result.checks if one.status is Status.UNCHECKED]
    pseudonyms = identity.pseudonyms(result.identities)
    (first,) = pseudonyms.checks((*result.failed(), *open_checks)[:1])
    asked = attested.asked
    reason = attestation.reason(asked, first)
    return Refusal.of_check(decision, reason, first, now, door=asked.door_name)


def tolerate_missing(policies: Sequence[ActivePolicy]) -> bool:
    """Whether a missing or stale revocation list does not matter to any of these.

    Decisions, section 2.6: it is tolerated only where every policy that governs a key
    asked for says so.
    """
    return bool(policies) and all(
        policy.parsed.policy.tolerate_missing_revocation for policy in policies
    )


def _may_miss_revocation(snapshot: Snapshot, asked: Presented) -> bool:
    if asked.keys is not None:
        return tolerate_missing(
            [one for ref in asked.keys for one in snapshot.governing(ref.key_id)]
        )
    # Which keys it is about is judged when one is asked for; what is missing is kept.
    return any(
        policy.parsed.policy.tolerate_missing_revocation
        for policies in snapshot.policies.values()
        for policy in policies
    )


def _unknown_revocation(checks: Sequence[Check]) -> tuple[str, ...]:
    return tuple(
        sorted(
            {
                check.id
                for check in checks
                if check.id.endswith(".revocation") and check.status is Status.UNCHECKED
            }
        )
    )
