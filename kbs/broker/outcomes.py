"""From the outcomes of single keys to what leaves, what is said, and what is logged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from kbs.audit import events
from kbs.audit.kinds import Outcome as EntryOutcome
from kbs.audit.pseudonym import Pseudonyms
from kbs.broker.attest import Asked, Attested
from kbs.broker.decide import KeyOutcome
from kbs.channel.answer import WithheldKey
from kbs.core.checks import Check
from kbs.core.decision import Denied, Granted, PolicyRef, Reason
from kbs.core.errors import UnavailableError
from kbs.core.ids import KeyRef

NOT_ALL = "request.not_all"
"""Reason of a key that was granted, in a request that wanted all or nothing."""

MAX_TEXT = 2000
"""Longest got, expected or detail in an entry."""

# All of them together: an entry takes 1 MiB (`kbs.audit.entry`), a character up to 12
# bytes where JSON escapes it, and an entry too large would be a decision not recorded.
_ALL_TEXTS = 60_000
_LEAST_TEXT = 40

Explained = TypeVar("Explained", Check, Reason)


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
    attested: Attested[Asked],
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
    outcomes: tuple[KeyOutcome, ...],
    leaving: tuple[KeyOutcome, ...],
    pseudonyms: Pseudonyms,
) -> tuple[events.KeyDecision, ...]:
    """Return what the log says of each key; reasons in full."""
    most = _longest(sum(len(one.reasons) for one in outcomes))
    return tuple(
        events.KeyDecision(
            id=str(one.asked.key_id),
            version=one.version,
            outcome=EntryOutcome.GRANTED if one in leaving else EntryOutcome.DENIED,
            policies=_policies(one),
            reasons=shortened(pseudonyms.reasons(one.reasons), most),
        )
        for one in outcomes
    )


def undecided(asked: Asked) -> tuple[events.KeyDecision, ...]:
    """Return what the log says of each key when the evidence failed.

    No policy was asked about any of them.
    """
    return tuple(
        events.KeyDecision(
            id=str(ref.key_id),
            version=ref.version,
            outcome=EntryOutcome.DENIED,
            policies=(),
        )
        for ref in asked.runtime_data.request.keys
    )


def report_of(checks: tuple[Check, ...], pseudonyms: Pseudonyms) -> events.CheckReport:
    """Return what the log says of the checks; of those that passed, no text."""
    told = [check for check in checks if check.status in events.TOLD]
    texts = shortened(pseudonyms.checks(told), _longest(len(told)))
    return events.CheckReport(checks, texts)


def shortened(texts: Iterable[Explained], most: int) -> tuple[Explained, ...]:
    """Return checks or reasons with no text longer than `most` characters.

    What evidence says may be long on purpose; the decision is recorded all the same.
    """
    return tuple(
        one if _longest_text(one) <= most else _shortened(one, most) for one in texts
    )


def _longest(count: int) -> int:
    return max(_LEAST_TEXT, min(MAX_TEXT, _ALL_TEXTS // max(count, 1)))


def _longest_text(one: Check | Reason) -> int:
    return max(len(one.detail), len(one.got or ""), len(one.expected or ""))


def _shortened(one: Explained, most: int) -> Explained:
    return replace(
        one,
        detail=_cut(one.detail, most),
        got=None if one.got is None else _cut(one.got, most),
        expected=None if one.expected is None else _cut(one.expected, most),
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


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
