"""Reading what an administrator registers into the content that gets signed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509

from kbs.broker.governance import Governance
from kbs.core.encode import parse_json
from kbs.core.errors import MalformedError
from kbs.core.ids import ScopedName
from kbs.evidence.vtpm.ak import FORBIDDEN, REQUIRED
from kbs.evidence.vtpm.public import parse_public
from kbs.governance.attestation_key import AttestationKey, parse_attestation_key
from kbs.governance.authority import parse_authority
from kbs.governance.contents import digest_of
from kbs.governance.objects import (
    MAX_OBJECT_BYTES,
    CertificationAuthority,
    measure_workload_policy,
    parse_ca,
    parse_deny,
    parse_reference_set,
)
from kbs.governance.statement import Kind
from kbs.governance.token_issuer import parse_token_issuer
from kbs.pki.chain import may_sign
from kbs.policy.parse import parse_release_policy


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes whose digest a statement carries, and what to warn of."""

    data: bytes
    warnings: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the bytes."""
        return digest_of(self.data)


BY_HAND = (
    "this key is enrolled by hand: nobody proved that it lives in a TPM; "
    "prefer `kbs guest enroll`"
)


class _Canonical(Protocol):
    def canonical(self) -> bytes: ...


def read_source(
    kind: Kind, source: bytes, *, subject: ScopedName, governance: Governance
) -> Content:
    """Validate a document as its kind and return its content.

    Raises:
        MalformedError: it is not what its kind must be.
    """
    if kind is Kind.RELEASE_POLICY:
        return _release_policy(source, subject, governance)
    if kind is Kind.WORKLOAD_POLICY:
        measure_workload_policy(source)
        return Content(source)
    if kind not in _PARSERS:
        raise MalformedError(
            f"kind {kind}", got="an object of it", expected="none in this release"
        )
    value = parse_json(source, str(kind), limit=MAX_OBJECT_BYTES)
    parsed = _PARSERS[kind](value)
    return Content(parsed.canonical(), _warnings(parsed))


def _release_policy(
    source: bytes, subject: ScopedName, governance: Governance
) -> Content:
    parsed = parse_release_policy(
        source, vocabulary=governance.vocabulary, what=f"policy {subject.name}"
    )
    named = ScopedName(parsed.policy.tenant, parsed.policy.name)
    if named != subject:
        raise MalformedError(
            "policy name",
            got=str(subject),
            expected=f"{named}, as `name` and `releases` say",
        )
    return Content(parsed.canonical, parsed.warnings)


def _warnings(parsed: object) -> tuple[str, ...]:
    if isinstance(parsed, AttestationKey):
        _check_attestation_key(parsed)
        if parsed.ek is None:
            return (BY_HAND,)
    if isinstance(parsed, CertificationAuthority):
        _check_ca(parsed)
    return ()


def _check_attestation_key(key: AttestationKey) -> None:
    public = parse_public(key.public)
    wrong = [f"{flag.name} not set" for flag in REQUIRED if not public.has(flag)]
    wrong += [f"{flag.name} set" for flag in FORBIDDEN if public.has(flag)]
    if wrong:
        raise MalformedError(
            "attestation key attributes",
            got=", ".join(wrong),
            expected=", ".join(str(flag.name) for flag in REQUIRED) + ", not DECRYPT",
            hint="a key with other attributes can sign a forged quote",
        )


def _check_ca(ca: CertificationAuthority) -> None:
    certificate = ca.certificate
    if not may_sign(certificate, "key_cert_sign"):
        raise MalformedError(
            "ca certificate", got="key usage without certSign", expected="a CA's"
        )
    # RFC 5280, section 4.2.1.9: without basic constraints it certifies nobody.
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as exc:
        raise MalformedError(
            "ca certificate", got="no basic constraints", expected="a CA's"
        ) from exc
    if not found.value.ca:
        raise MalformedError(
            "ca certificate", got="basic constraints without CA", expected="a CA's"
        )


_PARSERS: Mapping[Kind, Callable[[object], _Canonical]] = {
    Kind.REFERENCE_SET: parse_reference_set,
    Kind.AK: parse_attestation_key,
    Kind.CA: parse_ca,
    Kind.TOKEN_ISSUER: parse_token_issuer,
    Kind.DENY: parse_deny,
    Kind.AUTHORITY: parse_authority,
}
