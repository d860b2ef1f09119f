"""A fake Intel: its own root, PCK CAs, TCB signer, platforms, quotes and collateral.

It signs for real, in the shapes that the real one uses, and knows nothing of the
parsers that it tests: the layouts here were written down a second time. Keys are made
once per process; `realm` gives another Intel, `platform` another machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kbs.core.encode import b64
from kbs.evidence.dcap.collateral import parse_collateral
from kbs.evidence.model import GivenCollateral
from kbs.pki.certificates import spki_sha256

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
ROOT_NAME = "Intel SGX Root CA"
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
QE_SIGNER = bytes.fromhex("5a" * 32)
AUTH_DATA = bytes(range(32))

TDX_TCB = bytes([5, 1, 3, *13 * [0]])
PLATFORM_SVNS = (3, 3, 2, 2, 4, 1, 0, 5, *8 * (0,))
PCE_SVN = 13
QE_SVN = 8

_ARC = "1.2.840.113741.1.13.1"


@cache
def _key(label: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def tlv(tag: int, content: bytes) -> bytes:
    """One DER value of up to 65535 bytes."""
    size = len(content)
    if size < 0x80:
        head = bytes((tag, size))
    elif size < 0x100:
        head = bytes((tag, 0x81, size))
    else:
        head = bytes((tag, 0x82, size >> 8, size & 0xFF))
    return head + content


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    out = bytes((40 * first + second,))
    for number in rest:
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.insert(0, number & 0x7F | 0x80)
        out += bytes(digits)
    return tlv(0x06, out)


def integer(value: int) -> bytes:
    """A small non-negative INTEGER."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def pair(dotted: str, value: bytes) -> bytes:
    """SEQUENCE { OID, value }."""
    return tlv(0x30, oid(dotted) + value)


def sgx_extension(**changes: Any) -> bytes:
    """Intel's extension of a PCK; `changes` replace values of the usual platform."""
    given: dict[str, Any] = {
        "ppid": bytes(16),
        "svns": PLATFORM_SVNS,
        "pce_svn": PCE_SVN,
        "pce_id": bytes(2),
        "fmspc": bytes.fromhex("00f0a0000000"),
        "piid": bytes(range(16)),
        "flags": (True, True, True),
        **changes,
    }
    tcb = b"".join(
        pair(f"{_ARC}.2.{place}", integer(svn))
        for place, svn in enumerate(given["svns"], 1)
    )
    tcb += pair(f"{_ARC}.2.17", integer(given["pce_svn"]))
    tcb += pair(f"{_ARC}.2.18", tlv(0x04, bytes(given["svns"])))
    flags = b"".join(
        pair(f"{_ARC}.7.{place}", tlv(0x01, b"\xff" if flag else b"\0"))
        for place, flag in enumerate(given["flags"], 1)
    )
    return tlv(
        0x30,
        pair(f"{_ARC}.1", tlv(0x04, given["ppid"]))
        + pair(f"{_ARC}.2", tlv(0x30, tcb))
        + pair(f"{_ARC}.3", tlv(0x04, given["pce_id"]))
        + pair(f"{_ARC}.4", tlv(0x04, given["fmspc"]))
        + pair(f"{_ARC}.5", tlv(0x0A, b"\x01"))
        + (pair(f"{_ARC}.6", tlv(0x04, given["piid"])) if given["piid"] else b"")
        + (pair(f"{_ARC}.7", tlv(0x30, flags)) if flags else b""),
    )


