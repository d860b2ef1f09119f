"""Fetches from vendors' services over HTTP: bounded in size, time and patience.

TLS certificates are checked against the roots that `requests` ships, or those that
REQUESTS_CA_BUNDLE names (for a caching service inside a site). What comes back proves
itself all the same: this module vouches for nothing.

Limits: a redirect is followed to the same host only; an answer is read up to the
caller's limit and never unpacked; 429 and 5xx are asked again a few times, and what a
service asks for by Retry-After (RFC 9110, section 10.2.3) is kept to up to a bound,
beyond which the caller is told to come back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from kbs.adapters.prompt import PromptAdapter
from kbs.core.errors import CollateralError
from kbs.core.fetch import ABSENT, UNREACHABLE, Answer, BusyError

_CHUNK = 64 * 1024
_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TOO_MANY = 429
_UNAVAILABLE = 503
_SERVER_FAULT = 500
_MAX_REDIRECTS = 3
_LONGEST_WAIT = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one fetch may take; all in seconds.

    `total` bounds one attempt, connecting and reading included. `pause` comes before
    the second attempt and doubles; `longest_pause` is the most that is waited within a
    fetch, whoever asks for it.
    """

    connect: float = 5.0
    read: float = 10.0
    total: float = 30.0
    attempts: int = 3
    pause: float = 0.5
    longest_pause: float = 10.0


PATIENCE = Patience()


class _TryAgainError(Exception):
    """This attempt failed in a way that the next one may not."""

    def __init__(self, error: CollateralError, wait: float | None = None) -> None:
        """Carry what to say if there is no next one, and what the service asked for."""
        self.error = error
        self.wait = wait
        super().__init__(str(error))


class _Session(requests.Session):
    """One that looks at no redirect: where it may lead is said here, or nowhere."""

    def get_redirect_target(
        self,
        resp: requests.Response,
    ) -> None:
        """Return none."""


class HttpFetcher:
    """Fetches over HTTP; may be used by one thread at a time."""

    def __init__(
        self,
        patience: Patience = PATIENCE,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect when first asked; wait by `sleep`."""
        self._patience = patience
        self._monotonic = monotonic
        self._sleep = sleep
        self._session = _Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, PromptAdapter())
        # Nothing of .netrc is sent: nobody here knows us by name.
        self._session.auth = _without_credentials
        self._session.headers.update(
            {"User-Agent": "kbs", "Accept": "*/*", "Accept-Encoding": "identity"}
        )

    def fetch(
        self,
        url: str,
        *,
        limit: int,
        body: bytes | None = None,
        content_type: str | None = None,
    ) -> Answer:
        """Return an answer of at most `limit` bytes; a POST where there is a body.

        Raises:
            CollateralError: no whole answer of status 200 came, in time and size.
        """
        headers = {} if content_type is None else {"Content-Type": content_type}
        pause = self._patience.pause
        for attempt in range(1, self._patience.attempts + 1):
            try:
                return self._attempt(url, limit, body, headers)
            except _TryAgainError as exc:
                wait = pause if exc.wait is None else exc.wait
                last = attempt == self._patience.attempts
                if last or wait > self._patience.longest_pause:
                    raise exc.error from exc.__cause__
                self._sleep(wait)
                pause *= 2
        raise AssertionError  # pragma: no cover - there is at least one attempt

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _attempt(
        self, url: str, limit: int, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        deadline = self._monotonic() + self._patience.total
        target = url
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                with closing(self._send(target, body, headers)) as response:
                    if response.status_code not in _REDIRECTS:
                        return self._answer(response, url, limit, deadline)
                    target = _redirected(url, target, response)
            except (requests.RequestException, HTTPError, OSError, ValueError) as exc:
                # A ValueError comes of headers that are no number, URL or text.
                got = _reason(exc)
                raise _TryAgainError(_unreachable(url, got)) from exc
        raise _unreachable(url, f"more than {_MAX_REDIRECTS} redirects")

    def _send(
        self, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> requests.Response:
        return self._session.request(
            "GET" if body is None else "POST",
            url,
            data=body,
            headers=headers,
            timeout=(self._patience.connect, self._patience.read),
            allow_redirects=False,
            verify=True,
            stream=True,
        )

    def _answer(
        self, response: requests.Response, url: str, limit: int, deadline: float
    ) -> Answer:
        _check_status(response, url)
        coding = response.headers.get("Content-Encoding", "identity")
        if coding.strip().lower() != "identity":
            raise _unreachable(url, f"an answer packed as {coding[:20]!r}")
        return Answer(
            url=url,
            body=self._read(response, url, limit, deadline),
            headers={name.lower(): text for name, text in response.headers.items()},
        )

    def _read(
        self, response: requests.Response, url: str, limit: int, deadline: float
    ) -> bytes:
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > limit:
            raise _unreachable(url, f"{length} bytes", f"at most {limit}")
        body = bytearray()
        raw: Any = response.raw
        # What has come is taken as it comes: waiting for a full chunk would let a
        # service that sends a byte now and then stretch the deadline.
        while chunk := raw.read1(_CHUNK):
            body += chunk
            if len(body) > limit:
                raise _unreachable(url, "more bytes", f"at most {limit}")
            if self._monotonic() > deadline:
                total = f"no end in {self._patience.total:g} s"
                raise _TryAgainError(_unreachable(url, total))
        # That it is as long as it was said to be, urllib3 has seen to.
        return bytes(body)


def _without_credentials(request: Any) -> Any:
    return request


def _check_status(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status == _OK:
        return
    asked = _retry_after(response)
    if status == _TOO_MANY or (status == _UNAVAILABLE and asked is not None):
        seconds = PATIENCE.longest_pause if asked is None else asked
        error = BusyError(url, got=f"status {status}", retry_seconds=seconds)
        raise _TryAgainError(error, asked)
    if status >= _SERVER_FAULT:
        raise _TryAgainError(_unreachable(url, f"status {status}"))
    raise CollateralError(url, got=f"status {status}", expected="200", code=ABSENT)


def _redirected(url: str, at: str, response: requests.Response) -> str:
    target = urljoin(at, response.headers.get("Location", ""))
    left, right = urlsplit(at), urlsplit(target)
    if (left.scheme, left.netloc) != (right.scheme, right.netloc):
        raise _unreachable(
            url,
            f"a redirect to {right.scheme}://{right.netloc}"[:120],
            f"an answer of {left.netloc}",
        )
    return target


def _retry_after(response: requests.Response) -> float | None:
    # A date is not understood: it would have to be believed against our own clock.
    text = response.headers.get("Retry-After", "")
    if not text.isascii() or not text.isdigit():
        return None
    return min(float(text), _LONGEST_WAIT)


def _unreachable(url: str, got: str, expected: str = "an answer") -> CollateralError:
    return CollateralError(url, got=got, expected=expected, code=UNREACHABLE)


def _reason(exc: Exception) -> str:
    # The innermost words: "Connection refused" and not three nested library names.
    cause: BaseException = exc
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return (str(cause) or type(cause).__name__)[:160]
