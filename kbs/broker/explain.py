"""Explaining: what a policy says to evidence or claims, and what governs a key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Protocol

from kbs.broker.actors import Actor
from kbs.broker.collateral import CollateralTable
from kbs.broker.decide import named_objects
from kbs.broker.governance import Governance
from kbs.broker.key_ledger import KeyLedger
from kbs.broker.ports import Database, Transaction
from kbs.broker.snapshot import ActivePolicy, Snapshot
from kbs.channel.binding import RuntimeBinding, parse_runtime_data
from kbs.core.checks import Check, Verdict
from kbs.core.claims import Claims, ClaimValue
from kbs.core.clock import Clock, parse_time
from kbs.core.encode import parse_b64, require_list, require_members
from kbs.core.errors import MalformedError, NotFoundError, VerificationError
from kbs.core.ids import KeyId, KeyRef, parse_key_ref, parse_scoped_name
from kbs.evidence.bundle import BundleResult, bundle_of, verify_bundle
from kbs.evidence.model import Trust, Verifier
from kbs.governance.denials import ReleaseSubject, denials_against
from kbs.governance.objects import MAX_OBJECT_BYTES
from kbs.policy.appraise import appraise
from kbs.policy.cases import parse_claims
from kbs.policy.explain import explain_json, not_covered
from kbs.policy.parse import ParsedPolicy, parse_release_policy
from kbs.policy.request import REQUEST_MEMBERS, request_claims

# As many as a case of a policy folder may name.
_MAX_KEYS = 64


class _Verify(Protocol):
    def __call__(
        self, document: object, *, require_revocation: bool
    ) -> BundleResult: ...


class Explaining:
    """Appraises without releasing; for administrators, who see what is expected."""

    def __init__(
        self,
        *,
        database: Database,
        governance: Governance,
        ledger: KeyLedger,
        collateral: CollateralTable,
        verifiers: Mapping[str, Verifier],
        clock: Clock,
        development: bool,
    ) -> None:
        """Use what the composition root made."""
        self._database = database
        self._governance = governance
        self._ledger = ledger
        self._collateral = collateral
        self._verifiers = verifiers
        self._clock = clock
        self._development = development

    def explain(self, actor: Actor, body: dict[str, object]) -> dict[str, object]:
        """Return the whole tree of one policy over evidence or claims.

        Raises:
            MalformedError: policy, evidence or claims lack their shape.
            VerificationError: the evidence does not hold; carries the checks.
            NotFoundError: no active policy of this name.
        """
        members = require_members(
            body,
            "explain",
            required=set(),
            optional={"policy", "name", "bundle", "claims", "request", "at"},
        )
        at = members.get("at")
        now = self._clock.now() if at is None else parse_time(at, "at")
        with self._database.read() as tx:
            snapshot = self._governance.snapshot(tx)
            parsed, version = self._policy(members, snapshot)
            tenant = parsed.policy.tenant
            actor.require_tenant(tenant)
            given = _request(members.get("request", {}))
            request = request_claims(given, "request", at=now)
            keys = _keys(given)
            verify = partial(self._verify, tx, snapshot, request, now)
            claims, checks = self._claims(members, request, parsed, verify)
        view = snapshot.view(tenant)
        appraisal = appraise(
            parsed,
            claims.scoped_to(tenant, shared=view.shared),
            view,
            version=version,
            development=self._development,
        )
        return {
            **explain_json(appraisal),
            "request": dict(request),
            "assumed_request": "request" not in members,
            "checks": [check.to_json() for check in checks],
            "not_covered": not_covered(parsed, keys),
        }

    def _policy(
        self, members: Mapping[str, object], snapshot: Snapshot
    ) -> tuple[ParsedPolicy, int]:
        if "policy" in members:
            source = parse_b64(members["policy"], "policy", limit=MAX_OBJECT_BYTES)
            return (
                parse_release_policy(
                    source, vocabulary=self._governance.vocabulary, what="policy"
                ),
                0,
            )
        wanted = parse_scoped_name(members.get("name"), "policy name")
        for policy in snapshot.policies.get(wanted.tenant, ()):
            if policy.subject == wanted:
                return policy.parsed, policy.version
        raise NotFoundError(f"policy {wanted}", got="no active policy of this name")

    def _claims(
        self,
        members: Mapping[str, object],
        request: Mapping[str, ClaimValue],
        parsed: ParsedPolicy,
        verify: _Verify,
    ) -> tuple[Claims, tuple[Check, ...]]:
        if "claims" in members:
            return (
                Claims(
                    items=parse_claims(
                        members["claims"], self._governance.vocabulary, "claims"
                    ),
                    request=request,
                ),
                (),
            )
        if "bundle" not in members:
            raise MalformedError("explain", got="neither", expected="bundle or claims")
        result = verify(members["bundle"], require_revocation=False)
        if result.claims is None or result.verdict is not Verdict.VERIFIED:
            failed = ", ".join(check.id for check in result.failed()) or "unchecked"
            raise VerificationError(
                "evidence", got=failed, expected="verified", checks=result.checks
            )
        if parsed.policy.tolerate_missing_revocation:
            return result.claims, result.checks
        # The tree is about what the evidence proves; the checks say what a release
        # would still find open.
        checks = verify(members["bundle"], require_revocation=True).checks
        return result.claims, checks

    def _verify(
        self,
        tx: Transaction,
        snapshot: Snapshot,
        request: Mapping[str, ClaimValue],
        now: datetime,
        document: object,
        *,
        require_revocation: bool,
    ) -> BundleResult:
        bundle = bundle_of(document)
        recorded = bundle.runtime_data is None
        binding = (
            None
            if bundle.runtime_data is None
            else RuntimeBinding(parse_runtime_data(dict(bundle.runtime_data)))
        )
        return verify_bundle(
            bundle,
            trust=Trust(
                now=now,
                collateral=self._collateral.current(tx),
                enrolled_keys=snapshot.enrolled_keys,
                cas=snapshot.cas,
                issuers=snapshot.issuers,
                require_revocation=require_revocation,
                recorded=True,
                development=self._development,
            ),
            verifiers=self._verifiers,
            binding=binding,
            request=request,
            recorded=recorded,
        )

    def explain_key(self, actor: Actor, key_id: KeyId) -> dict[str, object]:
        """Return which policies govern a key, what they ask, and what stands against.

        Raises:
            ForbiddenError: no role reaches the key's tenant.
        """
        actor.require_tenant(key_id.tenant)
        with self._database.read() as tx:
            snapshot = self._governance.snapshot(tx)
            versions = self._ledger.versions(tx, key_id)
        governing = snapshot.governing(key_id)
        subject = ReleaseSubject(
            key=KeyRef(key_id),
            policies=frozenset(policy.subject for policy in governing),
        )
        return {
            "key": str(key_id),
            "exists": bool(versions),
            "versions": [row.key.to_json() for row in versions],
            "policies": [_asks(snapshot, policy) for policy in governing],
            "denied_by": [
                {"name": str(entry.subject), **entry.content.to_json()}
                for entry in denials_against(snapshot.state, subject)
            ],
            "governance": snapshot.state.head_seq,
            "summary": _summary(len(governing)),
        }


def _asks(snapshot: Snapshot, policy: ActivePolicy) -> dict[str, object]:
    document = policy.parsed.policy
    return {
        "name": str(policy.subject),
        "version": policy.version,
        "digest": policy.digest,
        "releases": list(document.releases),
        "accept": document.accept.to_json(),
        "rules": [rule.to_json() for rule in document.allow],
        "rests_on": [
            {"name": str(one.subject), "version": one.version, "digest": one.digest}
            for one in named_objects(snapshot, policy)
        ],
    }


def _summary(count: int) -> str:
    if count == 0:
        return "no active policy matches this key: every request is denied"
    if count == 1:
        return "one policy governs this key: one of its rules has to grant"
    return f"{count} policies govern this key: every one of them has to grant"


def _request(value: object) -> Mapping[str, object]:
    return require_members(
        value, "request", required=set(), optional=set(REQUEST_MEMBERS)
    )


def _keys(given: Mapping[str, object]) -> list[KeyId]:
    keys = require_list(given.get("keys", []), "request keys", limit=_MAX_KEYS)
    return [parse_key_ref(key).key_id for key in keys]
