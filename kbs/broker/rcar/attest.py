"""`/auth` and `/attest`: from a stranger to a session that proved something.

Steps 1 to 4 of a release (decisions, section 4). What authenticated spends the session,
whether it holds or not: the same message again gets the same answer, another one has to
begin again. What did not authenticate costs no entry and spends nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from kbs.audit import events
from kbs.audit.kinds import Mode, Outcome
from kbs.broker.attest import Attestation, Attested, refusal_of
from kbs.broker.commit import Work, refuse_clock_behind
from kbs.broker.evidence import EvidenceLocker
from kbs.broker.lines import DecisionLine, listed
from kbs.broker.outcomes import report_of
from kbs.broker.ports import Transaction
from kbs.broker.rcar.presented import (
    RcarPresented,
    check_init_data,
    check_primary,
    present,
)
from kbs.broker.rcar.sessions import (
    Proven,
    anchors_of,
    open_session,
    seal_session,
)
from kbs.broker.rcar.token import issue_token
from kbs.broker.rcar.tools import Tools, recipient_digest
from kbs.broker.recheck import recheck
from kbs.broker.refusals import Refusal
from kbs.broker.reserve import DiskReserve
from kbs.broker.settling import Draft, settle
from kbs.channel.challenge import Door
from kbs.channel.session import Session, mint_session, verify_session
from kbs.core.checks import Check, Status, Verdict
from kbs.core.errors import (
    AuthenticationError,
    ConflictError,
    KbsError,
    MalformedError,
    UnavailableError,
    VerificationError,
)
from kbs.core.ids import new_decision_id
from kbs.evidence.forms import form_of
from kbs.wire.rcar import challenge_document, parse_auth_request

DOOR = Door.RCAR.name.lower()

SPENT = "session.spent"
"""Code of a session that other evidence has spent."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that was just begun, and the challenge to answer with."""

    session: Session
    challenge: dict[str, object]


@dataclass(frozen=True, slots=True)
class _New:
    """An attestation that no row tells of yet."""

    attested: Attested[RcarPresented]
    proven: Proven


