"""The `vtpm` item of a bundle, and the same from loose files; parsed, not trusted.

`{"kind": "vtpm", "quote": {"message", "signature"}, "pcrs", "ak"}` and, where the
guest has them, `ak_certificates` and `event_log`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs.core.encode import (
    b64,
    parse_b64,
    require_list,
    require_members,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.evidence.model import ParsedItem
from kbs.evidence.vtpm.abi import (
    MAX_MESSAGE,
    MAX_SIGNATURE,
    Attest,
    Signature,
    parse_attest,
    parse_signature,
    serialize_signature,
)
from kbs.evidence.vtpm.algorithms import CURVES, Algorithm, digest
from kbs.evidence.vtpm.eventlog import MAX_LOG, EventLog, parse_event_log
from kbs.evidence.vtpm.pcrs import PcrValues, parse_pcr_file, parse_pcrs, pcrs_to_json
from kbs.evidence.vtpm.public import (
    DEFAULT_EXPONENT,
    RSA_BITS,
    PublicKey,
    TpmPublic,
    parse_public,
    spki_of,
)
from kbs.pki.certificates import MAX_CERTIFICATE_BYTES, load_certificates

KIND = "vtpm"
MAX_KEY = 4096
MAX_CERTIFICATES = 8

_PEM_MARK = "-----BEGIN"
_PEM_KEY = "-----BEGIN PUBLIC KEY-----"
# X.690, section 8.9: SEQUENCE, constructed, which SubjectPublicKeyInfo starts with.
_DER_SEQUENCE = 0x30


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationKey:
    """The key beside a quote; `public` only if it came as TPM2B_PUBLIC."""

    key: PublicKey
    spki: bytes
    public: TpmPublic | None

    @property
    def spki_sha256(self) -> bytes:
        """The digest of the key's SubjectPublicKeyInfo."""
        return digest(hashes.SHA256(), self.spki)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmQuote:
    """Everything in one `vtpm` item."""

    message: bytes
    attest: Attest
    signature: Signature
    pcrs: PcrValues
    ak: AttestationKey
    certificates: tuple[x509.Certificate, ...]
    event_log: EventLog | None


def parse_item(item: Mapping[str, object], index: int) -> ParsedItem:
    """Read the JSON item.

    Raises:
        MalformedError: it lacks the promised shape.
    """
    members = require_members(
        dict(item),
        f"item {index}",
        required={"kind", "quote", "pcrs", "ak"},
        optional={"ak_certificates", "event_log"},
    )
    if members["kind"] != KIND:
        raise MalformedError(
            f"item {index} kind", got=repr(members["kind"])[:40], expected=KIND
        )
    quote = require_members(
        members["quote"], "quote", required={"message", "signature"}
    )
    message = parse_b64(quote["message"], "quote message", limit=MAX_MESSAGE)
    signature = parse_b64(quote["signature"], "quote signature", limit=MAX_SIGNATURE)
    body = TpmQuote(
        message=message,
        attest=parse_attest(message),
        signature=parse_signature(signature),
        pcrs=parse_pcrs(members["pcrs"]),
        ak=_parse_ak(members["ak"]),
        certificates=_parse_certificates(members.get("ak_certificates", [])),
        event_log=_parse_log(members.get("event_log")),
    )
    return ParsedItem(
        kind=KIND,
        index=index,
        core=core_of(message, body.ak),
        bound=body.attest.extra_data,
        body=body,
    )


def quote_of(parsed: ParsedItem) -> TpmQuote:
    """Return what `parse_item` put into an item; another family's is a mistake."""
    if not isinstance(parsed.body, TpmQuote):
        message = f"item {parsed.index} was not parsed by the vtpm family"
        raise TypeError(message)
    return parsed.body


def core_of(message: bytes, ak: AttestationKey) -> bytes:
    """Return what stands for this item in the primary's device list."""
    return len(message).to_bytes(4, "big") + message + ak.spki_sha256


