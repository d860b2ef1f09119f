"""A fake AMD: its own ARK, ASK, ASVK, chips, reports and revocation lists.

It signs for real, in the shapes that the real one uses, and knows nothing of the
parser that it tests: the offsets here were written down a second time. Keys are made
once per process (RSA-2048 instead of 4096, for speed, unless `bits` says otherwise);
`realm` gives another AMD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from typing import TypedDict, Unpack

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kbs.core.encode import b64
from kbs.evidence.model import GivenCollateral
from kbs.pki.certificates import spki_sha256

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)

MILAN_TCB: Mapping[str, int] = {
    "bootloader": 4,
    "tee": 0,
    "snp": 24,
    "microcode": 219,
}
TURIN_TCB: Mapping[str, int] = {**MILAN_TCB, "fmc": 1}

_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_ARC = "1.3.6.1.4.1.3704.1."
_CPUID = {"Milan": (0x19, 0x01, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 0x02, 1)}
_PRODUCT_NAMES = {"Milan": "Milan-B0", "Genoa": "Genoa", "Turin": "Turin"}

# Field name to offset and size.
FIELDS: Mapping[str, tuple[int, int]] = {
    "version": (0x000, 4),
    "guest_svn": (0x004, 4),
    "policy": (0x008, 8),
    "family_id": (0x010, 16),
    "image_id": (0x020, 16),
    "vmpl": (0x030, 4),
    "signature_algo": (0x034, 4),
    "current_tcb": (0x038, 8),
    "platform_info": (0x040, 8),
    "key_info": (0x048, 4),
    "reserved_4c": (0x04C, 4),
    "report_data": (0x050, 64),
    "measurement": (0x090, 48),
    "host_data": (0x0C0, 32),
    "id_key_digest": (0x0E0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "reported_tcb": (0x180, 8),
    "cpuid": (0x188, 3),
    "reserved_18b": (0x18B, 21),
    "chip_id": (0x1A0, 64),
    "committed_tcb": (0x1E0, 8),
    "current_build": (0x1E8, 3),
    "reserved_1eb": (0x1EB, 1),
    "committed_build": (0x1EC, 3),
    "reserved_1ef": (0x1EF, 1),
    "launch_tcb": (0x1F0, 8),
    "launch_mit_vector": (0x1F8, 8),
    "current_mit_vector": (0x200, 8),
    "reserved_208": (0x208, 152),
}
_SIGNED = 0x2A0
_REPORT = 0x4A0

VCEK = 0
VLEK = 1


class LeafChanges(TypedDict, total=False):
    """What a leaf may have that AMD's do not: names, key, dates, a bad signer."""

    common_name: str
    issuer: str
    signer: str
    public_key: ec.EllipticCurvePublicKey
    serial: int
    critical: str
    not_before: datetime
    not_after: datetime


