"""From the outcomes of single keys to what leaves, what is said, and what is logged."""

from __future__ import annotations

from dataclasses import replace

from kbs.audit import events
from kbs.audit.kinds import Outcome as EntryOutcome
from kbs.audit.pseudonym import Pseudonyms
from kbs.broker.attest import Asked, Attested
from kbs.broker.decide import KeyOutcome
from kbs.channel.answer import WithheldKey
from kbs.core.decision import Denied, Granted, PolicyRef
from kbs.core.errors import UnavailableError
from kbs.core.ids import KeyRef

NOT_ALL = "request.not_all"
"""Reason of a key that was granted, in a request that wanted all or nothing."""


def releasable(
    outcomes: tuple[KeyOutcome, ...], *, partial: bool
) -> tuple[KeyOutcome, ...]:
    """Return what may leave: all, or nothing unless `partial`."""
    granted = tuple(one for one in outcomes if one.granted)
    if partial or len(granted) == len(outcomes):
        return granted
    return ()


def released_ref(outcome: KeyOutcome) -> KeyRef:
    """Return a granted key with the version that leaves.

    Raises:
        UnavailableError: it has none; a mistake of ours, which must not release.
    """
    if outcome.stored is None or not outcome.granted:
        raise UnavailableError("release", got="a key without a grant")
    return KeyRef(outcome.asked.key_id, outcome.stored.key.version)


def withheld(
    attested: Attested,
    outcomes: tuple[KeyOutcome, ...],
    leaving: tuple[KeyOutcome, ...],
) -> tuple[WithheldKey, ...]:
    """Return every key that does not leave, with the ids of the reasons."""
    if not outcomes:
        failed = tuple(dict.fromkeys(check.id for check in attested.failed))
        return tuple(
            WithheldKey(ref, failed) for ref in attested.asked.runtime_data.request.keys
        )
    return tuple(
        WithheldKey(one.asked, _reason_ids(one))
        for one in outcomes
        if one not in leaving
    )


def entries_of(
    attested: Attested,
    outcomes: tuple[KeyOutcome, ...],
    leaving: tuple[KeyOutcome, ...],
    pseudonyms: Pseudonyms,
) -> tuple[events.KeyDecision, ...]:
    """Return what the log says of each key; reasons in full."""
    if not outcomes:
        return _undecided(attested.asked)
    return tuple(
        events.KeyDecision(
            id=str(one.asked.key_id),
            version=one.version,
            outcome=EntryOutcome.GRANTED if one in leaving else EntryOutcome.DENIED,
            policies=_policies(one),
            reasons=pseudonyms.reasons(one.reasons),
        )
        for one in outcomes
    )


def _undecided(asked: Asked) -> tuple[events.KeyDecision, ...]:
    # The evidence failed: no policy was asked about any key.
    return tuple(
        events.KeyDecision(
            id=str(ref.key_id),
            version=ref.version,
            outcome=EntryOutcome.DENIED,
            policies=(),
        )
        for ref in asked.runtime_data.request.keys
    )


def _policies(outcome: KeyOutcome) -> tuple[tuple[PolicyRef, str | None], ...]:
    tenant = outcome.asked.key_id.tenant
    decision = outcome.decision
    named: tuple[tuple[PolicyRef, str | None], ...] = ()
    if isinstance(decision, Granted):
        named = decision.by
    elif isinstance(decision, Denied):
        named = tuple((policy, None) for policy in decision.policies)
    return tuple(
        (replace(policy, name=f"{tenant}/{policy.name}"), rule)
        for policy, rule in named
    )


def _reason_ids(outcome: KeyOutcome) -> tuple[str, ...]:
    ids = tuple(dict.fromkeys(reason.id for reason in outcome.reasons))
    return ids[:64] or (NOT_ALL,)
