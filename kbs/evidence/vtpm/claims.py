"""The claims that a verified TPM quote proves.

TPM 2.0 Library, Part 2 (revision 1.59), section 10.12 (TPMS_ATTEST, TPMS_CLOCK_INFO);
PC Client Platform TPM Profile 1.05, section 4.6 (PCRs, which of them reset, and their
initial values: zeros for 0–16 and 23, ones for 17–22).
"""

from __future__ import annotations

from functools import partial

from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue, Safety, claim_spec
from kbs.evidence.vtpm.abi import PCR_COUNT, Attest
from kbs.evidence.vtpm.algorithms import DIGEST_SIZES, Algorithm, bank_name
from kbs.evidence.vtpm.pcrs import PcrValues

FAMILY = "vtpm"

CLAIM_BANKS = (Algorithm.SHA256, Algorithm.SHA384)
"""Banks whose PCRs are claims; a SHA-1 PCR proves nothing that lasts."""

# PC Client Platform Firmware Profile 1.06, section 3.3.4: what the firmware measures.
_BOOT_PCRS = range(8)
# PC Client Platform TPM Profile 1.05, table 4: PCRs that software can reset.
_RESETTABLE_PCRS = range(16, PCR_COUNT)

_AK_REASON = (
    "a quote proves nothing unless the rule says whose attestation keys count: "
    "name the AK group or the CA"
)


_GCE = {
    "zone": "Zone",
    "project_number": "Number of the project, in decimal,",
    "project_id": "Id of the project",
    "instance_id": "Id of the instance, in decimal,",
    "instance_name": "Name of the instance",
}


def pcr_claim(bank: Algorithm, pcr: int) -> str:
    """Return the claim's name of one PCR."""
    return f"{FAMILY}.pcr.{bank_name(bank)}.{pcr}"


_spec = partial(claim_spec, FAMILY)


def _pcr_spec(bank: Algorithm, pcr: int) -> ClaimSpec:
    return ClaimSpec(
        name=pcr_claim(bank, pcr),
        type=ClaimType.BYTES,
        description=f"PCR {pcr} of the {bank_name(bank)} bank, if it was quoted",
        source="TPM 2.0 Part 2, 10.12.1 (TPMS_QUOTE_INFO)",
        size=DIGEST_SIZES[bank],
        boot=pcr in _BOOT_PCRS,
        register=bank_name(bank),
        resettable=pcr in _RESETTABLE_PCRS,
        register_style="extend",
    )


VOCABULARY: tuple[ClaimSpec, ...] = (
    _spec(
        "extra_data",
        ClaimType.BYTES,
        "extraData: the qualifying data that the caller of TPM2_Quote gave",
        "TPM 2.0 Part 2, 10.12.8 (TPMS_ATTEST)",
    ),
    _spec(
        "clock",
        ClaimType.U64,
        "milliseconds for which the TPM has been powered",
        "TPM 2.0 Part 2, 10.11.1 (TPMS_CLOCK_INFO)",
    ),
    _spec(
        "reset_count",
        ClaimType.INT,
        "number of TPM resets (boots) since the last TPM2_Clear",
        "TPM 2.0 Part 2, 10.11.1 (TPMS_CLOCK_INFO)",
    ),
    _spec(
        "restart_count",
        ClaimType.INT,
        "number of restarts and resumes since the last reset",
        "TPM 2.0 Part 2, 10.11.1 (TPMS_CLOCK_INFO)",
    ),
    _spec(
        "safe",
        ClaimType.BOOL,
        "no larger value of clock was ever reported since the last TPM2_Clear",
        "TPM 2.0 Part 2, 10.11.1 (TPMS_CLOCK_INFO)",
    ),
    _spec(
        "firmware_version",
        ClaimType.U64,
        "version of the TPM's firmware, in its vendor's numbering",
        "TPM 2.0 Part 2, 10.12.8 (TPMS_ATTEST)",
    ),
    _spec(
        "ak.name",
        ClaimType.BYTES,
        "name of the attestation key: u16 nameAlg and the digest of its public area",
        "TPM 2.0 Part 1, 16 (Names)",
    ),
    _spec(
        "ak.group",
        ClaimType.TEXT,
        "group that the key is enrolled in (`shared/NAME` for one of shared)",
        "signed statement of kind ak",
        safety=Safety(reason=_AK_REASON, alternatives=(f"{FAMILY}.ak.ca",)),
    ),
    _spec(
        "ak.ca",
        ClaimType.TEXT,
        "CA (`shared/NAME` for one of shared) or pinned TPM root that the key's "
        "certificate chains to",
        "signed statement of kind ca, or a pinned root",
    ),
    *(
        _spec(
            f"gce.{name}",
            ClaimType.TEXT,
            f"{meaning} of Compute Engine, when the key's certificate chains to "
            "Google's pinned root",
            "AK certificate, extension 1.3.6.1.4.1.11129.2.1.21",
        )
        for name, meaning in _GCE.items()
    ),
    _spec(
        "eventlog.secure_boot",
        ClaimType.BOOL,
        "UEFI variable SecureBoot as measured before PCR 7's separator; only when the "
        "event log replays to the quoted PCR 7",
        "TCG PC Client Platform Firmware Profile 1.06, 3.3.4.8 (PCR 7)",
    ),
    *(_pcr_spec(bank, pcr) for bank in CLAIM_BANKS for pcr in range(PCR_COUNT)),
)


def quote_claims(attest: Attest, pcrs: PcrValues) -> dict[str, ClaimValue]:
    """Return the claims of a quote; the caller has verified signature and digest."""
    values: dict[str, ClaimValue] = {
        f"{FAMILY}.extra_data": attest.extra_data.hex(),
        f"{FAMILY}.clock": f"{attest.clock:016x}",
        f"{FAMILY}.reset_count": attest.reset_count,
        f"{FAMILY}.restart_count": attest.restart_count,
        f"{FAMILY}.safe": attest.safe,
        f"{FAMILY}.firmware_version": f"{attest.firmware_version:016x}",
    }
    for bank, pcr in sorted(attest.selected):
        if bank in CLAIM_BANKS:
            values[pcr_claim(bank, pcr)] = pcrs[bank, pcr].hex()
    return values
