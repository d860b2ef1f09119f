"""What all policies together say of one key: decisions, section 2.2.

Every active policy that matches the key has to grant; where none matches, nothing is
released. Adding a policy therefore never widens access.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kbs.core.claims import Claims
from kbs.core.decision import Decision, Denied, Granted, PolicyRef, Reason
from kbs.core.ids import KeyId
from kbs.policy.appraise import Appraisal, appraise
from kbs.policy.context import TenantView
from kbs.policy.match import KeyGlob, governing
from kbs.policy.parse import ParsedPolicy

NO_POLICY = "policy.none"
"""Reason id of a key that no active policy matches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivePolicy:
    """A policy in force, and the version under which the store has it."""

    parsed: ParsedPolicy
    version: int

    @property
    def globs(self) -> tuple[KeyGlob, ...]:
        """The keys it governs."""
        return self.parsed.globs


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAppraisal:
    """The decision about one key, and what each policy said."""

    key: KeyId
    decision: Decision
    appraisals: tuple[Appraisal, ...]


def appraise_key(
    active: Iterable[ActivePolicy],
    key: KeyId,
    claims: Claims,
    view: TenantView,
    *,
    development: bool = False,
) -> KeyAppraisal:
    """Hold every policy that matches `key` against claims scoped to the key's tenant.

    `view` is that of the key's tenant, which is the tenant of all these policies.
    """
    appraisals = tuple(
        appraise(
            policy.parsed,
            claims,
            view,
            version=policy.version,
            development=development,
        )
        for policy in governing(active, key)
    )
    return KeyAppraisal(key=key, decision=merge(appraisals, key), appraisals=appraisals)


def merge(appraisals: tuple[Appraisal, ...], key: KeyId) -> Decision:
    """Return a grant only if there is a policy and every one of them grants."""
    if not appraisals:
        reason = Reason(id=NO_POLICY, detail=f"no active policy matches key {key}")
        return Denied(reasons=(reason,))
    by: list[tuple[PolicyRef, str]] = []
    reasons: list[Reason] = []
    for appraisal in appraisals:
        if isinstance(appraisal.decision, Granted):
            by += appraisal.decision.by
        else:
            reasons += appraisal.decision.reasons
    if reasons:
        refs = tuple(appraisal.policy for appraisal in appraisals)
        return Denied(reasons=tuple(reasons), policies=refs)
    return Granted(by=tuple(by))
