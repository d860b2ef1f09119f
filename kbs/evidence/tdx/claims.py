"""The claims that a verified TD quote proves.

Intel TDX DCAP Quoting Library API, rev. 0.9, A.3.2 (TD quote body); Intel TDX Module
Base Architecture Specification, rev. 1.5, section 12 (measurement and attestation).
"""

from __future__ import annotations

from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue, Safety
from kbs.evidence.dcap.fields import Fields
from kbs.evidence.dcap.reports import TdReport
from kbs.evidence.dcap.tcb_claims import tcb_specs
from kbs.evidence.tdx.attributes import FLAGS, flags_of, is_under_debug

FAMILY = "tdx"
SECURE_BOOT = "tdx.eventlog.secure_boot"

_SOURCE = "TD quote body"
_FIELDS = Fields(FAMILY, _SOURCE)
_HASH_BYTES = 48
_MODULE_BYTES = 8

_DEBUG = Safety(
    reason="the host can read memory and registers of a TD under debug",
    default=(False,),
)
_SERVICE_TD = Safety(
    reason="a service TD can move this one to another machine, by a policy of its own",
    default=(False,),
)
_SEAM_ATTRIBUTES = Safety(
    reason="a TDX module with attributes is not one that Intel released",
    default=("00" * _MODULE_BYTES,),
)
_SIGNER_SEAM = Safety(
    reason="zeros stand for Intel; another signer's TDX module can say anything",
    default=("00" * _HASH_BYTES,),
)

_FLAG_TEXT = {
    "sept_ve_disable": "A page that the host took away stops the TD instead of "
    "raising an exception in it",
    "migratable": "The TD may be moved to another machine by a migration TD",
    "pks": "Supervisor protection keys may be used",
    "kl": "Key Locker may be used",
    "perfmon": "Performance counters may be used",
}

# Fields of extended reports: bytes, and what they are.
_EXTENDED = (
    ("vmid", 1, "Which TD of a partitioned one this is"),
    ("td_id", 32, "Identity of the TD"),
    ("dev_info", 48, "Digest of the devices bound to the TD"),
    ("init_service_td_hash", 48, "Digest of service TDs at the TD's start"),
    ("init_service_td_attributes", 8, "Attributes of service TDs at the TD's start"),
    ("init_cpu_svn", 16, "SVNs of the processor on which the TD started"),
    ("init_tee_tcb_svn", 16, "SVNs of TDX module and platform where it started"),
    ("init_tee_fmspc", 12, "Kind of the platform on which it started"),
    ("cur_service_td_hash", 48, "Digest of service TDs now"),
    ("cur_service_td_attributes", 8, "Attributes of service TDs now"),
)
_SERVICE_TD_HASHES = ("mr_service_td", "init_service_td_hash", "cur_service_td_hash")

# What RTMRs are for: Intel TDX Virtual Firmware Design Guide, rev. 1.01, section 8.
_RTMR_TEXT = (
    "RTMR 0: firmware configuration, by the virtual firmware",
    "RTMR 1: boot loader and kernel, by the virtual firmware",
    "RTMR 2: command line, initial RAM disk, by boot loader and kernel",
    "RTMR 3: whatever the guest extends while it runs",
)
_RUNTIME_RTMR = 3


