"""`GET /resource/…`: steps 5 to 9 of a release, for a session that has attested.

Each is a decision of its own, under the policies in force when it is made, with its
entry in the log before anything leaves.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from kbs.audit import events
from kbs.audit.kinds import Mode, Outcome
from kbs.broker.attest import tolerate_missing
from kbs.broker.commit import Placed, Work, refuse_clock_behind
from kbs.broker.decide import NOT_FOUND, Grounds, KeyOutcome, decide_key
from kbs.broker.evidence import EvidenceLocker
from kbs.broker.governance import Governance
from kbs.broker.key_ledger import KeyLedger
from kbs.broker.lines import DecisionLine, listed
from kbs.broker.outcomes import entries_of, report_of
from kbs.broker.ports import StoredSession, Transaction
from kbs.broker.rcar.sessions import Proven, anchors_of, open_session
from kbs.broker.rcar.tools import Tools, recipient_digest
from kbs.broker.recheck import recheck
from kbs.broker.reserve import DiskReserve
from kbs.broker.settling import Draft, settle
from kbs.broker.snapshot import Snapshot
from kbs.channel.ear import verify_ear
from kbs.channel.jwe import encrypt_jwe
from kbs.channel.session import Session
from kbs.core.claims import Claims
from kbs.core.clock import format_time
from kbs.core.encode import canonical_json
from kbs.core.errors import AuthenticationError, UnavailableError
from kbs.core.ids import KeyId, KeyRef, new_decision_id

_Found = tuple[StoredSession, Proven]
_Find = Callable[[Transaction], _Found]

CHANGED = "session.changed"
"""Code of a session whose evidence was trusted by what is not in force any more."""


Question = tuple[str, str, int]

MAX_DENIALS = 4096
"""Denials that a process remembers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """How one request for a resource ended; `jwe` is there if it was granted."""

    decision: str
    jwe: dict[str, str] | None
    reasons: tuple[str, ...]

    @property
    def absent(self) -> bool:
        """Whether it is granted to this caller, and does not exist."""
        return self.reasons == (NOT_FOUND,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A decision with what would be sent, before it is recorded."""

    stored: StoredSession
    proven: Proven
    snapshot: Snapshot
    outcome: KeyOutcome
    fetched: Fetched
    now: datetime
    imports: int

    @property
    def question(self) -> Question:
        """Which session asks for what, under which state of governance."""
        asked = str(self.outcome.asked)
        return (self.proven.decision, asked, self.snapshot.state.head_seq)


class RecentDenials:
    """Denials that have their entry: asked again, the same answer costs no other one.

    A session that is denied would otherwise fill the log for as long as it lasts.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._lock = threading.Lock()
        self._known: OrderedDict[Question, Fetched] = OrderedDict()

    def find(self, question: Question, reasons: tuple[str, ...]) -> Fetched | None:
        """Return the denial of the same question for the same reasons."""
        with self._lock:
            known = self._known.get(question)
        return known if known is not None and known.reasons == reasons else None

    def remember(self, question: Question, denied: Fetched) -> None:
        """Remember a denial, and forget the oldest of too many."""
        with self._lock:
            self._known[question] = denied
            if len(self._known) > MAX_DENIALS:
                self._known.popitem(last=False)


class RcarFetch:
    """Gives resources to sessions that have attested."""

    def __init__(
        self,
        tools: Tools,
        governance: Governance,
        ledger: KeyLedger,
        locker: EvidenceLocker,
        reserve: DiskReserve,
    ) -> None:
        """Decide under `governance`, about keys of `ledger`; keep what entries name."""
        self._tools = tools
        self._governance = governance
        self._ledger = ledger
        self._locker = locker
        self._reserve = reserve
        self._denied = RecentDenials()

    def by_session(self, session: Session, key_id: KeyId) -> Fetched:
        """Answer a request that came with the cookie of a session.

        Raises:
            AuthenticationError: the session has not attested, or has to do so again.
            UnavailableError: it cannot be decided, or not be recorded.
        """
        return self._fetch(lambda tx: self._of_session(tx, session), key_id)

    def by_token(self, token: str, key_id: KeyId) -> Fetched:
        """Answer a request that came with an attestation token.

        Raises:
            AuthenticationError: the token is none of ours, has expired, or its session
                has to attest again.
            UnavailableError: it cannot be decided, or not be recorded.
        """
        identity = self._tools.identity
        decision = verify_ear(
            token,
            identity.token_key.public_key(),
            issuer=identity.origin,
            now=self._tools.clock.now(),
        )
        return self._fetch(lambda tx: self._of_decision(tx, decision), key_id)

    def _fetch(self, find: _Find, key_id: KeyId) -> Fetched:
        line = self._tools.lines.begin(new_decision_id())
        try:
            settled = settle(
                self._tools.journal, lambda: self._draft(find, key_id, line.decision)
            )
        except UnavailableError as exc:
            line.failed(exc)
            raise
        ready, fetched = settled.decided, settled.decided.fetched
        # A denial that the log has already. A grant without an entry ends below, in an
        # error: no key leaves for it.
        if fetched.jwe is None and not settled.placed:
            line.refused(listed(fetched.reasons))
            return fetched
        self._tell(ready, settled.placed[0], line)
        if fetched.jwe is None:
            self._denied.remember(ready.question, fetched)
        return fetched

    def _draft(self, find: _Find, key_id: KeyId, decision: str) -> Draft[_Ready]:
        with self._tools.database.read() as tx:
            ready = self._decide(tx, *find(tx), key_id, decision)
        if ready.fetched.jwe is None:
            known = self._denied.find(ready.question, ready.fetched.reasons)
            if known is not None:
                return Draft(replace(ready, fetched=known))
            self._reserve.require()
        self._tools.steps("sealed")
        return Draft(ready, lambda work: self._record(work, ready))

    def _of_session(self, tx: Transaction, session: Session) -> _Found:
        stored = tx.sessions.find(session.digest)
        if stored is None:
            raise _not_attested("a session that has not attested")
        return stored, open_session(self._tools.vault, stored)[0]

    def _of_decision(self, tx: Transaction, decision: str) -> _Found:
        stored = tx.sessions.find_decision(decision)
        if stored is None:
            raise _not_attested("a token of a session that is over")
        proven = open_session(self._tools.vault, stored)[0]
        if proven.decision != decision:
            raise _not_attested("a token of another session")
        return stored, proven

    def _decide(
        self,
        tx: Transaction,
        stored: StoredSession,
        proven: Proven,
        key_id: KeyId,
        decision: str,
    ) -> _Ready:
        now = self._tools.clock.now()
        refuse_clock_behind(now, tx.log.head().time)
        if proven.claims is None:
            raise _not_attested("a session whose evidence was refused")
        if now >= proven.expires:
            raise _not_attested("a session that is over")
        snapshot = self._governance.snapshot(tx)
        self._tools.collateral.current(tx)
        imports = self._tools.collateral.imports(tx)
        if proven.anchors != anchors_of(snapshot, imports):
            raise _not_attested("a session from before a change of what is trusted")
        _require_tolerance(proven, snapshot, key_id)
        outcome = decide_key(
            Grounds(
                snapshot=snapshot,
                claims=_at(proven.claims, now),
                identities=proven.identities,
            ),
            self._ledger.versions(tx, key_id),
            KeyRef(key_id),
            development=self._tools.development,
        )
        self._governance.confirm(tx, snapshot, outcome.used)
        return _Ready(
            stored=stored,
            proven=proven,
            snapshot=snapshot,
            outcome=outcome,
            fetched=self._sealed(proven, outcome, decision),
            now=now,
            imports=imports,
        )

    def _sealed(self, proven: Proven, outcome: KeyOutcome, decision: str) -> Fetched:
        if not outcome.granted or outcome.stored is None:
            ids = dict.fromkeys(reason.id for reason in outcome.reasons)
            return Fetched(decision=decision, jwe=None, reasons=tuple(ids))
        secret = self._tools.vault.open_key(outcome.stored)
        jwe = encrypt_jwe(proven.recipient, secret.reveal())
        return Fetched(decision=decision, jwe=jwe, reasons=())

    def _record(self, work: Work, ready: _Ready) -> None:
        recheck(
            work,
            collateral=self._tools.collateral,
            imports=ready.imports,
            head_seq=ready.snapshot.state.head_seq,
            outcomes=(ready.outcome,),
            now=ready.now,
            development=self._tools.development,
        )
        work.append(self._tools.journal.entry(self._event(ready)))
        if ready.stored.has_evidence and not self._reserve.is_low():
            # The first entry that names it: from now on it is kept for auditors.
            self._locker.keep_of_session(
                work.tx,
                ready.stored.session,
                digest=ready.proven.evidence,
                decision=ready.fetched.decision,
                created=ready.proven.appraised,
            )
        self._tools.steps("recorded")

    def _tell(self, ready: _Ready, placed: Placed, line: DecisionLine) -> None:
        fetched = ready.fetched
        line.told(
            "denied" if fetched.jwe is None else "granted",
            keys=str(KeyRef(ready.outcome.asked.key_id, ready.outcome.version)),
            reasons=listed(fetched.reasons),
            door="rcar",
            primary=ready.proven.primary or "",
            governance=str(ready.snapshot.state.head_seq),
            entry=str(placed.entry.index),
        )

    def _event(self, ready: _Ready) -> events.Release:
        proven, outcome, jwe = ready.proven, ready.outcome, ready.fetched.jwe
        pseudonyms = self._tools.identity.pseudonyms(proven.identities)
        leaving = () if jwe is None else (outcome,)
        answer = None
        if jwe is not None:
            answer = hashlib.sha256(canonical_json(jwe)).hexdigest()
        return events.Release(
            decision=ready.fetched.decision,
            door="rcar",
            mode=Mode.RELEASE,
            outcome=Outcome.DENIED if jwe is None else Outcome.GRANTED,
            keys=entries_of((outcome,), leaving, pseudonyms),
            governance=ready.snapshot.state.head_seq,
            request=proven.evidence.hex(),
            freshness="challenge",
            appraised=proven.appraised,
            checks=report_of(proven.checks, pseudonyms),
            recipient=recipient_digest(proven.recipient.to_json()),
            answer=answer,
            evidence=proven.evidence.hex(),
            primary=proven.primary,
            tolerated=proven.tolerated,
            development=self._tools.development,
        )


def _at(claims: Claims, now: datetime) -> Claims:
    # Policies judge the time of the decision; the evidence keeps that of its checks.
    return Claims(
        items=claims.items, request={**claims.request, "request.time": format_time(now)}
    )


def _require_tolerance(proven: Proven, snapshot: Snapshot, key_id: KeyId) -> None:
    if proven.tolerated and not tolerate_missing(snapshot.governing(key_id)):
        raise UnavailableError(
            f"could not be checked: {', '.join(proven.tolerated)}",
            hint="a revocation list is missing; the broker's administrator sees which",
            code="evidence.unchecked",
        )


def _not_attested(got: str) -> AuthenticationError:
    return AuthenticationError(
        "session",
        got=got,
        expected="one that has attested",
        hint="attest again",
        code=CHANGED,
    )
