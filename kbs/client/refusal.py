"""Refusals: problem documents (RFC 9457) turned into the errors of this package.

What carries the broker's signature was decided by the broker. What does not could come
from anyone on the path, and says so; it is good for an error message and for another
try, never for a conclusion.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbs.channel.answer import Answer, WithheldKey
from kbs.client.log_watch import WatchedReceipt
from kbs.client.transport import Reply
from kbs.client.words import explain
from kbs.core.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    KbsError,
    MalformedError,
    NotFoundError,
    UnavailableError,
)

UNSIGNED = "not signed by the broker: could come from anyone on the path"

_MAX_DETAIL = 300
_MAX_CHECKS = 64

_ERRORS: dict[int, type[KbsError]] = {
    400: MalformedError,
    401: AuthenticationError,
    404: NotFoundError,
    409: ConflictError,
    413: MalformedError,
    415: MalformedError,
}
_FORBIDDEN = 403


class BusyError(UnavailableError):
    """The broker could not answer now; `retry_after` seconds is what it asks for."""

    def __init__(
        self, what: str, *, got: str, code: str, retry_after: int | None = None
    ) -> None:
        """Keep what the server asks for."""
        self.retry_after = retry_after
        super().__init__(what, got=got, hint=UNSIGNED, code=code)


class RefusalError(ForbiddenError):
    """The broker decided against this guest; trying again will not help.

    `checks` are ids of checks that failed, `denied` keys with the ids of the reasons.
    `receipt` is the verified one of a signed denial, where there is one.
    """

    code = "denied"

    def __init__(
        self,
        what: str,
        *,
        got: str | None = None,
        hint: str | None = None,
        code: str | None = None,
        decision: str | None = None,
        checks: tuple[str, ...] = (),
        denied: tuple[WithheldKey, ...] = (),
        signed: bool = False,
        receipt: WatchedReceipt | None = None,
    ) -> None:
        """Keep what a program may want to know."""
        self.decision = decision
        self.checks = checks
        self.denied = denied
        self.signed = signed
        self.receipt = receipt
        super().__init__(what, got=got, hint=hint, code=code)

    def to_json(self) -> dict[str, object]:
        """Return the members that --json adds to the error."""
        return {
            "decision": self.decision,
            "checks": list(self.checks),
            "denied": [one.to_json() for one in self.denied],
            "signed": self.signed,
            "receipt": None if self.receipt is None else self.receipt.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The members of a problem document that we use; all of them are hearsay."""

    status: int
    code: str
    detail: str
    decision: str | None
    checks: tuple[str, ...]


def denial(
    answer: Answer,
    checks: tuple[str, ...] = (),
    *,
    receipt: WatchedReceipt | None = None,
) -> RefusalError:
    """Return the error for a verified answer that grants nothing.

    `checks` stand beside the answer and are not signed: those that it names as reasons
    are kept.
    """
    named = {reason for one in answer.denied for reason in one.reasons}
    reasons = [
        f"{one.ref}: {explain(one.reasons)}" for one in answer.denied if one.reasons
    ]
    return RefusalError(
        "denied",
        got=" | ".join(reasons),
        hint=f"decision {answer.decision}; the broker's administrator sees why",
        decision=answer.decision,
        checks=tuple(check for check in checks if check in named),
        denied=answer.denied,
        signed=True,
        receipt=receipt,
    )


def error_of(reply: Reply) -> KbsError:
    """Return the error for an answer other than 2xx that carries no signature."""
    found = parse_problem(reply)
    if found.status == _FORBIDDEN:
        return RefusalError(
            "evidence refused" if found.checks else f"refused: {found.detail}",
            got=explain(found.checks) or None,
            hint=UNSIGNED,
            code=found.code,
            decision=found.decision,
            checks=found.checks,
        )
    kind = _ERRORS.get(found.status)
    if kind is None:
        return BusyError(
            "server's answer",
            got=f"status {found.status}, {found.detail}",
            code=found.code,
            retry_after=reply.retry_after,
        )
    return kind(f"server refused: {found.detail}", hint=UNSIGNED, code=found.code)


def parse_problem(reply: Reply) -> Problem:
    """Read what there is to read; a member of the wrong type counts as absent.

    Raises:
        UnavailableError: the body is no JSON object.
    """
    members = reply.json() if reply.is_problem else {}
    decision = members.get("decision")
    return Problem(
        status=reply.status,
        code=_text(members.get("code")) or f"http.{reply.status}",
        detail=_text(members.get("detail")) or f"status {reply.status}",
        decision=decision if isinstance(decision, str) else None,
        checks=_check_ids(members.get("checks")),
    )


def _check_ids(value: object) -> tuple[str, ...]:
    elements = value[:_MAX_CHECKS] if isinstance(value, list) else []
    ids = [_text(one.get("id")) for one in elements if isinstance(one, dict)]
    return tuple(text for text in ids if text)


def _text(value: object) -> str:
    return value[:_MAX_DETAIL] if isinstance(value, str) else ""
