"""Step 7 of a release: one transaction that spends, rechecks, records and keeps.

It is serialised on the head of the log, so what is rechecked in it stays true until it
commits. A denial takes the same way, with its problem document as the stored answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from kbs.audit import events
from kbs.audit.kinds import Mode as EntryMode
from kbs.audit.kinds import Outcome as EntryOutcome
from kbs.broker.attest import Asked, Attested
from kbs.broker.collateral import CollateralTable
from kbs.broker.commit import Work
from kbs.broker.decide import KeyOutcome
from kbs.broker.evidence import EvidenceLocker
from kbs.broker.identity import Identity
from kbs.broker.journal import Journal
from kbs.broker.outcomes import entries_of, report_of, undecided
from kbs.broker.ports import SpentChallenge
from kbs.broker.recheck import recheck
from kbs.broker.replies import Reply
from kbs.broker.reserve import DiskReserve
from kbs.channel.answer import Answer, Outcome
from kbs.channel.challenge import CLOCK_SKEW_SECONDS
from kbs.core.checks import Check
from kbs.core.encode import canonical_json
from kbs.core.errors import ConflictError

SPENT = "challenge.spent"
"""Code of the conflict with another request that spent the challenge meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A decision with its signed document, before it is recorded."""

    attested: Attested[Asked]
    decision: str
    outcomes: tuple[KeyOutcome, ...]
    leaving: tuple[KeyOutcome, ...]
    answer: Answer
    reply: Reply
    checks: tuple[Check, ...]

    @property
    def outcome(self) -> EntryOutcome:
        """How the entry says that it ended."""
        granted = bool(self.answer.keys)
        return EntryOutcome.GRANTED if granted else EntryOutcome.DENIED


class Recorder:
    """Records decisions."""

    def __init__(
        self,
        *,
        journal: Journal,
        identity: Identity,
        collateral: CollateralTable,
        locker: EvidenceLocker,
        reserve: DiskReserve,
        development: bool,
        steps: Callable[[str], None],
    ) -> None:
        """Tell `steps` when all is written and not yet committed."""
        self._journal = journal
        self._identity = identity
        self._collateral = collateral
        self._locker = locker
        self._reserve = reserve
        self._development = development
        self._steps = steps

    def recording(self, ready: Ready) -> Callable[[Work], None]:
        """Return what records one decision with its entry.

        It raises MovedError where what the decision rests on changed, and a
        ConflictError of `SPENT` where another request spent the challenge.

        Raises:
            UnavailableError: only the reserve of the disk is left, and it is no grant.
        """
        if ready.answer.outcome is not Outcome.GRANTED:
            self._reserve.require()
        stored = canonical_json(ready.reply.document)
        return lambda work: self._spend(work, ready, stored)

    def _spend(self, work: Work, ready: Ready, stored: bytes) -> None:
        attested = ready.attested
        recheck(
            work,
            collateral=self._collateral,
            imports=attested.imports,
            head_seq=attested.snapshot.state.head_seq,
            outcomes=ready.outcomes,
            now=attested.now,
            development=self._development,
        )
        index = work.append(self._journal.entry(self._event(ready)))
        try:
            work.tx.spent.insert(
                SpentChallenge(
                    challenge=hashlib.sha256(attested.challenge.raw).digest(),
                    request_digest=attested.asked.request_digest,
                    decision=ready.decision,
                    entry_index=index,
                    status=ready.reply.status,
                    answer=stored,
                    expires=attested.challenge.expires
                    + timedelta(seconds=2 * CLOCK_SKEW_SECONDS),
                )
            )
        except ConflictError as exc:
            raise ConflictError("challenge", code=SPENT) from exc
        if not self._reserve.is_low():
            self._locker.keep(work.tx, attested, ready.decision)
        self._steps("recorded")

    def _event(self, ready: Ready) -> events.Release:
        attested = ready.attested
        asked = attested.asked
        pseudonyms = self._identity.pseudonyms(attested.result.identities)
        return events.Release(
            decision=ready.decision,
            door=asked.door_name,
            mode=EntryMode(asked.runtime_data.request.mode.value),
            outcome=ready.outcome,
            keys=entries_of(ready.outcomes, ready.leaving, pseudonyms)
            or undecided(asked),
            governance=attested.snapshot.state.head_seq,
            request=asked.request_digest.hex(),
            freshness="challenge",
            appraised=attested.now,
            checks=report_of(ready.checks, pseudonyms),
            recipient=hashlib.sha256(
                canonical_json(asked.runtime_data.recipient.to_json())
            ).hexdigest(),
            answer=ready.answer.digest(),
            evidence=asked.evidence_digest.hex(),
            primary=attested.primary_kind,
            tolerated=attested.tolerated,
            development=self._development,
        )
