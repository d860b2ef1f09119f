"""Attestation documents of the Nitro system: bytes to fields; nothing is trusted.

AWS, aws-nitro-enclaves-nsm-api, docs/attestation_process.md, sections 2.2 and 3.2
(enclaves); Amazon EC2 User Guide, "Validate a NitroTPM Attestation Document" (NitroTPM:
the same document, with `nitrotpm_pcrs` in place of `pcrs`).

A document is a COSE_Sign1 with ES384 around a CBOR map. Some encoders end the map with
a break and write null for a member that is absent; both are signed as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.core.cbor import parse_cbor
from kbs.core.errors import MalformedError
from kbs.pki.certificates import load_der_certificate
from kbs.pki.cose import CoseAlgorithm, Sign1, parse_sign1

# Section 3.1: a payload of at most 16384 bytes, and what COSE puts around it.
MAX_PAYLOAD = 16384
MAX_DOCUMENT = MAX_PAYLOAD + 512
# Section 2.2: cert = bytes .size (1..1024), user_data = bytes .size (0..1024).
MAX_CERTIFICATE = 1024
MAX_FREE = 1024
MAX_PCRS = 32
# Section 3.2.2.2: SHA384 is the only digest, and a register has its size.
DIGEST = "SHA384"
PCR_BYTES = 48
# AWS's bundles have 4 certificates.
MAX_BUNDLE = 8
_MAX_MODULE_ID = 256

ENCLAVE = "nitro"
TPM = "nitrotpm"
REGISTERS: Mapping[str, str] = {ENCLAVE: "pcrs", TPM: "nitrotpm_pcrs"}
"""Kind of the evidence to the member that holds its registers."""

_REQUIRED = frozenset({"module_id", "timestamp", "digest", "certificate", "cabundle"})
_FREE = ("public_key", "user_data", "nonce")
_BEGINNING = bytes.fromhex("8444a1013822")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Every field, by the specification's names; `kind` follows from the registers."""

    raw: bytes
    message: Sign1
    kind: str
    module_id: str
    timestamp: datetime
    pcrs: Mapping[int, bytes]
    certificate: x509.Certificate
    cabundle: tuple[x509.Certificate, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None


def parse_document(raw: bytes) -> Document:
    """Read a signed attestation document of an enclave or a NitroTPM.

    Raises:
        MalformedError: no COSE_Sign1 with ES384, or a member that AWS does not allow.
    """
    message = parse_sign1(raw, "nitro document", limit=MAX_DOCUMENT)
    if message.algorithm is not CoseAlgorithm.ES384:
        raise MalformedError(
            "nitro document algorithm", got=message.algorithm.name, expected="ES384"
        )
    if message.unprotected:
        raise MalformedError(
            "nitro document unprotected header",
            got=_listed(message.unprotected),
            expected="an empty one: nobody signs it",
        )
    members = _members(message.payload)
    kind = _kind(members)
    _check_digest(members["digest"])
    return Document(
        raw=raw,
        message=message,
        kind=kind,
        module_id=_module_id(members["module_id"]),
        timestamp=_timestamp(members["timestamp"]),
        pcrs=_pcrs(members[REGISTERS[kind]]),
        certificate=_signer(members["certificate"]),
        cabundle=_bundle(members["cabundle"]),
        public_key=_free(members, "public_key", least=1),
        user_data=_free(members, "user_data"),
        nonce=_free(members, "nonce"),
    )


def kind_of(raw: bytes) -> str | None:
    """Return `nitro` or `nitrotpm` for what is an attestation document, else None."""
    try:
        return parse_document(raw).kind
    except MalformedError:
        # Damaged, but nothing else begins like this: an array of 4, ES384, no tag.
        return ENCLAVE if raw.startswith(_BEGINNING) else None


def _members(payload: bytes) -> Mapping[object, object]:
    value = parse_cbor(payload, "nitro payload", limit=MAX_PAYLOAD, indefinite=True)
    if not isinstance(value, dict):
        raise MalformedError(
            "nitro payload", got=type(value).__name__, expected="a map"
        )
    missing = _REQUIRED - value.keys()
    unknown = value.keys() - _REQUIRED - {*_FREE, *REGISTERS.values()}
    if missing or unknown:
        raise MalformedError(
            "nitro payload",
            got=f"missing {_listed(missing)}, unknown {_listed(unknown)}",
            expected="the members of an attestation document",
        )
    return value


def _kind(members: Mapping[object, object]) -> str:
    kinds = [kind for kind, name in REGISTERS.items() if name in members]
    if len(kinds) != 1:
        raise MalformedError(
            "nitro registers",
            got=_listed(REGISTERS[kind] for kind in kinds),
            expected="either " + " or ".join(REGISTERS.values()),
        )
    return kinds[0]


def _check_digest(value: object) -> None:
    if value != DIGEST:
        raise MalformedError("nitro digest", got=repr(value)[:40], expected=DIGEST)


def _module_id(value: object) -> str:
    if (
        isinstance(value, str)
        and 0 < len(value) <= _MAX_MODULE_ID
        and value.isascii()
        and value.isprintable()
    ):
        return value
    raise MalformedError(
        "nitro module_id", got=repr(value)[:80], expected="printable ASCII"
    )


def _timestamp(value: object) -> datetime:
    expected = "milliseconds since 1970, over 0"
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise MalformedError("nitro timestamp", got=repr(value)[:40], expected=expected)
    try:
        return _EPOCH + timedelta(milliseconds=value)
    except OverflowError as exc:
        raise MalformedError(
            "nitro timestamp", got=str(value), expected=expected
        ) from exc


def _pcrs(value: object) -> Mapping[int, bytes]:
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_PCRS:
        raise MalformedError(
            "nitro registers",
            got=type(value).__name__,
            expected=f"a map of 1 to {MAX_PCRS}",
        )
    pcrs: dict[int, bytes] = {}
    for index, content in value.items():
        if not isinstance(index, int) or not 0 <= index < MAX_PCRS:
            raise MalformedError(
                "nitro register index", got=repr(index)[:40], expected="0 to 31"
            )
        what = f"nitro register {index}"
        pcrs[index] = _octets(content, what, least=PCR_BYTES, most=PCR_BYTES)
    return dict(sorted(pcrs.items()))


def _bundle(value: object) -> tuple[x509.Certificate, ...]:
    listed = [] if value is None else value
    if not isinstance(listed, list) or len(listed) > MAX_BUNDLE:
        raise MalformedError(
            "nitro cabundle",
            got=type(value).__name__,
            expected=f"a list of at most {MAX_BUNDLE} certificates",
        )
    return tuple(
        _certificate(one, f"nitro cabundle[{index}]")
        for index, one in enumerate(listed)
    )


def _signer(value: object) -> x509.Certificate:
    certificate = _certificate(value, "nitro certificate")
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedError(
            "nitro certificate key", got=str(exc)[:80], expected="a P-384 key"
        ) from exc
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp384r1":
        return certificate
    raise MalformedError(
        "nitro certificate key", got=type(key).__name__, expected="a P-384 key"
    )


def _certificate(value: object, what: str) -> x509.Certificate:
    return load_der_certificate(
        _octets(value, what, least=1, most=MAX_CERTIFICATE), what
    )


def _free(
    members: Mapping[object, object], name: str, *, least: int = 0
) -> bytes | None:
    value = members.get(name)
    if value is None:
        return None
    return _octets(value, f"nitro {name}", least=least, most=MAX_FREE)


def _octets(value: object, what: str, *, least: int, most: int) -> bytes:
    if isinstance(value, bytes) and least <= len(value) <= most:
        return value
    got = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
    sizes = f"{most}" if least == most else f"{least} to {most}"
    raise MalformedError(what, got=got, expected=f"a string of {sizes} bytes")


def _listed(names: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, names)))[:120] or "none"
