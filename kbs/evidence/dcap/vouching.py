"""Whether Intel signed a document, and which of several counts at one time.

The newest that Intel signed wins, by its evaluation number and then its date, wherever
it came from and whether it still stands: an older one put beside the evidence cannot
hide what a newer one says, and where the newest has run out nothing older takes its
place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from kbs.core.clock import format_time
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.levels import Signed
from kbs.evidence.model import VendorDocument
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe, spki_sha256
from kbs.pki.chain import (
    Chain,
    ChainBroken,
    IssuerMissing,
    build_chain,
    out_of_date,
)
from kbs.pki.p256 import is_p256_signature

SIGNER = "Intel SGX TCB Signing"
"""Common name of the certificate that signs documents, issued by the root itself."""

_SIGNER_DEPTH = 2
_MAX_SIGNERS = 8
_Content = TypeVar("_Content", bound=Signed)


@dataclass(frozen=True, slots=True)
class Vouched(Generic[_Content]):
    """A document that Intel signed and that stands, with its signer's chain."""

    content: _Content
    chain: Chain


@dataclass(frozen=True, slots=True)
class Missing:
    """What is needed is not to hand or has run out; nothing is known to be wrong."""

    detail: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """There are documents of this kind, and no signer of Intel's made them."""

    detail: str


@dataclass(frozen=True, slots=True)
class Signers:
    """Who may sign documents: the chains of all signers to hand, or why there is none.

    Intel renewed its signer with the same key, so that several certificates may fit.
    """

    chains: tuple[Chain, ...]
    problem: str

    def valid_first(self, now: datetime) -> tuple[Chain, ...]:
        """Return the chains, those first whose certificates are valid."""
        return tuple(
            sorted(
                self.chains,
                key=lambda chain: bool(out_of_date(chain.certificates, now)),
            )
        )


def find_signers(
    pool: tuple[x509.Certificate, ...], roots: Mapping[str, str], cache: LinkCache
) -> Signers:
    """Return the signers among certificates; the root itself issued each."""
    found, problem = [], f"no certificate of {SIGNER} is to hand"
    named = [one for one in pool if describe(one.subject) == SIGNER][:_MAX_SIGNERS]
    issuers = {one.issuer.public_bytes() for one in named}
    # Nobody else is asked whether they issued it: strangers can send many who did not.
    pinned = [
        one
        for one in pool
        if one.subject.public_bytes() in issuers and _is_pinned(one, roots)
    ]
    for signer in dict.fromkeys(named):
        outcome = build_chain(signer, pinned, roots=roots, cache=cache)
        if isinstance(outcome, (IssuerMissing, ChainBroken)):
            problem = f"{SIGNER}: {outcome.detail}"
        elif len(outcome.certificates) == _SIGNER_DEPTH:
            found.append(outcome)
    return Signers(tuple(found), problem)


def _is_pinned(certificate: x509.Certificate, roots: Mapping[str, str]) -> bool:
    try:
        return spki_sha256(certificate) in roots
    except MalformedError:
        return False


def vouched(
    documents: Iterable[VendorDocument],
    kind: type[_Content],
    fits: Callable[[_Content], bool],
    *,
    signers: Signers,
    now: datetime,
    cache: LinkCache,
) -> Vouched[_Content] | Missing | Wrong:
    """Return the newest document of a kind that fits, if Intel signed it and it stands.

    `Missing.detail` and `Wrong.detail` say what there is instead.
    """
    candidates = [
        (document, document.content)
        for document in dict.fromkeys(documents)
        if isinstance(document.content, kind)
        and fits(document.content)
        and document.begins <= now
    ]
    if not candidates:
        return Missing("none is to hand")
    if not signers.chains:
        return Missing(signers.problem)
    chains = signers.valid_first(now)
    signed = [
        Vouched(content, chain)
        for document, content in candidates
        if (chain := _signer_of(document, content, chains, cache)) is not None
    ]
    if not signed:
        return Wrong(f"it does not verify under {SIGNER}")
    newest = max(signed, key=lambda one: age_of(one.content))
    if newest.content.next_update < now:
        ended = format_time(newest.content.next_update)
        return Missing(f"the newest ran out {ended}")
    return newest


def age_of(content: Signed) -> tuple[int, datetime]:
    """Return by what the newer of two documents is known."""
    return content.evaluation_number, content.issue_date


def _signer_of(
    document: VendorDocument,
    content: Signed,
    chains: Iterable[Chain],
    cache: LinkCache,
) -> Chain | None:
    digest = hashlib.sha256(document.data).digest()
    for chain in chains:
        signer = chain.certificates[0]
        link = (digest, signer.fingerprint(hashes.SHA256()))
        if cache.holds(*link):
            return chain
        if is_p256_signature(signer.public_key(), content.signature, content.body):
            cache.remember(*link)
            return chain
    return None
