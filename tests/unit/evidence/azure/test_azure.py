"""Evidence of Azure VMs: one good case, and tables of single changes."""

from __future__ import annotations

import base64
import struct
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from kbs.core.checks import Status, Verdict, verdict
from kbs.core.encode import b64, parse_b64
from kbs.core.errors import MalformedError
from kbs.evidence.azure.hcl import ReportType, parse_hcl_report
from kbs.evidence.azure.verify import AzureVerifier
from kbs.evidence.forms import item_of, tee_of
from kbs.evidence.model import ItemResult, Trust
from kbs.evidence.snp.verify import SnpVerifier
from kbs.evidence.tdx.verify import TdxVerifier
from kbs.evidence.vtpm.verify import VtpmVerifier
from tests.fakes.amd import FakeAmd
from tests.fakes.azure import TDX, azure, wrap
from tests.fakes.eventlog import typical_log
from tests.fakes.intel import NOW as INTEL_NOW
from tests.fakes.intel import FakeIntel
from tests.fakes.tpm import FakeTpm

VM = azure()
INTEL = FakeIntel()
OTHER_KEY = rsa.generate_private_key(65537, 2048)
VERIFIER = AzureVerifier(SnpVerifier(), TdxVerifier())
SNP_CHECKS = (
    "snp.report.signature",
    "snp.chain",
    "snp.validity",
    "snp.revocation",
    "snp.signing_key",
    "snp.product",
    "snp.tcb",
    "snp.chip_id",
)
OWN_CHECKS = (
    "azure.runtime_data",
    "azure.vmpl",
    "vtpm.quote.signature",
    "vtpm.quote.pcr_selection",
    "vtpm.quote.pcr_digest",
)


def trust(**changes: Any) -> Trust:
    return Trust(**{"now": VM.amd.now, "pinned_roots": VM.amd.pins(), **changes})


def verify(item: dict[str, Any], **changes: Any) -> ItemResult:
    return VERIFIER.verify(VERIFIER.parse(item, 2), trust(**changes))


def statuses(result: ItemResult) -> dict[str, str]:
    return {check.id: check.status.value for check in result.checks}


def failed(result: ItemResult) -> set[str]:
    return {one.id for one in result.checks if one.status is Status.FAIL}


def test_good_evidence_is_verified() -> None:
    result = verify(VM.item(b"e" * 32))
    expected = dict.fromkeys((*SNP_CHECKS, *OWN_CHECKS), "pass")
    assert statuses(result) == expected | {"vtpm.eventlog.replay": "skipped"}
    assert {check.item for check in result.checks} == {2}
    assert result.authenticated
    assert result.claims is not None
    assert result.claims.family == "azure_snp"
    assert result.claims.trusted_in is None
    values = result.claims.values
    assert values["azure_snp.extra_data"] == (b"e" * 32).hex()
    assert values["azure_snp.vm.secure_boot"] is True
    assert values["azure_snp.vm.unique_id"] == "BAEFD3E1-184B-4C4C-AB88-0BDAD260505F"
    assert values["azure_snp.pcr.sha256.4"] == VM.boot_pcr.hex()
    assert values["azure_snp.vmpl"] == 0
    assert len(str(values["azure_snp.measurement"])) == 96
    assert set(values) <= {spec.name for spec in VERIFIER.vocabulary}
    kinds = {name.partition(":")[0] for name in result.identities}
    assert kinds == {"chip", "spki", "qn"}


def test_an_event_log_is_replayed() -> None:
    log = typical_log()
    tpm = FakeTpm("rsassa", "sha256")
    tpm.key = VM.tpm.key
    log.boot(tpm)
    quote = tpm.quote_item(b"", event_log=log.to_bytes())
    parts = {name: quote[name] for name in ("quote", "pcrs", "event_log")}
    result = verify(VM.item(vtpm=parts))
    assert statuses(result)["vtpm.eventlog.replay"] == "pass"
    assert result.claims is not None
    assert "azure_snp.eventlog.secure_boot" in result.claims.values
    wrong = VM.item()["vtpm"] | {"event_log": parts["event_log"]}
    assert failed(verify(VM.item(vtpm=wrong))) == {"vtpm.eventlog.replay"}


