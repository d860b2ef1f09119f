"""A fake AWS: its root, its regional, zonal and instance authorities, and documents.

It signs for real, in the shapes of the real one; the structure of a document is
written down here a second time.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from kbs.core.encode import b64

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
PCRS = {index: bytes([index + 1]) * 48 for index in range(16)}
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"

_HEADER = cbor2.dumps({1: -35})
_NAMES = (
    "aws.nitro-enclaves",
    "fake.us-east-1.aws.nitro-enclaves",
    "fake.zonal.us-east-1.aws.nitro-enclaves",
    "i-0123456789abcdef0.us-east-1.aws.nitro-enclaves",
)


class FakeNitro:
    """One partition of it, with the four authorities of the real one."""

    def __init__(self) -> None:
        """Make every key and certificate."""
        self.keys = [ec.generate_private_key(ec.SECP384R1()) for _ in _NAMES]
        self.leaf_key = ec.generate_private_key(ec.SECP384R1())
        self.authorities = [
            self.certify(
                self.keys[index].public_key(),
                name,
                issuer=max(index - 1, 0),
                ca=True,
                path_length=None if index == 0 else len(_NAMES) - 1 - index,
            )
            for index, name in enumerate(_NAMES)
        ]
        self.leaf = self.certify(self.leaf_key.public_key(), MODULE_ID)

    @property
    def pins(self) -> dict[str, str]:
        """The root as `Trust.pinned_roots` takes it."""
        key = self.keys[0].public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {hashlib.sha256(spki).hexdigest(): "AWS Nitro, fake"}

    def certify(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        *,
        issuer: int = -1,
        ca: bool = False,
        path_length: int | None = None,
        signs: bool = True,
        usage: bool = True,
        constraints: bool = True,
        until: datetime = NOW + timedelta(hours=3),
    ) -> x509.Certificate:
        """Issue a certificate by one of the authorities; the last is the instance."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(_NAMES[issuer]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(seconds=3))
            .not_valid_after(until)
        )
        if constraints:
            basic = x509.BasicConstraints(ca=ca, path_length=path_length)
            builder = builder.add_extension(basic, critical=True)
        if usage:
            flags = dict.fromkeys(_USAGES, False)
            flags |= {"digital_signature": signs, "key_cert_sign": ca, "crl_sign": ca}
            builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
        return builder.sign(self.keys[issuer], hashes.SHA384())

    def revocation_list(
        self, issuer: int, *serials: int
    ) -> x509.CertificateRevocationList:
        """Return a list of one of the authorities."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(_NAMES[issuer]))
            .last_update(NOW - timedelta(days=1))
            .next_update(NOW + timedelta(days=1))
        )
        for serial in serials:
            entry = (
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(NOW - timedelta(days=1))
                .build()
            )
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.keys[issuer], hashes.SHA384())

    def members(self, **changes: Any) -> dict[str, Any]:
        """Return the members of a document; a change to `...` leaves one out."""
        members: dict[str, Any] = {
            "module_id": MODULE_ID,
            "digest": "SHA384",
            "timestamp": int(NOW.timestamp() * 1000),
            "pcrs": PCRS,
            "certificate": self.leaf.public_bytes(Encoding.DER),
            "cabundle": [one.public_bytes(Encoding.DER) for one in self.authorities],
            "public_key": None,
            "user_data": None,
            "nonce": None,
            **changes,
        }
        return {name: value for name, value in members.items() if value is not ...}

    def sign(
        self,
        payload: bytes,
        *,
        key: ec.EllipticCurvePrivateKey | None = None,
        tagged: bool = False,
    ) -> bytes:
        """Return a COSE_Sign1 around a payload."""
        structure = cbor2.dumps(["Signature1", _HEADER, b"", payload])
        signer = self.leaf_key if key is None else key
        signature = signer.sign(structure, ec.ECDSA(hashes.SHA384()))
        raw = b"".join(n.to_bytes(48, "big") for n in decode_dss_signature(signature))
        message: Any = [_HEADER, {}, payload, raw]
        return cbor2.dumps(cbor2.CBORTag(18, message) if tagged else message)

    def document(self, **changes: Any) -> bytes:
        """Return a signed document."""
        return self.sign(cbor2.dumps(self.members(**changes)))

    def tpm_document(self, **changes: Any) -> bytes:
        """Return a signed document of a NitroTPM."""
        pcrs = {index: bytes([index + 1]) * 48 for index in range(24)}
        return self.document(**{"pcrs": ..., "nitrotpm_pcrs": pcrs, **changes})


@cache
def nitro() -> FakeNitro:
    """Return one that all tests share; its keys take time to make."""
    return FakeNitro()


def item(document: bytes, kind: str = "nitro") -> dict[str, object]:
    """Return a bundle's item."""
    return {"kind": kind, "document": b64(document)}


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
