"""What is sent: signed answers, problem documents, receipts; nothing is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from kbs.audit import merkle
from kbs.audit.receipt import Receipt
from kbs.broker.attest import Asked, Attested
from kbs.broker.commit import Placed
from kbs.broker.decide import NOT_FOUND, KeyOutcome
from kbs.broker.identity import Identity
from kbs.broker.ports import SpentChallenge, Transaction
from kbs.channel.answer import Answer, Outcome, WithheldKey
from kbs.channel.challenge import Door, mint_challenge
from kbs.channel.opening import ChallengeOffer, sign_answer, sign_challenge
from kbs.channel.signing import ResponseSignature
from kbs.core.encode import b64u, parse_b64u, parse_json_object, require_object
from kbs.core.errors import (
    IntegrityError,
    KbsError,
    MalformedError,
    UnavailableError,
)
from kbs.wire.problem import failed_checks, problem, problem_of, status_of

MAX_STORED_BYTES = 16 * 1024 * 1024
"""Largest stored answer: 64 keys of 64 KiB, sealed and in base64."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A document to send and the status to send it with."""

    status: int
    document: dict[str, object]

    @property
    def refused(self) -> bool:
        """Whether the document is a problem document."""
        return self.status >= HTTPStatus.BAD_REQUEST


class Replies:
    """Signs and assembles what the v1 door sends."""

    def __init__(self, identity: Identity) -> None:
        """Sign with this broker's keys."""
        self._identity = identity

    def challenge(self, door: Door, now: datetime) -> dict[str, object]:
        """Return a signed, fresh challenge."""
        challenge = mint_challenge(
            self._identity.challenge_keys(now)[0],
            door=door,
            origin=self._identity.origin,
            now=now,
        )
        offer = ChallengeOffer(
            audience=self._identity.origin,
            challenge=str(challenge),
            expires=challenge.expires,
            time=now,
            log_key=self._identity.log_vkey,
        )
        signature = sign_challenge(self._identity.response_key, offer)
        return {"answer": offer.to_json(), **_signed(signature)}

    @staticmethod
    def fault(error: KbsError, decision: str) -> Reply:
        """Return the problem document of a challenge fault, or of one of ours."""
        document = problem_of(error, decision=decision)
        return Reply(status_of(error), document)

    @staticmethod
    def unchecked(attested: Attested[Asked], decision: str) -> Reply:
        """Return "could not check": the challenge stays good."""
        open_checks = failed_checks(attested.result.checks)
        names = ", ".join(str(check["id"]) for check in open_checks)
        status = HTTPStatus.SERVICE_UNAVAILABLE
        return Reply(
            status,
            problem(
                status,
                code="evidence.unchecked",
                detail=f"could not be checked now: {names}",
                decision=decision,
                members={"checks": open_checks},
            ),
        )

    def refused_evidence(self, attested: Attested[Asked], decision: str) -> Reply:
        """Return a signed refusal of evidence that did not authenticate: no entry."""
        answer = self.refusal_answer(attested, decision)
        return self.answered(attested, answer, ())

    def refusal_answer(self, attested: Attested[Asked], decision: str) -> Answer:
        """Return the answer that denies every key for the checks that failed."""
        asked = attested.asked.runtime_data
        failed = tuple(dict.fromkeys(check.id for check in attested.failed))
        return Answer(
            audience=asked.audience,
            nonce=asked.nonce,
            decision=decision,
            time=attested.now,
            outcome=Outcome.DENIED,
            suite=asked.request.suite,
            denied=tuple(WithheldKey(ref, failed) for ref in asked.request.keys),
        )

    def answered(
        self, attested: Attested[Asked], answer: Answer, outcomes: Sequence[KeyOutcome]
    ) -> Reply:
        """Return a signed answer, as a problem document where everything is denied."""
        signature = sign_answer(self._identity.response_key, answer)
        members: dict[str, object] = {"answer": answer.to_json(), **_signed(signature)}
        if answer.outcome is not Outcome.DENIED:
            return Reply(HTTPStatus.OK, members)
        status = _denied_status(outcomes)
        code = "evidence.refused" if attested.refused else "denied"
        if status is HTTPStatus.NOT_FOUND:
            code = NOT_FOUND
        ids = dict.fromkeys(reason for one in answer.denied for reason in one.reasons)
        members |= {
            "checks": failed_checks(attested.result.checks),
            "denied": [one.to_json() for one in answer.denied],
        }
        document = problem(
            status,
            code=code,
            detail="not released: " + ", ".join(ids),
            decision=answer.decision,
            members=members,
        )
        return Reply(status, document)

    @staticmethod
    def receipted(reply: Reply, placed: Placed) -> Reply:
        """Return a reply with the receipt of its entry."""
        # A body holds what was got and expected: an administrator may see that of a
        # denial, the workload that was denied may not, not even for one key of many.
        answer = _answer(reply)
        granted = "sealed" in answer and not answer.get("denied")
        receipt = Receipt(
            leaf=placed.entry.leaf,
            index=placed.entry.index,
            checkpoint=placed.checkpoint,
            inclusion=placed.inclusion,
            body=placed.entry.body if granted else None,
            salt=placed.entry.salt if granted else None,
        )
        return Reply(reply.status, {**reply.document, "receipt": receipt.to_json()})

    def stored(self, tx: Transaction, spent: SpentChallenge) -> Reply:
        """Return the answer that a retry gets: the same bytes as the first time.

        Raises:
            UnavailableError: the log cannot prove its entry (yet).
            IntegrityError: the answer is not as it was stored.
        """
        document = _parse_stored(spent)
        entries = tx.log.read_entries(spent.entry_index, spent.entry_index + 1)
        covering = tx.log.checkpoint_covering(spent.entry_index)
        if not entries or covering is None:
            raise UnavailableError("receipt", got="no checkpoint over the entry yet")
        placed = Placed(
            entry=entries[0],
            checkpoint=covering.note,
            inclusion=merkle.inclusion_proof(tx.log, spent.entry_index, covering.size),
        )
        return self.receipted(Reply(spent.status, document), placed)


def _parse_stored(spent: SpentChallenge) -> dict[str, object]:
    try:
        document = parse_json_object(
            spent.answer, "stored answer", limit=MAX_STORED_BYTES
        )
        require_object(document.get("answer"), "stored answer")
        parse_b64u(document.get("signature"), "stored signature", limit=256)
    except MalformedError as exc:
        raise IntegrityError(
            f"stored answer of decision {spent.decision}",
            got="another text than was stored",
            expected="a signed answer",
            hint="the database was changed; ask for a new challenge",
            code="challenge.answer",
        ) from exc
    return document


def _signed(signature: ResponseSignature) -> dict[str, object]:
    return {"signature": b64u(signature.value), "keyid": signature.keyid}


def _answer(reply: Reply) -> dict[str, object]:
    answer = reply.document.get("answer")
    return answer if isinstance(answer, dict) else {}


def _denied_status(outcomes: Sequence[KeyOutcome]) -> HTTPStatus:
    """404 only where every key that stands in the way is granted and absent."""
    missing = [
        [reason.id for reason in one.reasons] == [NOT_FOUND]
        for one in outcomes
        if not one.granted
    ]
    if missing and all(missing):
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.FORBIDDEN
