"""A fake NVIDIA: its roots, devices that sign reports, manifests, and a responder.

It signs for real, in the shapes that the real one uses, and knows nothing of the
parsers that it tests: layouts were written down a second time. It lies when told to:
every field, certificate, manifest and answer can be made another one. Keys come from
their names, so that one `realm` is the same vendor in every process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, SignatureConstructionMethod
from signxml.signer import XMLSigner

from kbs.core.encode import b64
from kbs.evidence.model import GivenCollateral, StoredRim
from kbs.pki.certificates import spki_sha256

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

REQUEST = bytes((0x11, 0xE0, 0x01, 0xFF))
RESPONSE = bytes((0x11, 0x60, 0x00, 0x00))

DRIVER_INDICES = (7, 21, 22, 25, 35)
VBIOS_INDICES = (1, 2, 3, 9, 11)
_BLOCKS = 64
_SWITCH_BLOCKS = 31
_P384_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffff"
    "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)

_SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_HASH = "http://www.w3.org/2001/04/xmlenc#sha384"
_RIM_NAMES: Mapping[str | None, str] = {None: _SWID, "ns0": _SWID, "ns2": _HASH}

# TCG DICE: what the extension of a leaf looks like on Hopper and on Blackwell.
_DICE_HOPPER = x509.ObjectIdentifier("2.23.133.5.4.1")
_DICE_BLACKWELL = x509.ObjectIdentifier("2.23.133.5.4.1.4")
_SHA384 = bytes.fromhex("0609608648016503040202")


@cache
def key_of(label: str) -> ec.EllipticCurvePrivateKey:
    """The P-384 key of a name."""
    digest = hashlib.sha512(label.encode()).digest()
    scalar = int.from_bytes(digest, "big") % (_P384_ORDER - 1) + 1
    return ec.derive_private_key(scalar, ec.SECP384R1())


def name(common_name: str, serial: str | None = None) -> x509.Name:
    """A subject as NVIDIA writes it."""
    attributes = [x509.NameAttribute(NameOID.SERIAL_NUMBER, serial)] if serial else []
    return x509.Name(
        [
            *attributes,
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "NVIDIA Corporation"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def der_of(tag: int, content: bytes) -> bytes:
    """One DER value."""
    size = len(content)
    length = bytes((size,)) if size < 0x80 else bytes((0x81, size))
    return bytes((tag,)) + length + content


def fwid_der(fwid: bytes) -> bytes:
    """An FWID: algorithm and digest."""
    return der_of(0x30, _SHA384 + der_of(0x04, fwid))


@dataclass(frozen=True, kw_only=True)
class Device:
    """One GPU or switch, its versions, and what it lies about."""

    chip: str = "GH100"
    serial: str = "device-1"
    firmware: str = "firmware-1"
    driver: str = "580.95.05"
    vbios: bytes = bytes.fromhex("007400961a000000")
    feature: int | None = 0
    ppcie: int | None = 0x55
    nvdec0: int = 0x55
    changed: Mapping[int, bytes] = field(default_factory=dict)
    """Measurements, by RIM index, that are not NVIDIA's."""
    fwid_lie: bytes | None = None
    opaque: Mapping[int, bytes | None] = field(default_factory=dict)
    """Opaque fields to change, or (None) to leave out."""

    @property
    def is_switch(self) -> bool:
        """Whether it is an NVSwitch."""
        return self.chip == "LS10"

    @property
    def fwid(self) -> bytes:
        """The digest of its firmware."""
        return hashlib.sha384(self.firmware.encode()).digest()

    @property
    def vbios_version(self) -> str:
        """The version as a manifest writes it."""
        if self.is_switch:
            return self.vbios.decode()
        return ".".join(f"{b:02X}" for b in (*self.vbios[3::-1], self.vbios[4]))

    def golden(self, index: int) -> bytes:
        """The value that NVIDIA publishes for a measurement."""
        role = self.vbios_version if index in VBIOS_INDICES else self.driver
        return hashlib.sha384(f"{self.chip} {role} {index}".encode()).digest()


SWITCH = Device(chip="LS10", serial="switch-1", vbios=b"96.10.55.00.01")


