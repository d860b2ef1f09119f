"""Verifies a TPM 2.0 quote: signature, PCRs, attestation key, event log.

The plan, in order; every step is recorded, none stops the next:

1. the signature is the key's, by a scheme that the key allows
2. the PCR values beside the quote are exactly those that it selected
3. and hash to its digest
4. the key is trusted, and is a restricted signing key of a TPM
5. the quote names this key as its signer, where the hierarchy can be told
6. the event log, if there is one, leads to the quoted PCRs

Binding (`extraData`) is compared by the bundle, which knows the item's role.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.checks import CheckLog, Verdict, verdict
from kbs.core.claims import ClaimSpec, ClaimValue, ItemClaims
from kbs.evidence.model import ItemResult, ParsedItem, Trust
from kbs.evidence.vtpm.ak import KeyTrust, check_attributes, check_key
from kbs.evidence.vtpm.algorithms import NAME_HASHES, digest
from kbs.evidence.vtpm.checks import (
    check_digest,
    check_selection,
    check_signature,
    selected_pcrs,
)
from kbs.evidence.vtpm.claims import FAMILY, VOCABULARY, quote_claims
from kbs.evidence.vtpm.inspecting import inspect_quote
from kbs.evidence.vtpm.item import KIND, TpmQuote, parse_item, quote_of
from kbs.evidence.vtpm.public import TpmPublic
from kbs.evidence.vtpm.replay import check_event_log
from kbs.evidence.vtpm.scope import NAME_CLAIM

# `binding.md`: extraData is the first 32 bytes of the 48-byte binding.
BINDING_SIZE = 48
BOUND_SIZE = 32

# TPM 2.0 Library, Part 2, section 7.4: the hierarchies a primary key hangs from.
_HIERARCHIES = {
    "owner": 0x40000001,
    "null": 0x40000007,
    "endorsement": 0x4000000B,
    "platform": 0x4000000C,
}


class VtpmVerifier:
    """The `vtpm` evidence family."""

    @property
    def kind(self) -> str:
        """The `kind` of its items and the family of its claims."""
        return KIND

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""
        return VOCABULARY

    @property
    def primary(self) -> bool:
        """A TPM is no CPU report: it is the primary only when it comes alone."""
        return False

    def parse(self, item: Mapping[str, object], index: int) -> ParsedItem:
        """Read the JSON item of a bundle.

        Raises:
            MalformedError: it lacks the promised shape.
        """
        return parse_item(item, index)

    def inspect(self, parsed: ParsedItem) -> Mapping[str, object]:
        """Return all parsed fields for people; nothing proven."""
        return inspect_quote(quote_of(parsed))

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        """Run every check but binding; evidence that is wrong does not raise."""
        quote = quote_of(parsed)
        # The key comes first, since only its public area tells the scheme it allows;
        # what is wrong with the quote itself is reported first nevertheless.
        about_key, log = CheckLog(parsed.index), CheckLog(parsed.index)
        key = check_key(quote, trust, about_key)
        check_attributes(key, trust, about_key)
        named = _check_qualified_signer(quote, key.public, about_key)
        signed = check_signature(quote, key.public, log)
        check_selection(quote, log)
        check_digest(quote, log)
        about_log = CheckLog(parsed.index)
        proven = check_event_log(quote.event_log, selected_pcrs(quote), about_log)
        checks = (*log.checks, *about_key.checks, *about_log.checks)
        sound = verdict(checks) is Verdict.VERIFIED
        # A certified attestation key signs no quote with a wrong qualified name.
        name = named if key.attested and signed else None
        return ItemResult(
            checks=checks,
            claims=_claims(parsed.index, quote, key, {**proven, **_name_claim(name)})
            if sound
            else None,
            authenticated=signed and key.trusted,
            identities=_identities(quote, key, name),
        )

    def bound_matches(self, parsed: ParsedItem, binding: bytes) -> bool:
        """Whether extraData is exactly the first 32 bytes of this 48-byte binding."""
        return len(binding) == BINDING_SIZE and parsed.bound == binding[:BOUND_SIZE]


def _check_qualified_signer(
    quote: TpmQuote, public: TpmPublic | None, log: CheckLog
) -> bytes | None:
    """Return the key's name if the quote names it as its signer."""
    # Part 1, section 16.4: QN = H(QN of the parent ‖ name). Of a key below another
    # key we do not know the parent, so only a primary key's can be told.
    check = "vtpm.quote.qualified_signer"
    if public is None:
        log.skipped(check, "the key came without its TPM2B_PUBLIC")
        return None
    for hierarchy, handle in _HIERARCHIES.items():
        if quote.attest.qualified_signer == _qualified_name(public, handle):
            log.passed(check, f"this key, a primary key of the {hierarchy} hierarchy")
            return public.name
    log.skipped(check, "not a primary key, and its parent's name is not known")
    return None


def _qualified_name(public: TpmPublic, hierarchy: int) -> bytes:
    algorithm = public.name_algorithm
    inner = digest(NAME_HASHES[algorithm], hierarchy.to_bytes(4, "big"), public.name)
    return algorithm.to_bytes(2, "big") + inner


def _claims(
    index: int, quote: TpmQuote, key: KeyTrust, proven: Mapping[str, ClaimValue]
) -> ItemClaims:
    return ItemClaims(
        family=FAMILY,
        item=index,
        values={**quote_claims(quote.attest, quote.pcrs), **key.values, **proven},
        scoped=key.scoped,
        trusted_in=key.trusted_in,
    )


def _name_claim(name: bytes | None) -> dict[str, ClaimValue]:
    return {} if name is None else {NAME_CLAIM: name.hex()}


def _identities(quote: TpmQuote, key: KeyTrust, name: bytes | None) -> tuple[str, ...]:
    # The key itself is always named: around it the host can write any public area,
    # so that a name nobody proved would be whatever the host likes.
    names = dict.fromkeys(key.names if name is None else (*key.names, name))
    spki = f"spki:{quote.ak.spki_sha256.hex()}"
    signer = f"qn:{quote.attest.qualified_signer.hex()}"
    return (*(f"ak:{one.hex()}" for one in names), spki, signer)