def item_from_files(
    message: bytes,
    signature: bytes,
    pcrs: bytes,
    ak: bytes,
    event_log: bytes | None = None,
) -> dict[str, object]:
    """Make a bundle's item from loose files.

    The signature may be a TPMT_SIGNATURE or a raw RSA signature, taken as RSASSA
    with SHA-256; PCRs are JSON or what tpm2-tools writes; the key is a TPM2B_PUBLIC,
    PEM, or DER.

    Raises:
        MalformedError: a file has none of its accepted forms.
    """
    key = load_ak(ak)
    item: dict[str, object] = {
        "kind": KIND,
        "quote": {
            "message": b64(message),
            "signature": b64(_structured(signature, key.key)),
        },
        "pcrs": pcrs_to_json(parse_pcr_file(pcrs)),
        "ak": b64(ak) if key.public is not None else pem_of(key.key),
    }
    if event_log is not None:
        item["event_log"] = b64(event_log)
    return item


def load_ak(data: bytes) -> AttestationKey:
    """Read a key from TPM2B_PUBLIC, PEM, or DER SubjectPublicKeyInfo.

    Raises:
        MalformedError: none of these, or no RSA, P-256 or P-384 key.
    """
    if data.startswith(_PEM_MARK.encode()):
        return _plain_key(_load_pem(data))
    if data[:1] == bytes([_DER_SEQUENCE]):
        return _plain_key(_load_der(data))
    public = parse_public(data)
    return AttestationKey(key=public.key, spki=public.spki, public=public)


def pem_of(key: PublicKey) -> str:
    """Return a key as PEM."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode("ascii")


def _structured(signature: bytes, key: PublicKey) -> bytes:
    # A TPMT_SIGNATURE is six bytes longer than the RSA signature in it, so the length
    # tells the two apart.
    if isinstance(key, rsa.RSAPublicKey) and len(signature) * 8 == key.key_size:
        raw = Signature(
            scheme=Algorithm.RSASSA, hash=Algorithm.SHA256, values=(signature,)
        )
        return serialize_signature(raw)
    return signature


def _parse_ak(value: object) -> AttestationKey:
    text = require_text(value, "ak", limit=2 * MAX_KEY)
    if text.startswith(_PEM_MARK):
        return load_ak(_ascii(text, "ak"))
    return load_ak(parse_b64(text, "ak", limit=MAX_KEY))


def _load_pem(data: bytes) -> object:
    if not data.startswith(_PEM_KEY.encode()):
        raise MalformedError("ak", got="PEM of another kind", expected=_PEM_KEY)
    try:
        return serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedError("ak", got="unreadable PEM", expected=_PEM_KEY) from exc


def _load_der(data: bytes) -> object:
    try:
        return serialization.load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedError(
            "ak", got="unreadable DER", expected="SubjectPublicKeyInfo"
        ) from exc


def _plain_key(key: object) -> AttestationKey:
    if isinstance(key, rsa.RSAPublicKey) and _is_tpm_rsa(key):
        return AttestationKey(key=key, spki=spki_of(key), public=None)
    curves = {curve.name for curve in CURVES.values()}
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in curves:
        return AttestationKey(key=key, spki=spki_of(key), public=None)
    raise MalformedError(
        "ak",
        got=type(key).__name__,
        expected="RSA of 2048, 3072 or 4096 bits with e 65537, NIST P-256 or P-384",
    )


def _is_tpm_rsa(key: rsa.RSAPublicKey) -> bool:
    # Another exponent could make one verification cost as much as thousands.
    return key.key_size in RSA_BITS and key.public_numbers().e == DEFAULT_EXPONENT


def _parse_certificates(value: object) -> tuple[x509.Certificate, ...]:
    entries = require_list(value, "ak_certificates", limit=MAX_CERTIFICATES)
    return tuple(
        certificate
        for entry in entries
        for certificate in _certificates_in(entry, "ak_certificates")
    )


def _certificates_in(value: object, what: str) -> tuple[x509.Certificate, ...]:
    text = require_text(value, what, limit=16 * MAX_CERTIFICATE_BYTES)
    if text.startswith(_PEM_MARK):
        return load_certificates(_ascii(text, what), what, most=MAX_CERTIFICATES)
    data = parse_b64(text, what, limit=MAX_CERTIFICATE_BYTES)
    return load_certificates(data, what, most=1)


def _ascii(text: str, what: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as exc:
        raise MalformedError(what, got="PEM that is not ASCII") from exc


def _parse_log(value: object) -> EventLog | None:
    if value is None:
        return None
    return parse_event_log(parse_b64(value, "event_log", limit=MAX_LOG))