TDX_CLAIMS: tuple[ClaimSpec, ...] = (
    _FIELDS.version("4 or 5"),
    _FIELDS.octets(
        "mr_td",
        _HASH_BYTES,
        "Digest of the TD's initial memory: its virtual firmware",
        boot=True,
    ),
    *(
        ClaimSpec(
            name=f"tdx.rtmr{number}",
            type=ClaimType.BYTES,
            size=_HASH_BYTES,
            boot=number < _RUNTIME_RTMR,
            register="sha384",
            description=description,
            source=f"{_SOURCE}, RTMR{number}",
        )
        for number, description in enumerate(_RTMR_TEXT)
    ),
    ClaimSpec(
        name="tdx.mr_config_id",
        type=ClaimType.BYTES,
        size=_HASH_BYTES,
        register="sha384",
        register_style="set",
        description="What the host gave at start; worth as much as the measurement",
        source=f"{_SOURCE}, MRCONFIGID",
    ),
    _FIELDS.octets("mr_owner", _HASH_BYTES, "Owner, as the host gave it at start"),
    _FIELDS.octets(
        "mr_owner_config", _HASH_BYTES, "Owner's configuration, given at start"
    ),
    _FIELDS.octets(
        "report_data", 64, "What the guest asked to have signed: the binding"
    ),
    _FIELDS.flag(
        "debug",
        "The TD is under debug: any bit of the group TUD is set",
        f"{_SOURCE}, TDATTRIBUTES bits 7:0",
        _DEBUG,
    ),
    _FIELDS.flag(
        "service_td",
        "A service TD is bound (a digest of service TDs is not zero) or the TD is "
        "migratable; TD reports 1.0 say only the latter",
        f"{_SOURCE}, MRSERVICETD and TDATTRIBUTES bit 29",
        _SERVICE_TD,
    ),
    *(
        _FIELDS.flag(name, _FLAG_TEXT[name], f"{_SOURCE}, TDATTRIBUTES bit {bit}")
        for name, bit in FLAGS.items()
    ),
    _FIELDS.octets(
        "td_attributes", 8, "All attributes of the TD, as they are laid out"
    ),
    _FIELDS.octets("xfam", 8, "Processor state that the TD may use, as it is laid out"),
    _FIELDS.octets(
        "mr_service_td", _HASH_BYTES, "Digest of bound service TDs; reports 1.5"
    ),
    *(
        _FIELDS.octets(name, size, f"{description}; extended reports")
        for name, size, description in _EXTENDED
    ),
    _FIELDS.octets("mr_seam", _HASH_BYTES, "Digest of the TDX module"),
    _FIELDS.octets(
        "mr_signer_seam",
        _HASH_BYTES,
        "Signer of the TDX module; zeros are Intel",
        _SIGNER_SEAM,
    ),
    _FIELDS.octets(
        "seam_attributes",
        _MODULE_BYTES,
        "Attributes of the TDX module, as they are laid out",
        _SEAM_ATTRIBUTES,
    ),
    _FIELDS.octets(
        "tee_tcb_svn", 16, "SVNs of the TDX module and platform at the TD's start"
    ),
    _FIELDS.octets("tee_tcb_svn2", 16, "The same SVNs now; reports 1.5"),
    *tcb_specs(FAMILY),
    _FIELDS.flag(
        "eventlog.secure_boot",
        "Secure Boot was on, if an event log proves what the firmware measured",
        "CCEL event log, SecureBoot variable in RTMR 0",
    ),
)
"""Every claim of the family, in the order of the documentation."""


def report_claims(version: int, report: TdReport) -> dict[str, ClaimValue]:
    """Return what header and report alone say."""
    attributes = report.td_attributes
    flags = flags_of(attributes)
    bound = any(any(getattr(report, name) or b"") for name in _SERVICE_TD_HASHES)
    values: dict[str, ClaimValue] = {
        "tdx.version": version,
        "tdx.mr_td": report.mr_td.hex(),
        **{f"tdx.rtmr{i}": value.hex() for i, value in enumerate(report.rtmrs)},
        "tdx.mr_config_id": report.mr_config_id.hex(),
        "tdx.mr_owner": report.mr_owner.hex(),
        "tdx.mr_owner_config": report.mr_owner_config.hex(),
        "tdx.report_data": report.report_data.hex(),
        "tdx.debug": is_under_debug(attributes),
        "tdx.service_td": bound or flags["migratable"],
        **{f"tdx.{name}": value for name, value in flags.items()},
        "tdx.td_attributes": attributes.hex(),
        "tdx.xfam": report.xfam.hex(),
        "tdx.mr_seam": report.mr_seam.hex(),
        "tdx.mr_signer_seam": report.mr_signer_seam.hex(),
        "tdx.seam_attributes": report.seam_attributes.hex(),
        "tdx.tee_tcb_svn": report.tee_tcb_svn.hex(),
    }
    for name in ("mr_service_td", "tee_tcb_svn2", *(name for name, *_ in _EXTENDED)):
        value = getattr(report, name)
        if value is not None:
            values[f"tdx.{name}"] = value.hex()
    return values
