"""The ATTESTATION_REPORT: bytes to fields and back, nothing believed.

AMD 56860, SEV Secure Nested Paging Firmware ABI Specification, rev. 1.58, table 23.
Version 2 is the first shipped, 3 adds the CPUID fields, 5 the mitigation vectors.
Numbers are little-endian, r and s of the signature too. Every field that the
specification reserves must be zero; all recorded reports keep to that.
"""

from __future__ import annotations

from kbs.core.errors import MalformedError
from kbs.core.reader import Reader
from kbs.evidence.snp.products import TCB_BYTES
from kbs.evidence.snp.report import (
    CPUID,
    PLATFORM_BITS_DEFINED,
    POLICY_BITS_DEFINED,
    POLICY_RESERVED_ONE,
    SIGNING_KEYS,
    Mitigations,
    Report,
    SigningKey,
)

REPORT_BYTES = 1184
SIGNED_BYTES = 0x2A0
"""The signature covers everything before it (AMD 56860, section 7.3)."""

VERSIONS = (2, 3, 5)
_CPUID_SINCE = 3
_MITIGATIONS_SINCE = 5

# AMD 56860, table 139.
_ECDSA_P384_SHA384 = 1
_COORDINATE_BYTES = 48
_COORDINATE_FIELD_BYTES = 72
_SIGNATURE_PADDING_BYTES = 368
_MAX_VMPL = 3
_VERSION_PARTS = 3
_SIGNING_KEY_CODES = {key: code for code, key in SIGNING_KEYS.items()}


def parse_report(raw: bytes) -> Report:
    """Read a report of version 2, 3 or 5.

    Raises:
        MalformedError: wrong length or version, or something reserved is set.
    """
    if len(raw) != REPORT_BYTES:
        raise MalformedError(
            "snp report", got=f"{len(raw)} bytes", expected=f"{REPORT_BYTES} bytes"
        )
    reader = Reader(raw, "snp report")
    report = _read_report(reader)
    reader.zeros(_SIGNATURE_PADDING_BYTES, "signature padding")
    reader.end()
    if report.product is not None:
        # Refuses reserved TCB bytes; version 2 does not name its layout by itself.
        report.tcbs(report.product)
    return report


def serialize_report(report: Report) -> bytes:
    """Write a report back, byte for byte as it was parsed."""
    body = b"".join(
        (
            _u32(report.version),
            _u32(report.guest_svn),
            _u64(report.policy),
            report.family_id,
            report.image_id,
            _u32(report.vmpl),
            _u32(report.signature_algo),
            report.current_tcb,
            _u64(report.platform_info),
            _u32(_key_info_code(report)),
            bytes(4),
            report.report_data,
            report.measurement,
            report.host_data,
            report.id_key_digest,
            report.author_key_digest,
            report.report_id,
            report.report_id_ma,
            report.reported_tcb,
            _cpuid_bytes(report.cpuid),
            report.chip_id,
            report.committed_tcb,
            bytes((*reversed(report.current_version), 0)),
            bytes((*reversed(report.committed_version), 0)),
            report.launch_tcb,
            _mitigation_bytes(report.mitigations),
        )
    )
    coordinates = b"".join(
        value.to_bytes(_COORDINATE_FIELD_BYTES, "little")
        for value in (report.signature_r, report.signature_s)
    )
    return body + coordinates + bytes(_SIGNATURE_PADDING_BYTES)


def _read_report(reader: Reader) -> Report:
    version = reader.little(4, "VERSION")
    if version not in VERSIONS:
        raise MalformedError(
            "snp report VERSION", got=str(version), expected="2, 3 or 5"
        )
    guest_svn = reader.little(4, "GUEST_SVN")
    policy = _read_policy(reader)
    family_id = reader.take(16, "FAMILY_ID")
    image_id = reader.take(16, "IMAGE_ID")
    vmpl = _read_vmpl(reader)
    signature_algo = reader.little(4, "SIGNATURE_ALGO")
    current_tcb = reader.take(TCB_BYTES, "CURRENT_TCB")
    platform_info = _read_flags(reader, "PLATFORM_INFO", PLATFORM_BITS_DEFINED)
    author_key_en, mask_chip_key, signing_key = _read_key_info(reader, signature_algo)
    reader.zeros(4, "reserved bytes at 4Ch")
    return Report(
        version=version,
        guest_svn=guest_svn,
        policy=policy,
        family_id=family_id,
        image_id=image_id,
        vmpl=vmpl,
        signature_algo=signature_algo,
        current_tcb=current_tcb,
        platform_info=platform_info,
        author_key_en=author_key_en,
        mask_chip_key=mask_chip_key,
        signing_key=signing_key,
        # Keyword arguments are evaluated in the order written, which is the layout's.
        report_data=reader.take(64, "REPORT_DATA"),
        measurement=reader.take(48, "MEASUREMENT"),
        host_data=reader.take(32, "HOST_DATA"),
        id_key_digest=reader.take(48, "ID_KEY_DIGEST"),
        author_key_digest=reader.take(48, "AUTHOR_KEY_DIGEST"),
        report_id=reader.take(32, "REPORT_ID"),
        report_id_ma=reader.take(32, "REPORT_ID_MA"),
        reported_tcb=reader.take(TCB_BYTES, "REPORTED_TCB"),
        cpuid=_read_cpuid(reader, version),
        chip_id=reader.take(64, "CHIP_ID"),
        committed_tcb=reader.take(TCB_BYTES, "COMMITTED_TCB"),
        current_version=_read_version(reader, "CURRENT"),
        committed_version=_read_version(reader, "COMMITTED"),
        launch_tcb=reader.take(TCB_BYTES, "LAUNCH_TCB"),
        mitigations=_read_mitigations(reader, version),
        signature_r=_read_coordinate(reader, "signature R"),
        signature_s=_read_coordinate(reader, "signature S"),
    )


