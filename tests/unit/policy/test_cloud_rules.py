"""What a rule about evidence of a cloud must fix, or excuse under `unsafe:`."""

from __future__ import annotations

import pytest

from kbs.evidence.registry import vocabulary
from kbs.policy.parse import PolicyError, parse_release_policy
from kbs.policy.safety import expansion
from tests.unit.policy.words import policy_text

WORDS = vocabulary()
PCR = "'" + "11" * 48 + "'"
SHA256 = "'" + "11" * 32 + "'"
NITRO = f"{{claim: nitro.pcrs.0, equals: {PCR}}}"
TPM = f"{{claim: nitrotpm.pcrs.4, equals: {PCR}}}"
PARAVISOR = f"{{claim: azure_snp.measurement, equals: {PCR}}}"
ID_KEY = f"{{claim: azure_snp.id_key_digest, equals: {PCR}}}"
RESETTABLE = f"{{claim: azure_snp.pcr.sha256.16, equals: {SHA256}}}"
TDX_PCR = f"{{claim: azure_tdx.pcr.sha256.4, equals: {SHA256}}}"
ZERO = f"'{'0' * 64}'"
ZERO_PCR = f"{{claim: azure_snp.pcr.sha256.15, equals: {ZERO}}}"
PERHAPS_ZERO = f"{{claim: azure_snp.pcr.sha256.4, in: [{SHA256}, {ZERO}]}}"
VM_PCR = f"{{claim: azure_snp.pcr.sha256.4, equals: {SHA256}}}"

SIGNER = f"{{claim: ita.sgx_mrsigner, equals: {SHA256}}}"
INDEXED = SIGNER.replace("ita.sgx_mrsigner", '"ita[0].sgx_mrsigner"')
PRODUCT = "{claim: ita.sgx_isvprodid, equals: 0}"
VERSION = "{claim: ita.sgx_isvsvn, at_least: 3}"
ENCLAVE = f"{{claim: ita.sgx_mrenclave, equals: {SHA256}}}"
TD = f"{{claim: ita.tdx_mrtd, equals: {PCR}}}"
MAA_SIGNER = f"{{claim: maa.x_ms_sgx_mrsigner, equals: {SHA256}}}"
MAA_PRODUCT = (
    "{claim: maa.x_ms_sgx_product_id, equals: 1}, "
    "{claim: maa.x_ms_sgx_svn, at_least: 1}"
)
LAUNCH = f"{{claim: maa.x_ms_sevsnpvm_launchmeasurement, equals: {PCR}}}"
OUT_OF_DATE = "{claim: ita.attester_tcb_status, in: [OutOfDate]}"
MAA_SNP = ("maa.migration_allowed", "maa.other_tdx_module", "maa.vmpl")
MAA_OPEN = ("maa.x_ms_sgx_product_id", "maa.x_ms_sgx_svn")
OF_SIGNER = ("ita.sgx_isvprodid", "ita.sgx_isvsvn")


def open_claims(conditions: str, unsafe: str = "") -> list[str]:
    """Return the claims that stand open in the errors; none if it registers."""
    text = policy_text(f"[{conditions}]", unsafe=f"{{{unsafe}}}" if unsafe else "")
    try:
        parse_release_policy(text, vocabulary=WORDS)
    except PolicyError as exc:
        return [str(each).split(": ")[1].split()[2] for each in exc.problems]
    return []


