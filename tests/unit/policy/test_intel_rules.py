"""What a rule about TDX or SGX must fix or excuse, and how their registers measure."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from kbs.core.claims import ClaimValue
from kbs.evidence.model import Trust
from kbs.evidence.registry import VERIFIERS, vocabulary
from kbs.policy.appraise import appraise
from kbs.policy.parse import ParsedPolicy, PolicyError, parse_release_policy
from tests.fakes.intel import NOW, FakeIntel, platform_level
from tests.unit.policy.words import DOCUMENT, VIEW, claims

WORDS = vocabulary()
INTEL = FakeIntel()
MR_TD = f'{{claim: tdx.mr_td, equals: "{bytes(range(48)).hex()}"}}'
MR_ENCLAVE = f'{{claim: sgx.mr_enclave, equals: "{bytes(range(32)).hex()}"}}'
MR_SIGNER = f'{{claim: sgx.mr_signer, equals: "{bytes(range(32, 64)).hex()}"}}'
SAFE_TDX = {
    "tdx.debug": "false",
    "tdx.service_td": "false",
    "tdx.mr_signer_seam": '"' + "00" * 48 + '"',
    "tdx.seam_attributes": '"' + "00" * 8 + '"',
    "tdx.tcb_status": "UpToDate",
}


def parsed(*leaves: str, unsafe: str = "{}") -> ParsedPolicy:
    conditions = "".join(f"      - {leaf}\n" for leaf in leaves)
    text = (
        'kind: ReleasePolicy\nname: intel\nreleases: ["acme/intel/*"]\nallow:\n'
        f"  - rule: only\n    unsafe: {unsafe}\n    all:\n{conditions}"
    )
    if unsafe == "{}":
        text = text.replace("    unsafe: {}\n", "")
    return parse_release_policy(text.encode(), vocabulary=WORDS)


def open_claims(*leaves: str, unsafe: str = "{}") -> list[str]:
    try:
        parsed(*leaves, unsafe=unsafe)
    except PolicyError as exc:
        return [str(each).split(": ")[1].split()[2] for each in exc.problems]
    return []


def fixed(**changes: str) -> list[str]:
    values = SAFE_TDX | {f"tdx.{name}": value for name, value in changes.items()}
    return [f"{{claim: {name}, equals: {value}}}" for name, value in values.items()]


@pytest.mark.parametrize(
    ("leaves", "found"),
    [
        (["{safe: true}"], []),
        (fixed(), []),
        ([], list(SAFE_TDX)),
        (fixed(debug="true"), ["tdx.debug"]),
        (fixed(service_td="true"), ["tdx.service_td"]),
        (fixed(seam_attributes='"0100000000000000"'), ["tdx.seam_attributes"]),
        (fixed(mr_signer_seam=f'"{"01" * 48}"'), ["tdx.mr_signer_seam"]),
        (fixed(tcb_status="SWHardeningNeeded"), []),
        (fixed(tcb_status="ConfigurationNeeded"), []),
        (fixed(tcb_status="OutOfDate"), ["tdx.tcb_status"]),
        (fixed(tcb_status="Revoked"), ["tdx.tcb_status"]),
        (fixed(tcb_status="NotSupported"), ["tdx.tcb_status"]),
        (["{safe: true}", "{claim: tdx.debug, equals: true}"], ["tdx.debug"]),
    ],
)
def test_a_rule_about_tds_fixes_what_is_dangerous(
    leaves: list[str], found: list[str]
) -> None:
    assert sorted(open_claims(MR_TD, *leaves)) == sorted(found)


def test_what_is_dangerous_can_be_excused() -> None:
    unsafe = "{" + ", ".join(f"{name}: laboratory" for name in SAFE_TDX) + "}"
    assert open_claims(MR_TD, unsafe=unsafe) == []


@pytest.mark.parametrize(
    ("leaves", "found"),
    [
        ([MR_ENCLAVE], []),
        ([MR_SIGNER], ["sgx.isv_prod_id", "sgx.isv_svn"]),
        (
            [
                MR_SIGNER,
                "{claim: sgx.isv_prod_id, equals: 1}",
                "{claim: sgx.isv_svn, equals: 3}",
            ],
            [],
        ),
        (
            [
                MR_SIGNER,
                "{claim: sgx.isv_prod_id, equals: 1}",
                "{claim: sgx.isv_svn, at_least: 3}",
            ],
            [],
        ),
        (
            [
                MR_SIGNER,
                "{claim: sgx.isv_prod_id, at_least: 1}",
                "{claim: sgx.isv_svn, at_most: 3}",
            ],
            ["sgx.isv_prod_id", "sgx.isv_svn"],
        ),
        (
            [
                MR_SIGNER,
                "{claim: sgx.isv_prod_id, equals: 1}",
                "{not: {claim: sgx.isv_svn, at_least: 3}}",
            ],
            ["sgx.isv_svn"],
        ),
        # Every version is at least 0.
        (
            [
                MR_SIGNER,
                "{claim: sgx.isv_prod_id, equals: 1}",
                "{claim: sgx.isv_svn, at_least: 0}",
            ],
            ["sgx.isv_svn"],
        ),
        (
            [
                MR_SIGNER,
                "{claim: sgx.isv_prod_id, equals: 0}",
                "{claim: sgx.isv_svn, equals: 0}",
            ],
            [],
        ),
    ],
)
def test_a_rule_about_a_signer_names_product_and_svn(
    leaves: list[str], found: list[str]
) -> None:
    assert open_claims("{safe: true}", *leaves) == found


def test_debug_and_status_of_enclaves_are_dangerous_too() -> None:
    assert open_claims(MR_ENCLAVE) == ["sgx.debug", "sgx.tcb_status"]


def proven(tee: str = "tdx", **changes: Any) -> dict[str, ClaimValue]:
    """The claims of a quote that verifies."""
    info = changes.pop("tcb_info", None)
    document = INTEL.bundle_item(tee=tee, **changes)
    if info is not None:
        document["collateral"] = INTEL.collateral_json(tee, tcb_info=info)
    verifier = VERIFIERS[tee]
    result = verifier.verify(
        verifier.parse(document, 0), Trust(now=NOW, pinned_roots=INTEL.pins())
    )
    assert result.claims is not None
    return dict(result.claims.values)


def grants(policy: ParsedPolicy, values: dict[str, ClaimValue]) -> bool:
    return appraise(policy, claims(values), VIEW).granted


@pytest.mark.parametrize(
    "bad",
    [
        {"td_attributes": bytes.fromhex("0100001000000000")},
        {"td_attributes": bytes.fromhex("4000001000000000")},
        {"td_attributes": bytes.fromhex("0000003000000000")},
        {"version": 5, "version_15": True, "mr_service_td": b"\x01" * 48},
        {"seam_attributes": b"\x01"},
        {"mr_signer_seam": b"\x01" * 48},
        {"tcb_info": INTEL.tcb_info(tcbLevels=[platform_level("TDX", "OutOfDate")])},
        {"mr_td": b"\x01" * 48},
    ],
)
def test_a_safe_rule_grants_a_good_td_and_no_other(bad: dict[str, Any]) -> None:
    policy = parsed("{safe: true}", MR_TD)
    assert grants(policy, proven())
    assert grants(policy, proven(version=5, version_15=True))
    assert not grants(policy, proven(**bad))


def test_a_safe_rule_grants_a_good_enclave_and_no_other() -> None:
    policy = parsed(
        "{safe: true}",
        MR_SIGNER,
        "{claim: sgx.isv_prod_id, equals: 1}",
        "{claim: sgx.isv_svn, at_least: 3}",
    )
    assert grants(policy, proven("sgx"))
    debug = bytes([0x07, *7 * [0], 0xE7, *7 * [0]])
    for bad in (
        {"attributes": debug},
        {"isv_svn": 2},
        {"isv_prod_id": 2},
        {"mr_signer": bytes(32)},
    ):
        assert not grants(policy, proven("sgx", **bad))


# --- registers ------------------------------------------------------------------------

DIGEST = hashlib.sha384(DOCUMENT).digest()
EXTENDED = hashlib.sha384(bytes(48) + DIGEST).digest()
TWICE = hashlib.sha384(EXTENDED + DIGEST).digest()


@pytest.mark.parametrize(
    ("register", "good", "bad"),
    [
        ("mr_config_id", DIGEST, [EXTENDED, bytes(48), DIGEST[::-1]]),
        ("rtmr3", EXTENDED, [DIGEST, TWICE, bytes(48)]),
        ("rtmr2", EXTENDED, [DIGEST, TWICE, bytes(48)]),
    ],
)
def test_registers_measure_a_workload_policy(
    register: str, good: bytes, bad: list[bytes]
) -> None:
    measures = (
        f"{{claim: tdx.{register}, measures: {{workload_policy: runtime, version: 1}}}}"
    )
    policy = parsed("{safe: true}", MR_TD, measures)
    values: dict[str, Any] = {register: good}
    assert grants(policy, proven(**values))
    for value in bad:
        values[register] = value
        assert not grants(policy, proven(**values))
    # A value that was set is not yet enforced.
    assert open_claims("{safe: true}", measures) == [f"tdx.{register}"]


def test_what_the_guest_extends_itself_does_not_fix_what_boots() -> None:
    measures = (
        "{claim: tdx.mr_config_id, measures: {workload_policy: runtime, version: 1}}"
    )
    runtime = f'{{claim: tdx.rtmr3, equals: "{EXTENDED.hex()}"}}'
    assert open_claims("{safe: true}", runtime, measures) == ["tdx.mr_config_id"]
    kernel = f'{{claim: tdx.rtmr1, equals: "{EXTENDED.hex()}"}}'
    assert open_claims("{safe: true}", kernel, measures) == []