class RcarAttestation:
    """Begins sessions, and verifies what guests attest in them."""

    def __init__(
        self,
        tools: Tools,
        attestation: Attestation,
        locker: EvidenceLocker,
        reserve: DiskReserve,
    ) -> None:
        """Verify by `attestation`, keep evidence in `locker`."""
        self._tools = tools
        self._attestation = attestation
        self._locker = locker
        self._reserve = reserve

    def begin(self, body: bytes) -> Begun:
        """Begin a session; nothing is stored.

        Raises:
            AuthenticationError: another version of the protocol.
            MalformedError: the message, or a TEE whose evidence is not verified here.
        """
        tee = parse_auth_request(body).tee
        form_of(tee)
        now = self._tools.clock.now()
        identity = self._tools.identity
        session = mint_session(
            identity.challenge_keys(now)[0], tee=tee, origin=identity.origin, now=now
        )
        return Begun(session, challenge_document(session.nonce))

    def session(self, cookie: str) -> Session:
        """Return the session that a cookie stands for.

        Raises:
            AuthenticationError: it is none of ours, or has ended.
        """
        identity, now = self._tools.identity, self._tools.clock.now()
        return verify_session(
            cookie,
            lambda key_id: identity.challenge_keys(now, key_id),
            origin=identity.origin,
            now=now,
        )

    def attest(self, cookie: str | None, body: bytes) -> tuple[Session, Proven]:
        """Verify what a guest attests; the token is in what was proven.

        Raises:
            AuthenticationError: no session, or one that other evidence has spent.
            MalformedError: the message lacks the promised shape.
            VerificationError: the evidence does not hold; its checks say where.
            UnavailableError: it could not be checked, or not be recorded.
        """
        line = self._tools.lines.begin(new_decision_id())
        try:
            if cookie is None:
                raise _no_session()
            session = self.session(cookie)
            proven = self._attest(session, body, line)
        except (AuthenticationError, MalformedError) as exc:
            self._count(self._fault(line.decision, exc), line)
            raise
        except UnavailableError as exc:
            line.failed(exc)
            raise
        if proven.token is None:
            raise _refused(proven.checks, proven.decision)
        return session, proven

    def _fault(self, decision: str, error: KbsError) -> Refusal:
        return Refusal.of_fault(decision, error, self._now(), door=DOOR)

    def _attest(self, session: Session, body: bytes, line: DecisionLine) -> Proven:
        def decide() -> Draft[Proven | _New]:
            with self._tools.database.read() as tx:
                known = self._answered_before(tx, session, body, line)
                if known is not None:
                    return Draft(known)
                presented = present(body, session)
                now = self._now()
                refuse_clock_behind(now, tx.log.head().time)
                attested = self._verify(tx, presented, now)
                until = self._tools.collateral.current(tx).good_until(now)
            self._tools.steps("verified")
            self._refuse_early(attested, line)
            new = _New(attested, self._proven(attested, until, line.decision))
            return Draft(new, self._recording(new))

        try:
            decided = settle(self._tools.journal, decide).decided
        except ConflictError:
            # Another message of this session was faster; it may be the same one.
            with self._tools.database.read() as tx:
                known = self._answered_before(tx, session, body, line)
            if known is None:
                raise
            return known
        if isinstance(decided, Proven):
            return decided
        self._tell(decided, line)
        return decided.proven

    def _verify(
        self, tx: Transaction, presented: RcarPresented, now: datetime
    ) -> Attested[RcarPresented]:
        challenge = presented.session.challenge
        attested = self._attestation.attest(tx, presented, challenge, now)
        result = attested.result
        more = [check_primary(result.primary)]
        init_data = check_init_data(presented, result.claims)
        if init_data is not None:
            more.append(init_data)
        return replace(attested, result=result.joined_by(*more))

    def _answered_before(
        self, tx: Transaction, session: Session, body: bytes, line: DecisionLine
    ) -> Proven | None:
        stored = tx.sessions.find(session.digest)
        if stored is None:
            return None
        proven, spent_by = open_session(self._tools.vault, stored)
        if spent_by != hashlib.sha256(body).digest():
            raise AuthenticationError(
                "session",
                got="other evidence than it has attested with",
                expected="one attestation for every session",
                hint="begin again with /auth",
                code=SPENT,
            )
        line.told("repeated", earlier=proven.decision, door=DOOR)
        return proven

    def _refuse_early(
        self, attested: Attested[RcarPresented], line: DecisionLine
    ) -> None:
        """Raise for what may not buy an entry, or could not be checked."""
        result = attested.result
        if result.verdict is Verdict.UNCHECKED:
            line.unchecked(self._attestation.reasons(attested))
            self._tools.refusals.count(self._refusal(attested, line.decision))
            names = ", ".join(
                one.id for one in result.checks if one.status is Status.UNCHECKED
            )
            raise UnavailableError(
                f"could not be checked now: {names}", code="evidence.unchecked"
            )
        if result.verdict is Verdict.REFUSED and not result.authenticated:
            self._count(self._refusal(attested, line.decision), line)
            raise _refused(result.checks, line.decision)

    def _refusal(self, attested: Attested[RcarPresented], decision: str) -> Refusal:
        return refusal_of(
            self._attestation, self._tools.identity, attested, decision, self._now()
        )

    def _proven(
        self, attested: Attested[RcarPresented], until: datetime | None, decision: str
    ) -> Proven:
        asked, result = attested.asked, attested.result
        claims = None if attested.refused else result.claims
        token = None
        if claims is not None:
            token = issue_token(self._tools.identity, attested, decision)
        return Proven(
            decision=decision,
            appraised=attested.now,
            recipient=asked.tee_key,
            claims=claims,
            identities=result.identities,
            primary=attested.primary_kind,
            tolerated=attested.tolerated,
            checks=result.checks,
            evidence=asked.evidence_digest,
            anchors=anchors_of(attested.snapshot, attested.imports),
            token=token,
            expires=min(asked.session.expires, until or asked.session.expires),
        )

    def _recording(self, new: _New) -> Callable[[Work], None]:
        attested, proven = new.attested, new.proven
        asked = attested.asked
        row = seal_session(
            self._tools.vault, asked.session, asked.evidence_digest, proven
        )
        refused = proven.token is None
        evidence = None
        if refused:
            self._reserve.require()
        elif not self._reserve.is_low():
            evidence = self._locker.seal(attested.asked)

        def run(work: Work) -> None:
            recheck(
                work,
                collateral=self._tools.collateral,
                imports=attested.imports,
                head_seq=attested.snapshot.state.head_seq,
                outcomes=(),
                now=attested.now,
                development=self._tools.development,
            )
            if not refused:
                # No entry names the evidence yet: the session keeps it until one does.
                work.tx.sessions.insert(row, evidence)
            else:
                work.tx.sessions.insert(row)
                event = self._event(attested, proven.decision)
                work.append(self._tools.journal.entry(event))
                if not self._reserve.is_low():
                    self._locker.keep(work.tx, attested, proven.decision)
            self._tools.steps("recorded")

        return run

    def _tell(self, new: _New, line: DecisionLine) -> None:
        attested, proven = new.attested, new.proven
        line.told(
            "refused" if proven.token is None else "attested",
            check=listed(self._attestation.reasons(attested)),
            door=attested.asked.door_name,
            primary=proven.primary or "",
            governance=str(attested.snapshot.state.head_seq),
        )

    def _event(
        self, attested: Attested[RcarPresented], decision: str
    ) -> events.Release:
        """Evidence that authenticated and does not hold: nothing was asked for yet."""
        asked, result = attested.asked, attested.result
        pseudonyms = self._tools.identity.pseudonyms(result.identities)
        return events.Release(
            decision=decision,
            door=asked.door_name,
            mode=Mode.RELEASE,
            outcome=Outcome.DENIED,
            keys=(),
            governance=attested.snapshot.state.head_seq,
            request=asked.evidence_digest.hex(),
            freshness="challenge",
            appraised=attested.now,
            checks=report_of(result.checks, pseudonyms),
            recipient=recipient_digest(asked.tee_key.to_json()),
            evidence=asked.evidence_digest.hex(),
            primary=attested.primary_kind,
            tolerated=attested.tolerated,
            development=self._tools.development,
        )

    def _count(self, refusal: Refusal, line: DecisionLine) -> None:
        self._tools.refusals.count(refusal)
        line.refused(refusal.reason)

    def _now(self) -> datetime:
        return self._tools.clock.now()


def _no_session() -> KbsError:
    return AuthenticationError(
        "session",
        got="no cookie",
        expected="the cookie that /auth set",
        hint="begin with /auth",
        code="session.none",
    )


def _refused(checks: tuple[Check, ...], decision: str) -> VerificationError:
    failed = dict.fromkeys(one.id for one in checks if one.status is Status.FAIL)
    return VerificationError(
        f"evidence refused: {', '.join(failed)} (decision {decision})", checks=checks
    )