def test_bare_snp_and_a_vm_of_azure_never_stand_for_each_other() -> None:
    """A rule about `snp.*` must not be met by the paravisor's measurement."""
    result = verify(VM.item())
    assert result.claims is not None
    assert all(name.startswith("azure_snp.") for name in result.claims.values)
    specs = {spec.name: spec for spec in VERIFIER.vocabulary}
    assert not specs["azure_snp.measurement"].boot
    assert specs["azure_snp.pcr.sha256.4"].boot
    assert specs["azure_snp.host_data"].register is None
    assert specs["azure_snp.pcr.sha256.16"].resettable


# --- what does not hold ---------------------------------------------------------------


def test_another_key_signed_the_quote() -> None:
    other = FakeTpm("rsassa", "sha256")
    other.key = OTHER_KEY
    quote = other.quote_item(b"")
    result = verify(VM.item(vtpm={"quote": quote["quote"], "pcrs": quote["pcrs"]}))
    assert failed(result) == {"vtpm.quote.signature"}
    assert not result.authenticated


def test_pcrs_that_were_not_quoted_are_refused() -> None:
    vtpm = VM.item()["vtpm"]
    changed = {"sha256": {**vtpm["pcrs"]["sha256"], "4": "11" * 32}}
    result = verify(VM.item(vtpm={**vtpm, "pcrs": changed}))
    assert failed(result) == {"vtpm.quote.pcr_digest"}
    fewer = {"sha256": {"0": "00" * 32}}
    result = verify(VM.item(vtpm={**vtpm, "pcrs": fewer}))
    assert "vtpm.quote.pcr_selection" in failed(result)


def test_claims_that_the_report_does_not_carry_are_refused() -> None:
    """A genuine report, and beside it a key of somebody else's choice."""
    hcl = VM.hcl(report_data=b"\1" * 32)
    result = verify(VM.item(hcl=hcl))
    assert failed(result) == {"azure.runtime_data"}
    assert not result.authenticated


def test_report_data_is_compared_whole() -> None:
    good = parse_hcl_report(VM.hcl()).report_data
    hcl = VM.hcl(report_data=good[:63] + b"\1")
    assert failed(verify(VM.item(hcl=hcl))) == {"azure.runtime_data"}


@pytest.mark.parametrize("vmpl", [1, 2, 3])
def test_a_report_of_a_guest_below_the_paravisor_is_refused(vmpl: int) -> None:
    result = verify(VM.item(hcl=VM.hcl(vmpl=vmpl)))
    assert failed(result) == {"azure.vmpl"}
    assert not result.authenticated
    assert result.claims is None


def test_a_report_of_another_chip_is_refused() -> None:
    stranger = FakeAmd(realm="another")
    hcl = parse_hcl_report(VM.hcl())
    report = stranger.report(report_data=hcl.report_data)
    result = verify(VM.item(hcl=wrap(report, hcl.claims_json)))
    assert "snp.report.signature" in failed(result)
    assert not result.authenticated


def test_without_certificates_it_is_unchecked() -> None:
    result = verify(VM.item(certificates=..., crl=...))
    assert statuses(result) == {
        **dict.fromkeys(SNP_CHECKS, "unchecked"),
        **dict.fromkeys(OWN_CHECKS, "pass"),
        "vtpm.eventlog.replay": "skipped",
    }
    assert verdict(result.checks) is Verdict.UNCHECKED
    assert not result.authenticated


def test_without_a_quote_it_is_unchecked_and_bound_to_nothing() -> None:
    parsed = VERIFIER.parse(VM.item(vtpm=...), 0)
    result = VERIFIER.verify(parsed, trust())
    assert statuses(result)["vtpm.quote.signature"] == "unchecked"
    assert verdict(result.checks) is Verdict.UNCHECKED
    assert not result.authenticated
    assert parsed.bound == b""
    assert not VERIFIER.bound_matches(parsed, bytes(48))


