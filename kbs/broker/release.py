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
    8 durable commit, checkpoint, receipt      9 send
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from kbs.broker.attest import Asked, Attestation, Attested, parse_request
from kbs.broker.commit import refuse_clock_behind
from kbs.broker.decide import KeyOutcome, decide_key
from kbs.broker.evidence import EvidenceLocker
from kbs.broker.governance import Governance, StaleReadError
from kbs.broker.identity import Identity
from kbs.broker.journal import Journal
from kbs.broker.outcomes import releasable, released_ref, withheld
from kbs.broker.ports import Database, Transaction
from kbs.broker.record import SPENT, MovedError, Ready, Recorder
from kbs.broker.refusals import Refusal, RefusalCounter
from kbs.broker.replies import Replies, Reply
from kbs.broker.vault import Vault
from kbs.channel.answer import (
    Answer,
    Outcome,
    ReleasedKey,
    seal_keys,
)
from kbs.channel.binding import Mode
from kbs.channel.challenge import (
    Challenge,
    Door,
    verify_challenge,
)
from kbs.core.checks import Check, Verdict
from kbs.core.clock import Clock
from kbs.core.errors import (
    AuthenticationError,
    ConflictError,
    UnavailableError,
)
from kbs.core.ids import new_decision_id

ATTEMPTS = 3
"""How often a decision is made anew because governance moved on meanwhile."""


