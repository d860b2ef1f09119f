"""A release, step by step (decisions, section 4).

::

    1 parse, caps                              400, no entry
    2 challenge                                401, counted
    3 spent? same request: the stored answer · another: 401 challenge.replayed
    4 verify at one `now`                      403; counted, or an entry once it
                                               authenticated · unchecked: 503
    5 governance at G, key versions; appraise each key
    6 grant: unwrap, seal, digest of the answer
    7 ONE transaction: spend · recheck G, keys, denials · append · keep the answer
      moved on: back to 5, at last under the lock (`kbs.broker.settling`)
    8 durable commit, checkpoint, receipt      9 send
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from kbs.broker.attest import (
    Asked,
    Attestation,
    Attested,
    parse_request,
    refusal_of,
)
from kbs.broker.commit import Placed, refuse_clock_behind
from kbs.broker.decide import Grounds, KeyOutcome, decide_key
from kbs.broker.governance import Governance
from kbs.broker.identity import Identity
from kbs.broker.journal import Journal
from kbs.broker.key_ledger import KeyLedger
from kbs.broker.lines import DecisionLine, DecisionLines
from kbs.broker.outcomes import releasable
from kbs.broker.ports import Database, Transaction
from kbs.broker.record import SPENT, Ready, Recorder
from kbs.broker.refusals import Refusal, RefusalCounter
from kbs.broker.replies import Replies, Reply
from kbs.broker.sealing import Sealer
from kbs.broker.settling import Draft, settle
from kbs.channel.challenge import (
    Challenge,
    Door,
    parse_challenge,
    verify_challenge,
)
from kbs.core.checks import Verdict
from kbs.core.clock import Clock
from kbs.core.errors import (
    AuthenticationError,
    ConflictError,
    UnavailableError,
)
from kbs.core.ids import new_decision_id


class Release:
    """Challenges and releases of the v1 door."""

    def __init__(
        self,
        *,
        database: Database,
        governance: Governance,
        attestation: Attestation,
        identity: Identity,
        ledger: KeyLedger,
        sealer: Sealer,
        journal: Journal,
        recorder: Recorder,
        refusals: RefusalCounter,
        replies: Replies,
        lines: DecisionLines,
        clock: Clock,
        development: bool,
        steps: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Tell `steps` of each step as it is reached."""
        self._database = database
        self._governance = governance
        self._attestation = attestation
        self._identity = identity
        self._ledger = ledger
        self._sealer = sealer
        self._journal = journal
        self._recorder = recorder
        self._refusals = refusals
        self._replies = replies
        self._lines = lines
        self._clock = clock
        self._development = development
        self._steps = steps

    def challenge(self) -> dict[str, object]:
        """Return a signed challenge; nothing is stored."""
        return self._replies.challenge(Door.V1, self._clock.now())

    def release(self, body: bytes) -> Reply:
        """Answer one request that carries its evidence.

        Raises:
            MalformedError: the body lacks the promised shape.
        """
        asked = parse_request(body, Door.V1)
        self._steps("parsed")
        line = self._lines.begin(new_decision_id())
        try:
            challenge = self._check_challenge(asked)
            return self._decide_and_record(asked, challenge, line)
        except AuthenticationError as exc:
            self._count(Refusal.of_fault(line.decision, exc, self._clock.now()), line)
            return self._replies.fault(exc, line.decision)
        except UnavailableError as exc:
            line.failed(exc)
            return self._replies.fault(exc, line.decision)

    def _check_challenge(self, asked: Asked) -> Challenge:
        now = self._clock.now()
        challenge = parse_challenge(asked.runtime_data.nonce)
        verify_challenge(
            challenge,
            self._identity.challenge_keys(now, challenge.key_id),
            door=asked.door,
            origin=self._identity.origin,
            now=now,
        )
        if asked.runtime_data.audience != self._identity.origin:
            raise AuthenticationError(
                "challenge.audience",
                got=asked.runtime_data.audience,
                expected=self._identity.origin,
                hint="the evidence was made for another broker",
                code="challenge.audience",
            )
        return challenge

    def _answered_before(
        self, tx: Transaction, asked: Asked, challenge: Challenge, line: DecisionLine
    ) -> Reply | None:
        spent = tx.spent.find(hashlib.sha256(challenge.raw).digest())
        if spent is None:
            return None
        if spent.request_digest == asked.request_digest:
            reply = self._replies.stored(tx, spent)
            line.retried(spent.decision, spent.entry_index)
            return reply
        raise AuthenticationError(
            "challenge.replayed",
            got="a challenge that another request spent",
            expected="a challenge of its own for every request",
            hint="ask for a new challenge and quote again",
            code="challenge.replayed",
        )

    def _decide_and_record(
        self, asked: Asked, challenge: Challenge, line: DecisionLine
    ) -> Reply:
        attested: Attested[Asked] | None = None

        def decide() -> Draft[Ready | Reply]:
            nonlocal attested
            with self._database.read() as tx:
                again = self._answered_before(tx, asked, challenge, line)
                if again is not None:
                    return Draft(again)
                self._steps("challenge")
                now = self._clock.now()
                refuse_clock_behind(now, tx.log.head().time)
                if attested is None or not self._attestation.is_current(tx, attested):
                    attested = self._attestation.attest(tx, asked, challenge, now)
                    self._steps("verified")
                early = self._refused_early(attested, line)
                if early is not None:
                    return Draft(early)
                ready = self._decide(tx, attested, line.decision)
            self._steps("sealed")
            return Draft(ready, self._recorder.recording(ready))

        try:
            settled = settle(self._journal, decide)
        except ConflictError as exc:
            if exc.code != SPENT:
                raise
            return self._lost_race(asked, challenge, line)
        decided = settled.decided
        if isinstance(decided, Reply):
            return decided
        return self._recorded(decided, settled.placed[0], line)

    def _refused_early(
        self, attested: Attested[Asked], line: DecisionLine
    ) -> Reply | None:
        """Answer what may not buy an entry, or could not be checked."""
        result = attested.result
        if result.verdict is Verdict.UNCHECKED:
            line.unchecked(self._attestation.reasons(attested))
            # Counted as well: the sample tells an administrator what was missing.
            self._refusals.count(self._refusal(attested, line.decision))
            return self._replies.unchecked(attested, line.decision)
        if result.verdict is Verdict.VERIFIED or result.authenticated:
            return None
        self._count(self._refusal(attested, line.decision), line)
        return self._replies.refused_evidence(attested, line.decision)

    def _refusal(self, attested: Attested[Asked], decision: str) -> Refusal:
        return refusal_of(
            self._attestation, self._identity, attested, decision, self._clock.now()
        )

    def _decide(
        self, tx: Transaction, attested: Attested[Asked], decision: str
    ) -> Ready:
        asked = attested.asked.runtime_data.request
        outcomes: tuple[KeyOutcome, ...] = ()
        if not attested.refused:
            grounds = Grounds(
                snapshot=attested.snapshot,
                claims=attested.result.claims,
                identities=attested.result.identities,
            )
            outcomes = tuple(
                decide_key(
                    grounds,
                    self._ledger.versions(tx, ref.key_id),
                    ref,
                    development=self._development,
                )
                for ref in asked.keys
            )
            used = [one for outcome in outcomes for one in outcome.used]
            self._governance.confirm(tx, attested.snapshot, used)
        self._steps("appraised")
        leaving = releasable(outcomes, partial=asked.partial)
        answer = self._sealer.answer(attested, decision, outcomes, leaving)
        return Ready(
            attested=attested,
            decision=decision,
            outcomes=outcomes,
            leaving=leaving,
            answer=answer,
            reply=self._replies.answered(attested, answer, outcomes),
            checks=attested.result.checks,
        )

    def _recorded(self, ready: Ready, placed: Placed, line: DecisionLine) -> Reply:
        """Step 8: the receipt."""
        self._steps("committed")
        line.recorded(ready, placed, self._attestation.reasons(ready.attested))
        return self._replies.receipted(ready.reply, placed)

    def _lost_race(
        self, asked: Asked, challenge: Challenge, line: DecisionLine
    ) -> Reply:
        # Another request spent the challenge between step 3 and step 7.
        with self._database.read() as tx:
            again = self._answered_before(tx, asked, challenge, line)
        if again is None:
            raise UnavailableError("release", got="a challenge spent and gone")
        return again

    def _count(self, refusal: Refusal, line: DecisionLine) -> None:
        self._refusals.count(refusal)
        line.refused(refusal.reason)
