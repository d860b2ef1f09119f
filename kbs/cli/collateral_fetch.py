"""What `kbs collateral fetch` does on this machine: sources, fetching, proving."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kbs.broker.vendors import amd, intel, nvidia
from kbs.broker.vendors.fetching import NOTHING, Vendors, parse_source
from kbs.broker.vendors.source import Services, Source
from kbs.cli.collateral_file import described
from kbs.cli.inputs import read_input
from kbs.cli.x509_files import certificates_in
from kbs.core.clock import SystemClock
from kbs.core.errors import CollateralError, KbsError, MalformedError
from kbs.core.fetch import OFFLINE, Fetcher, OfflineFetcher
from kbs.evidence.model import GivenCollateral
from kbs.evidence.snp.products import ProductLine

_EXPECTED = f"a URL, {', '.join(ProductLine)}, intel, an FMSPC, or the id of a RIM"
_FMSPC = re.compile(r"[0-9a-fA-F]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of one source, proven."""

    source: Source
    items: tuple[bytes, ...]

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"source": self.source.url, "items": len(self.items)}


@dataclass(frozen=True, slots=True)
class Failed:
    """Why nothing is kept of one source."""

    source: Source
    error: KbsError

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "source": self.source.url,
            "code": self.error.code,
            "error": str(self.error),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What came and what did not."""

    fetched: tuple[Fetched, ...]
    failed: tuple[Failed, ...]

    def items(self) -> list[bytes]:
        """Return every item once."""
        return list(dict.fromkeys(item for one in self.fetched for item in one.items))

    def described(self) -> Iterator[dict[str, object]]:
        """Yield every item once, with where it came from."""
        seen = set()
        for one in self.fetched:
            for item in one.items:
                if item not in seen:
                    seen.add(item)
                    yield described(item, one.source.url)


def sources_of(texts: Iterable[str]) -> tuple[Source, ...]:
    """Return the sources that somebody named, each once.

    Raises:
        MalformedError: one is neither a URL nor a name that stands for some.
    """
    found = [source for text in texts for source in _expanded(text)]
    return tuple(dict.fromkeys(found))


def wanted(
    texts: Iterable[str], chains: Iterable[Path]
) -> tuple[tuple[Source, ...], GivenCollateral]:
    """Return what to fetch, and the certificates in files that answers are about.

    Raises:
        MalformedError: it is nothing; a name, a file or its content is none.
    """
    what = "--status-of"
    found = tuple(
        dict.fromkeys(
            one
            for path in chains
            for one in certificates_in(read_input(path, what), f"{what} {path}")
        )
    )
    sources = (*sources_of(texts), *nvidia.status_sources(found))
    if not sources:
        raise MalformedError("WHAT", got="nothing", expected=_EXPECTED, code="usage")
    return sources, GivenCollateral(found)


def fetch_all(
    sources: Iterable[Source],
    services: Services,
    *,
    offline: bool,
    known: GivenCollateral = NOTHING,
) -> Found:
    """Fetch and prove each source; one that fails harms no other.

    `known` are certificates that prove an answer about them.

    Raises:
        CollateralError: this machine is to stay offline.
    """
    vendors = Vendors(_fetcher(offline=offline), SystemClock(), services)
    fetched: list[Fetched] = []
    failed: list[Failed] = []
    for source in sources:
        try:
            fetched.append(Fetched(source, vendors.fetch(source, known)))
        except CollateralError as exc:
            if exc.code == OFFLINE:
                raise
            failed.append(Failed(source, exc))
    return Found(tuple(fetched), tuple(failed))


def _fetcher(*, offline: bool) -> Fetcher:
    if offline:
        return OfflineFetcher()
    from kbs.adapters.http import HttpFetcher

    return HttpFetcher()


def _expanded(text: str) -> tuple[Source, ...]:
    if text in set(ProductLine):
        return (
            amd.chain_source(text),
            amd.chain_source(text, "vlek"),
            amd.crl_source(text),
        )
    if text == "intel":
        return intel.everything()
    if _FMSPC.fullmatch(text):
        return (intel.tcb_source("sgx", text), intel.tcb_source("tdx", text))
    if nvidia.RIM_ID.fullmatch(text):
        return (nvidia.rim_source(text),)
    if "://" not in text:
        raise MalformedError(
            "WHAT",
            got=ascii(text)[:80],
            expected=_EXPECTED,
            code="usage",
        )
    return (parse_source(text),)
