"""The report bodies of quotes: TD reports 1.0, 1.5 and 1.5 extended, enclave reports.

Intel TDX DCAP Quoting Library API, rev. 0.9, appendix A.3.2 (TD quote body, version 4)
and A.4 (version 5, TD report 1.5); Intel SGX ECDSA QuoteGenReference, rev. 1.14,
appendix A.4 (enclave report body); Intel SDM, volume 3D, table 38-21 (REPORT). The
extended report (body type 4) is laid out as dcap-qvl 0.7 reads it, which the tests
compare. Fields keep their bytes; numbers are little-endian.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from kbs.core.reader import Reader

ENCLAVE_REPORT_BYTES = 384
TD_REPORT_10_BYTES = 584
TD_REPORT_15_BYTES = 648
TD_REPORT_15_EX_BYTES = 885

# Intel SDM, volume 3D, table 38-3 (ATTRIBUTES of an enclave), bit 1.
_SGX_DEBUG = 1 << 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """A TD report; what its version does not have is None.

    From `tee_tcb_svn2` on the fields are of version 1.5, from `vmid` on of the extended
    one, in the order in which they are laid out.
    """

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mr_service_td: bytes | None = None
    vmid: bytes | None = None
    td_id: bytes | None = None
    dev_info: bytes | None = None
    init_service_td_hash: bytes | None = None
    init_service_td_attributes: bytes | None = None
    init_cpu_svn: bytes | None = None
    init_tee_tcb_svn: bytes | None = None
    init_tee_fmspc: bytes | None = None
    cur_service_td_hash: bytes | None = None
    cur_service_td_attributes: bytes | None = None

    @property
    def rtmrs(self) -> tuple[bytes, ...]:
        """The four run-time measurement registers."""
        return (self.rtmr0, self.rtmr1, self.rtmr2, self.rtmr3)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReport:
    """The report of an enclave: the one that is attested, or the quoting enclave."""

    cpu_svn: bytes
    misc_select: bytes
    isv_ext_prod_id: bytes
    attributes: bytes
    mr_enclave: bytes
    mr_signer: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    isv_family_id: bytes
    report_data: bytes

    @property
    def is_debug(self) -> bool:
        """Whether the enclave's memory can be read from outside."""
        return bool(self.attributes[0] & _SGX_DEBUG)


Report = TdReport | EnclaveReport


# Field names of each version to bytes, in the order of the layout.
_FIELDS_15 = {"tee_tcb_svn2": 16, "mr_service_td": 48}
_FIELDS_15_EX = {
    **_FIELDS_15,
    "vmid": 1,
    "td_id": 32,
    "dev_info": 48,
    "init_service_td_hash": 48,
    "init_service_td_attributes": 8,
    "init_cpu_svn": 16,
    "init_tee_tcb_svn": 16,
    "init_tee_fmspc": 12,
    "cur_service_td_hash": 48,
    "cur_service_td_attributes": 8,
}
_FURTHER: Mapping[int, Mapping[str, int]] = {
    TD_REPORT_10_BYTES: {},
    TD_REPORT_15_BYTES: _FIELDS_15,
    TD_REPORT_15_EX_BYTES: _FIELDS_15_EX,
}


def read_td_report(reader: Reader, size: int) -> TdReport:
    """Read a TD report, whose size tells its version.

    Raises:
        MalformedError: it is too short.
    """
    # Keyword arguments are evaluated in the order written, which is the layout's.
    return TdReport(
        tee_tcb_svn=reader.take(16, "TEE_TCB_SVN"),
        mr_seam=reader.take(48, "MRSEAM"),
        mr_signer_seam=reader.take(48, "MRSIGNERSEAM"),
        seam_attributes=reader.take(8, "SEAMATTRIBUTES"),
        td_attributes=reader.take(8, "TDATTRIBUTES"),
        xfam=reader.take(8, "XFAM"),
        mr_td=reader.take(48, "MRTD"),
        mr_config_id=reader.take(48, "MRCONFIGID"),
        mr_owner=reader.take(48, "MROWNER"),
        mr_owner_config=reader.take(48, "MROWNERCONFIG"),
        rtmr0=reader.take(48, "RTMR0"),
        rtmr1=reader.take(48, "RTMR1"),
        rtmr2=reader.take(48, "RTMR2"),
        rtmr3=reader.take(48, "RTMR3"),
        report_data=reader.take(64, "REPORTDATA"),
        **{
            name: reader.take(width, name.upper())
            for name, width in _FURTHER[size].items()
        },
    )


def read_enclave_report(reader: Reader) -> EnclaveReport:
    """Read an enclave report, whose reserved bytes are zero.

    Raises:
        MalformedError: it is too short, or something reserved is set.
    """
    cpu_svn = reader.take(16, "CPUSVN")
    misc_select = reader.take(4, "MISCSELECT")
    reader.zeros(12, "reserved bytes at 14h")
    isv_ext_prod_id = reader.take(16, "ISVEXTPRODID")
    attributes = reader.take(16, "ATTRIBUTES")
    mr_enclave = reader.take(32, "MRENCLAVE")
    reader.zeros(32, "reserved bytes at 60h")
    mr_signer = reader.take(32, "MRSIGNER")
    reader.zeros(32, "reserved bytes at A0h")
    config_id = reader.take(64, "CONFIGID")
    isv_prod_id = reader.little(2, "ISVPRODID")
    isv_svn = reader.little(2, "ISVSVN")
    config_svn = reader.little(2, "CONFIGSVN")
    reader.zeros(42, "reserved bytes at 106h")
    return EnclaveReport(
        cpu_svn=cpu_svn,
        misc_select=misc_select,
        isv_ext_prod_id=isv_ext_prod_id,
        attributes=attributes,
        mr_enclave=mr_enclave,
        mr_signer=mr_signer,
        config_id=config_id,
        isv_prod_id=isv_prod_id,
        isv_svn=isv_svn,
        config_svn=config_svn,
        isv_family_id=reader.take(16, "ISVFAMILYID"),
        report_data=reader.take(64, "REPORTDATA"),
    )


def serialize_report(report: Report) -> bytes:
    """Write a report back, byte for byte as it was read."""
    if isinstance(report, TdReport):
        values = (getattr(report, each.name) for each in fields(report))
        return b"".join(value for value in values if value is not None)
    return b"".join(
        (
            report.cpu_svn,
            report.misc_select,
            bytes(12),
            report.isv_ext_prod_id,
            report.attributes,
            report.mr_enclave,
            bytes(32),
            report.mr_signer,
            bytes(32),
            report.config_id,
            report.isv_prod_id.to_bytes(2, "little"),
            report.isv_svn.to_bytes(2, "little"),
            report.config_svn.to_bytes(2, "little"),
            bytes(42),
            report.isv_family_id,
            report.report_data,
        )
    )
