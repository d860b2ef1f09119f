"""What the verifiers of all families share: the parsed item, the context, the result.

Four verbs, four types: `parse` turns an item into a `ParsedItem` without trust;
`verify` runs every check and returns an `ItemResult`; its `claims` exist only when
no check failed and none was left unchecked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Protocol

from cryptography import x509
from cryptography.x509 import ocsp

from kbs.core.checks import Check
from kbs.core.claims import ClaimSpec, ItemClaims
from kbs.pki.issuers import IssuerKey, Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledKey:
    """An attestation key that a signed statement made trusted in one tenant's group.

    `name` is the TPM name (u16 algorithm and digest), `public` the TPM2B_PUBLIC.
    """

    tenant: str
    group: str
    name: bytes
    public: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedCA:
    """A certification authority that a signed statement registered for one purpose."""

    tenant: str
    name: str
    purpose: str
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorDocument:
    """A document that its vendor signed and that is no certificate, like a TCB info.

    `data` are the bytes as they came, `content` what the family that knows the `kind`
    read from them; it says when its vendor issued it and until when it stands.
    """

    kind: str
    subject: str
    begins: datetime
    ends: datetime
    data: bytes = field(repr=False)
    content: object = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class StoredRim:
    """A reference integrity manifest, and the id that it was fetched under if known.

    The document proves itself; nobody vouches for the id. `digest` is its SHA-256,
    by which what was found of it is remembered.
    """

    document: bytes
    rim_id: str | None = None
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Compute the digest once, however often the manifest is looked at."""
        object.__setattr__(self, "digest", hashlib.sha256(self.document).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """A service (or CCA platforms) whose tokens count, with its pinned keys.

    `issuer` is the `iss` of its tokens, `audience` the only `aud` that they may have.
    `roots` are pins (hex SHA-256 of a SubjectPublicKeyInfo) for chains inside tokens.
    `tenant` is None for keys that somebody vouches for at the command line, for one
    verification; then `issuer` may be None too, and stands for any.
    """

    tenant: str | None
    name: str
    profile: Profile
    issuer: str | None = None
    audience: str | None = None
    keys: tuple[IssuerKey, ...] = ()
    roots: frozenset[str] = frozenset()


class Collateral(Protocol):
    """What of vendors is to hand: certificates, status, documents, manifests.

    It carries no trust.

    Implementations answer from memory or a local table; nothing here fetches.
    """

    def certificates(self) -> tuple[x509.Certificate, ...]:
        """Return every certificate known."""
        ...

    def revocation_lists(self) -> tuple[x509.CertificateRevocationList, ...]:
        """Return every revocation list known."""
        ...

    def documents(self) -> tuple[VendorDocument, ...]:
        """Return every vendor's document known."""
        ...

    def ocsp_answers(self, serial: int) -> tuple[ocsp.OCSPResponse, ...]:
        """Return every OCSP answer about certificates with this serial number."""
        ...

    def rims(self) -> tuple[StoredRim, ...]:
        """Return every reference integrity manifest known."""
        ...


@dataclass(frozen=True, slots=True)
class GivenCollateral:
    """Collateral that lies in memory."""

    given_certificates: tuple[x509.Certificate, ...] = ()
    given_revocation_lists: tuple[x509.CertificateRevocationList, ...] = ()
    _: KW_ONLY
    given_documents: tuple[VendorDocument, ...] = ()
    given_ocsp_answers: tuple[ocsp.OCSPResponse, ...] = ()
    given_rims: tuple[StoredRim, ...] = ()
    _answers: Mapping[int, tuple[ocsp.OCSPResponse, ...]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Sort the answers by serial number once: there is one a device and day."""
        answers: dict[int, tuple[ocsp.OCSPResponse, ...]] = {}
        for answer in self.given_ocsp_answers:
            for single in answer.responses:
                known = answers.get(single.serial_number, ())
                answers[single.serial_number] = (*known, answer)
        object.__setattr__(self, "_answers", answers)

    def certificates(self) -> tuple[x509.Certificate, ...]:
        """Return every certificate given."""
        return self.given_certificates

    def revocation_lists(self) -> tuple[x509.CertificateRevocationList, ...]:
        """Return every revocation list given."""
        return self.given_revocation_lists

    def documents(self) -> tuple[VendorDocument, ...]:
        """Return every document given."""
        return self.given_documents

    def ocsp_answers(self, serial: int) -> tuple[ocsp.OCSPResponse, ...]:
        """Return every OCSP answer given about certificates with this serial number."""
        return self._answers.get(serial, ())

    def rims(self) -> tuple[StoredRim, ...]:
        """Return every manifest given."""
        return self.given_rims

    def good_until(self, now: datetime) -> datetime | None:
        """Return when the first of these runs out that has not by now."""
        ends = [crl.next_update_utc for crl in self.given_revocation_lists]
        ends += [document.ends for document in self.given_documents]
        ends += [
            single.next_update_utc
            for answer in self.given_ocsp_answers
            for single in answer.responses
        ]
        return min((end for end in ends if end is not None and end > now), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Everything a verification may rely on besides the evidence itself.

    `require_revocation`: on the release path a missing or stale revocation list is
    `unchecked`; for recorded evidence it is `skipped`. `override_ak` is a key that
    the person at the command line vouches for, for this verification only.
    """

    now: datetime
    collateral: Collateral = field(default_factory=GivenCollateral)
    enrolled_keys: Mapping[bytes, tuple[EnrolledKey, ...]] = field(default_factory=dict)
    cas: tuple[TrustedCA, ...] = ()
    issuers: tuple[TrustedIssuer, ...] = ()
    require_revocation: bool = True
    recorded: bool = False
    """Evidence that somebody looks at, not evidence that asks for a key."""
    development: bool = False
    override_ak: bytes | None = None
    pinned_roots: Mapping[str, str] | None = None
    """SPKI SHA-256 (hex) to root name; None takes the shipped pins. Tests pass a
    fake vendor's root here; nothing in the service does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedItem:
    """One item of a bundle, parsed and not trusted.

    `core` are the bytes that enter the primary's device list (`binding.md`);
    `bound` is the field that must carry the binding, whole; `identity` names the
    device for the duplicate check where the item alone shows it.
    """

    kind: str
    index: int
    core: bytes
    bound: bytes
    body: object
    """The family's own frozen dataclass; only that family's verifier looks inside."""
    primary: bool = False
    """Whether it is a primary although not every item of its kind is one (tokens)."""
    bound_as: str | None = None
    """The kind in D, where it is not the item's own (tokens of GPU verifiers)."""
    beside: Mapping[str, bytes] = field(default_factory=dict)
    """Further signed fields of a primary that must fit the request where they are
    filled in: `recipient` (SubjectPublicKeyInfo in DER) and `challenge` (decoded)."""
    nonce: bytes | None = None
    """The field for a verifier's nonce, where that is another one than `bound`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """Every check of one item, and its claims when nothing failed or stayed open.

    `authenticated`: the signature over the item chains to a pinned root or a trusted
    attestation key, whatever the other checks say. `identities` are strings that
    name the device (`spki:<sha256>`, `chip:<hex>`, `ak:<name>`, `qn:<qualified name>`),
    for duplicates and the deny list: what evidence proves, never what only its sender
    says.
    """

    checks: tuple[Check, ...]
    claims: ItemClaims | None
    authenticated: bool
    identities: tuple[str, ...] = ()
    further_claims: tuple[ItemClaims, ...] = ()
    """Where one item speaks of several devices: the claims of all but the first."""


class Verifier(Protocol):
    """One evidence family."""

    @property
    def kind(self) -> str:
        """The `kind` of its items, which is also the family of its claims."""
        ...

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""
        ...

    @property
    def primary(self) -> bool:
        """Whether an item of this kind is a CPU report (a primary by itself)."""
        ...

    def parse(self, item: Mapping[str, object], index: int) -> ParsedItem:
        """Read the JSON item of a bundle.

        Raises:
            MalformedError: it lacks the promised shape.
        """
        ...

    def inspect(self, parsed: ParsedItem) -> Mapping[str, object]:
        """Return all parsed fields for people, nested, bytes as hex; nothing proven."""
        ...

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        """Run every check except binding; never raises for evidence that is wrong."""
        ...

    def bound_matches(self, parsed: ParsedItem, binding: bytes) -> bool:
        """Whether the bound field is exactly this 48-byte binding in the row's form."""
        ...
