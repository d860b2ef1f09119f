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
from kbs.evidence.vtpm.certificate import Anchor, Certified, check_certificates
from kbs.evidence.vtpm.item import AttestationKey, TpmQuote, load_ak
from kbs.evidence.vtpm.public import ObjectAttributes, TpmPublic, parse_public

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
    """What is known of a key: whether it counts, where, and its public area."""

    trusted: bool
    public: TpmPublic | None
    values: Mapping[str, ClaimValue] = field(default_factory=dict)
    scoped: Mapping[str, Mapping[str, ClaimValue]] = field(default_factory=dict)
    trusted_in: frozenset[str] | None = None


def check_key(quote: TpmQuote, trust: Trust, log: CheckLog) -> KeyTrust:
    """Decide about the attestation key; records ak.trust and the certificate checks."""
    enrolled = _enrolled(quote.ak, trust)
    vouched = _vouched(quote.ak, trust)
    certified = check_certificates(
        quote, trust, log, required=not enrolled and vouched is None
    )
    anchors = certified.anchors
    if enrolled:
        groups = ", ".join(f"{key.tenant}/{key.group}" for key in enrolled)
        log.passed("vtpm.ak.trust", f"the key is enrolled in {groups}")
    elif vouched is not None:
        log.skipped("vtpm.ak.trust", "taken on the caller's word, for this time only")
    elif anchors:
        names = ", ".join(anchor.label for anchor in anchors)
        log.passed("vtpm.ak.trust", f"the key's certificate chains to {names}")
    else:
        _note_untrusted(quote.ak, certified, log)
    return KeyTrust(
        trusted=bool(enrolled or anchors) or vouched is not None,
        public=_public_area(quote.ak, enrolled, vouched),
        values=_pinned(anchors),
        scoped=_scoped(enrolled, anchors),
        trusted_in=_trusted_in(enrolled, anchors, vouched),
    )


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
    wrong = [f"{flag.name} not set" for flag in REQUIRED if not public.has(flag)]
    wrong += [f"{flag.name} set" for flag in FORBIDDEN if public.has(flag)]
    if not wrong:
        log.passed(check, "a restricted signing key that cannot leave its TPM")
        return
    log.failed(
        check,
        "a key with these attributes can sign a forged quote, or leave its TPM",
        got=", ".join(wrong),
        expected=", ".join(str(flag.name) for flag in REQUIRED) + ", not DECRYPT",
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


def _enrolled(ak: AttestationKey, trust: Trust) -> tuple[EnrolledKey, ...]:
    if ak.public is not None:
        return tuple(
            key
            for key in trust.enrolled_keys.get(ak.public.name, ())
            if key.name == ak.public.name
        )
    return tuple(
        key
        for keys in trust.enrolled_keys.values()
        for key in keys
        if _spki_of_enrolled(key.public, key.name) == ak.spki
    )


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


def _pinned(anchors: tuple[Anchor, ...]) -> dict[str, ClaimValue]:
    # Pinned roots have capitals and spaces in their names, which no registered CA's
    # name can have, so a policy that names a tenant's own CA never means a root.
    names = [anchor.name for anchor in anchors if anchor.tenant is None]
    return {"vtpm.ak.ca": names[0]} if names else {}


def _scoped(
    enrolled: tuple[EnrolledKey, ...], anchors: tuple[Anchor, ...]
) -> dict[str, dict[str, ClaimValue]]:
    scoped: dict[str, dict[str, ClaimValue]] = {}
    # A key that is enrolled twice in a tenant keeps its first group there.
    for key in enrolled:
        scoped.setdefault(key.tenant, {}).setdefault("vtpm.ak.group", key.group)
    for anchor in anchors:
        if anchor.tenant is not None:
            members = scoped.setdefault(anchor.tenant, {})
            members.setdefault("vtpm.ak.ca", anchor.name)
    return scoped


def _trusted_in(
    enrolled: tuple[EnrolledKey, ...],
    anchors: tuple[Anchor, ...],
    vouched: AttestationKey | None,
) -> frozenset[str] | None:
    if vouched is not None or any(anchor.tenant is None for anchor in anchors):
        return None
    tenants = {key.tenant for key in enrolled}
    tenants.update(anchor.tenant for anchor in anchors if anchor.tenant is not None)
    return frozenset(tenants)
