"""The verifier of Nitro attestation documents.

Every check whose inputs are to hand is made; none stops at the first that fails:

1. `nitro.document.signature`  the document is signed by its own certificate (ES384)
2. `nitro.certificate`         which may sign, and is no authority's
3. `nitro.chain`               and chains to the pinned AWS root
4. `nitro.validity`            every certificate of the chain is valid at the given time
5. `nitro.revocation`          none is on a list of its issuer that is to hand

For a NitroTPM the names begin with `nitrotpm`. Left out on purpose: debug mode and the
registers are claims for a policy; how old the document is, since the challenge in it
says more than its clock (a leaf lives for three hours); binding is compared by the
caller through `bound_matches` and `beside`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from cryptography import x509

from kbs.core.checks import Check, CheckLog, Status, Verdict, verdict
from kbs.core.claims import ClaimSpec, ItemClaims
from kbs.core.clock import format_time
from kbs.core.encode import parse_b64, require_members
from kbs.core.errors import MalformedError
from kbs.evidence.model import ItemResult, ParsedItem, Trust
from kbs.evidence.nitro.claims import claim_specs, claims_of
from kbs.evidence.nitro.document import (
    DIGEST,
    ENCLAVE,
    MAX_DOCUMENT,
    Document,
    parse_document,
)
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe, spki_sha256
from kbs.pki.chain import Chain, ChainBroken, IssuerMissing, build_chain, out_of_date
from kbs.pki.cose import is_sign1_signed
from kbs.pki.crl import standing
from kbs.pki.roots import Purpose, pinned_roots

_BINDING_BYTES = 48
_CHECKS = (
    "nitro.document.signature",
    "nitro.certificate",
    "nitro.chain",
    "nitro.validity",
    "nitro.revocation",
    "nitrotpm.document.signature",
    "nitrotpm.certificate",
    "nitrotpm.chain",
    "nitrotpm.validity",
    "nitrotpm.revocation",
)


@dataclass(frozen=True, slots=True)
class _Case:
    """One verification: its inputs, and the log that the checks fill."""

    kind: str
    document: Document
    trust: Trust
    log: CheckLog

    def name(self, check: str) -> str:
        return _CHECKS[_CHECKS.index(f"{self.kind}.{check}")]


class NitroVerifier:
    """Verifies documents of enclaves (`nitro`), or of NitroTPMs (`nitrotpm`)."""

    def __init__(self, kind: str = ENCLAVE, cache: LinkCache | None = None) -> None:
        """Use the given cache of good certificate signatures, or one of its own."""
        self._kind = kind
        self._vocabulary = claim_specs(kind)
        self._cache = cache if cache is not None else LinkCache()

    @property
    def kind(self) -> str:
        """The `kind` of its items, which is also the family of its claims."""
        return self._kind

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""
        return self._vocabulary

    @property
    def primary(self) -> bool:
        """The document is signed by the hypervisor: a primary by itself."""
        return True

    def parse(self, item: Mapping[str, object], index: int) -> ParsedItem:
        """Read the JSON item: `{"kind", "document": b64}`.

        Raises:
            MalformedError: a member or the document is malformed, or of another kind.
        """
        members = require_members(
            dict(item), f"{self._kind} item", required={"kind", "document"}
        )
        raw = parse_b64(
            members["document"], f"{self._kind} document", limit=MAX_DOCUMENT
        )
        document = parse_document(raw)
        if members["kind"] != self._kind or document.kind != self._kind:
            raise MalformedError(
                "item kind",
                got=f"a {document.kind} document in {members['kind']!r}"[:80],
                expected=self._kind,
            )
        beside = {"recipient": document.public_key, "challenge": document.nonce}
        return ParsedItem(
            kind=self._kind,
            index=index,
            core=raw,
            bound=document.user_data or b"",
            body=document,
            beside={name: value for name, value in beside.items() if value is not None},
            nonce=document.nonce,
        )

    def inspect(self, parsed: ParsedItem) -> Mapping[str, object]:
        """Return all parsed fields for people; nothing in it is proven."""
        document = _body(parsed)
        return {
            "module_id": document.module_id,
            "digest": DIGEST,
            "timestamp": format_time(document.timestamp),
            "pcrs": {str(n): value.hex() for n, value in document.pcrs.items()},
            "public_key": _hex(document.public_key),
            "user_data": _hex(document.user_data),
            "nonce": _hex(document.nonce),
            "certificate": {
                **_inspect(document.certificate),
                "spki_sha256": spki_sha256(document.certificate),
            },
            "cabundle": [_inspect(one) for one in document.cabundle],
            "signature": document.message.signature.hex(),
        }

    def bound_matches(self, parsed: ParsedItem, binding: bytes) -> bool:
        """Whether user_data is exactly this 48-byte binding."""
        return len(binding) == _BINDING_BYTES and parsed.bound == binding

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        """Run the five checks; evidence that is wrong gives checks that say so."""
        case = _Case(self._kind, _body(parsed), trust, CheckLog(parsed.index))
        _check_signature(case)
        _check_certificate(case)
        chain = self._check_chain(case)
        _check_validity(case, chain)
        self._check_revocation(case, chain)
        checks = case.log.checks
        return ItemResult(
            checks=checks,
            claims=_claims(case.document, checks, parsed.index),
            authenticated=all(
                case.log.status_of(case.name(check)) is Status.PASS
                for check in ("document.signature", "certificate", "chain")
            ),
            identities=(f"spki:{spki_sha256(case.document.certificate)}",),
        )

    def _check_chain(self, case: _Case) -> Chain | None:
        document, name = case.document, case.name("chain")
        outcome = build_chain(
            document.certificate,
            (*document.cabundle, *case.trust.collateral.certificates()),
            roots=pinned_roots(Purpose.NITRO, case.trust.pinned_roots),
            cache=self._cache,
        )
        if isinstance(outcome, IssuerMissing):
            case.log.unchecked(name, outcome.detail)
            return None
        if isinstance(outcome, ChainBroken):
            case.log.failed(name, outcome.detail)
            return None
        leaf = describe(document.certificate.subject)
        case.log.passed(name, f"{leaf} chains to {outcome.root_name}")
        return outcome

    def _check_revocation(self, case: _Case, chain: Chain | None) -> None:
        name = case.name("revocation")
        if chain is None:
            case.log.unchecked(name, "there is no chain to look up")
            return
        lists = case.trust.collateral.revocation_lists()
        found = [
            standing((one,), issuer, lists, now=case.trust.now, cache=self._cache)
            for one, issuer in pairwise(chain.certificates)
        ]
        revoked = [subject for one in found for subject in one.revoked]
        if revoked:
            case.log.failed(name, f"revoked: {', '.join(revoked)}")
        else:
            # AWS, attestation_process.md, section 3.2.4: "We do not use CRL, so it must
            # be disabled"; the leaf lives for hours, its issuers for days.
            case.log.skipped(name, "AWS revokes by expiry, not by lists")


def _check_signature(case: _Case) -> None:
    name, leaf = case.name("document.signature"), case.document.certificate
    fingerprint = spki_sha256(leaf)[:16]
    if is_sign1_signed(case.document.message, leaf.public_key()):
        case.log.passed(name, f"ES384 by {describe(leaf.subject)} {fingerprint}")
    else:
        case.log.failed(
            name,
            f"the document does not verify under {describe(leaf.subject)} "
            f"{fingerprint}",
        )


def _check_certificate(case: _Case) -> None:
    # AWS, attestation_process.md, section 3.2.3.3: the target certificate.
    name, extensions = case.name("certificate"), case.document.certificate.extensions
    try:
        is_ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        signs = usage.digital_signature and not usage.key_cert_sign
    except x509.ExtensionNotFound:
        signs = False
    if signs and not is_ca:
        case.log.passed(name, "an end entity with key usage digitalSignature")
    else:
        case.log.failed(
            name,
            "the certificate is not for signing documents",
            got="a CA's certificate"
            if is_ca
            else "no key usage digitalSignature alone",
            expected="an end entity with key usage digitalSignature",
        )


def _check_validity(case: _Case, chain: Chain | None) -> None:
    name, now = case.name("validity"), case.trust.now
    certificates = chain.certificates if chain else (case.document.certificate,)
    complaints = out_of_date(certificates, now)
    if complaints:
        case.log.failed(name, "; ".join(complaints), got=now.isoformat())
    elif chain is None:
        case.log.unchecked(name, "the signing certificate is valid; there is no chain")
    else:
        case.log.passed(name, f"all certificates are valid at {now.isoformat()}")


def _claims(
    document: Document, checks: tuple[Check, ...], index: int
) -> ItemClaims | None:
    if verdict(checks) is not Verdict.VERIFIED:
        return None
    return ItemClaims(family=document.kind, item=index, values=claims_of(document))


def _body(parsed: ParsedItem) -> Document:
    if not isinstance(parsed.body, Document):
        message = f"an item of kind {parsed.kind} was given to a nitro verifier"
        raise TypeError(message)
    return parsed.body


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _inspect(certificate: x509.Certificate) -> dict[str, object]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "not_before": format_time(certificate.not_valid_before_utc),
        "not_after": format_time(certificate.not_valid_after_utc),
    }