def test_the_bound_field_is_extra_data_whole() -> None:
    binding = bytes(range(48))
    for extra, fits in (
        (binding[:32], True),
        (binding, False),
        (binding[:31], False),
        (binding[:32] + b"\0", False),
    ):
        parsed = VERIFIER.parse(VM.item(extra), 0)
        assert VERIFIER.bound_matches(parsed, binding) is fits
        assert not VERIFIER.bound_matches(parsed, binding[:32])


# --- TDX ------------------------------------------------------------------------------


def td_hcl(*, bound: bool = True) -> bytes:
    claims = VM.claims()
    report_data = parse_hcl_report(VM.hcl(claims)).report_data
    report = bytes(128) + (report_data if bound else bytes(64)) + bytes(832)
    return wrap(report, claims, kind=TDX, header=(2, 2, 0, 0, 0, 0))


def test_a_td_report_alone_proves_nothing() -> None:
    plain = VM.item(hcl=td_hcl(), certificates=..., crl=...)
    result = verify(plain)
    assert statuses(result) == {
        "azure.td_quote": "unchecked",
        "azure.runtime_data": "unchecked",
        "azure.vmpl": "skipped",
        "vtpm.quote.signature": "pass",
        "vtpm.quote.pcr_selection": "pass",
        "vtpm.quote.pcr_digest": "pass",
        "vtpm.eventlog.replay": "skipped",
    }
    assert not result.authenticated
    assert result.claims is None
    result = verify(VM.item(hcl=td_hcl(bound=False), certificates=..., crl=...))
    assert failed(result) == {"azure.runtime_data"}


def td_item(**changes: Any) -> dict[str, Any]:
    report_data = parse_hcl_report(VM.hcl()).report_data
    quote = INTEL.bundle_item(report_data)
    return VM.item(
        hcl=td_hcl(),
        certificates=...,
        crl=...,
        **{"td_quote": quote["quote"], "collateral": quote["collateral"], **changes},
    )


def intel_trust() -> Trust:
    return Trust(now=INTEL_NOW, pinned_roots=INTEL.pins())


def test_a_td_quote_vouches_for_the_key() -> None:
    result = VERIFIER.verify(VERIFIER.parse(td_item(), 0), intel_trust())
    assert verdict(result.checks) is Verdict.VERIFIED
    found = statuses(result)
    assert found["tdx.quote.signature"] == "pass"
    assert found["azure.runtime_data"] == "pass"
    assert found["azure.vmpl"] == "skipped"
    assert result.authenticated
    assert result.claims is not None
    assert result.claims.family == "azure_tdx"
    values = result.claims.values
    assert values["azure_tdx.debug"] is False
    assert values["azure_tdx.vm.secure_boot"] is True
    assert "azure_tdx.pcr.sha256.4" in values
    assert set(values) <= {spec.name for spec in VERIFIER.vocabulary}


def test_a_td_quote_over_other_claims_is_refused() -> None:
    other = INTEL.bundle_item(bytes(64))
    item = td_item(td_quote=other["quote"])
    result = VERIFIER.verify(VERIFIER.parse(item, 0), intel_trust())
    assert failed(result) == {"azure.runtime_data"}
    assert not result.authenticated


def test_a_td_quote_without_collateral_is_unchecked() -> None:
    item = td_item(collateral=...)
    result = VERIFIER.verify(VERIFIER.parse(item, 0), intel_trust())
    assert verdict(result.checks) is Verdict.UNCHECKED
    assert statuses(result)["azure.runtime_data"] == "pass"
    assert not result.authenticated


# --- what has another shape -----------------------------------------------------------


