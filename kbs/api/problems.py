"""The only place that turns errors into HTTP answers (RFC 9457)."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus

from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException

from kbs.core.errors import KbsError, UnavailableError
from kbs.core.ids import new_decision_id
from kbs.wire.problem import MEDIA_TYPE, problem, problem_of

log = logging.getLogger("kbs.api")

RETRY_AFTER_SECONDS = 2
"""What a caller is told to wait after "could not check"."""


def answer(document: object, status: int = 200) -> Response:
    """Return a JSON answer."""
    return _response(_text(document), status, "application/json")


def refusal(document: dict[str, object]) -> Response:
    """Return a problem document under the status that it names."""
    status = document["status"]
    code = status if isinstance(status, int) else HTTPStatus.INTERNAL_SERVER_ERROR
    response = _response(_text(document), int(code), MEDIA_TYPE)
    if code == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _text(document: object) -> str:
    # Sorted, so that an answer that was stored reads the same as when it was new.
    return json.dumps(
        document, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )


def _response(body: str, status: int, media_type: str) -> Response:
    response = Response(body, status=status, mimetype=media_type)
    # Answers carry keys and decisions: no cache on the way may keep one.
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def install(app: Flask) -> None:
    """Answer every error with a problem document; only ours say why."""
    app.register_error_handler(KbsError, _ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _ours(error: KbsError) -> Response:
    administrator = getattr(g, "administrator", None) is not None
    document = problem_of(error, reveal=administrator)
    if isinstance(error, UnavailableError):
        log.error("could not answer: %s", error)
    return refusal(document)


def _http(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    codes = {
        HTTPStatus.NOT_FOUND: ("http.not_found", "no such resource"),
        HTTPStatus.METHOD_NOT_ALLOWED: ("http.method", "not with this method"),
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
            "http.too_large",
            "the body is larger than this endpoint takes",
        ),
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (
            "http.media_type",
            "the body must have Content-Type: application/json",
        ),
    }
    code, detail = codes.get(status, ("http.error", status.phrase))
    response = refusal(problem(status, code=code, detail=detail))
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = getattr(error, "valid_methods", None) or ()
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _unexpected(error: Exception) -> Response:
    # What is not ours is a bug: no detail to the caller, all of it to the log, and one
    # id that joins the two.
    decision = new_decision_id()
    log.error("internal error %s", decision, exc_info=error)
    return refusal(
        problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            code="internal",
            detail="an internal error; the broker's log has it under this id",
            decision=decision,
        )
    )
