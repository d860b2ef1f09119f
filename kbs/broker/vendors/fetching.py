"""Fetches a source, proves what came, and only then hands it on to be kept.

What is wrong is an error and leaves everything as it was: nothing is ever taken away
for a fetch, so that an answer cannot replace a better one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from re import Match

from kbs.broker.vendors import amd, intel, nvidia
from kbs.broker.vendors.source import Services, Source, split_url
from kbs.broker.vendors.visit import Route, Visit
from kbs.core.clock import Clock
from kbs.core.errors import KbsError, MalformedError
from kbs.core.fetch import Fetcher
from kbs.evidence.dcap.documents import DOCUMENT_KINDS, parse_document
from kbs.evidence.model import GivenCollateral
from kbs.pki.certificates import load_der_certificate, load_der_crl

ROUTES: tuple[Route, ...] = (*amd.ROUTES, *intel.ROUTES, *nvidia.ROUTES)

NOTHING = GivenCollateral()


def _of_certificate(data: bytes) -> Source | None:
    return amd.source_of_certificate(load_der_certificate(data, "certificate"))


def _of_list(data: bytes) -> Source | None:
    crl = load_der_crl(data, "revocation list")
    return amd.source_of_list(crl) or intel.source_of_list(crl)


def _of_document(data: bytes) -> Source | None:
    return intel.source_of_document(parse_document(data))


_ORIGINS: Mapping[str, Callable[[bytes], Source | None]] = {
    "certificate": _of_certificate,
    "crl": _of_list,
    "rim": nvidia.source_of_rim,
    "ocsp": nvidia.source_of_answer,
    **dict.fromkeys(DOCUMENT_KINDS, _of_document),
}


def origin_of(kind: str, data: bytes) -> Source | None:
    """Return where its vendor publishes a kept item; None if nowhere known.

    It follows from the item itself, wherever that came from.
    """
    find = _ORIGINS.get(kind)
    try:
        return None if find is None else find(data)
    except KbsError:
        # What cannot be read any more says so where it is used.
        return None


def parse_source(text: str) -> Source:
    """Return the source that a vendor's URL stands for.

    Raises:
        MalformedError: it is no URL of a vendor's, or of nothing that is fetched here.
    """
    source = split_url(text)
    _route(source)
    return source


class Vendors:
    """Fetches and proves collateral, from vendors or who stands in for them."""

    def __init__(
        self,
        fetcher: Fetcher,
        clock: Clock,
        services: Services | None = None,
        *,
        pins: Mapping[str, str] | None = None,
    ) -> None:
        """Ask by `fetcher`; `pins` as `Trust.pinned_roots`."""
        self._fetcher = fetcher
        self._clock = clock
        self._services = services if services is not None else Services()
        self._pins = pins

    def fetch(
        self, source: Source, known: GivenCollateral = NOTHING
    ) -> tuple[bytes, ...]:
        """Return what lies there and what proves it, each as an import takes it.

        Raises:
            CollateralError: it does not come, or is not what its vendor signed.
            MalformedError: nothing of that form is fetched here.
        """
        route, match = _route(source)
        visit = Visit(
            source=source,
            fetcher=self._fetcher,
            services=self._services,
            known=known,
            now=self._clock.now(),
            pins=self._pins,
        )
        return route.fetch(visit, match)


def _route(source: Source) -> tuple[Route, Match[str]]:
    for route in ROUTES:
        match = route.pattern.fullmatch(source.path)
        if route.service is source.service and match is not None:
            return route, match
    raise MalformedError(
        "source",
        got=source.url[:200],
        expected="a URL as checks and `kbs collateral list` name it",
        code="collateral.source",
    )