def _read_flags(reader: Reader, field: str, defined_bits: int) -> int:
    value = reader.little(8, field)
    if value >> defined_bits:
        raise MalformedError(
            f"snp report {field}",
            got=f"{value:#x}",
            expected=f"zero from bit {defined_bits} on",
            hint="newer firmware may define more; this version cannot judge them",
        )
    return value


def _read_policy(reader: Reader) -> int:
    policy = _read_flags(reader, "POLICY", POLICY_BITS_DEFINED)
    if not policy & POLICY_RESERVED_ONE:
        raise MalformedError(
            "snp report POLICY", got=f"{policy:#x}", expected="bit 17 set"
        )
    return policy


def _read_vmpl(reader: Reader) -> int:
    vmpl = reader.little(4, "VMPL")
    if vmpl > _MAX_VMPL:
        raise MalformedError(
            "snp report VMPL",
            got=f"{vmpl:#x}",
            expected="0 to 3",
            hint="FFFFFFFFh marks a report that the hypervisor asked for",
        )
    return vmpl


def _read_key_info(reader: Reader, algorithm: int) -> tuple[bool, bool, SigningKey]:
    info = reader.little(4, "key information at 48h")
    signing_key = SIGNING_KEYS.get(info >> 2)
    if signing_key is None:
        raise MalformedError(
            "snp report SIGNING_KEY",
            got=f"{info >> 2:#x}",
            expected="0 (VCEK), 1 (VLEK) or 7 (none), and no reserved bit",
        )
    if algorithm != _ECDSA_P384_SHA384:
        raise MalformedError(
            "snp report SIGNATURE_ALGO",
            got=str(algorithm),
            expected="1 (ECDSA P-384 with SHA-384)",
        )
    return bool(info & 1), bool(info & 2), signing_key


def _read_cpuid(reader: Reader, version: int) -> CPUID | None:
    if version < _CPUID_SINCE:
        reader.zeros(24, "reserved bytes at 188h")
        return None
    cpuid = CPUID(
        family=reader.little(1, "CPUID_FAM_ID"),
        model=reader.little(1, "CPUID_MOD_ID"),
        stepping=reader.little(1, "CPUID_STEP"),
    )
    reader.zeros(21, "reserved bytes at 18Bh")
    return cpuid


def _read_version(reader: Reader, which: str) -> tuple[int, int, int]:
    build, minor, major = reader.take(_VERSION_PARTS, f"{which}_BUILD, _MINOR, _MAJOR")
    reader.zeros(1, f"reserved byte after {which}_MAJOR")
    return major, minor, build


def _read_mitigations(reader: Reader, version: int) -> Mitigations | None:
    if version < _MITIGATIONS_SINCE:
        reader.zeros(168, "reserved bytes at 1F8h")
        return None
    mitigations = Mitigations(
        launch=reader.little(8, "LAUNCH_MIT_VECTOR"),
        current=reader.little(8, "CURRENT_MIT_VECTOR"),
    )
    reader.zeros(152, "reserved bytes at 208h")
    return mitigations


def _read_coordinate(reader: Reader, field: str) -> int:
    value = reader.little(_COORDINATE_BYTES, field)
    reader.zeros(_COORDINATE_FIELD_BYTES - _COORDINATE_BYTES, f"{field} padding")
    return value


def _key_info_code(report: Report) -> int:
    code = _SIGNING_KEY_CODES[report.signing_key] << 2
    return code | report.mask_chip_key << 1 | int(report.author_key_en)


def _cpuid_bytes(cpuid: CPUID | None) -> bytes:
    if cpuid is None:
        return bytes(24)
    return bytes((cpuid.family, cpuid.model, cpuid.stepping)) + bytes(21)


def _mitigation_bytes(mitigations: Mitigations | None) -> bytes:
    if mitigations is None:
        return bytes(168)
    return _u64(mitigations.launch) + _u64(mitigations.current) + bytes(152)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")
