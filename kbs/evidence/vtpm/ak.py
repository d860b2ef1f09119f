"""Whose attestation key is it: enrolled, certified, vouched for, or nobody's.

A key is never trusted because it came with the evidence. Trust comes from a signed
statement that enrolled its TPM2B_PUBLIC in a tenant's group, from a certificate that
chains to a CA registered for `ak` or to a pinned TPM root, or, for one verification
at the command line, from the person who names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from kbs.core.checks import CheckLog
from kbs.core.claims import ClaimValue
from kbs.core.errors import MalformedError
from kbs.evidence.model import EnrolledKey, Trust
from kbs.evidence.vtpm.certificate import Certified, OtherTrust, check_certificates
from kbs.evidence.vtpm.item import AttestationKey, TpmQuote, load_ak
from kbs.evidence.vtpm.public import ObjectAttributes, TpmPublic, parse_public
from kbs.evidence.vtpm.scope import Scope
from kbs.evidence.vtpm.signature import scheme_problem

REQUIRED = (
    ObjectAttributes.RESTRICTED,
    ObjectAttributes.SIGN,
    ObjectAttributes.FIXED_TPM,
    ObjectAttributes.FIXED_PARENT,
    ObjectAttributes.SENSITIVE_DATA_ORIGIN,
)
"""Without `restricted` a key signs whatever looks like a quote."""

FORBIDDEN = (ObjectAttributes.DECRYPT,)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTrust:
    """What is known of a key: whether it counts, where, and its public area.

    A certificate authenticates the key, not the TPM2B_PUBLIC around it, which is
    then the host's word: name and attributes count only if the area was enrolled or
    vouched for (`names`), or a certificate says that the key is an attestation key
    (`attested`; then attributes count, and the name once the quote proves it).
    """

    trusted: bool
    public: TpmPublic | None
    names: tuple[bytes, ...] = ()
    attested: bool = False
    values: Mapping[str, ClaimValue] = field(default_factory=dict)
    scoped: Mapping[str, Mapping[str, ClaimValue]] = field(default_factory=dict)
    trusted_in: frozenset[str] | None = None


def check_key(quote: TpmQuote, trust: Trust, log: CheckLog) -> KeyTrust:
    """Decide about the attestation key; records ak.trust and the certificate checks."""
    vouched = _vouched(quote.ak, trust)
    enrolled = _enrolled(quote, trust)
    other = OtherTrust(
        tenants=frozenset(key.tenant for key in enrolled), vouched=vouched is not None
    )
    certified = check_certificates(quote, trust, log, other=other)
    enrolled = tuple(key for key in enrolled if key.tenant not in certified.withdrawn)
    _log_trust(quote.ak, enrolled, vouched, certified, log)
    scope = Scope(
        enrolled=enrolled,
        anchors=certified.anchors,
        vouched=vouched,
        bare=quote.ak.public is None,
    )
    return KeyTrust(
        trusted=bool(enrolled or certified.anchors) or vouched is not None,
        public=_public_area(quote.ak, enrolled, vouched),
        names=scope.names,
        attested=any(anchor.attests for anchor in scope.counted),
        values=scope.values(),
        scoped=scope.scoped(),
        trusted_in=scope.trusted_in(),
    )


def _log_trust(
    ak: AttestationKey,
    enrolled: tuple[EnrolledKey, ...],
    vouched: AttestationKey | None,
    certified: Certified,
    log: CheckLog,
) -> None:
    if enrolled:
        # Whose groups they are is their tenants' business; claims tell each its own.
        log.passed("vtpm.ak.trust", f"the key is enrolled in {len(enrolled)} groups")
    elif vouched is not None:
        log.skipped("vtpm.ak.trust", "taken on the caller's word, for this time only")
    elif certified.anchors:
        names = ", ".join(dict.fromkeys(anchor.label for anchor in certified.anchors))
        log.passed("vtpm.ak.trust", f"the key's certificate chains to {names}")
    else:
        _note_untrusted(ak, certified, log)


def check_attributes(known: KeyTrust, trust: Trust, log: CheckLog) -> None:
    """Require the attributes without which a quote proves nothing."""
    check = "vtpm.ak.attributes"
    public = known.public
    if public is None:
        if not trust.recorded:
            log.failed(
                check,
                "the key came without its TPM2B_PUBLIC, so its attributes are unknown",
                got="a bare public key",
                expected="ak as TPM2B_PUBLIC",
            )
        else:
            log.skipped(
                check,
                "no TPM2B_PUBLIC: the attributes are whoever vouches's promise",
            )
        return
    wrong = wrong_attributes(public)
    if wrong:
        log.failed(
            check,
            "a key with these attributes can sign a forged quote, or leave its TPM",
            got=", ".join(wrong),
            expected=", ".join(str(flag.name) for flag in REQUIRED) + ", not DECRYPT",
        )
    elif known.names or known.attested:
        log.passed(check, "a restricted signing key that cannot leave its TPM")
    else:
        _note_unproven(known, trust, log)


def wrong_attributes(public: TpmPublic) -> list[str]:
    """Say which attributes keep a key from being an attestation key."""
    wrong = [f"{flag.name} not set" for flag in REQUIRED if not public.has(flag)]
    return wrong + [f"{flag.name} set" for flag in FORBIDDEN if public.has(flag)]


def _note_unproven(known: KeyTrust, trust: Trust, log: CheckLog) -> None:
    check = "vtpm.ak.attributes"
    detail = "the attributes are the host's word: the key's certificate does not say"
    if not known.trusted:
        log.skipped(check, "nobody vouches for the key, so its attributes say nothing")
    elif trust.recorded:
        log.skipped(check, f"{detail} that it is an attestation key")
    else:
        log.failed(
            check,
            f"{detail} that it is an attestation key; enrol it, or have it certified "
            "with that usage",
            got="no extended key usage 2.23.133.8.3",
            expected="tcg-kp-AIKCertificate (2.23.133.8.3), or an enrolled key",
        )


def _note_untrusted(ak: AttestationKey, certified: Certified, log: CheckLog) -> None:
    detail = (
        "the key is not enrolled, its certificate leads to no trusted CA, and nobody "
        "vouched for it; enrol it, register its CA, or name it with --ak"
    )
    if certified.open:
        log.unchecked("vtpm.ak.trust", "the key's certificate chain is incomplete")
        return
    log.failed(
        "vtpm.ak.trust",
        detail,
        got=f"SPKI SHA-256 {ak.spki_sha256.hex()}",
        expected="an enrolled or certified attestation key",
    )


def _enrolled(quote: TpmQuote, trust: Trust) -> tuple[EnrolledKey, ...]:
    ak = quote.ak
    if ak.public is not None:
        return tuple(
            key
            for key in trust.enrolled_keys.get(ak.public.name, ())
            if key.name == ak.public.name
        )
    having = tuple(
        key
        for keys in trust.enrolled_keys.values()
        for key in keys
        if _spki_of_enrolled(key.public, key.name) == ak.spki
    )
    # Several tenants may have enrolled one key under different areas; an area that
    # cannot be this key's does not harm those who enrolled the right one.
    return tuple(key for key in having if _fits(key, quote)) or having


def _fits(key: EnrolledKey, quote: TpmQuote) -> bool:
    area = parse_public(key.public)
    problem = scheme_problem(quote.signature, quote.ak.key, area)
    return problem is None and not wrong_attributes(area)


@lru_cache(maxsize=4096)
def _spki_of_enrolled(public: bytes, name: bytes) -> bytes | None:
    # A stored area that is not what its name says counts as not enrolled.
    try:
        area = parse_public(public)
    except MalformedError:
        return None
    return area.spki if area.name == name else None


def _vouched(ak: AttestationKey, trust: Trust) -> AttestationKey | None:
    if trust.override_ak is None:
        return None
    try:
        named = load_ak(trust.override_ak)
    except MalformedError:
        return None
    if named.spki != ak.spki:
        return None
    both = named.public is not None and ak.public is not None
    if both and named.public != ak.public:
        return None
    return named


def _public_area(
    ak: AttestationKey,
    enrolled: tuple[EnrolledKey, ...],
    vouched: AttestationKey | None,
) -> TpmPublic | None:
    if ak.public is not None:
        return ak.public
    if enrolled:
        return parse_public(enrolled[0].public)
    return vouched.public if vouched is not None else None