def raw_signature(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """R and s, 32 bytes each."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """X and y, 32 bytes each."""
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def enclave_report(**fields: Any) -> bytes:
    """An enclave report body of 384 bytes."""
    values: dict[str, Any] = {
        "cpu_svn": bytes(PLATFORM_SVNS),
        "misc_select": bytes(4),
        "isv_ext_prod_id": bytes(16),
        "attributes": bytes([0x05, *7 * [0], 0xE7, *7 * [0]]),
        "mr_enclave": bytes(range(32)),
        "mr_signer": bytes(range(32, 64)),
        "config_id": bytes(64),
        "isv_prod_id": 1,
        "isv_svn": 3,
        "config_svn": 0,
        "isv_family_id": bytes(16),
        "report_data": b"",
        **fields,
    }
    body = bytearray(384)
    for offset, size, name in (
        (0, 16, "cpu_svn"),
        (16, 4, "misc_select"),
        (32, 16, "isv_ext_prod_id"),
        (48, 16, "attributes"),
        (64, 32, "mr_enclave"),
        (128, 32, "mr_signer"),
        (192, 64, "config_id"),
        (256, 2, "isv_prod_id"),
        (258, 2, "isv_svn"),
        (260, 2, "config_svn"),
        (304, 16, "isv_family_id"),
        (320, 64, "report_data"),
    ):
        value = values[name]
        data = value.to_bytes(size, "little") if isinstance(value, int) else value
        body[offset : offset + size] = data.ljust(size, b"\0")
    return bytes(body)


def td_report(
    *, version_15: bool = False, extended: bool = False, **fields: bytes
) -> bytes:
    """A TD report body: 584 bytes, 648 in version 1.5, 885 in the extended one."""
    values: dict[str, bytes] = {
        "tee_tcb_svn": TDX_TCB,
        "mr_seam": b"\x5e" * 48,
        "td_attributes": bytes.fromhex("0000001000000000"),
        "xfam": bytes.fromhex("e702060000000000"),
        "mr_td": bytes(range(48)),
        "tee_tcb_svn2": TDX_TCB,
        **fields,
    }
    layout = [
        ("tee_tcb_svn", 16),
        ("mr_seam", 48),
        ("mr_signer_seam", 48),
        ("seam_attributes", 8),
        ("td_attributes", 8),
        ("xfam", 8),
        ("mr_td", 48),
        ("mr_config_id", 48),
        ("mr_owner", 48),
        ("mr_owner_config", 48),
        ("rtmr0", 48),
        ("rtmr1", 48),
        ("rtmr2", 48),
        ("rtmr3", 48),
        ("report_data", 64),
    ]
    if version_15 or extended:
        layout += [("tee_tcb_svn2", 16), ("mr_service_td", 48)]
    if extended:
        layout += [
            ("vmid", 1),
            ("td_id", 32),
            ("dev_info", 48),
            ("init_service_td_hash", 48),
            ("init_service_td_attributes", 8),
            ("init_cpu_svn", 16),
            ("init_tee_tcb_svn", 16),
            ("init_tee_fmspc", 12),
            ("cur_service_td_hash", 48),
            ("cur_service_td_attributes", 8),
        ]
    return b"".join(values.get(name, b"").ljust(size, b"\0") for name, size in layout)


@dataclass(kw_only=True)
class FakeIntel:
    """One fake Intel and one of its platforms."""

    now: datetime = NOW
    realm: str = "fake"
    platform: str = "platform-1"
    ca: str = "Platform"
    extension: Mapping[str, Any] = field(default_factory=dict)
    qe_key: str = "qe"

    @property
    def ppid(self) -> bytes:
        """The platform's identity."""
        return hashlib.sha256(self.platform.encode()).digest()[:16]

    @property
    def fmspc(self) -> str:
        """The kind of the platform, in hex."""
        return str(self.extension.get("fmspc", bytes.fromhex("00f0a0000000")).hex())

    def key(self, label: str) -> ec.EllipticCurvePrivateKey:
        """A private key of this Intel's."""
        return _key(f"{self.realm} {label}")

    @cached_property
    def root(self) -> x509.Certificate:
        """The self-signed root."""
        return self.certificate(ROOT_NAME, "root", ROOT_NAME, "root", serial=1)

    @cached_property
    def pck_ca(self) -> x509.Certificate:
        """The issuer of PCK certificates."""
        name = f"Intel SGX PCK {self.ca} CA"
        return self.certificate(name, f"ca {self.ca}", ROOT_NAME, "root", serial=2)

    @cached_property
    def pck(self) -> x509.Certificate:
        """The certificate of the platform's key."""
        return self.make_pck()

    @cached_property
    def tcb_signer(self) -> x509.Certificate:
        """The signer of TCB infos and identities."""
        return self.certificate(
            "Intel SGX TCB Signing", "tcb", ROOT_NAME, "root", serial=3, ca=False
        )

    def make_pck(self, **changes: Any) -> x509.Certificate:
        """A PCK certificate; `changes` as for `certificate`."""
        given = {"ppid": self.ppid, **self.extension}
        usual: dict[str, Any] = {
            "common_name": "Intel SGX PCK Certificate",
            "label": f"pck {self.platform}",
            "issuer": f"Intel SGX PCK {self.ca} CA",
            "signer": f"ca {self.ca}",
            "serial": 0x77,
            "ca": False,
            "extension": sgx_extension(**given),
        }
        return self.certificate(**{**usual, **changes})

    def certificate(
        self,
        common_name: str,
        label: str,
        issuer: str,
        signer: str,
        *,
        serial: int,
        ca: bool = True,
        extension: bytes | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        """A certificate with any names, keys and dates."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(_name(issuer))
            .public_key(self.key(label).public_key())
            .serial_number(serial)
            .not_valid_before(not_before or self.now - timedelta(days=400))
            .not_valid_after(not_after or self.now + timedelta(days=900))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(_key_usage(ca=ca), critical=True)
        )
        if extension is not None:
            value = x509.UnrecognizedExtension(x509.ObjectIdentifier(_ARC), extension)
            builder = builder.add_extension(value, critical=False)
        return builder.sign(self.key(signer), hashes.SHA256())

    def crl(
        self,
        which: str = "pck",
        *,
        revoked: tuple[int, ...] = (),
        number: int = 1,
        this_update: datetime | None = None,
        next_update: datetime | None = None,
    ) -> x509.CertificateRevocationList:
        """The list of the PCK CA (`pck`) or of the root (`root`)."""
        issuer = f"Intel SGX PCK {self.ca} CA" if which == "pck" else ROOT_NAME
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(issuer))
            .last_update(this_update or self.now - timedelta(days=3))
            .next_update(next_update or self.now + timedelta(days=25))
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for serial in revoked:
            entry = (
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(self.now - timedelta(days=5))
                .build()
            )
            builder = builder.add_revoked_certificate(entry)
        label = f"ca {self.ca}" if which == "pck" else "root"
        return builder.sign(self.key(label), hashes.SHA256())

    def tcb_info(self, kind: str = "TDX", **changes: Any) -> str:
        """The answer of the service for this kind of platform, as text.

        `changes` replace members of the value; `signer` names another key.
        """
        signer = changes.pop("signer", "tcb")
        value: dict[str, Any] = {
            "id": kind,
            "version": 3,
            **self._dates(),
            "fmspc": self.fmspc.upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 18,
        }
        if kind == "TDX":
            value["tdxModule"] = module()
            value["tdxModuleIdentities"] = [
                {"id": "TDX_01", **module(), "tcbLevels": [svn_level(2)]}
            ]
        value["tcbLevels"] = [platform_level(kind)]
        return self._signed("tcbInfo", {**value, **changes}, signer)

    def first_tcb_info(self, *levels: dict[str, Any], **changes: Any) -> str:
        """The answer for SGX of the service's version 3, with TCB info version 2."""
        value: dict[str, Any] = {
            "version": 2,
            **self._dates(),
            "fmspc": self.fmspc,
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 12,
            "tcbLevels": [first_level(one) for one in levels],
        }
        return self._signed("tcbInfo", {**value, **changes}, "tcb")

    def qe_identity(self, kind: str = "TD_QE", **changes: Any) -> str:
        """The identity of the quoting enclave, as text; `changes` as for `tcb_info`."""
        signer = changes.pop("signer", "tcb")
        value: dict[str, Any] = {
            "id": kind,
            "version": 2,
            **self._dates(),
            "tcbEvaluationDataNumber": 18,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": QE_SIGNER.hex().upper(),
            "isvprodid": 2 if kind == "TD_QE" else 1,
            "tcbLevels": [svn_level(QE_SVN)],
        }
        return self._signed("enclaveIdentity", {**value, **changes}, signer)

    def collateral_json(self, tee: str = "tdx", **changes: Any) -> dict[str, Any]:
        """All collateral of a quote, in the members of an item; None leaves one out."""
        kinds = ("TDX", "TD_QE") if tee == "tdx" else ("SGX", "QE")
        chain = pem(self.tcb_signer) + pem(self.root)
        members: dict[str, Any] = {
            "tcb_info": self.tcb_info(kinds[0]),
            "tcb_info_issuer_chain": chain,
            "qe_identity": self.qe_identity(kinds[1]),
            "qe_identity_issuer_chain": chain,
            "pck_crl": der_hex(self.crl("pck")),
            "root_ca_crl": der_hex(self.crl("root")),
            "pck_crl_issuer_chain": pem(self.pck_ca) + pem(self.root),
            **changes,
        }
        return {name: value for name, value in members.items() if value is not None}

    def collateral(self, tee: str = "tdx", **changes: Any) -> GivenCollateral:
        """The same, parsed, as an operator would have imported it."""
        return parse_collateral(self.collateral_json(tee, **changes))

    def quote(
        self,
        *,
        tee: str = "tdx",
        version: int = 4,
        version_15: bool = False,
        extended: bool = False,
        padding: bytes = b"",
        certification: tuple[int, bytes] | None = None,
        qe: Mapping[str, Any] | None = None,
        ak: ec.EllipticCurvePrivateKey | None = None,
        **fields: Any,
    ) -> bytes:
        """A signed quote; `fields` are those of the report body."""
        if tee == "sgx":
            body = enclave_report(**fields)
        else:
            body = td_report(version_15=version_15, extended=extended, **fields)
        tee_type = 0x81 if tee == "tdx" else 0
        head = version.to_bytes(2, "little") + b"\x02\x00"
        head += tee_type.to_bytes(4, "little") + bytes(4) + VENDOR + bytes(20)
        if version == 5:
            kind = {384: 1, 584: 2, 648: 3, 885: 4}[len(body)]
            head += kind.to_bytes(2, "little") + len(body).to_bytes(4, "little")
        signed = head + body
        attestation = ak or self.key(f"ak {self.platform}")
        named = hashlib.sha256(point(attestation) + AUTH_DATA).digest()
        report = enclave_report(
            **{
                "attributes": bytes([0x15, *7 * [0], 0xE7, *7 * [0]]),
                "mr_signer": QE_SIGNER,
                "isv_prod_id": 2 if tee == "tdx" else 1,
                "isv_svn": QE_SVN,
                "report_data": named,
                **(qe or {}),
            }
        )
        pck = self.key(f"pck {self.platform}")
        given = certification or (5, self.chain_pem().encode() + b"\0")
        nested = report + raw_signature(pck, report)
        nested += len(AUTH_DATA).to_bytes(2, "little") + AUTH_DATA + _data(*given)
        outer = nested if version == 3 else _data(6, nested)
        signature = raw_signature(attestation, signed) + point(attestation) + outer
        return signed + len(signature).to_bytes(4, "little") + signature + padding

    def bundle_item(
        self,
        report_data: bytes = b"",
        *,
        collateral: bool = True,
        tee: str = "tdx",
        **changes: Any,
    ) -> dict[str, object]:
        """An item of a bundle: quote, and (unless told) all collateral."""
        if tee == "sgx":
            changes.setdefault("version", 3)
        item: dict[str, object] = {
            "kind": tee,
            "quote": b64(self.quote(tee=tee, report_data=report_data, **changes)),
        }
        if collateral:
            item["collateral"] = self.collateral_json(tee)
        return item

    def chain_pem(self) -> str:
        """What a quote carries: PCK, its issuer, the root."""
        return pem(self.pck) + pem(self.pck_ca) + pem(self.root)

    def pins(self) -> dict[str, str]:
        """The root's pin, for `Trust.pinned_roots`."""
        return {spki_sha256(self.root): ROOT_NAME}

    def other(self, **changes: Any) -> FakeIntel:
        """The same Intel with another platform, or another Intel."""
        return replace(self, **changes)

    def _dates(self) -> dict[str, str]:
        return {
            "issueDate": _time(self.now - timedelta(days=2)),
            "nextUpdate": _time(self.now + timedelta(days=28)),
        }

    def _signed(self, name: str, value: Mapping[str, Any], signer: str) -> str:
        body = json.dumps(value, separators=(",", ":"))
        signature = raw_signature(self.key(signer), body.encode()).hex()
        return f'{{"{name}":{body},"signature":"{signature}"}}'


def module(**changes: str) -> dict[str, str]:
    """What a genuine TDX module is known by."""
    usual = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    return {**usual, **changes}


def svn_level(svn: int, status: str = "UpToDate", *advisories: str) -> dict[str, Any]:
    """A level of an enclave or module."""
    return {
        "tcb": {"isvsvn": svn},
        "tcbDate": "2026-05-01T00:00:00Z",
        "tcbStatus": status,
        "advisoryIDs": list(advisories),
    }


def platform_level(
    kind: str = "TDX",
    status: str = "UpToDate",
    *advisories: str,
    sgx: tuple[int, ...] = PLATFORM_SVNS,
    tdx: tuple[int, ...] = tuple(TDX_TCB),
    pce_svn: int = PCE_SVN,
) -> dict[str, Any]:
    """A level of a platform."""
    tcb: dict[str, Any] = {
        "sgxtcbcomponents": [{"svn": svn} for svn in sgx],
        "pcesvn": pce_svn,
    }
    if kind == "TDX":
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in tdx]
    return {
        "tcb": tcb,
        "tcbDate": "2026-06-01T00:00:00Z",
        "tcbStatus": status,
        "advisoryIDs": list(advisories),
    }


def first_level(level: dict[str, Any]) -> dict[str, Any]:
    """A level of SGX as TCB info version 2 writes it, without advisories."""
    tcb = level["tcb"]
    components = {
        f"sgxtcbcomp{place:02}svn": one["svn"]
        for place, one in enumerate(tcb["sgxtcbcomponents"], 1)
    }
    return {
        "tcb": {**components, "pcesvn": tcb["pcesvn"]},
        "tcbDate": level["tcbDate"],
        "tcbStatus": level["tcbStatus"],
    }


def pem(certificate: x509.Certificate) -> str:
    """A certificate as PEM text."""
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def der_hex(crl: x509.CertificateRevocationList) -> str:
    """A list in DER, as the service gives it in hex."""
    return crl.public_bytes(Encoding.DER).hex()


def _data(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(data).to_bytes(4, "little") + data


def _time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Intel Corporation"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=not ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