def hcl_with(offset: int, value: int) -> bytes:
    raw = bytearray(VM.hcl())
    raw[offset : offset + 4] = struct.pack("<I", value)
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "signature"),
        (b"HCLB" + VM.hcl()[4:], "signature"),
        (VM.hcl()[:1000], "payload"),
        (VM.hcl(padding=0)[:-1], "claims"),
        (VM.hcl() + b"\1", "padding"),
        (VM.hcl(padding=20000), "at most"),
        (hcl_with(4, 0), "version"),
        (hcl_with(4, 3), "version"),
        (hcl_with(8, 1), "size"),
        (hcl_with(12, 1), "request type"),
        (hcl_with(16, 1), "status and reserved"),
        (hcl_with(28, 1), "status and reserved"),
        (hcl_with(1216, 1), "variable data size"),
        (hcl_with(1220, 2), "variable data version"),
        (hcl_with(1224, 1), "type"),
        (hcl_with(1224, 3), "type"),
        (hcl_with(1228, 2), "hash type"),
        (hcl_with(1232, 2**31), "variable data size"),
        (VM.hcl(b"[]"), "HCL claims"),
        (VM.hcl(b"{}"), "HCL keys"),
        (VM.hcl(b'{"keys":[],"keys":[]}'), "HCL claims"),
        (VM.hcl(VM.claims(keys=[])), "0 with kid HCLAkPub"),
        (VM.hcl(VM.claims(keys=[VM.jwk(), VM.jwk()])), "2 with kid HCLAkPub"),
        (VM.hcl(VM.claims(keys=[VM.jwk("HCLEkPub")])), "0 with kid HCLAkPub"),
        (VM.hcl(VM.claims(keys=["key"])), "HCL key"),
        (VM.hcl(VM.claims(keys=[VM.jwk(kty="EC")])), "kty"),
        (VM.hcl(VM.claims(keys=[VM.jwk(e="Aw")])), "e 3"),
        (VM.hcl(VM.claims(keys=[VM.jwk(n="AQAB")])), "17 bits"),
        (VM.hcl(VM.claims(keys=[VM.jwk(n="====")])), "HCLAkPub n"),
        (VM.hcl(VM.claims(**{"vm-configuration": []})), "vm-configuration"),
        (
            VM.hcl(VM.claims(**{"vm-configuration": {"secure-boot": 1}})),
            "secure-boot",
        ),
        (VM.hcl(VM.claims(**{"vm-configuration": {"vmUniqueId": 1}})), "vmUniqueId"),
        (VM.hcl(VM.claims(**{"user-data": "0" * 129})), "user-data"),
        (
            wrap(bytes(1024) + b"\1", VM.claims(), kind=TDX),
            "TDREPORT padding",
        ),
    ],
)
def test_another_hcl_report_is_malformed(raw: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        parse_hcl_report(raw)


def test_an_even_modulus_is_malformed() -> None:
    jwk = VM.jwk()
    n = jwk["n"][:-1] + "A"
    with pytest.raises(MalformedError, match="HCLAkPub"):
        parse_hcl_report(VM.hcl(VM.claims(keys=[{**jwk, "n": n}])))


def test_older_claims_are_read() -> None:
    claims = VM.claims(**{"vm-configuration": ..., "user-data": ...})
    parsed = parse_hcl_report(VM.hcl(claims))
    assert parsed.type is ReportType.SNP
    assert parsed.claims.user_data is None
    assert parsed.claims.configuration == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "snp"},
        {"hcl_report": "?"},
        {"hcl_report": ...},
        {"td_quote": b64(b"quote")},
        {"collateral": {}},
        {"other": 1},
        {"certificates": ["?"]},
        {"crl": "?"},
        {"vtpm": {}},
        {"vtpm": {**VM.item()["vtpm"], "ak": b64(VM.tpm.ak_public)}},
    ],
)
def test_an_item_of_another_shape_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        VERIFIER.parse(VM.item(**changes), 0)


@pytest.mark.parametrize("name", ["certificates", "crl"])
def test_amds_certificates_do_not_go_with_a_td_report(name: str) -> None:
    item = VM.item(hcl=td_hcl())
    del item[{"certificates": "crl", "crl": "certificates"}[name]]
    with pytest.raises(MalformedError, match=name):
        VERIFIER.parse(item, 0)


