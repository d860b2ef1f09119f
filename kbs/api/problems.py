"""The only place that turns errors into HTTP answers (RFC 9457)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Flask, Response, g, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from kbs.api.limits import MAX_BODY_BYTES
from kbs.broker.pace import Pace
from kbs.core.errors import KbsError, UnavailableError
from kbs.core.ids import new_decision_id
from kbs.wire.problem import MEDIA_TYPE, problem, problem_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger("kbs.api")

MAX_SHOWN = 100
"""How much of what a stranger sent is said back."""

TRACE_SECONDS = 1.0
"""Shortest time between two tracebacks in the log."""

RETRY_AFTER_SECONDS = 2
"""What a caller is told to wait after "could not check"."""


# Sorted, so that an answer that was stored reads the same as when it was new.
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


class Answer(Response):
    """A JSON document that is sent as it is made: whole, and with these headers."""

    def __init__(self, document: object, status: int, media_type: str) -> None:
        """Write the document."""
        body = _JSON.encode(document).encode()
        headers = Headers()
        headers.add("Content-Type", media_type)
        headers.add("Content-Length", str(len(body)))
        # Answers carry keys and decisions: no cache on the way may keep one.
        headers.add("Cache-Control", "no-store")
        headers.add("X-Content-Type-Options", "nosniff")
        super().__init__([body], status, headers)

    def get_wsgi_response(
        self, environ: WSGIEnvironment
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """Return body, status and headers; nothing is corrected, nothing closed."""
        is_head = environ["REQUEST_METHOD"] == "HEAD"
        body = () if is_head else self.iter_encoded()
        return body, self.status, self.headers.to_wsgi_list()


def answer(document: object, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Answer(document, status, "application/json")


def refusal(document: dict[str, object]) -> Response:
    """Return a problem document under the status that it names."""
    status = document["status"]
    code = status if isinstance(status, int) else HTTPStatus.INTERNAL_SERVER_ERROR
    response = Answer(document, code, MEDIA_TYPE)
    if code == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def install(app: Flask) -> None:
    """Answer every error with a problem document; only ours say why."""
    app.register_error_handler(KbsError, partial(_ours, _traces()))
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, partial(_unexpected, _traces()))


def _ours(lines: Pace, error: KbsError) -> Response:
    administrator = getattr(g, "administrator", None) is not None
    document = problem_of(error, reveal=administrator)
    if isinstance(error, UnavailableError):
        # Strangers cause it as often as they ask while something is away.
        level = logging.ERROR if lines.is_due() else logging.DEBUG
        log.log(level, "could not answer: %s", error)
    return refusal(document)


def _http(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return refusal(too_large(request.content_length))
    media_type = _shown(request.headers.get("Content-Type"))
    details = {
        HTTPStatus.NOT_FOUND: (
            "http.not_found",
            f"path: got {_shown(request.path)}, expected one that there is",
        ),
        HTTPStatus.METHOD_NOT_ALLOWED: (
            "http.method",
            f"method: got {_shown(request.method)}, expected {allowed}",
        ),
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (
            "http.media_type",
            f"Content-Type: got {media_type}, expected application/json",
        ),
    }
    code, detail = details.get(status, ("http.error", status.phrase))
    response = refusal(problem(status, code=code, detail=detail))
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = allowed
    return response


def too_large(size: int | None, most: int = MAX_BODY_BYTES) -> dict[str, object]:
    """Return the problem of a body that is larger than the `most` that is taken."""
    got = "more" if size is None else f"{size} bytes"
    return problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        code="http.too_large",
        detail=f"request body: got {got}, expected at most {most} bytes",
    )


def _shown(text: str | None) -> str:
    # Escaped and cut: a refusal may be printed where it arrives.
    if text is None:
        return "none"
    return ascii(text) if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]!a}…"


def _traces() -> Pace:
    return Pace(time.monotonic, TRACE_SECONDS)


def _unexpected(traces: Pace, error: Exception) -> Response:
    # What is not ours is a bug: no detail to the caller, all of it to the log, and one
    # id that joins the two. A stranger who found one does not fill the log with it.
    decision = new_decision_id()
    if traces.is_due():
        log.error("internal error %s", decision, exc_info=error)
    else:
        log.error("internal error %s: another %s", decision, type(error).__name__)
    return refusal(
        problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            code="internal",
            detail="an internal error; the broker's log has it under this id",
            decision=decision,
        )
    )
