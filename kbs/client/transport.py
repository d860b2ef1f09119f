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
from collections.abc import Callable, Mapping
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
        from requests import RequestException  # noqa: PLC0415 - slow to import
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - as above

        deadline = self._monotonic() + self._total_seconds
        sent = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            with self._opened().request(
                method,
                self._server + path,
                data=body,
                headers={**sent, **(headers or {})},
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                # The module's words say why; a pinned fingerprint is checked.
                verify=False,
                stream=True,
            ) as response:
                return self._read(response, limit, deadline)
        except (RequestException, HTTPError, OSError) as exc:
            raise self._unreachable(exc) from exc

    def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _opened(self) -> requests.Session:
        if self._session is None:
            self._session = _new_session(self._server, self._tls_sha256)
        return self._session

    def _read(self, response: Any, limit: int, deadline: float) -> Reply:
        body = bytearray()
        for chunk in response.iter_content(_CHUNK):
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
        content_type = response.headers.get("Content-Type", "").partition(";")[0]
        return Reply(
            status=response.status_code,
            content_type=content_type.strip().lower(),
            body=bytes(body),
            retry_after=_retry_after(response.headers.get("Retry-After")),
        )

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
        return UnavailableError(
            f"server {self._server}",
            got=_reason(exc),
            expected="an answer",
            code="unreachable",
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


def _new_session(server: str, tls_sha256: str | None) -> requests.Session:
    import requests  # noqa: PLC0415 - slow to import, and not every command talks
    import urllib3  # noqa: PLC0415 - as above
    from requests.adapters import HTTPAdapter  # noqa: PLC0415 - as above
    from requests.utils import get_environ_proxies  # noqa: PLC0415 - as above

    # Once per request, it would tell every user what this module says at its top.
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    class PinnedAdapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options, assert_fingerprint=tls_sha256)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            options["assert_fingerprint"] = tls_sha256
            return super().proxy_manager_for(proxy, **options)

    session = requests.Session()
    # Neither .netrc nor CA bundles from the environment; proxies are taken below.
    session.trust_env = False
    host = urlsplit(server).hostname or ""
    if not is_loopback(host):
        session.proxies.update(get_environ_proxies(server))
    session.mount("https://", PinnedAdapter())
    session.headers["User-Agent"] = "kbs"
    return session


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