@cache
def _certified(
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    *,
    subject: x509.Name,
    issuer_name: x509.Name,
    ca: bool,
    extensions: tuple[x509.ExtensionType, ...],
    serial: int,
    begins: datetime,
    until: datetime,
    critical: bool,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(begins)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(_usage(ca=ca), critical=True)
    )
    for one in extensions:
        builder = builder.add_extension(one, critical=critical)
    return builder.sign(by, hashes.SHA384(), ecdsa_deterministic=True)


@cache
def _answered(
    key: ec.EllipticCurvePrivateKey,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    responder: x509.Certificate,
    *,
    delegated: bool,
    status: ocsp.OCSPCertStatus,
    begins: datetime,
    until: datetime,
    reason: x509.ReasonFlags | None,
) -> ocsp.OCSPResponse:
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=certificate,
            issuer=issuer,
            algorithm=hashes.SHA384(),
            cert_status=status,
            this_update=begins,
            next_update=until,
            revocation_time=begins if reason is not None else None,
            revocation_reason=reason,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, responder)
    )
    if delegated:
        builder = builder.certificates([responder])
    return builder.sign(key, hashes.SHA384())


@dataclass(kw_only=True)
class FakeNvidia:
    """One fake vendor; `revoked` are names of certificates, with a reason each."""

    now: datetime = NOW
    realm: str = "fake"
    revoked: dict[str, x509.ReasonFlags] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    # Certificates: a label is the name of a key, and of the certificate for it.

    def certificate(
        self,
        label: str,
        issuer: str,
        *,
        subject: x509.Name,
        issuer_name: x509.Name,
        ca: bool,
        extensions: tuple[x509.ExtensionType, ...] = (),
        until: datetime | None = None,
        critical: bool = False,
    ) -> x509.Certificate:
        """A certificate for the key of `label` by that of `issuer`."""
        return _certified(
            self.key(label),
            self.key(issuer),
            subject=subject,
            issuer_name=issuer_name,
            ca=ca,
            extensions=extensions,
            serial=self.serial(label),
            begins=self.now - timedelta(days=1000),
            until=until or FOREVER,
            critical=critical,
        )

    def key(self, label: str) -> ec.EllipticCurvePrivateKey:
        """The key of a name in this realm."""
        return key_of(f"{self.realm} {label}")

    def serial(self, label: str) -> int:
        """The serial number of a certificate."""
        digest = hashlib.sha256(f"{self.realm} {label}".encode()).digest()
        return int.from_bytes(digest[:8], "big") | 1

    def device_chain(self, device: Device) -> tuple[x509.Certificate, ...]:
        """Leaf, device, provisioner, product, root."""
        chip = device.chip
        names = {
            "root": name("NVIDIA Device Identity CA"),
            f"{chip} identity": name(f"NVIDIA {chip} Identity"),
            f"{chip} ica": name(f"NVIDIA {chip} Provisioner ICA 1"),
            self.brom(device): name(f"{chip} A01 GSP BROM", device.serial),
            self.leaf(device): name(f"{chip} A01 GSP FMC LF", device.firmware),
        }
        labels = list(names)
        chain = []
        for label, issuer in zip(labels, ["root", *labels], strict=False):
            is_leaf = label == self.leaf(device)
            chain.append(
                self.certificate(
                    label,
                    issuer,
                    subject=names[label],
                    issuer_name=names[issuer],
                    ca=not is_leaf,
                    extensions=(_dice(device),) if is_leaf else (),
                )
            )
        return tuple(reversed(chain))

    def brom(self, device: Device) -> str:
        """The label of a device's own key."""
        return f"{device.chip} {device.serial} brom"

    def leaf(self, device: Device) -> str:
        """The label of the key that signs a device's reports."""
        return f"{self.brom(device)} {device.firmware}"

    # Reports

    def report(self, device: Device, nonce: bytes = bytes(32)) -> bytes:
        """A signed report over a nonce."""
        body = self.report_body(device, nonce)
        return body + sign(self.key(self.leaf(device)), body)

    def report_body(self, device: Device, nonce: bytes) -> bytes:
        """Everything that the signature covers."""
        count = _SWITCH_BLOCKS if device.is_switch else _BLOCKS
        record = b"".join(_block(device, index) for index in range(count))
        opaque = _opaque(device)
        return b"".join(
            (
                REQUEST,
                nonce,
                b"\0",
                RESPONSE,
                bytes((count,)),
                len(record).to_bytes(3, "little"),
                record,
                hashlib.sha256(nonce).digest(),
                len(opaque).to_bytes(2, "little"),
                opaque,
            )
        )

    def item(
        self,
        device: Device | None = None,
        binding: bytes = bytes(48),
        *,
        rims: bool = True,
        status: bool = True,
        report: bytes | None = None,
    ) -> dict[str, object]:
        """An item of a bundle: report, chain and (unless told) manifests and status."""
        device = device or Device()
        document: dict[str, object] = {
            "kind": "nvgpu",
            "report": b64(report or self.report(device, binding[:32])),
            "certificates": pem(*self.device_chain(device)),
        }
        if rims:
            document["rims"] = [b64(one.document) for one in self.rims(device)]
        if status:
            document["ocsp"] = [b64(_der(one)) for one in self.answers(device)]
        return document

    # Manifests

    def rims(self, device: Device) -> tuple[StoredRim, ...]:
        """Every manifest that a device needs."""
        roles = ("vbios",) if device.is_switch else ("driver", "vbios")
        return tuple(
            StoredRim(self.rim(device, role), rim_id(device, role)) for role in roles
        )

    def rim(
        self,
        device: Device,
        role: str,
        *,
        values: Mapping[int, tuple[bytes, ...]] | None = None,
        product: str | None = None,
        version: str | None = None,
        signer_until: datetime | None = None,
        signer: str | None = None,
        whole_chain: bool = True,
    ) -> bytes:
        """A signed manifest; `signer` another signer's label."""
        if values is None:
            indices = DRIVER_INDICES if role == "driver" else VBIOS_INDICES
            values = {index: (device.golden(index),) for index in indices}
        plain = device.vbios_version if role == "vbios" else device.driver
        chain = self.rim_chain(device.chip, until=signer_until)
        return _published(
            product or device.chip,
            version or plain,
            tuple(values.items()),
            edition="SWITCH" if device.is_switch else "GPU",
            key=self.key(signer or f"{device.chip} rim signer"),
            chain=chain if whole_chain else chain[:1],
        )

    def rim_chain(
        self, chip: str, *, until: datetime | None = None
    ) -> tuple[x509.Certificate, ...]:
        """Signer, its issuer, product, root of manifests."""
        names = {
            "rim root": name("NVIDIA CoRIM signing Root CA"),
            f"{chip} rim ca": name(f"NVIDIA Reference Value {chip} CA"),
            f"{chip} rim l3": name(f"NVIDIA Reference Value L3 {chip} 001"),
            f"{chip} rim signer": name("HCC RIM L4 Signer"),
        }
        labels = list(names)
        chain = [
            self.certificate(
                label,
                issuer,
                subject=names[label],
                issuer_name=names[issuer],
                ca=not label.endswith("signer"),
                until=until if label.endswith("signer") else None,
            )
            for label, issuer in zip(labels, ["rim root", *labels], strict=False)
        ]
        return tuple(reversed(chain))

    # Status

    def answers(self, device: Device) -> tuple[ocsp.OCSPResponse, ...]:
        """What the responder says of a device's certificates and its manifests'."""
        chain = self.device_chain(device)
        labels = [self.brom(device), f"{device.chip} ica", f"{device.chip} identity"]
        found = [
            self.answer(label, chain[place + 1], chain[place + 2], issuer)
            for place, (label, issuer) in enumerate(
                zip(labels, [*labels[1:], "root"], strict=True)
            )
        ]
        rim = self.rim_chain(device.chip)
        names = [f"{device.chip} rim {one}" for one in ("signer", "l3", "ca")]
        found += [
            self.answer(label, rim[place], rim[place + 1], issuer)
            for place, (label, issuer) in enumerate(
                zip(names, [*names[1:], "rim root"], strict=True)
            )
        ]
        return tuple(found)

    def answer(
        self,
        label: str,
        certificate: x509.Certificate,
        issuer: x509.Certificate,
        issuer_label: str,
        *,
        delegated: bool = True,
        usage: bool = True,
        critical: bool = False,
        signer: str | None = None,
        this_update: datetime | None = None,
        next_update: datetime | None = None,
        reason: x509.ReasonFlags | None = None,
    ) -> ocsp.OCSPResponse:
        """One answer of the responder, by the issuer or a delegate of it."""
        begins = this_update or self.now - timedelta(hours=1)
        reason = reason or self.revoked.get(label)
        status = ocsp.OCSPCertStatus.GOOD
        if reason is not None:
            status = ocsp.OCSPCertStatus.REVOKED
        elif label in self.unknown:
            status = ocsp.OCSPCertStatus.UNKNOWN
        responder, key = issuer, self.key(signer or issuer_label)
        if delegated:
            responder = self.responder(
                issuer, signer or issuer_label, usage=usage, critical=critical
            )
            key = self.key(f"{signer or issuer_label} responder")
        return _answered(
            key,
            certificate,
            issuer,
            responder,
            delegated=delegated,
            status=status,
            begins=begins,
            until=next_update or begins + timedelta(hours=24),
            reason=reason,
        )

    def responder(
        self,
        issuer: x509.Certificate,
        signer: str,
        *,
        usage: bool = True,
        critical: bool = False,
    ) -> x509.Certificate:
        """The certificate of a delegated responder."""
        extensions: list[x509.ExtensionType] = [x509.OCSPNoCheck()]
        if usage:
            extensions.append(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]))
        return self.certificate(
            f"{signer} responder",
            signer,
            subject=name("NVIDIA OCSP Responder"),
            issuer_name=issuer.subject,
            ca=False,
            extensions=tuple(extensions),
            critical=critical,
        )

    def crl(
        self,
        issuer: x509.Certificate,
        issuer_label: str,
        entries: Mapping[int, x509.ReasonFlags | None] | None = None,
        *,
        this_update: datetime | None = None,
        next_update: datetime | None = None,
        number: int = 1,
    ) -> x509.CertificateRevocationList:
        """A revocation list: serial numbers, with a reason where there is one."""
        begins = this_update or self.now - timedelta(days=1)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(begins)
            .next_update(next_update or begins + timedelta(days=60))
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for serial, reason in (entries or {}).items():
            entry = (
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(begins)
            )
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key(issuer_label), hashes.SHA384())

    def collateral(self, *devices: Device) -> GivenCollateral:
        """What an operator would have imported for some devices."""
        return GivenCollateral(
            given_ocsp_answers=tuple(a for one in devices for a in self.answers(one)),
            given_rims=tuple(r for one in devices for r in self.rims(one)),
        )

    def pins(self) -> dict[str, str]:
        """The pins of both roots, for `Trust.pinned_roots`."""
        return {
            spki_sha256(self.device_chain(Device())[-1]): "NVIDIA Device Identity CA",
            spki_sha256(self.rim_chain("GH100")[-1]): "NVIDIA CoRIM signing Root CA",
        }


