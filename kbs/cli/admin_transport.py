"""HTTP for administrators: as for guests, and answers of any length as lines.

Here also: how a query is spelled, and which error a refusal stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, urlencode

from kbs.client.transport import Reply, Transport, reply_of
from kbs.core.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    KbsError,
    MalformedError,
    NotFoundError,
    UnavailableError,
)

_MAX_LINE = 8 * 1024 * 1024
_MAX_DETAIL = 1000
_OK = range(200, 300)
_ERRORS: Mapping[int, type[KbsError]] = {
    400: MalformedError,
    401: AuthenticationError,
    403: ForbiddenError,
    404: NotFoundError,
    405: MalformedError,
    409: ConflictError,
    413: MalformedError,
    415: MalformedError,
}


class AdminTransport(Transport):
    """A transport that can also read an export, which is as long as the log."""

    @contextmanager
    def streaming(
        self, path: str, headers: Mapping[str, str]
    ) -> Iterator[tuple[Reply, Iterator[bytes]]]:
        """Give the reply, and the lines of its body with their ends.

        A refusal's body is in the reply, and there are no lines.

        Raises:
            UnavailableError: nobody answers, or the answer breaks off.
        """
        # What goes wrong with the lines where they are used is not the server's doing.
        accepting = {"Accept": "*/*", **headers}
        with self._send("GET", path, None, accepting) as response:
            chunks = self._chunks(response)
            refused = response.status_code not in _OK
            body = next(chunks, b"") if refused else b""
            yield (
                reply_of(response, body),
                iter(()) if refused else split_lines(chunks),
            )


def split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines with their ends; the last one as it is.

    Raises:
        UnavailableError: a line is longer than any that a broker sends.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
        if len(rest) > _MAX_LINE:
            raise UnavailableError(
                "server's answer", got="an endless line", expected="JSON lines"
            )
    if rest:
        yield rest


def path_with(path: str, params: Mapping[str, str | int | None] | None) -> str:
    """Return the path with its query, spelled as it will be sent and signed."""
    given = {name: value for name, value in (params or {}).items() if value is not None}
    return f"{path}?{urlencode(given, quote_via=quote, safe='')}" if given else path


def error_of(reply: Reply) -> KbsError:
    """Return the error that a refusal stands for, with the server's own words."""
    detail, code = f"status {reply.status}", None
    if reply.is_problem:
        problem = reply.json()
        detail = str(problem.get("detail") or problem.get("title") or detail)
        code = str(problem.get("code") or "") or None
    kind = _ERRORS.get(reply.status, UnavailableError)
    return kind(detail[:_MAX_DETAIL], code=code)