class Release:
    """Challenges and releases of the v1 door."""

    def __init__(
        self,
        *,
        database: Database,
        governance: Governance,
        attestation: Attestation,
        identity: Identity,
        vault: Vault,
        journal: Journal,
        refusals: RefusalCounter,
        replies: Replies,
        locker: EvidenceLocker,
        clock: Clock,
        development: bool,
        steps: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Tell `steps` of each step as it is reached."""
        self._database = database
        self._governance = governance
        self._attestation = attestation
        self._identity = identity
        self._vault = vault
        self._refusals = refusals
        self._replies = replies
        self._clock = clock
        self._development = development
        self._steps = steps
        self._recorder = Recorder(
            journal=journal,
            identity=identity,
            locker=locker,
            development=development,
            steps=steps,
        )

    def challenge(self) -> dict[str, object]:
        """Return a signed challenge; nothing is stored."""
        return self._replies.challenge(Door.V1, self._clock.now())

    def release(self, body: bytes) -> Reply:
        """Answer one request that carries its evidence.

        Raises:
            MalformedError: the body lacks the promised shape.
            UnavailableError: it could not be checked, or not be recorded.
        """
        asked = parse_request(body, Door.V1)
        self._steps("parsed")
        decision = new_decision_id()
        try:
            challenge = self._check_challenge(asked)
            again = self._answered_before(asked, challenge)
        except AuthenticationError as exc:
            self._count(decision, exc.code, exc)
            return self._replies.fault(exc, decision)
        if again is not None:
            return again
        self._steps("challenge")
        return self._decide_and_record(asked, challenge, decision)

    def _check_challenge(self, asked: Asked) -> Challenge:
        challenge = verify_challenge(
            asked.runtime_data.nonce,
            self._identity.challenge_keys(self._clock.now()),
            door=asked.door,
            origin=self._identity.origin,
            now=self._clock.now(),
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

    def _answered_before(self, asked: Asked, challenge: Challenge) -> Reply | None:
        with self._database.read() as tx:
            spent = tx.spent.find(hashlib.sha256(challenge.raw).digest())
            if spent is None:
                return None
            if spent.request_digest == asked.request_digest:
                return self._replies.stored(tx, spent)
        raise AuthenticationError(
            "challenge.replayed",
            got="a challenge that another request spent",
            expected="a challenge of its own for every request",
            hint="ask for a new challenge and quote again",
            code="challenge.replayed",
        )

    def _decide_and_record(
        self, asked: Asked, challenge: Challenge, decision: str
    ) -> Reply:
        for _ in range(ATTEMPTS):
            try:
                return self._decide_once(asked, challenge, decision)
            except (MovedError, StaleReadError):
                continue
        raise UnavailableError(
            "release",
            got=f"governance or a key that changed {ATTEMPTS} times meanwhile",
            expected="one state to decide under",
            hint="try again",
            code="governance.moved",
        )

    def _decide_once(self, asked: Asked, challenge: Challenge, decision: str) -> Reply:
        with self._database.read() as tx:
            now = self._clock.now()
            refuse_clock_behind(now, tx.log.head().time)
            attested = self._attestation.attest(tx, asked, challenge, now)
            self._steps("verified")
            early = self._refused_early(attested, decision)
            if early is not None:
                return early
            ready = self._decide(tx, attested, decision)
        self._steps("sealed")
        return self._record(ready)

    def _refused_early(self, attested: Attested, decision: str) -> Reply | None:
        """Answer what may not buy an entry, or could not be checked."""
        result = attested.result
        if result.verdict is Verdict.UNCHECKED:
            return self._replies.unchecked(attested, decision)
        if result.verdict is Verdict.VERIFIED or result.authenticated:
            return None
        pseudonyms = self._identity.pseudonyms(result.identities)
        (first,) = pseudonyms.checks(result.failed()[:1])
        self._count(decision, self._attestation.reason(attested.asked, first), first)
        return self._replies.refused_evidence(attested, decision)

    def _decide(self, tx: Transaction, attested: Attested, decision: str) -> Ready:
        asked = attested.asked.runtime_data.request
        outcomes: tuple[KeyOutcome, ...] = ()
        if not attested.refused:
            outcomes = tuple(
                decide_key(attested, tx.keys, ref, development=self._development)
                for ref in asked.keys
            )
            self._confirm(tx, attested, outcomes)
        self._steps("appraised")
        leaving = releasable(outcomes, partial=asked.partial)
        answer = self._answer(attested, decision, outcomes, leaving)
        return Ready(
            attested=attested,
            decision=decision,
            outcomes=outcomes,
            leaving=leaving,
            answer=answer,
            reply=self._replies.answered(attested, answer, outcomes),
            checks=attested.result.checks,
        )

    def _confirm(
        self, tx: Transaction, attested: Attested, outcomes: tuple[KeyOutcome, ...]
    ) -> None:
        used = [one for outcome in outcomes for one in outcome.used]
        self._governance.confirm(tx, attested.snapshot, used)

    def _answer(
        self,
        attested: Attested,
        decision: str,
        outcomes: tuple[KeyOutcome, ...],
        leaving: tuple[KeyOutcome, ...],
    ) -> Answer:
        runtime_data = attested.asked.runtime_data
        is_check = runtime_data.request.mode is Mode.CHECK
        outcome = Outcome.GRANTED if leaving else Outcome.DENIED
        sealed = None
        if is_check and outcomes:
            outcome = Outcome.CHECKED
        elif leaving:
            sealed = self._seal(attested, decision, leaving)
        return Answer(
            audience=runtime_data.audience,
            nonce=runtime_data.nonce,
            decision=decision,
            time=attested.now,
            outcome=outcome,
            suite=runtime_data.request.suite,
            keys=tuple(released_ref(one) for one in leaving),
            denied=withheld(attested, outcomes, leaving),
            sealed=sealed,
        )

    def _seal(
        self, attested: Attested, decision: str, leaving: tuple[KeyOutcome, ...]
    ) -> bytes:
        primary = attested.result.binding
        if primary is None:
            raise UnavailableError("seal", got="no verified binding")
        released = [
            ReleasedKey(released_ref(one), self._vault.open_key(one.stored).reveal())
            for one in leaving
            if one.stored is not None
        ]
        return seal_keys(
            released,
            runtime_data=attested.asked.runtime_data,
            primary=primary,
            decision=decision,
        )

    def _record(self, ready: Ready) -> Reply:
        """Step 7, then the receipt."""
        try:
            placed = self._recorder.record(ready)
        except ConflictError as exc:
            if exc.code != SPENT:
                raise
            return self._lost_race(ready)
        self._steps("committed")
        return self._replies.receipted(ready.reply, placed)

    def _lost_race(self, ready: Ready) -> Reply:
        # Another request spent the challenge between step 3 and step 7.
        try:
            again = self._answered_before(
                ready.attested.asked, ready.attested.challenge
            )
        except AuthenticationError as exc:
            self._count(ready.decision, exc.code, exc)
            return self._replies.fault(exc, ready.decision)
        if again is None:
            raise UnavailableError("release", got="a challenge spent and gone")
        return again

    def _count(
        self, decision: str, reason: str, fault: AuthenticationError | Check
    ) -> None:
        if isinstance(fault, Check):
            check, detail = fault.id, fault.detail
        else:
            check, detail = fault.code, str(fault)
        self._refusals.count(
            Refusal(
                decision=decision,
                reason=reason,
                check=check,
                detail=detail,
                got=fault.got,
                expected=fault.expected,
                time=self._clock.now(),
            )
        )