def rim_id(device: Device, role: str) -> str:
    """The name of a manifest, as NVIDIA's service has it."""
    plain = device.vbios_version.replace(".", "")
    if device.is_switch:
        return f"NV_SWITCH_BIOS_5612_0002_890_{plain}"
    if role == "vbios":
        return f"NV_GPU_VBIOS_1010_0200_882_{plain}"
    prefix = "" if device.chip == "GH100" else "CC_"
    return f"NV_GPU_{prefix}DRIVER_{device.chip}_{device.driver}"


@cache
def _published(
    product: str,
    version: str,
    values: tuple[tuple[int, tuple[bytes, ...]], ...],
    *,
    edition: str,
    key: ec.EllipticCurvePrivateKey,
    chain: tuple[x509.Certificate, ...],
) -> bytes:
    return sign_tag(
        rim_tag(product, version, dict(values), edition=edition), key, chain
    )


def rim_tag(
    product: str,
    version: str,
    values: Mapping[int, tuple[bytes, ...]],
    *,
    edition: str = "GPU",
    count: int = _BLOCKS,
) -> etree._Element:
    """An unsigned manifest; what has no values is inactive."""
    root = etree.Element(f"{{{_SWID}}}SoftwareIdentity", nsmap=_RIM_NAMES)
    root.attrib.update({"name": product, "tagId": "ab" * 48, "version": "1.0"})
    etree.SubElement(root, f"{{{_SWID}}}Entity", name="NVIDIA Corporation", role="tag")
    etree.SubElement(
        root,
        f"{{{_SWID}}}Meta",
        colloquialVersion=version,
        edition=edition,
        product=product,
        revision="r1",
    )
    payload = etree.SubElement(root, f"{{{_SWID}}}Payload")
    for index in range(count):
        listed = values.get(index, (bytes(48),))
        etree.SubElement(
            payload,
            f"{{{_SWID}}}Resource",
            {
                "type": "Measurement",
                "index": str(index),
                "active": str(index in values),
                "alternatives": str(len(listed)),
                "name": f"Measurement_{index}",
                "size": str(len(listed[0])),
                **{
                    f"{{{_HASH}}}Hash{number}": value.hex()
                    for number, value in enumerate(listed)
                },
            },
        )
    return root