# --- forms of RCAR --------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_evidence_of_rcar_becomes_an_item(version: int) -> None:
    evidence = VM.evidence(bytes(range(48)), version=version)
    assert tee_of(evidence) == "az-snp-vtpm"
    item = item_of("az-snp-vtpm", evidence)
    parsed = VERIFIER.parse(item, 0)
    assert parsed.bound == bytes(range(48))
    result = VERIFIER.verify(parsed, trust(collateral=VM.amd.collateral()))
    assert verdict(result.checks) is Verdict.VERIFIED


def test_base64url_of_rcar_may_come_without_padding() -> None:
    evidence = VM.evidence(bytes(48))
    bare = {**evidence, "hcl_report": evidence["hcl_report"].rstrip("=")}
    assert item_of("az-snp-vtpm", bare) == item_of("az-snp-vtpm", evidence)


def test_the_oldest_evidence_of_rcar_has_integers_for_bytes() -> None:
    new = VM.evidence(bytes(48), version=1)
    quote = new["tpm_quote"]
    hcl = parse_b64(item_of("az-snp-vtpm", new)["hcl_report"], "hcl", limit=9999)
    old = {
        "quote": {
            "signature": list(bytes.fromhex(quote["signature"])),
            "message": list(bytes.fromhex(quote["message"])),
            "pcrs": [list(bytes.fromhex(one)) for one in quote["pcrs"]],
        },
        "report": list(hcl),
        "vcek": VM.amd.bundle_item()["certificates"][0],  # type: ignore[index]
    }
    assert tee_of(old) == "az-snp-vtpm"
    parsed = VERIFIER.parse(item_of("az-snp-vtpm", old), 0)
    result = VERIFIER.verify(parsed, trust(collateral=VM.amd.collateral()))
    assert verdict(result.checks) is Verdict.VERIFIED


def test_the_form_of_tdx_carries_the_quote() -> None:
    evidence = VM.evidence(bytes(48))
    del evidence["vcek"]
    evidence["td_quote"] = "cXVvdGU="
    assert tee_of(evidence) == "az-tdx-vtpm"
    item = item_of("az-tdx-vtpm", evidence)
    assert item["td_quote"] == b64(b"quote")
    assert tee_of({"quote": "?"}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 3},
        {"version": True},
        {"version": "2"},
        {"hcl_report": 1},
        {"hcl_report": "?"},
        {"vcek": None},
        {"vcek": "="},
        {"hcl_report": base64.urlsafe_b64encode(VM.hcl()).decode() + "===="},
        {"hcl_report": "QUI="[:-1] + "=="},
        {"tpm_quote": []},
        {"tpm_quote": {"message": "zz", "signature": "", "pcrs": []}},
        {"tpm_quote": {"message": "00", "signature": "00", "pcrs": "x"}},
    ],
)
def test_evidence_of_another_shape_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        item_of("az-snp-vtpm", {**VM.evidence(bytes(48)), **changes})


def test_fields_are_shown_without_proof() -> None:
    shown: Any = VERIFIER.inspect(VERIFIER.parse(VM.item(b"x"), 0))
    assert shown["hcl"]["vm"]["secure_boot"] is True
    assert shown["snp"]["vmpl"] == 0
    assert shown["vtpm"]["attest"]["extra_data"] == "78"
    alone: Any = VERIFIER.inspect(
        VERIFIER.parse(VM.item(hcl=td_hcl(), certificates=..., crl=..., vtpm=...), 0)
    )
    assert set(alone) == {"hcl"}


def test_an_item_of_another_family_is_a_mistake_in_the_program() -> None:
    parsed = VtpmVerifier().parse(VM.tpm.quote_item(b""), 0)
    with pytest.raises(TypeError, match="azure"):
        VERIFIER.verify(replace(parsed, kind="azure"), trust())