@cache
def _rsa_key(label: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def _ec_key(label: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def name(common_name: str) -> x509.Name:
    """A subject as AMD writes it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def tcb_bytes(tcb: Mapping[str, int]) -> bytes:
    """Lay a TCB out as the firmware does; the one with an FMC is Turin's."""
    first = (tcb["bootloader"], tcb["tee"])
    if "fmc" in tcb:
        return bytes((tcb["fmc"], *first, tcb["snp"], 0, 0, 0, tcb["microcode"]))
    return bytes((*first, 0, 0, 0, 0, tcb["snp"], tcb["microcode"]))


def der_integer(value: int) -> bytes:
    """Encode a small number as a DER INTEGER."""
    content = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((0x02, len(content))) + content


def der_text(text: str) -> bytes:
    """Encode a short text as a DER IA5String."""
    return bytes((0x16, len(text))) + text.encode("ascii")


@dataclass(kw_only=True)
class FakeAmd:
    """One product line of one fake AMD.

    `chip` names the chip (its VCEK key and hardware id), `realm` the vendor.
    """

    product: str = "Milan"
    now: datetime = NOW
    realm: str = "fake"
    chip: str = "chip-1"
    revoked: list[int] = field(default_factory=list)
    bits: int = 2048

    @property
    def tcb(self) -> Mapping[str, int]:
        """What the chip runs."""
        return TURIN_TCB if self.product == "Turin" else MILAN_TCB

    @property
    def hwid(self) -> bytes:
        """The chip's hardware id: 64 bytes, or 8 on Turin."""
        digest = hashes.Hash(hashes.SHA512())
        digest.update(f"{self.realm} {self.product} {self.chip}".encode())
        return digest.finalize()[: 8 if self.product == "Turin" else 64]

    @property
    def chip_id(self) -> bytes:
        """CHIP_ID as the report has it."""
        return self.hwid.ljust(64, b"\0")

    def key(self, kind: int = VCEK) -> ec.EllipticCurvePrivateKey:
        """The private key that signs reports."""
        owner = self.chip if kind == VCEK else "provider"
        return _ec_key(f"{self.realm} {self.product} {kind} {owner}")

    @cached_property
    def ark(self) -> x509.Certificate:
        """The self-signed root."""
        return self.authority(f"ARK-{self.product}", "ark", 0x10000, path_length=None)

    @cached_property
    def ask(self) -> x509.Certificate:
        """The issuer of VCEKs."""
        return self.authority(f"SEV-{self.product}", "ask", 0x10001)

    @cached_property
    def asvk(self) -> x509.Certificate:
        """The issuer of VLEKs."""
        return self.authority(f"SEV-VLEK-{self.product}", "asvk", 0x10101)

    def authority(
        self,
        common_name: str,
        label: str,
        serial: int,
        *,
        path_length: int | None = 0,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        """A certificate signed by the root, which signs itself too."""
        key = self._rsa(label)
        return (
            x509.CertificateBuilder()
            .subject_name(name(common_name))
            .issuer_name(name(f"ARK-{self.product}"))
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(not_before or self.now - timedelta(days=1000))
            .not_valid_after(not_after or self.now + timedelta(days=9000))
            .add_extension(x509.BasicConstraints(True, path_length), critical=True)
            .add_extension(_key_usage(crl_sign=label == "ark"), critical=True)
            .sign(self._rsa("ark"), hashes.SHA384(), rsa_padding=_PSS)
        )

    def vcek(
        self,
        tcb: Mapping[str, int] | None = None,
        hwid: bytes | None = None,
        **changes: Unpack[LeafChanges],
    ) -> x509.Certificate:
        """The certificate of the chip's key; `changes` as for `leaf`."""
        hwid = self.hwid if hwid is None else hwid
        return self.leaf(VCEK, self.extensions(tcb) | {_ARC + "4": hwid}, **changes)

    def vlek(
        self,
        tcb: Mapping[str, int] | None = None,
        csp_id: str = "CN=cloud.example",
        **changes: Unpack[LeafChanges],
    ) -> x509.Certificate:
        """The certificate of a provider's key; `changes` as for `leaf`."""
        return self.leaf(
            VLEK, self.extensions(tcb) | {_ARC + "5": der_text(csp_id)}, **changes
        )

    def extensions(
        self, tcb: Mapping[str, int] | None = None, product_name: str | None = None
    ) -> dict[str, bytes]:
        """AMD's extensions that both kinds of leaf have, by OID."""
        tcb = self.tcb if tcb is None else tcb
        fmc = "fmc" in tcb
        spls = {
            "3.1": tcb["bootloader"],
            "3.2": tcb["tee"],
            "3.3": tcb["snp"],
            "3.5": 0,
            "3.6": 0,
            "3.7": 0,
            "3.8": tcb["microcode"],
            **({"3.9": tcb["fmc"]} if fmc else {"3.4": 0}),
        }
        return {
            _ARC + "1": der_integer(int(fmc)),
            _ARC + "2": der_text(product_name or _PRODUCT_NAMES[self.product]),
            **{_ARC + oid: der_integer(value) for oid, value in spls.items()},
        }

    def leaf(
        self,
        kind: int,
        extensions: Mapping[str, bytes],
        **changes: Unpack[LeafChanges],
    ) -> x509.Certificate:
        """A leaf with any extensions, names, key and dates."""
        usual = ("SEV-VCEK", "SEV-VLEK")[kind]
        issuer = ("SEV", "SEV-VLEK")[kind] + f"-{self.product}"
        begins = self.now - timedelta(days=30)
        ends = self.now + timedelta(days=300)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(changes.get("common_name", usual)))
            .issuer_name(name(changes.get("issuer", issuer)))
            .public_key(changes.get("public_key", self.key(kind).public_key()))
            # The real ones have 0, which the builder refuses.
            .serial_number(changes.get("serial", 0x77))
            .not_valid_before(changes.get("not_before", begins))
            .not_valid_after(changes.get("not_after", ends))
        )
        critical = changes.get("critical")
        for oid, value in extensions.items():
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
            builder = builder.add_extension(extension, critical=oid == critical)
        key = self._rsa(changes.get("signer", ("ask", "asvk")[kind]))
        return builder.sign(key, hashes.SHA384(), rsa_padding=_PSS)

    def crl(
        self,
        *,
        number: int | None = 7,
        this_update: datetime | None = None,
        next_update: datetime | None = None,
        revoked: tuple[int, ...] | None = None,
        issuer: str | None = None,
        signer: str = "ark",
        critical: bool = False,
    ) -> x509.CertificateRevocationList:
        """A revocation list by the root."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name(issuer or f"ARK-{self.product}"))
            .last_update(this_update or self.now - timedelta(days=10))
            .next_update(next_update or self.now + timedelta(days=10))
        )
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), critical=critical)
        for serial in self.revoked if revoked is None else revoked:
            entry = (
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(self.now - timedelta(days=20))
                .build()
            )
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._rsa(signer), hashes.SHA384(), rsa_padding=_PSS)

    def report(
        self,
        *,
        version: int = 3,
        signing_key: int = VCEK,
        sign_with: ec.EllipticCurvePrivateKey | None = None,
        **fields: int | bytes,
    ) -> bytes:
        """A signed report; any field of `FIELDS` may be given as number or bytes.

        Bytes shorter than the field are filled up with zeros (`report_data`).
        """
        body = self.report_body(fields, version=version, signing_key=signing_key)
        return sign_report(body, sign_with or self.key(min(signing_key, VLEK)))

    def report_body(
        self, fields: Mapping[str, int | bytes], *, version: int, signing_key: int
    ) -> bytes:
        """Everything that the signature covers."""
        tcb = tcb_bytes(self.tcb)
        values: dict[str, int | bytes] = {
            "version": version,
            "policy": 0x30000,
            "signature_algo": 1,
            "platform_info": 0x25,
            "key_info": signing_key << 2,
            "measurement": bytes(range(48)),
            "report_id": b"\x11" * 32,
            "report_id_ma": b"\xff" * 32,
            "chip_id": self.chip_id if signing_key == VCEK else bytes(64),
            "current_build": bytes((29, 55, 1)),
            "committed_build": bytes((29, 55, 1)),
            "reported_tcb": tcb,
            "current_tcb": tcb,
            "committed_tcb": tcb,
            "launch_tcb": tcb,
        }
        if version >= 3:
            values["cpuid"] = bytes(_CPUID[self.product])
        if version >= 5:
            values["launch_mit_vector"] = 0x5
            values["current_mit_vector"] = 0x7
        body = bytearray(_SIGNED)
        for field_name, value in (values | dict(fields)).items():
            offset, size = FIELDS[field_name]
            data = value.to_bytes(size, "little") if isinstance(value, int) else value
            if len(data) > size:
                message = f"{field_name} has {len(data)} bytes, room is for {size}"
                raise ValueError(message)
            body[offset : offset + size] = data.ljust(size, b"\0")
        return bytes(body)

    def bundle_item(
        self,
        report_data: bytes = b"",
        *,
        version: int = 3,
        vlek: bool = False,
        chain: bool = True,
        crl: bool = True,
        **fields: int | bytes,
    ) -> dict[str, object]:
        """An item of a bundle: report, leaf, and (unless told) chain and CRL."""
        kind = VLEK if vlek else VCEK
        body = self.report_body(
            {**fields, "report_data": report_data}, version=version, signing_key=kind
        )
        leaf = self.vlek() if vlek else self.vcek()
        authorities = [self.asvk if vlek else self.ask, self.ark] if chain else []
        return item(
            sign_report(body, self.key(kind)),
            leaf,
            *authorities,
            crl=self.crl() if crl else None,
        )

    def collateral(self) -> GivenCollateral:
        """What an operator would have imported: issuers, root, revocation list."""
        return GivenCollateral((self.ark, self.ask, self.asvk), (self.crl(),))

    def pins(self) -> dict[str, str]:
        """The root's pin, for `Trust.pinned_roots`."""
        return {spki_sha256(self.ark): f"AMD ARK {self.product}"}

    def _rsa(self, label: str) -> rsa.RSAPrivateKey:
        return _rsa_key(f"{self.realm} {self.product} {label}", self.bits)


def sign_report(body: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Add a signature as the firmware writes it: little-endian, zero-extended."""
    signature = key.sign(body, ec.ECDSA(hashes.SHA384()))
    r, s = decode_dss_signature(signature)
    signed = body + r.to_bytes(72, "little") + s.to_bytes(72, "little")
    return signed.ljust(_REPORT, b"\0")


def item(
    report: bytes,
    *certificates: x509.Certificate,
    crl: x509.CertificateRevocationList | None = None,
) -> dict[str, object]:
    """An item of a bundle from its parts."""
    document: dict[str, object] = {
        "kind": "snp",
        "report": b64(report),
        "certificates": [pem(certificate) for certificate in certificates],
    }
    if crl is not None:
        document["crl"] = b64(crl.public_bytes(Encoding.DER))
    return document


def pem(certificate: x509.Certificate) -> str:
    """A certificate as PEM text."""
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _key_usage(*, crl_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
