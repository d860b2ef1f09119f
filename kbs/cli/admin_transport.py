"""HTTP for administrators: as for guests, and answers of any length as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kbs.client.transport import Reply, Transport, reply_of
from kbs.core.errors import UnavailableError

_MAX_LINE = 8 * 1024 * 1024
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