def sign_tag(
    root: etree._Element,
    key: ec.EllipticCurvePrivateKey,
    chain: tuple[x509.Certificate, ...],
    *,
    signature: str = "ecdsa-sha384",
    digest: str = "sha384",
    c14n: CanonicalizationMethod = CanonicalizationMethod.CANONICAL_XML_1_1,
) -> bytes:
    """Sign a manifest as NVIDIA does; other algorithms on command."""
    signer = XMLSigner(
        method=SignatureConstructionMethod.enveloped,
        signature_algorithm=signature,
        digest_algorithm=digest,
        c14n_algorithm=c14n,
    )
    signed = signer.sign(root, key=key, cert=list(chain))
    return bytes(etree.tostring(signed))


def sign(key: ec.EllipticCurvePrivateKey, body: bytes) -> bytes:
    """A signature as the firmware writes it: r and s, big-endian."""
    r, s = decode_dss_signature(
        key.sign(body, ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
    )
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def pem(*certificates: x509.Certificate) -> str:
    """Certificates as one PEM text."""
    return "".join(
        one.public_bytes(Encoding.PEM).decode("ascii") for one in certificates
    )


def other(device: Device, serial: str) -> Device:
    """The same sort of device, another one."""
    return replace(device, serial=serial)


def _der(answer: ocsp.OCSPResponse) -> bytes:
    return answer.public_bytes(Encoding.DER)


def _dice(device: Device) -> x509.UnrecognizedExtension:
    if device.chip.startswith("GB"):
        fwids = der_of(0xA6, fwid_der(device.fwid) + fwid_der(bytes(48)))
        info = der_of(0x80, b"NVIDIA") + fwids + der_of(0x87, b"\0\x80\0\0\x01")
        return x509.UnrecognizedExtension(_DICE_BLACKWELL, der_of(0x30, info))
    version = der_of(0x02, b"\x01")
    return x509.UnrecognizedExtension(
        _DICE_HOPPER, der_of(0x30, version + fwid_der(device.fwid))
    )


def _block(device: Device, index: int) -> bytes:
    active = index in VBIOS_INDICES
    active |= index in DRIVER_INDICES and not device.is_switch
    value = device.golden(index) if active else bytes(48)
    value = device.changed.get(index, value)
    body = b"\x01" + len(value).to_bytes(2, "little") + value
    return bytes((index + 1, 0x01)) + len(body).to_bytes(2, "little") + body


def _opaque(device: Device) -> bytes:
    fields: dict[int, bytes | None] = {6: device.vbios}
    if device.is_switch:
        fields |= {22: bytes.fromhex("203eb31ad9ed0008"), 24: b"\x02\0"}
    else:
        chip_info = None if device.chip == "GH100" else device.chip.encode()
        fields |= {
            15: b"882\0",
            17: b"1010\0",
            18: b"0200\0",
            3: device.driver.encode() + b"\0",
            11: bytes((device.nvdec0,)),
            20: device.fwid_lie or device.fwid,
            21: None if device.ppcie is None else bytes((device.ppcie,)),
            34: b"\x01\0",
            35: chip_info,
            36: None if device.feature is None else bytes((device.feature, 0)),
        }
    fields |= dict(device.opaque)
    return b"".join(
        kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value
        for kind, value in fields.items()
        if value is not None
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
