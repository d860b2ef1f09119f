"""A maker of TPMs that certifies attestation and endorsement keys, and revokes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from kbs.core.encode import b64
from kbs.evidence.vtpm.anchors import AK_USAGE
from kbs.evidence.vtpm.public import PublicKey

NOW = datetime(2026, 11, 22, 8, 0, 0, tzinfo=UTC)
INSTANCE = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.1.21")
_YEAR = timedelta(days=365)


class FakeTpmCA:
    """A root and one intermediate below it, both with P-256 keys."""

    def __init__(self, name: str = "Fake TPM") -> None:
        """Make both keys and certificates."""
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.intermediate_key = ec.generate_private_key(ec.SECP256R1())
        self.name = name
        self.root = self._certify(
            f"{name} Root", self.root_key.public_key(), signer="root", ca=True
        )
        self.intermediate = self._certify(
            f"{name} CA", self.intermediate_key.public_key(), signer="root", ca=True
        )

    @property
    def pins(self) -> dict[str, str]:
        """The root as `Trust.pinned_roots` takes it."""
        spki = self.root_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return {hashlib.sha256(spki).hexdigest(): f"{self.name} Root"}

    def certify(
        self,
        key: PublicKey | ed25519.Ed25519PublicKey,
        *,
        ca: bool = False,
        signs: bool = True,
        usage: bool = True,
        attestation: bool = True,
        instance: bytes | None = None,
        until: datetime = NOW + _YEAR,
    ) -> x509.Certificate:
        """Issue a certificate for an attestation key by the intermediate.

        `instance` is the extension in which Google names an instance.
        """
        return self._certify(
            "AK",
            key,
            signer="intermediate",
            ca=ca,
            signs=signs,
            usage=usage,
            attestation=attestation and not ca and signs,
            instance=instance,
            until=until,
        )

    def cross(self, other: FakeTpmCA) -> x509.Certificate:
        """Certify the intermediate of another maker, its name and key, by this root."""
        return self._certify(
            f"{other.name} CA",
            other.intermediate_key.public_key(),
            signer="root",
            ca=True,
        )

    def revocation_lists(
        self,
        revoked: Iterable[x509.Certificate] = (),
        *,
        at: datetime = NOW,
    ) -> tuple[x509.CertificateRevocationList, x509.CertificateRevocationList]:
        """Return the lists of intermediate and root; the first one has `revoked`."""
        serials = [certificate.serial_number for certificate in revoked]
        return (
            self._list(self.intermediate, self.intermediate_key, serials, at),
            self._list(self.root, self.root_key, [], at),
        )

    def root_list(
        self, revoked: Iterable[x509.Certificate]
    ) -> x509.CertificateRevocationList:
        """Return a list of the root that has `revoked`."""
        serials = [certificate.serial_number for certificate in revoked]
        return self._list(self.root, self.root_key, serials, NOW)

    def renewed(self, *, until: datetime) -> x509.Certificate:
        """Return another certificate of the same intermediate."""
        key = self.intermediate_key.public_key()
        return self._certify(
            f"{self.name} CA", key, signer="root", ca=True, until=until
        )

    def _list(
        self,
        issuer: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        serials: list[int],
        at: datetime,
    ) -> x509.CertificateRevocationList:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(at - timedelta(hours=1))
            .next_update(at + timedelta(days=7))
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder(serial, at - timedelta(hours=2))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(key, hashes.SHA256())

    def _certify(
        self,
        subject: str,
        key: PublicKey | ed25519.Ed25519PublicKey,
        *,
        signer: str,
        ca: bool,
        signs: bool = True,
        usage: bool = True,
        attestation: bool = False,
        instance: bytes | None = None,
        until: datetime = NOW + 10 * _YEAR,
    ) -> x509.Certificate:
        by_root = signer == "root"
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(f"{self.name} {'Root' if by_root else 'CA'}"))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - _YEAR)
            .not_valid_after(until)
        )
        if ca or signs:
            constraint = x509.BasicConstraints(ca=ca, path_length=None)
            builder = builder.add_extension(constraint, critical=True)
        if usage:
            builder = builder.add_extension(_usage(ca=ca, signs=signs), critical=True)
        if attestation:
            extended = x509.ExtendedKeyUsage([AK_USAGE])
            builder = builder.add_extension(extended, critical=False)
        if instance is not None:
            named = x509.UnrecognizedExtension(INSTANCE, instance)
            builder = builder.add_extension(named, critical=False)
        issuer_key = self.root_key if by_root else self.intermediate_key
        return builder.sign(issuer_key, hashes.SHA256())


def instance_of(project: str, number: int = 7) -> bytes:
    """Return the extension of Google's that names an instance of a project."""
    fields = (
        _text("us-central1-a"),
        bytes((0x02, 1, number)),
        _text(project),
        bytes((0x02, 1, 9)),
        _text("guest-1"),
    )
    content = b"".join(fields)
    return bytes((0x30, len(content))) + content


def _text(text: str) -> bytes:
    return bytes((0x0C, len(text))) + text.encode()


def certificate_b64(certificate: x509.Certificate) -> str:
    """Return a certificate as an item carries it."""
    return b64(certificate.public_bytes(serialization.Encoding.DER))


def certificate_pem(certificate: x509.Certificate) -> str:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def with_unknown_key(authority: FakeTpmCA) -> x509.Certificate:
    """Return a certificate that loads, with a key of an algorithm nobody knows."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    certificate = authority.certify(key)
    der = certificate.public_bytes(serialization.Encoding.DER)
    # RFC 8410: 1.3.101.112 is Ed25519; 1.3.101.127 is not assigned.
    return x509.load_der_x509_certificate(
        der.replace(bytes.fromhex("06032b6570"), bytes.fromhex("06032b657f"))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, ca: bool, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs and not ca,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
