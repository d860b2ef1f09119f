"""What `kbs collateral fetch` does on this machine: sources, fetching, proving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kbs.broker.vendors import amd
from kbs.broker.vendors.fetching import Vendors, parse_source
from kbs.broker.vendors.source import Services, Source
from kbs.cli.collateral_file import described
from kbs.core.clock import SystemClock
from kbs.core.errors import CollateralError, KbsError, MalformedError
from kbs.core.fetch import OFFLINE, Fetcher, OfflineFetcher
from kbs.evidence.snp.products import ProductLine


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


def fetch_all(sources: Iterable[Source], services: Services, *, offline: bool) -> Found:
    """Fetch and prove each source; one that fails harms no other.

    Raises:
        CollateralError: this machine is to stay offline.
    """
    vendors = Vendors(_fetcher(offline=offline), SystemClock(), services)
    fetched: list[Fetched] = []
    failed: list[Failed] = []
    for source in sources:
        try:
            fetched.append(Fetched(source, vendors.fetch(source)))
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
    if "://" not in text:
        raise MalformedError(
            "WHAT",
            got=ascii(text)[:80],
            expected=f"a URL, or one of {', '.join(ProductLine)}",
            code="usage",
        )
    return (parse_source(text),)
