"""Builds a chain from a leaf over unordered certificates to a pinned root (RFC 5280).

`cryptography.x509.verification` refuses AMD's certificates (RSA-PSS parameters, no
authority key identifier on the leaf), so path building and the checks of RFC 5280,
section 6.1, are done here; every signature is verified by `cryptography`.

Three outcomes are kept apart: a `Chain`, an `IssuerMissing` (fetch the certificate
and ask again, or take away some of too many) and a `ChainBroken` (the certificates are
there and do not hold). Dates are not part of building: see `out_of_date`. Name
constraints and policies do not occur below the pinned roots; a critical extension that
is not understood breaks the chain.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe, spki_sha256

MAX_DEPTH = 6
"""Certificates in a chain, leaf and root included; AMD's have 3, vTPMs' up to 4."""

MAX_SIGNATURES = 16
"""Signatures tried for one chain, so that a hostile pool cannot buy endless work."""

_STRONG_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_MIN_RSA_BITS = 2048
# The largest seen have 4096 bits and this exponent. Work grows with both: a signature
# by 16384 bits with an exponent of 64 keeps a thread as long as a whole release.
_MAX_RSA_BITS = 8192
_MAX_RSA_EXPONENT = 65537
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        # Names of the holder; no decision of ours hangs on them (TPM EK certificates).
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


@dataclass(frozen=True, slots=True)
class Chain:
    """Leaf first, trusted root last; every signature, name and constraint holds."""

    certificates: tuple[x509.Certificate, ...]
    root_name: str

    @property
    def root(self) -> x509.Certificate:
        """The certificate of the trusted root."""
        return self.certificates[-1]


@dataclass(frozen=True, slots=True)
class IssuerMissing:
    """A certificate that is needed is not to hand; nothing is known to be wrong."""

    detail: str


@dataclass(frozen=True, slots=True)
class ChainBroken:
    """The certificates that are to hand do not make a chain to a trusted root."""

    detail: str


@dataclass(slots=True)
class _Search:
    """What one search knows: where issuers may come from and what went wrong."""

    pool: Mapping[bytes, tuple[x509.Certificate, ...]]
    roots: Mapping[str, str]
    anchors: Collection[x509.Certificate]
    cache: LinkCache
    signatures_left: int = MAX_SIGNATURES
    exhausted: bool = False
    broken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def build_chain(
    leaf: x509.Certificate,
    pool: Iterable[x509.Certificate],
    *,
    roots: Mapping[str, str],
    anchors: Collection[x509.Certificate] = (),
    cache: LinkCache | None = None,
) -> Chain | IssuerMissing | ChainBroken:
    """Find issuers in `pool` until one is trusted; the leaf itself never is.

    `roots` are pins (SPKI SHA-256 in hex to name): such a certificate must be
    self-signed, since the pin vouches for its key only. `anchors` are whole
    certificates that someone registered, trusted as they are.
    """
    if not understands(leaf):
        return ChainBroken(f"{describe(leaf.subject)}: unknown critical extension")
    cache = cache if cache is not None else LinkCache()
    # A chain follows from its certificates and what is trusted alone: neither dates nor
    # revocation are part of it. It counts where all of them are to hand again, and
    # nothing that strangers sent beside it is kept.
    given = (*pool, *anchors)
    pins = frozenset(roots.items())
    known = cache.chains.find((leaf, *anchors), pins)
    if isinstance(known, Chain) and _are_among(known.certificates[1:], given):
        return known
    search = _Search(
        pool=_by_subject(given),
        roots=roots,
        anchors=anchors,
        cache=cache,
    )
    chain = _extend((leaf,), search)
    if chain is not None:
        cache.chains.keep((leaf, *anchors), pins, found=chain)
        return chain
    if search.exhausted:
        return IssuerMissing(
            f"more than {MAX_SIGNATURES} signatures to try among what is to hand"
        )
    if search.broken:
        return ChainBroken("; ".join(dict.fromkeys(search.broken))[:400])
    return IssuerMissing("; ".join(dict.fromkeys(search.missing))[:400])


def _are_among(
    wanted: Iterable[x509.Certificate], given: Collection[x509.Certificate]
) -> bool:
    # By identity: the same bytes are read into the same object while they are kept.
    held = set(map(id, given))
    return all(id(one) in held for one in wanted)


def out_of_date(
    certificates: Iterable[x509.Certificate], now: datetime
) -> tuple[str, ...]:
    """Say which certificates are not valid at `now`, and why; empty when all are."""
    complaints = []
    for certificate in certificates:
        begins = certificate.not_valid_before_utc
        ends = certificate.not_valid_after_utc
        if begins <= now <= ends:
            continue
        name = describe(certificate.subject)
        if now < begins:
            complaints.append(f"{name} is not valid before {begins.isoformat()}")
        if now > ends:
            complaints.append(f"{name} expired {ends.isoformat()}")
    return tuple(complaints)


def _by_subject(
    pool: Iterable[x509.Certificate],
) -> dict[bytes, tuple[x509.Certificate, ...]]:
    # Byte equality of the encoded names: stricter than RFC 5280, section 7.1, and
    # what every issuer here does.
    table: dict[bytes, tuple[x509.Certificate, ...]] = {}
    for certificate in pool:
        key = certificate.subject.public_bytes()
        known = table.get(key, ())
        if certificate not in known:
            table[key] = (*known, certificate)
    return table


def _extend(path: tuple[x509.Certificate, ...], search: _Search) -> Chain | None:
    last = path[-1]
    issuers = search.pool.get(last.issuer.public_bytes(), ())
    candidates = [
        issuer for issuer in issuers if issuer not in path and _may_issue(issuer, last)
    ]
    # Who is known to have signed it comes first, however many others share the name.
    candidates.sort(key=lambda issuer: not _is_known(last, issuer, search.cache))
    if not candidates:
        _note_dead_end(last, search)
        return None
    for issuer in candidates:
        problem = _problem_with(issuer, path, search)
        if problem is not None:
            search.broken.append(f"{describe(issuer.subject)}: {problem}")
            continue
        longer = (*path, issuer)
        name = _trusted_name(issuer, search)
        if name is not None:
            return Chain(longer, name)
        chain = _extend(longer, search)
        if chain is not None:
            return chain
    return None


def _is_known(
    issued: x509.Certificate, issuer: x509.Certificate, cache: LinkCache
) -> bool:
    return cache.holds(
        issued.fingerprint(hashes.SHA256()), issuer.fingerprint(hashes.SHA256())
    )


def _note_dead_end(last: x509.Certificate, search: _Search) -> None:
    if last.issuer == last.subject:
        search.broken.append(f"{describe(last.subject)} is no trusted root")
    else:
        search.missing.append(f"no certificate of {describe(last.issuer)} is to hand")


def _may_issue(issuer: x509.Certificate, issued: x509.Certificate) -> bool:
    # Where both name the key (RFC 5280, section 4.2.1.1), another key under the same
    # name is not the issuer at all, rather than an issuer whose signature is wrong.
    try:
        wanted = issued.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        given = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return True
    identifier = wanted.value.key_identifier
    return identifier is None or identifier == given.value.digest


def _problem_with(
    issuer: x509.Certificate, path: tuple[x509.Certificate, ...], search: _Search
) -> str | None:
    if len(path) >= MAX_DEPTH:
        return f"the chain is longer than {MAX_DEPTH} certificates"
    problem = _authority_problem(issuer, intermediates=len(path) - 1)
    if problem is not None:
        return problem
    if search.signatures_left <= 0:
        # Cut short, so nothing is known to be wrong.
        search.exhausted = True
        return f"more than {MAX_SIGNATURES} signatures to try"
    search.signatures_left -= 1
    if not is_issued_by(path[-1], issuer, search.cache):
        return f"did not sign {describe(path[-1].subject)}"
    return None


def _authority_problem(issuer: x509.Certificate, *, intermediates: int) -> str | None:
    extensions = issuer.extensions
    try:
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return "no basic constraints"
    if not basic.ca:
        return "not a certification authority"
    if basic.path_length is not None and intermediates > basic.path_length:
        return f"path length {basic.path_length} is exceeded"
    if not may_sign(issuer, "key_cert_sign"):
        return "key usage does not allow signing certificates"
    if not understands(issuer):
        return "unknown critical extension"
    return None


def may_sign(issuer: x509.Certificate, usage: str) -> bool:
    """Whether key usage, where present, allows `key_cert_sign` or `crl_sign`."""
    try:
        extension = issuer.extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        return True
    return bool(getattr(extension.value, usage))


def understands(certificate: x509.Certificate) -> bool:
    """Whether every critical extension is one whose meaning is heeded here."""
    return all(
        extension.oid in _UNDERSTOOD
        for extension in certificate.extensions
        if extension.critical
    )


def _trusted_name(issuer: x509.Certificate, search: _Search) -> str | None:
    if issuer in search.anchors:
        return describe(issuer.subject)
    name = search.roots.get(spki_sha256(issuer))
    # The pin vouches for the key; the key vouches for the certificate's fields.
    if name is None or not is_issued_by(issuer, issuer, search.cache):
        return None
    return name


def is_issued_by(
    issued: x509.Certificate, issuer: x509.Certificate, cache: LinkCache
) -> bool:
    """Whether name and signature of `issued` are `issuer`'s, and strong."""
    left = issued.fingerprint(hashes.SHA256())
    right = issuer.fingerprint(hashes.SHA256())
    if cache.holds(left, right):
        return True
    try:
        if not is_strong(issued.signature_hash_algorithm, issuer):
            return False
        issued.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    cache.remember(left, right)
    return True


def is_strong(algorithm: hashes.HashAlgorithm | None, issuer: x509.Certificate) -> bool:
    """Whether a signature with this hash by this issuer's key is strong enough.

    Nor is it one that takes long to verify: strangers choose the key.
    """
    key = issuer.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
            return False
        if key.public_numbers().e > _MAX_RSA_EXPONENT:
            return False
    elif not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    return isinstance(algorithm, _STRONG_HASHES)
