"""One visit to a vendor: what is at hand, what was asked, how to say it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from re import Match, Pattern

from cryptography import x509

from kbs.broker.vendors.source import Service, Services, Source
from kbs.core.clock import format_time
from kbs.core.errors import CollateralError
from kbs.core.fetch import WRONG, Answer, Fetcher
from kbs.evidence.model import GivenCollateral
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe
from kbs.pki.chain import Chain, build_chain, out_of_date
from kbs.pki.crl import is_crl_of, is_current, standing
from kbs.pki.roots import Purpose, pinned_roots


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What fetching one source needs; `known` is what is kept already."""

    source: Source
    fetcher: Fetcher
    services: Services
    known: GivenCollateral
    now: datetime
    pins: Mapping[str, str] | None = None
    """As `Trust.pinned_roots`: None takes the shipped pins."""
    cache: LinkCache = field(default_factory=LinkCache)

    def ask(
        self,
        source: Source,
        *,
        limit: int,
        body: bytes | None = None,
        content_type: str | None = None,
    ) -> Answer:
        """Fetch a source from whoever serves it here.

        Raises:
            CollateralError: no whole answer came.
        """
        url = self.services.url_of(source)
        return self.fetcher.fetch(
            url, limit=limit, body=body, content_type=content_type
        )

    def wrong(self, got: str, expected: str) -> CollateralError:
        """Return the error of an answer that is not what was asked for."""
        return CollateralError(
            f"answer for {self.source.url}",
            got=got[:300],
            expected=expected,
            hint="nothing of it is kept",
            code=WRONG,
        )

    def has_chain(
        self,
        leaf: x509.Certificate,
        pool: tuple[x509.Certificate, ...],
        purpose: Purpose,
    ) -> bool:
        """Whether a certificate chains to a pinned root through what is to hand."""
        roots = pinned_roots(purpose, self.pins)
        return isinstance(build_chain(leaf, pool, roots=roots, cache=self.cache), Chain)

    def proven_chain(
        self,
        leaf: x509.Certificate,
        pool: tuple[x509.Certificate, ...],
        purpose: Purpose,
    ) -> Chain:
        """Return the chain of a certificate to a pinned root, valid now.

        Raises:
            CollateralError: there is none.
        """
        roots = pinned_roots(purpose, self.pins)
        outcome = build_chain(leaf, pool, roots=roots, cache=self.cache)
        if not isinstance(outcome, Chain):
            raise self.wrong(outcome.detail, "a chain to a pinned root")
        complaints = out_of_date(outcome.certificates, self.now)
        if complaints:
            raise self.wrong("; ".join(complaints), "certificates that are valid now")
        return outcome

    def proven_list(
        self, crl: x509.CertificateRevocationList, issuer: x509.Certificate
    ) -> x509.CertificateRevocationList:
        """Return a revocation list that its issuer signed, current and no older one.

        Raises:
            CollateralError: it is not.
        """
        if not is_crl_of(crl, issuer, self.cache):
            raise self.wrong(
                f"a list of {describe(crl.issuer)}",
                f"a complete list that {describe(issuer.subject)} signed",
            )
        if not is_current(crl, self.now):
            ends = crl.next_update_utc
            raise self.wrong(
                f"a list from {format_time(crl.last_update_utc)} to "
                f"{'no end' if ends is None else format_time(ends)}",
                f"one that covers {format_time(self.now)}",
            )
        lists = (crl, *self.known.revocation_lists())
        newest = standing((), issuer, lists, now=self.now, cache=self.cache).current
        if newest != crl:
            raise self.wrong(
                f"a list of {format_time(crl.last_update_utc)}",
                "one as new as the one to hand",
            )
        return crl


@dataclass(frozen=True, slots=True)
class Route:
    """One form of source: which paths have it, and how it is fetched and proven.

    `fetch` returns everything that is worth keeping, each in the form in which
    `kbs collateral import` takes it.
    """

    service: Service
    pattern: Pattern[str]
    fetch: Callable[[Visit, Match[str]], tuple[bytes, ...]]
