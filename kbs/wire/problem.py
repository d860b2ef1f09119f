"""Problem documents (RFC 9457), one shape for every refusal.

`status` is what an HTTP door answers with; doors that speak other protocols map
`code`. Workloads see check ids and statuses only, never expected values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from kbs.core import errors
from kbs.core.checks import Check, Status

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[errors.KbsError], HTTPStatus], ...] = (
    (errors.MalformedError, HTTPStatus.BAD_REQUEST),
    (errors.AuthenticationError, HTTPStatus.UNAUTHORIZED),
    (errors.ForbiddenError, HTTPStatus.FORBIDDEN),
    (errors.VerificationError, HTTPStatus.FORBIDDEN),
    (errors.NotFoundError, HTTPStatus.NOT_FOUND),
    (errors.ConflictError, HTTPStatus.CONFLICT),
    (errors.UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.ConfigurationError, HTTPStatus.SERVICE_UNAVAILABLE),
)

# An integrity fault names rows and digests: that is for administrators and the log.
_HIDDEN = (errors.IntegrityError, errors.ConfigurationError)


def status_of(error: errors.KbsError) -> HTTPStatus:
    """Return the status that an error of ours is answered with."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem(
    status: HTTPStatus,
    *,
    code: str,
    detail: str,
    decision: str | None = None,
    members: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return a problem document; `members` are extensions of ours."""
    document: dict[str, object] = {
        "type": f"urn:kbs:problem:{code}",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
    }
    if decision is not None:
        document["instance"] = f"urn:kbs:decision:{decision}"
        document["decision"] = decision
    document.update(members or {})
    return document


def problem_of(
    error: errors.KbsError, *, decision: str | None = None, reveal: bool = False
) -> dict[str, object]:
    """Return the problem document of an error of ours.

    `reveal` is for administrators: got and expected of integrity faults are shown.
    """
    hidden = isinstance(error, _HIDDEN) and not reveal
    detail = "the broker cannot answer now; its log says why" if hidden else str(error)
    return problem(status_of(error), code=error.code, detail=detail, decision=decision)


def failed_checks(checks: Sequence[Check]) -> list[dict[str, object]]:
    """Return the checks that did not pass, as a workload may see them."""
    return [
        {"id": check.id, "item": check.item, "status": check.status.value}
        for check in checks
        if check.status in {Status.FAIL, Status.UNCHECKED}
    ]
