"""HTTP for guests and the command line: one small method, its own limits and errors.

A guest trusts the broker's response key and nothing else: challenges and answers are
signed by it, and keys are sealed to a key inside the evidence. TLS keeps bystanders
from reading along; whose certificate it is proves nothing that the signature does not,
and a guest at boot often has neither the right time nor a root store. So a certificate
is checked only where its SHA-256 is pinned, as the command line of administrators does,
whose tokens are worth stealing.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kbs.core.encode import parse_hex, parse_json_object
from kbs.core.errors import MalformedError, UnavailableError

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
TOTAL_SECONDS = 60.0

MAX_ANSWER = 20 * 1024 * 1024
"""Largest answer that is read: 64 keys of 64 KiB, sealed, in base64, and a receipt."""

# RFC 8446, section 5.1: a record of type alert, legacy version 3.x; what a TLS server
# says to plain HTTP, as the HTTP library quotes a line that is no status.
_TLS_ALERT = "\\x15\\x03"
_CHUNK = 64 * 1024
_JSON_TYPES = frozenset({"application/json", "application/problem+json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server said; `retry_after` in seconds where it asks for patience."""

    status: int
    content_type: str
    body: bytes = field(repr=False)
    retry_after: int | None = None

    @property
    def is_problem(self) -> bool:
        """Whether it is an RFC 9457 problem document."""
        return self.content_type == "application/problem+json"

    def json(self) -> dict[str, object]:
        """Return the body as a JSON object.

        Raises:
            UnavailableError: it is none; whatever answered is not a broker.
        """
        if self.content_type not in _JSON_TYPES:
            raise UnavailableError(
                "server's answer",
                got=f"status {self.status}, {self.content_type[:60] or 'no type'}",
                expected="JSON",
                hint="is this the URL of a broker?",
            )
        try:
            return parse_json_object(self.body, "server's answer", limit=MAX_ANSWER)
        except MalformedError as exc:
            raise UnavailableError(str(exc)) from exc


class Transport:
    """Talks to one server; `tls_sha256` pins its certificate (hex of the DER)."""

    def __init__(
        self,
        server: str,
        *,
        tls_sha256: str | None = None,
        total_seconds: float = TOTAL_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect when first asked.

        Raises:
            MalformedError: the URL or the fingerprint is none.
        """
        self._server = parse_server(server)
        if tls_sha256 is not None:
            parse_hex(tls_sha256, "TLS certificate's SHA-256", size=32)
        self._tls_sha256 = tls_sha256
        self._total_seconds = total_seconds
        self._monotonic = monotonic
        self._session: requests.Session | None = None

    @property
    def server(self) -> str:
        """The server's URL without a trailing slash."""
        return self._server

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Send a GET.

        Raises:
            UnavailableError: nobody answers, in time and size.
        """
        return self.request("GET", path, headers=headers)

    def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a POST with a JSON body, these exact bytes.

        Raises:
            UnavailableError: nobody answers, in time and size. The server may have
                got the request all the same.
        """
        return self.request("POST", path, body=body, headers=headers)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_ANSWER,
    ) -> Reply:
        """Send a request and read at most `limit` bytes of its answer.

        Raises:
            UnavailableError: nobody answers, in time and size.
        """
        deadline = self._monotonic() + self._total_seconds
        with self._send(method, path, body, headers) as response:
            return reply_of(response, self._read(response, limit, deadline))

    def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> Any:
        """Send a request; the response's body is read by whoever closes it."""
        sent = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if body is not None:
            sent["Content-Type"] = "application/json"
        with self._answering():
            return self._opened().request(
                method,
                self._server + path,
                data=body,
                headers={**sent, **(headers or {})},
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                # The module's words say why; a pinned fingerprint is checked.
                verify=False,
                stream=True,
            )

    def _chunks(self, response: Any) -> Iterator[bytes]:
        """Yield a body as it comes."""
        # What has come is taken as it comes: waiting for a full chunk would let a
        # server that sends a byte now and then stretch the deadline for days.
        with self._answering():
            while chunk := response.raw.read1(_CHUNK):
                yield chunk

    @contextmanager
    def _answering(self) -> Iterator[None]:
        from requests import RequestException  # noqa: PLC0415 - slow to import
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - as above

        try:
            yield
        except (RequestException, HTTPError, OSError) as exc:
            raise self._unreachable(exc) from exc

    def _opened(self) -> requests.Session:
        if self._session is None:
            from kbs.client.session import (  # noqa: PLC0415 - slow to import
                new_session,
            )

            self._session = new_session(
                self._server,
                tls_sha256=self._tls_sha256,
                direct=is_loopback(urlsplit(self._server).hostname or ""),
            )
        return self._session

    def _read(self, response: Any, limit: int, deadline: float) -> bytes:
        body = bytearray()
        for chunk in self._chunks(response):
            body += chunk
            if len(body) > limit:
                raise UnavailableError(
                    f"answer of {self._server}",
                    got="more bytes",
                    expected=f"at most {limit}",
                )
            if self._monotonic() > deadline:
                raise UnavailableError(
                    f"answer of {self._server}",
                    got=f"no end in {self._total_seconds:g} s",
                )
        return bytes(body)

    def _unreachable(self, exc: Exception) -> UnavailableError:
        text = str(exc)
        if "Fingerprints did not match" in text:
            return UnavailableError(
                f"TLS certificate of {self._server}",
                got="another one",
                expected=f"SHA-256 {self._tls_sha256}",
                hint="the certificate changed, or somebody is in between",
                code="tls.pin",
            )
        if _TLS_ALERT in text:
            return UnavailableError(
                f"server {self._server}",
                got="an answer in TLS",
                expected="an answer in plain HTTP",
                hint="it speaks TLS: use https://",
                code="unreachable",
            )
        return UnavailableError(
            f"server {self._server}",
            got=_reason(exc),
            expected="an answer",
            code="unreachable",
        )


def reply_of(response: Any, body: bytes) -> Reply:
    """Return the status and the headers that count, with as much body as was read."""
    content_type = response.headers.get("Content-Type", "").partition(";")[0]
    return Reply(
        status=response.status_code,
        content_type=content_type.strip().lower(),
        body=body,
        retry_after=_retry_after(response.headers.get("Retry-After")),
    )


def parse_server(text: str) -> str:
    """Accept `https://HOST[:PORT][/PREFIX]`, or `http://` on loopback.

    Raises:
        MalformedError: anything else.
    """
    try:
        parts = urlsplit(text)
        host, has_port = parts.hostname or "", parts.port != 0
    except ValueError:
        # Brackets without an address, a port that is no number.
        parts, host, has_port = urlsplit(""), "", False
    is_plain = not (parts.query or parts.fragment or parts.username or parts.password)
    is_visible = text.isascii() and text.isprintable() and " " not in text
    is_allowed = parts.scheme == "https" or (
        parts.scheme == "http" and is_loopback(host)
    )
    if host and has_port and is_plain and is_visible and is_allowed:
        return text.rstrip("/")
    raise MalformedError(
        "server URL",
        got=ascii(text)[:120],
        expected="https://HOST[:PORT]; http:// on loopback only",
    )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _retry_after(text: str | None) -> int | None:
    # RFC 9110, section 10.2.3; a date is not understood, which only costs patience.
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 6:  # noqa: PLR2004 - days
        return None
    return int(text)


def _reason(exc: Exception) -> str:
    # The innermost words: "Connection refused" and not three nested library names.
    cause: BaseException = exc
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return (str(cause) or type(cause).__name__)[:160]
