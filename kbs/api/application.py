"""The Flask application: what surrounds every request, and no more than is needed.

Made of Flask's documented points of extension alone. What Flask does for each request
and nothing here asks for is left out: nothing is matched by the name of the host, no
view is a coroutine, there are no sessions of its kind, and nothing is redirected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter

from kbs.api.limits import MAX_BODY_BYTES, RateLimit, work_limit
from kbs.api.problems import refusal
from kbs.core.clients import client_of
from kbs.wire.problem import problem

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

GUEST_PATHS = ("/v1/", "/kbs/")
"""What strangers may ask of; administrators and health checks are told apart."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast clients may send; `of_rates` makes them.

    All guests together may send as fast as `total`, beside which administrators are
    still heard. A guest may cost no more than `work`, in milliseconds of a processor:
    requests differ a thousandfold in that, and strangers choose what they send.
    """

    each: RateLimit
    total: RateLimit
    work: RateLimit

    @classmethod
    def of_rates(cls, each: int, total: int, monotonic: Callable[[], float]) -> Limits:
        """Return the limits of these requests a second, 0 for none."""
        return cls(
            RateLimit(each, monotonic),
            RateLimit(total, monotonic),
            work_limit(each, monotonic),
        )

    def admit(self, client: str, *, is_guest: bool) -> bool:
        """Whether a client may be answered now."""
        return self.each.admit(client) and (
            not is_guest or (self.work.admit(client) and self.total.admit("all"))
        )


class _Request(Request):
    """A request of this service; none has forms or files that were to be closed."""

    # No configuration is looked up for it: it is the same for all.
    max_content_length = MAX_BODY_BYTES

    def close(self) -> None:
        """Do nothing."""


class _NoSessions(SessionInterface):
    """Sessions as Flask has them, in cookies, are not used."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        """Return the session that there is not."""
        del app, request
        return self._none


class Application(Flask):
    """The application of one broker."""

    request_class = _Request
    session_interface = _NoSessions()

    def __init__(self, limits: Limits) -> None:
        """Answer clients within these limits."""
        super().__init__("kbs", static_folder=None)
        self._limits = limits
        # Flask would answer OPTIONS by itself, in no shape that this service documents.
        self.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
        # Nor does it redirect from `a//b` to `a/b`, or to any other path.
        self.url_map.merge_slashes = False
        self.url_map.redirect_defaults = False

    def wsgi_app(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer one request, and count what it cost; refuse who sends too fast."""
        client = client_of(environ.get("REMOTE_ADDR") or "unknown")
        # With one slash, as the path is matched.
        path = f"/{environ.get('PATH_INFO', '').lstrip('/')}"
        is_guest = path.startswith(GUEST_PATHS)
        if not self._limits.admit(client, is_guest=is_guest):
            with self.request_context(environ):
                return self.process_response(_too_fast())(environ, start_response)
        begun = time.thread_time()
        try:
            return super().wsgi_app(environ, start_response)
        finally:
            if is_guest:
                spent = (time.thread_time() - begun) * 1000
                self._limits.work.charge(client, spent)

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Match by the path alone, whatever host was asked for."""
        if request is None:
            return None
        return MapAdapter(
            self.url_map,
            server_name="localhost",
            script_name="/",
            subdomain="",
            url_scheme="https",
            path_info=request.path,
            default_method=request.method,
        )

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: none is a coroutine."""
        return func


def _too_fast() -> Response:
    document = problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        code="rate.limited",
        detail="too many requests; slow down",
    )
    response = refusal(document)
    response.headers["Retry-After"] = "1"
    return response
