"""HTTP for administrators: as for guests, and answers of any length as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kbs.client.transport import (
    CONNECT_SECONDS,
    MAX_ANSWER,
    READ_SECONDS,
    Reply,
    Transport,
)
from kbs.core.errors import UnavailableError

_CHUNK = 64 * 1024
_MAX_LINE = 2 * MAX_ANSWER
_OK = range(200, 300)


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
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        try:
            with self._opened().get(
                self.server + path,
                headers={"Accept-Encoding": "identity", **headers},
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                # As in the base class: a pinned fingerprint is what is checked.
                verify=False,
                stream=True,
            ) as response:
                chunks = response.iter_content(_CHUNK)
                kind = response.headers.get("Content-Type", "").partition(";")[0]
                refused = response.status_code not in _OK
                body = next(chunks, b"") if refused else b""
                reply = Reply(
                    status=response.status_code,
                    content_type=kind.strip().lower(),
                    body=body,
                )
                yield reply, iter(()) if refused else split_lines(chunks)
        except (RequestException, HTTPError, OSError) as exc:
            raise self._unreachable(exc) from exc


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
