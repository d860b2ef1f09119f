"""The network as one small method; only errors of ours come out of it.

Nothing that verifies evidence is given a `Fetcher`: collateral is fetched beforehand,
proven, and kept (`kbs.broker.vendors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kbs.core.errors import CollateralError

OFFLINE = "collateral.offline"
"""Code of a fetch that was not tried, because this machine is to stay offline."""

UNREACHABLE = "collateral.unreachable"
"""Code of a service that gave no whole answer in time and size."""

ABSENT = "collateral.absent"
"""Code of a service that answered that it does not have it, or will not give it."""

BUSY = "collateral.busy"
"""Code of a service that asks to be left alone for a while."""

WRONG = "collateral.wrong"
"""Code of an answer that is not what was asked for, or that its vendor did not sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer of status 200; names of headers are in lower case."""

    url: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class BusyError(CollateralError):
    """The service asks for patience: `retry_seconds` of it."""

    code = BUSY

    def __init__(self, what: str, *, got: str, retry_seconds: float) -> None:
        """Say how long to wait."""
        self.retry_seconds = retry_seconds
        super().__init__(
            what, got=got, hint=f"ask again in {retry_seconds:.0f} s", code=BUSY
        )


class Fetcher(Protocol):
    """Gets what lies under a URL."""

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
        ...


class OfflineFetcher:
    """Refuses every fetch: the machine is to stay offline."""

    def fetch(
        self,
        url: str,
        *,
        limit: int,  # noqa: ARG002 - of the protocol
        body: bytes | None = None,  # noqa: ARG002 - of the protocol
        content_type: str | None = None,  # noqa: ARG002 - of the protocol
    ) -> Answer:
        """Refuse.

        Raises:
            CollateralError: always.
        """
        raise CollateralError(
            url,
            got="offline mode, so nothing was asked",
            hint="fetch it on a connected machine with `kbs collateral fetch --out "
            "FILE`, and import the file here",
            code=OFFLINE,
        )