@pytest.mark.parametrize(
    ("conditions", "unsafe", "found"),
    [
        (f"{{claim: nitro.pcrs.0, equals: {PCR}}}", "", ["nitro.debug"]),
        (f"{{claim: nitro.pcrs.0, equals: {PCR}}}, {{safe: true}}", "", []),
        (f"{NITRO}, {{claim: nitro.debug, equals: false}}", "", []),
        ("{claim: nitro.debug, equals: true}", "", ["nitro.debug"]),
        ("{claim: nitro.debug, equals: true}", "nitro.debug: a laboratory", []),
        ("{claim: nitrotpm.module_id, equals: x}", "", ["nitrotpm.pcrs.4"]),
        (
            "{claim: nitrotpm.module_id, equals: x}, {safe: true}",
            "",
            ["nitrotpm.pcrs.4"],
        ),
        (f"{{claim: nitrotpm.pcrs.4, equals: {PCR}}}", "", []),
        (f"{{claim: nitrotpm.pcrs.7, equals: {PCR}}}", "", []),
        (f"{{claim: nitrotpm.pcrs.0, equals: {PCR}}}", "", ["nitrotpm.pcrs.4"]),
        (
            f"{TPM}, {{claim: nitrotpm.pcrs.16, equals: {PCR}}}",
            "",
            ["nitrotpm.pcrs.16"],
        ),
        # Azure: the hardware's own, the paravisor, and a PCR of this VM.
        (
            "{claim: azure_snp.vm.secure_boot, equals: true}",
            "",
            [
                "azure_snp.measurement",
                "azure_snp.vmpl",
                "azure_snp.signing_key",
                "azure_snp.policy.migrate_ma_allowed",
                "azure_snp.policy.debug_allowed",
                "azure_snp.pcr.sha256.0",
            ],
        ),
        (
            f"{{safe: true}}, {PARAVISOR}",
            "",
            ["azure_snp.pcr.sha256.0"],
        ),
        (f"{{safe: true}}, {VM_PCR}", "", ["azure_snp.measurement"]),
        (f"{{safe: true}}, {PARAVISOR}, {VM_PCR}", "", []),
        (
            f"{{safe: true}}, {PARAVISOR}",
            "azure_snp.pcr.sha256.4: the same image for everybody",
            [],
        ),
        (
            f"{{safe: true}}, {ID_KEY}, {VM_PCR}",
            "",
            [],
        ),
        (
            f"{{safe: true}}, {TDX_PCR}",
            "",
            ["azure_tdx.mr_td"],
        ),
        # A register that nothing was measured into is zero in every VM.
        (
            f"{{safe: true}}, {PARAVISOR}, {ZERO_PCR}",
            "",
            ["azure_snp.pcr.sha256.0"],
        ),
        (
            f"{{safe: true}}, {PARAVISOR}, {PERHAPS_ZERO}",
            "",
            ["azure_snp.pcr.sha256.0"],
        ),
        (f"{{safe: true}}, {PARAVISOR}, {ZERO_PCR}, {VM_PCR}", "", []),
        (f"{{claim: nitrotpm.pcrs.4, equals: '{'0' * 96}'}}", "", ["nitrotpm.pcrs.4"]),
        # Tokens about a TEE of any kind: nothing of it may stay open.
        *(
            (
                f"{{claim: {family}.tdx_mrtd, equals: {PCR}}}",
                "",
                [
                    f"{family}.attester_tcb_status",
                    f"{family}.debug",
                    f"{family}.migration_allowed",
                    f"{family}.other_tdx_module",
                    *more,
                ],
            )
            for family, more in (("maa", ["maa.vmpl"]), ("ita", []))
        ),
        # An SNP guest's token has no such status.
        (f"{{claim: maa.debug, equals: false}}, {LAUNCH}", "", [*MAA_SNP]),
        (
            f"{{safe: true}}, {TD}, {OUT_OF_DATE}",
            "",
            ["ita.attester_tcb_status"],
        ),
        # MRSIGNER alone says neither which enclave of that signer nor how old it is.
        *(
            (f"{{safe: true}}, {conditions}", "", found)
            for conditions, found in (
                (SIGNER, ["ita.sgx_isvprodid", "ita.sgx_isvsvn"]),
                (f"{SIGNER}, {PRODUCT}", ["ita.sgx_isvsvn"]),
                (f"{SIGNER}, {PRODUCT}, {VERSION}", []),
                (f"{SIGNER}, {ENCLAVE}", []),
                (f"{{any: [{SIGNER}, {ENCLAVE}]}}", [*OF_SIGNER]),
                (f"{{any: [{{all: [{SIGNER}, {PRODUCT}, {VERSION}]}}, {TD}]}}", []),
                (f"{{every: ita, all: [{SIGNER}]}}", [*OF_SIGNER]),
                (INDEXED, [*OF_SIGNER]),
                (MAA_SIGNER, [*MAA_OPEN]),
                (f"{{any: [{MAA_SIGNER}, {LAUNCH}]}}", [*MAA_OPEN]),
                (f"{{any: [{{all: [{MAA_SIGNER}, {MAA_PRODUCT}]}}, {LAUNCH}]}}", []),
                (f"{{claim: ita.attester_tcb_status, equals: UpToDate}}, {TD}", []),
            )
        ),
        # A PCR that software can reset says nothing of what runs.
        (
            f"{{safe: true}}, {PARAVISOR}, {RESETTABLE}",
            "",
            ["azure_snp.pcr.sha256.0", "azure_snp.pcr.sha256.16"],
        ),
    ],
)
def test_a_rule_fixes_what_is_dangerous_or_excuses_it(
    conditions: str, unsafe: str, found: list[str]
) -> None:
    assert open_claims(conditions, unsafe) == found


@pytest.mark.parametrize(
    ("measured", "status"), [(TD, True), (ENCLAVE, True), (LAUNCH, False)]
)
def test_safe_asks_for_a_status_of_tees_that_have_one(
    measured: str, *, status: bool
) -> None:
    text = policy_text(f"[{{safe: true}}, {measured}]")
    (rule,) = parse_release_policy(text, vocabulary=WORDS).policy.allow
    named = {str(node) for node in expansion(rule, WORDS)}
    assert any("tcb_status" in one for one in named) is status
