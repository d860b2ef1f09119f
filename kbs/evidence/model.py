"""What the verifiers of all families share: the parsed item, the context, the result.

Four verbs, four types: `parse` turns an item into a `ParsedItem` without trust;
`verify` runs every check and returns an `ItemResult`; its `claims` exist only when
no check failed and none was left unchecked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from cryptography import x509

from kbs.core.checks import Check
from kbs.core.claims import ClaimSpec, ItemClaims


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


class Collateral(Protocol):
    """Certificates, lists and documents that are to hand; carries no trust.

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


@dataclass(frozen=True, slots=True)
class GivenCollateral:
    """Collateral that lies in memory."""

    given_certificates: tuple[x509.Certificate, ...] = ()
    given_revocation_lists: tuple[x509.CertificateRevocationList, ...] = ()
    given_documents: tuple[VendorDocument, ...] = ()

    def certificates(self) -> tuple[x509.Certificate, ...]:
        """Return every certificate given."""
        return self.given_certificates

    def revocation_lists(self) -> tuple[x509.CertificateRevocationList, ...]:
        """Return every revocation list given."""
        return self.given_revocation_lists

    def documents(self) -> tuple[VendorDocument, ...]:
        """Return every document given."""
        return self.given_documents

    def good_until(self, now: datetime) -> datetime | None:
        """Return when the first list or document runs out that has not by now."""
        ends = [crl.next_update_utc for crl in self.given_revocation_lists]
        ends += [document.ends for document in self.given_documents]
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
