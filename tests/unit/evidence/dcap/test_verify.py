"""Quotes that verify, and a table of single changes with the check each fails."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from kbs.core.checks import Status, Verdict, verdict
from kbs.core.claims import ClaimType, Vocabulary, nest
from kbs.core.encode import b64, parse_b64
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.verify import DcapVerifier
from kbs.evidence.model import GivenCollateral, ItemResult, ParsedItem, Trust
from kbs.evidence.sgx.claims import SGX_CLAIMS
from kbs.evidence.sgx.verify import SgxVerifier
from kbs.evidence.tdx.claims import TDX_CLAIMS
from kbs.evidence.tdx.verify import TdxVerifier
from kbs.evidence.vtpm.events import EventType
from kbs.pki import chain as chain_module
from kbs.pki.chain import is_issued_by
from tests.fakes.eventlog import FakeEventLog, header
from tests.fakes.intel import (
    AUTH_DATA,
    NOW,
    PLATFORM_SVNS,
    QE_SVN,
    TDX_TCB,
    FakeIntel,
    der_hex,
    module,
    pem,
    platform_level,
    point,
    sgx_extension,
    svn_level,
)

INTEL = FakeIntel()
OTHER = FakeIntel(realm="other")
NEIGHBOUR = FakeIntel(platform="platform-2")
BINDING = bytes(range(48))
DAY = timedelta(days=1)
NAMES = (
    "quote.signature",
    "qe_report.signature",
    "qe_report.data",
    "chain",
    "qe_identity",
    "tcb_info",
    "validity",
    "revocation",
    "tcb",
)
VERIFIERS: dict[str, DcapVerifier] = {"tdx": TdxVerifier(), "sgx": SgxVerifier()}
SHAPES: dict[str, dict[str, Any]] = {
    "tdx v4": {"tee": "tdx", "version": 4},
    "tdx v5": {"tee": "tdx", "version": 5},
    "tdx v5, report 1.5": {"tee": "tdx", "version": 5, "version_15": True},
    "tdx v5, extended report": {"tee": "tdx", "version": 5, "extended": True},
    "sgx v3": {"tee": "sgx", "version": 3},
    "sgx v4": {"tee": "sgx", "version": 4},
    "sgx v5": {"tee": "sgx", "version": 5},
}


def trust(**changes: Any) -> Trust:
    return replace(Trust(now=NOW, pinned_roots=INTEL.pins()), **changes)


def verify(
    document: Mapping[str, object], given: Trust | None = None, index: int = 0
) -> ItemResult:
    verifier = VERIFIERS[str(document["kind"])]
    return verifier.verify(verifier.parse(document, index), given or trust())


def statuses(result: ItemResult) -> dict[str, str]:
    return {
        check.id.partition(".")[2]: check.status.value
        for check in result.checks
        if check.id != "tdx.eventlog.replay"
    }


def assert_statuses(result: ItemResult, **unusual: str) -> None:
    """Every check passes but those named (`qe_report__data="fail"`)."""
    changed = {name.replace("__", "."): status for name, status in unusual.items()}
    assert statuses(result) == dict.fromkeys(NAMES, "pass") | changed


@pytest.mark.parametrize("shape", SHAPES)
def test_good_quotes_verify(shape: str) -> None:
    tee = SHAPES[shape]["tee"]
    result = verify(INTEL.bundle_item(BINDING, **SHAPES[shape]), index=3)
    assert_statuses(result)
    assert {check.item for check in result.checks} == {3}
    assert verdict(result.checks) is Verdict.VERIFIED
    assert result.authenticated
    claims = result.claims
    assert claims is not None
    assert (claims.family, claims.item, claims.trusted_in) == (tee, 3, None)
    assert claims.values[f"{tee}.version"] == SHAPES[shape]["version"]
    assert claims.values[f"{tee}.tcb_status"] == "UpToDate"
    assert claims.values[f"{tee}.advisory_ids"] == ()
    # That of the quoting enclave's level, which is older than the platform's.
    assert claims.values[f"{tee}.tcb_date"] == "2026-05-01T00:00:00Z"
    assert claims.values[f"{tee}.tcb_evaluation_data_number"] == 18
    assert claims.values[f"{tee}.debug"] is False
    assert claims.values[f"{tee}.ppid"] == INTEL.ppid.hex()
    assert claims.values[f"{tee}.piid"] == bytes(range(16)).hex()
    assert claims.values[f"{tee}.platform.smt_enabled"] is True
    chip, key = result.identities
    assert chip == f"chip:{INTEL.ppid.hex()}" + 96 * "0"
    assert key.startswith("spki:")


@pytest.mark.parametrize("padding", [b"\0", bytes(3000), b"left over from before"])
def test_what_stands_behind_a_quote_is_not_looked_at(padding: bytes) -> None:
    item = INTEL.bundle_item(BINDING, padding=padding)
    verifier = VERIFIERS["tdx"]
    parsed = verifier.parse(item, 0)
    assert verdict(verifier.verify(parsed, trust()).checks) is Verdict.VERIFIED
    # Nor is it part of what the item is known by.
    assert parsed.core == verifier.parse(item, 1).core
    assert len(parsed.core) == len(parse_b64(item["quote"], "quote", limit=9999)) - len(
        padding
    )


@pytest.mark.parametrize("tee", ["tdx", "sgx"])
def test_claims_are_those_of_the_vocabulary(tee: str) -> None:
    specs = {"tdx": TDX_CLAIMS, "sgx": SGX_CLAIMS}[tee]
    shape: dict[str, Any] = {"tee": tee, "version": 5, "extended": tee == "tdx"}
    claims = verify(INTEL.bundle_item(BINDING, **shape)).claims
    assert claims is not None
    vocabulary = Vocabulary.of(specs)
    unproven = {"tdx.eventlog.secure_boot"} if tee == "tdx" else set()
    assert set(claims.values) == {spec.name for spec in specs} - unproven
    for name, value in claims.values.items():
        spec = vocabulary.find(name)
        assert spec is not None
        if spec.type is ClaimType.BYTES:
            assert isinstance(value, str)
            assert len(value) == 2 * (spec.size or 0), name
        elif spec.type in {ClaimType.BOOL, ClaimType.INT}:
            assert type(value) is {"bool": bool, "int": int}[spec.type.value]
    assert nest(claims.values, tee)


def item(
    tee: str = "tdx", *, quote: bytes | None = None, **collateral: Any
) -> dict[str, Any]:
    """An item whose collateral has members replaced, or left out by None."""
    document: dict[str, Any] = INTEL.bundle_item(BINDING, tee=tee, collateral=False)
    if quote is not None:
        document["quote"] = b64(quote)
    document["collateral"] = INTEL.collateral_json(tee, **collateral)
    return document


def of_pck(intel: FakeIntel = INTEL, **changes: Any) -> dict[str, Any]:
    """A quote of a platform whose PCK certificate is another one."""
    chain = pem(intel.make_pck(**changes)) + pem(intel.pck_ca) + pem(intel.root)
    return item(quote=intel.quote(certification=(5, chain.encode())))


def flipped(offset: int) -> dict[str, Any]:
    raw = bytearray(INTEL.quote())
    raw[offset] ^= 1
    return item(quote=bytes(raw))


@dataclass(frozen=True)
class Change:
    """A single change, and every check that does not pass because of it."""

    document: Callable[[], dict[str, Any]]
    unusual: dict[str, str]
    trust: Trust = field(default_factory=trust)
    verdict: Verdict = Verdict.REFUSED
    authenticated: bool = False


FOREIGN = {"chain": "fail", "validity": "unchecked", "revocation": "unchecked"}
NO_TCB = {"tcb": "unchecked"}
DEBUG_QE = bytes([0x17, *7 * [0], 0xE7, *7 * [0]])
# TD quote of version 4: header 48, body 584, size 4, then signature and key.
BODY, SIGNATURE, AK = 48, 48 + 584 + 4, 48 + 584 + 4 + 64

CHANGES: dict[str, Change] = {
    "header changed after signing": Change(
        lambda: flipped(30), {"quote.signature": "fail"}
    ),
    "MRTD changed after signing": Change(
        lambda: flipped(BODY + 136), {"quote.signature": "fail"}
    ),
    "signature changed": Change(
        lambda: flipped(SIGNATURE), {"quote.signature": "fail"}
    ),
    "attestation key changed": Change(
        lambda: flipped(AK), {"quote.signature": "fail", "qe_report.data": "fail"}
    ),
    "QE report changed": Change(
        lambda: flipped(AK + 64 + 6 + 64), {"qe_report.signature": "fail"}
    ),
    "QE report data names another key": Change(
        lambda: item(quote=INTEL.quote(qe={"report_data": bytes(32)})),
        {"qe_report.data": "fail"},
    ),
    "QE report data with more behind it": Change(
        lambda: item(quote=with_long_report_data()), {"qe_report.data": "fail"}
    ),
    "QE of another signer": Change(
        lambda: item(quote=INTEL.quote(qe={"mr_signer": bytes(32)})),
        {"qe_identity": "fail", **NO_TCB},
    ),
    "QE that is another product": Change(
        lambda: item(quote=INTEL.quote(qe={"isv_prod_id": 1})),
        {"qe_identity": "fail", **NO_TCB},
    ),
    "QE under debug": Change(
        lambda: item(
            quote=INTEL.quote(
                qe={"attributes": bytes([0x17, *7 * [0], 0xE7, *7 * [0]])}
            )
        ),
        {"qe_identity": "fail", **NO_TCB},
    ),
    "QE with MISCSELECT": Change(
        lambda: item(quote=INTEL.quote(qe={"misc_select": b"\x01\0\0\0"})),
        {"qe_identity": "fail", **NO_TCB},
    ),
    "another Intel altogether": Change(
        lambda: OTHER.bundle_item(BINDING),
        {**FOREIGN, "qe_identity": "unchecked", "tcb_info": "unchecked", **NO_TCB},
    ),
    "PCK issued by the root itself": Change(
        lambda: of_pck(issuer="Intel SGX Root CA", signer="root"),
        {**FOREIGN, **NO_TCB},
        authenticated=False,
    ),
    "PCK that its issuer did not sign": Change(
        lambda: of_pck(signer="tcb"), {**FOREIGN, **NO_TCB}
    ),
    "PCK of another machine": Change(
        lambda: item(
            quote=INTEL.quote(certification=(5, NEIGHBOUR.chain_pem().encode()))
        ),
        {"qe_report.signature": "fail"},
    ),
    "PCK that ran out": Change(
        lambda: of_pck(not_after=NOW - DAY),
        {"validity": "fail"},
        authenticated=True,
    ),
    "PCK of the future": Change(
        lambda: of_pck(not_before=NOW + DAY),
        {"validity": "fail"},
        authenticated=True,
    ),
    "PCK of another FMSPC": Change(
        lambda: of_pck(extension=sgx_extension(fmspc=b"\x01" * 6)),
        {"tcb_info": "unchecked", **NO_TCB},
        verdict=Verdict.UNCHECKED,
        authenticated=True,
    ),
    "PCK of another PCE": Change(
        lambda: of_pck(extension=sgx_extension(pce_id=b"\x01\0")),
        {"tcb_info": "fail", **NO_TCB},
        authenticated=True,
    ),
    "PCK revoked": Change(
        lambda: item(pck_crl=der_hex(INTEL.crl("pck", revoked=(0x77,)))),
        {"revocation": "fail"},
        authenticated=True,
    ),
    "PCK CA revoked": Change(
        lambda: item(root_ca_crl=der_hex(INTEL.crl("root", revoked=(2,)))),
        {"revocation": "fail"},
        authenticated=True,
    ),
    "TCB signer revoked": Change(
        lambda: item(root_ca_crl=der_hex(INTEL.crl("root", revoked=(3,)))),
        {"revocation": "fail"},
        authenticated=True,
    ),
    "no list of the PCK CA": Change(
        lambda: item(pck_crl=None),
        {"revocation": "unchecked"},
        verdict=Verdict.UNCHECKED,
        authenticated=True,
    ),
    "list of the root that ran out": Change(
        lambda: item(root_ca_crl=der_hex(INTEL.crl("root", next_update=NOW - DAY))),
        {"revocation": "unchecked"},
        verdict=Verdict.UNCHECKED,
        authenticated=True,
    ),
    "no list, for recorded evidence": Change(
        lambda: item(pck_crl=None),
        {"revocation": "skipped"},
        trust=trust(require_revocation=False),
        verdict=Verdict.VERIFIED,
        authenticated=True,
    ),
    "no TCB info": Change(
        lambda: item(tcb_info=None),
        {"tcb_info": "unchecked", **NO_TCB},
        verdict=Verdict.UNCHECKED,
        authenticated=True,
    ),
    "TCB info of SGX": Change(
        lambda: item(tcb_info=INTEL.tcb_info("SGX")),
        {"tcb_info": "unchecked", **NO_TCB},
        verdict=Verdict.UNCHECKED,
        authenticated=True,
    ),
    "TCB info that ran out": Change(
        lambda: item(tcb_info=INTEL.tcb_info(nextUpdate="2026-11-22T07:59:59Z")),
        {"tcb_info": "unchecked", **NO_TCB},
        verdict=Verdict.UNCHECKED,
        authenticated=True,
    ),
    "TCB info of the future": Change(
        lambda: item(tcb_info=INTEL.tcb_info(issueDate="2026-11-22T08:00:01Z")),
        {"tcb_info": "unchecked", **NO_TCB},
        verdict=Verdict.UNCHECKED,
        authenticated=True,
    ),
    "TCB info that another key signed": Change(
        lambda: item(tcb_info=INTEL.tcb_info(signer="root")),
        {"tcb_info": "fail", **NO_TCB},
        authenticated=True,
    ),
    "TCB info changed after signing": Change(
        lambda: item(
            tcb_info=INTEL.tcb_info().replace('"OutOf', '"UpTo').replace("18", "19")
        ),
        {"tcb_info": "fail", **NO_TCB},
        authenticated=True,
    ),
    "no signer's certificate": Change(
        lambda: item(tcb_info_issuer_chain=None, qe_identity_issuer_chain=None),
        {"tcb_info": "unchecked", "qe_identity": "unchecked", **NO_TCB},
        verdict=Verdict.UNCHECKED,
    ),
    "signer that another Intel issued": Change(
        lambda: item(
            tcb_info_issuer_chain=pem(OTHER.tcb_signer) + pem(OTHER.root),
            qe_identity_issuer_chain=None,
        ),
        {"tcb_info": "unchecked", "qe_identity": "unchecked", **NO_TCB},
        verdict=Verdict.UNCHECKED,
    ),
    "signer of that name below a PCK CA": Change(
        lambda: item(
            tcb_info_issuer_chain=pem(
                INTEL.certificate(
                    "Intel SGX TCB Signing",
                    "tcb",
                    "Intel SGX PCK Platform CA",
                    "ca Platform",
                    serial=4,
                    ca=False,
                )
            ),
            qe_identity_issuer_chain=None,
        ),
        {"tcb_info": "unchecked", "qe_identity": "unchecked", **NO_TCB},
        verdict=Verdict.UNCHECKED,
    ),
    "no QE identity": Change(
        lambda: item(qe_identity=None),
        {"qe_identity": "unchecked", **NO_TCB},
        verdict=Verdict.UNCHECKED,
    ),
    "QE identity of SGX": Change(
        lambda: item(qe_identity=INTEL.qe_identity("QE")),
        {"qe_identity": "unchecked", **NO_TCB},
        verdict=Verdict.UNCHECKED,
    ),
    "QE identity that another key signed": Change(
        lambda: item(qe_identity=INTEL.qe_identity(signer="pck platform-1")),
        {"qe_identity": "fail", **NO_TCB},
    ),
    "no certificate in the quote": Change(
        lambda: item(quote=INTEL.quote(certification=(3, bytes(404)))),
        {
            "qe_report.signature": "unchecked",
            "chain": "unchecked",
            "validity": "unchecked",
            "revocation": "unchecked",
            "tcb_info": "unchecked",
            **NO_TCB,
        },
        verdict=Verdict.UNCHECKED,
    ),
    "no issuer of the PCK": Change(
        lambda: item(
            quote=INTEL.quote(certification=(5, pem(INTEL.pck).encode())),
            pck_crl_issuer_chain=None,
        ),
        {
            "chain": "unchecked",
            "validity": "unchecked",
            "revocation": "unchecked",
            **NO_TCB,
        },
        verdict=Verdict.UNCHECKED,
    ),
}


def with_long_report_data() -> bytes:
    """A QE report whose data have bytes behind the digest that belongs there."""
    named = hashlib.sha256(point(INTEL.key("ak platform-1")) + AUTH_DATA).digest()
    return INTEL.quote(qe={"report_data": named + b"\x01"})


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_fails_its_own_checks(name: str) -> None:
    change = CHANGES[name]
    result = verify(change.document(), change.trust)
    assert statuses(result) == dict.fromkeys(NAMES, "pass") | change.unusual
    assert verdict(result.checks) is change.verdict
    assert result.authenticated is change.authenticated
    assert (result.claims is not None) is (change.verdict is Verdict.VERIFIED)


# --- the TCB is a claim ---------------------------------------------------------------

LOWER = tuple(svn - 1 if svn else 0 for svn in PLATFORM_SVNS)
HIGHER = (4, *PLATFORM_SVNS[1:])
NEWER_TDX = (9, 9, 4, *13 * (0,))

TCBS: dict[str, tuple[dict[str, Any], dict[str, Any], str, tuple[str, ...]]] = {
    "up to date": ({}, {}, "UpToDate", ()),
    "second level": (
        {
            "tcbLevels": [
                platform_level(sgx=HIGHER),
                platform_level("TDX", "OutOfDate", "INTEL-SA-2", "INTEL-SA-1"),
            ]
        },
        {},
        "OutOfDate",
        ("INTEL-SA-1", "INTEL-SA-2"),
    ),
    "PCE too old": (
        {
            "tcbLevels": [
                platform_level(pce_svn=14),
                platform_level("TDX", "OutOfDateConfigurationNeeded"),
            ]
        },
        {},
        "OutOfDateConfigurationNeeded",
        (),
    ),
    "platform's part of the TDX components too old": (
        {
            "tcbLevels": [
                platform_level(tdx=NEWER_TDX),
                platform_level("TDX", "SWHardeningNeeded", sgx=LOWER),
            ]
        },
        {},
        "SWHardeningNeeded",
        (),
    ),
    "the module's part of the TDX components is not the platform's": (
        {"tcbLevels": [platform_level(tdx=(255, 255, *TDX_TCB[2:]))]},
        {},
        "UpToDate",
        (),
    ),
    "below every level": (
        {"tcbLevels": [platform_level(sgx=HIGHER)]},
        {},
        "NotSupported",
        (),
    ),
    "revoked": (
        {"tcbLevels": [platform_level("TDX", "Revoked")]},
        {},
        "Revoked",
        (),
    ),
    "QE out of date": (
        {"tcbLevels": [platform_level("TDX", "ConfigurationNeeded")]},
        {"tcbLevels": [svn_level(9), svn_level(8, "OutOfDate", "INTEL-SA-9")]},
        "OutOfDateConfigurationNeeded",
        ("INTEL-SA-9",),
    ),
    "QE revoked": (
        {},
        {"tcbLevels": [svn_level(QE_SVN, "Revoked")]},
        "Revoked",
        (),
    ),
    "QE below every level": (
        {},
        {"tcbLevels": [svn_level(QE_SVN + 1)]},
        "NotSupported",
        (),
    ),
    "module out of date": (
        {
            "tdxModuleIdentities": [
                {
                    "id": "TDX_01",
                    **module(),
                    "tcbLevels": [
                        svn_level(6),
                        svn_level(4, "OutOfDate", "INTEL-SA-7"),
                    ],
                }
            ]
        },
        {},
        "OutOfDate",
        ("INTEL-SA-7",),
    ),
    "module version that Intel does not list": (
        {"tdxModuleIdentities": []},
        {},
        "NotSupported",
        (),
    ),
    "module of another signer": (
        {
            "tdxModuleIdentities": [
                {
                    "id": "TDX_01",
                    **module(mrsigner="01" * 48),
                    "tcbLevels": [svn_level(2)],
                }
            ]
        },
        {},
        "NotSupported",
        (),
    ),
}


@pytest.mark.parametrize("name", TCBS)
def test_a_good_quote_with_any_tcb_verifies_and_says_so(name: str) -> None:
    info, identity, status, advisories = TCBS[name]
    document = item(
        tcb_info=INTEL.tcb_info(**info), qe_identity=INTEL.qe_identity(**identity)
    )
    result = verify(document)
    assert_statuses(result)
    assert result.claims is not None
    assert result.claims.values["tdx.tcb_status"] == status
    assert result.claims.values["tdx.advisory_ids"] == advisories
    (check,) = (one for one in result.checks if one.id == "tdx.tcb")
    assert check.detail.startswith(status)


def test_the_first_tdx_module_is_judged_by_all_components() -> None:
    """Version 0 of it has no identity of its own; the platform's levels name it."""
    first = bytes([3, 0, 3, *13 * [0]])
    for tdx, status in (((3, 0, 3), "UpToDate"), ((4, 0, 3), "NotSupported")):
        levels = [platform_level(tdx=(*tdx, *13 * (0,)))]
        document = item(
            quote=INTEL.quote(tee_tcb_svn=first),
            tcb_info=INTEL.tcb_info(tcbLevels=levels),
        )
        claims = verify(document).claims
        assert claims is not None
        assert claims.values["tdx.tcb_status"] == status
    signed_by_others = INTEL.quote(tee_tcb_svn=first, mr_signer_seam=b"\x01" * 48)
    levels = [platform_level(tdx=(3, 0, 3, *13 * (0,)))]
    document = item(quote=signed_by_others, tcb_info=INTEL.tcb_info(tcbLevels=levels))
    claims = verify(document).claims
    assert claims is not None
    assert claims.values["tdx.tcb_status"] == "NotSupported"
    assert claims.values["tdx.mr_signer_seam"] == "01" * 48


OLD_TDX = bytes([4, 1, 2, *13 * [0]])
# Status; then levels of platform and module, the quoting enclave's, TEE_TCB_SVN2.
RELAUNCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "updated under the TD": ("TDRelaunchAdvised", {}),
    "and hardening was needed before": (
        "TDRelaunchAdvised",
        {"first": "SWHardeningNeeded"},
    ),
    "the hardware needs configuration": (
        "TDRelaunchAdvisedConfigurationNeeded",
        {"first": "ConfigurationNeeded"},
    ),
    "the TD's level needed configuration": (
        "TDRelaunchAdvisedConfigurationNeeded",
        {"second": "OutOfDateConfigurationNeeded"},
    ),
    "only the module was behind": ("TDRelaunchAdvised", {"second": "UpToDate"}),
    "the module is still the old one": ("OutOfDate", {"svn2": (4, 1, 3)}),
    "the module is newer, not the newest": ("OutOfDate", {"svn2": (5, 1, 3)}),
    "the microcode is still the old one": ("OutOfDate", {"svn2": (6, 1, 2)}),
    "the hardware is out of date itself": ("OutOfDate", {"first": "OutOfDate"}),
    "the hardware is revoked": ("OutOfDate", {"first": "Revoked"}),
    "the TD's level is revoked": ("Revoked", {"second": "Revoked"}),
    "the quoting enclave is out of date": ("OutOfDate", {"enclave": "OutOfDate"}),
    "the module of the start is revoked": ("Revoked", {"module": "Revoked"}),
    "the module of the start is up to date": ("OutOfDate", {"module": "UpToDate"}),
    "the newest module is out of date too": ("OutOfDate", {"newest": "OutOfDate"}),
    "the module of now is not listed": ("NotSupported", {"svn2": (6, 3, 3)}),
    "the module of now is another that is listed": (
        "TDRelaunchAdvised",
        {"svn2": (9, 2, 3)},
    ),
    "the module of now is of the first kind": (
        "TDRelaunchAdvised",
        {"svn2": (7, 0, 3)},
    ),
    "the module of now is of the first kind, and old": (
        "OutOfDate",
        {"svn2": (6, 0, 3)},
    ),
}


@pytest.mark.parametrize("name", RELAUNCHES)
def test_a_td_from_before_an_update_is_told_apart(name: str) -> None:
    """By the rules of Intel's library: the platform is in order, the TD is not."""
    status, said = RELAUNCHES[name]
    modules = [
        {
            "id": "TDX_01",
            **module(),
            "tcbLevels": [
                svn_level(6, said.get("newest", "UpToDate")),
                svn_level(4, said.get("module", "OutOfDate"), "INTEL-SA-7"),
            ],
        },
        {"id": "TDX_02", **module(), "tcbLevels": [svn_level(9)]},
    ]
    levels = [
        platform_level("TDX", said.get("first", "UpToDate"), tdx=(7, 0, 3, *13 * (0,))),
        platform_level(
            "TDX", said.get("second", "OutOfDate"), sgx=LOWER, tdx=tuple(OLD_TDX)
        ),
    ]
    now = bytes([*said.get("svn2", (6, 1, 3)), *13 * [0]])
    quote = INTEL.quote(
        version=5, version_15=True, tee_tcb_svn=OLD_TDX, tee_tcb_svn2=now
    )
    enclave = [svn_level(QE_SVN, said.get("enclave", "UpToDate"))]
    document = item(
        quote=quote,
        tcb_info=INTEL.tcb_info(tdxModuleIdentities=modules, tcbLevels=levels),
        qe_identity=INTEL.qe_identity(tcbLevels=enclave),
    )
    result = verify(document)
    assert_statuses(result)
    assert result.claims is not None
    assert result.claims.values["tdx.tcb_status"] == status
    # What the TD started with stands in the advisories all the same.
    assert result.claims.values["tdx.advisory_ids"] == ("INTEL-SA-7",)


def test_a_report_without_the_svns_of_now_stays_out_of_date() -> None:
    modules = [
        {
            "id": "TDX_01",
            **module(),
            "tcbLevels": [svn_level(6), svn_level(4, "OutOfDate")],
        }
    ]
    document = item(tcb_info=INTEL.tcb_info(tdxModuleIdentities=modules))
    claims = verify(document).claims
    assert claims is not None
    assert claims.values["tdx.tcb_status"] == "OutOfDate"


@pytest.mark.parametrize("status", ["TDRelaunchAdvised", "NotSupported"])
def test_what_only_a_verifier_says_is_no_word_of_a_document(status: str) -> None:
    document = item(tcb_info=INTEL.tcb_info(tcbLevels=[platform_level("TDX", status)]))
    with pytest.raises(MalformedError, match="tcbStatus"):
        verify(document)


def test_an_sgx_platform_is_judged_without_tdx() -> None:
    levels = [
        platform_level("SGX", sgx=HIGHER),
        platform_level("SGX", "SWHardeningNeeded", "INTEL-SA-1"),
    ]
    document = item("sgx", tcb_info=INTEL.tcb_info("SGX", tcbLevels=levels))
    claims = verify(document).claims
    assert claims is not None
    assert claims.values["sgx.tcb_status"] == "SWHardeningNeeded"


def test_an_sgx_platform_is_judged_by_a_tcb_info_of_version_2() -> None:
    levels = [
        platform_level("SGX", sgx=HIGHER),
        platform_level("SGX", "SWHardeningNeeded"),
    ]
    document = item("sgx", tcb_info=INTEL.first_tcb_info(*levels))
    result = verify(document)
    assert_statuses(result)
    assert result.claims is not None
    assert result.claims.values["sgx.tcb_status"] == "SWHardeningNeeded"
    assert result.claims.values["sgx.tcb_evaluation_data_number"] == 12
    # A newer one counts, of whatever version it is.
    newer = {"collateral": INTEL.collateral("sgx")}
    result = verify(document, trust(**newer))
    assert result.claims is not None
    assert result.claims.values["sgx.tcb_status"] == "UpToDate"


@pytest.mark.parametrize(
    ("dates", "found"),
    [
        (("2026-01-01", "2026-02-01", "2026-03-01"), "2026-01-01"),
        (("2026-03-01", "2026-01-01", "2026-02-01"), "2026-01-01"),
        (("2026-03-01", "2026-02-01", "2026-01-01"), "2026-01-01"),
        (("2026-03-01", None, "2026-01-01"), None),
    ],
)
def test_the_date_of_a_tcb_is_that_of_its_oldest_part(
    dates: tuple[str | None, ...], found: str | None
) -> None:
    """A platform's recent level says nothing of a TDX module from before it."""
    platform, enclave, td_module = (date and f"{date}T00:00:00Z" for date in dates)
    svn = QE_SVN if enclave else QE_SVN + 1
    level = svn_level(2) | {"tcbDate": td_module}
    known = {"id": "TDX_01", **module(), "tcbLevels": [level]}
    document = item(
        tcb_info=INTEL.tcb_info(
            tcbLevels=[platform_level() | {"tcbDate": platform}],
            tdxModuleIdentities=[known],
        ),
        qe_identity=INTEL.qe_identity(
            tcbLevels=[svn_level(svn) | {"tcbDate": enclave or platform}]
        ),
    )
    claims = verify(document).claims
    assert claims is not None
    wanted = None if found is None else f"{found}T00:00:00Z"
    assert claims.values.get("tdx.tcb_date") == wanted


# --- TD and enclave attributes are claims ---------------------------------------------

ATTRIBUTES = {
    "0000001000000000": {"sept_ve_disable": True},
    "0100001000000000": {"debug": True, "sept_ve_disable": True},
    "1000000000000000": {"debug": True},
    "0000002000000000": {"migratable": True, "service_td": True},
    "0000004000000000": {"pks": True},
    "0000008000000000": {"kl": True},
    "0000000000000080": {"perfmon": True},
    "0001000000000000": {},
}


@pytest.mark.parametrize("attributes", ATTRIBUTES)
def test_td_attributes_are_claims(attributes: str) -> None:
    quote = INTEL.quote(td_attributes=bytes.fromhex(attributes))
    claims = verify(item(quote=quote)).claims
    assert claims is not None
    names = ("debug", "service_td", "sept_ve_disable", "migratable", "pks", "kl")
    expected = dict.fromkeys((*names, "perfmon"), False) | ATTRIBUTES[attributes]
    assert {name: claims.values[f"tdx.{name}"] for name in expected} == expected
    assert claims.values["tdx.td_attributes"] == attributes


@pytest.mark.parametrize(
    "name", ["mr_service_td", "init_service_td_hash", "cur_service_td_hash"]
)
def test_a_bound_service_td_is_a_claim(name: str) -> None:
    digest: dict[str, Any] = {name: b"\x01" * 48}
    quote = INTEL.quote(version=5, extended=True, **digest)
    claims = verify(item(quote=quote)).claims
    assert claims is not None
    assert claims.values["tdx.service_td"] is True
    assert claims.values["tdx.migratable"] is False
    assert claims.values[f"tdx.{name}"] == "01" * 48


def test_a_debug_enclave_is_a_claim() -> None:
    attributes = bytes([0x07, *7 * [0], 0xE7, *7 * [0]])
    document = INTEL.bundle_item(BINDING, tee="sgx", attributes=attributes)
    claims = verify(document).claims
    assert claims is not None
    assert claims.values["sgx.debug"] is True
    assert claims.values["sgx.attributes"] == attributes.hex()


# --- which collateral counts ----------------------------------------------------------


def test_the_newest_document_counts_wherever_it_came_from() -> None:
    newer = INTEL.tcb_info(
        tcbEvaluationDataNumber=19,
        tcbLevels=[platform_level("TDX", "OutOfDate", "INTEL-SA-1")],
    )
    older = INTEL.tcb_info()
    known = INTEL.collateral(tcb_info=newer)
    for ours, theirs in ((known, older), (INTEL.collateral(tcb_info=older), newer)):
        result = verify(item(tcb_info=theirs), trust(collateral=ours))
        assert result.claims is not None
        assert result.claims.values["tdx.tcb_status"] == "OutOfDate"
        assert result.claims.values["tdx.tcb_evaluation_data_number"] == 19


def test_an_older_document_does_not_stand_in_for_one_that_ran_out() -> None:
    newest = INTEL.tcb_info(
        tcbEvaluationDataNumber=19, nextUpdate="2026-11-22T07:00:00Z"
    )
    result = verify(item(), trust(collateral=INTEL.collateral(tcb_info=newest)))
    assert_statuses(result, tcb_info="unchecked", tcb="unchecked")
    (check,) = (one for one in result.checks if one.id == "tdx.tcb_info")
    assert "ran out 2026-11-22T07:00:00Z" in check.detail
    assert f"tcb?fmspc={INTEL.fmspc}" in check.detail


def test_a_document_that_nobody_signed_hides_none_that_intel_did() -> None:
    forged = INTEL.tcb_info(
        tcbEvaluationDataNumber=20,
        tcbLevels=[platform_level("TDX", "OutOfDate")],
        signer="root",
    )
    result = verify(item(), trust(collateral=INTEL.collateral(tcb_info=forged)))
    assert_statuses(result)
    assert result.claims is not None
    assert result.claims.values["tdx.tcb_status"] == "UpToDate"


def test_everything_but_the_quote_may_come_from_the_table() -> None:
    result = verify(
        INTEL.bundle_item(BINDING, collateral=False),
        trust(collateral=INTEL.collateral()),
    )
    assert_statuses(result)


def test_a_pck_that_is_not_in_the_quote_may_come_from_the_table() -> None:
    quote = INTEL.quote(certification=(3, bytes(404)))
    broken = INTEL.make_pck(extension=b"\x30\0")
    known = GivenCollateral((broken, NEIGHBOUR.pck, INTEL.pck))
    assert_statuses(verify(item(quote=quote), trust(collateral=known)))


def test_a_site_may_keep_the_pcks_of_many_machines() -> None:
    others = [INTEL.make_pck(serial=0x100 + number) for number in range(40)]
    quote = NEIGHBOUR.quote(certification=(3, bytes(404)))
    kept = INTEL.collateral()
    certificates = (*others, NEIGHBOUR.pck, *kept.given_certificates)
    result = verify(
        item(quote=quote),
        trust(collateral=replace(kept, given_certificates=certificates)),
    )
    assert_statuses(result)
    assert result.claims is not None
    assert result.claims.values["tdx.ppid"] == NEIGHBOUR.ppid.hex()


def test_a_pck_that_is_not_to_hand_is_named_as_far_as_the_quote_does() -> None:
    named = bytes(384) + bytes(range(16)) + b"\x0d\x00" + b"\x01\x00"
    quotes = {
        "cpusvn=000102030405060708090a0b0c0d0e0f&pcesvn=0d00&pceid=0100": (3, named),
        "certification data of type 3": (3, named[1:]),
        "certification data of type 2": (2, named),
    }
    for words, certification in quotes.items():
        result = verify(item(quote=INTEL.quote(certification=certification)))
        check = next(one for one in result.checks if one.status is Status.UNCHECKED)
        assert check.id == "tdx.qe_report.signature"
        assert words in check.detail


def test_a_renewed_signer_with_the_same_key_counts_while_it_is_valid() -> None:
    renewed = INTEL.certificate(
        "Intel SGX TCB Signing",
        "tcb",
        "Intel SGX Root CA",
        "root",
        serial=9,
        ca=False,
        not_before=NOW + DAY,
    )
    collateral = GivenCollateral((renewed,))
    assert_statuses(verify(item(), trust(collateral=collateral)))


@pytest.mark.parametrize("tee", VERIFIERS)
def test_what_comes_beside_a_quote_is_not_kept(tee: str) -> None:
    """Strangers choose it: a thousand different sets must not fill the memory."""
    verifier = VERIFIERS[tee]
    junk = OTHER.certificate("somebody", "x", "somebody", "x", serial=9)
    held = sys.getrefcount(junk)
    parsed = verifier.parse(INTEL.bundle_item(BINDING, tee=tee), 0)
    for pins in (INTEL.pins(), OTHER.pins()):
        beside = GivenCollateral((junk,))
        verifier.verify(parsed, trust(collateral=beside, pinned_roots=pins))
        del beside
    assert sys.getrefcount(junk) == held


def test_nobody_but_a_root_is_asked_for_signers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Namesakes of a signer and of its issuer cost a signature each, and each other."""
    issuers = [
        OTHER.certificate("A", f"issuer {n}", "B", "x", serial=n) for n in range(1, 9)
    ]
    signers = [
        OTHER.certificate("Intel SGX TCB Signing", "y", "A", "x", serial=n)
        for n in range(1, 9)
    ]
    asked: list[x509.Certificate] = []

    def counted(issued: x509.Certificate, issuer: x509.Certificate, cache: Any) -> bool:
        asked.append(issuer)
        return is_issued_by(issued, issuer, cache)

    monkeypatch.setattr(chain_module, "is_issued_by", counted)
    verifier = TdxVerifier()
    table = GivenCollateral((*issuers, *signers))
    parsed = verifier.parse(INTEL.bundle_item(BINDING), 0)
    assert_statuses(verifier.verify(parsed, trust(collateral=table)))
    assert asked
    assert not set(issuers) & set(asked)


def test_collateral_says_how_long_it_is_good() -> None:
    until = INTEL.collateral().good_until(NOW)
    assert until == NOW + timedelta(days=25)
    assert INTEL.collateral(pck_crl=None, root_ca_crl=None).good_until(
        NOW
    ) == NOW + timedelta(days=28)


# --- event log ------------------------------------------------------------------------


def log_of(events: list[tuple[int, bytes]]) -> tuple[bytes, list[bytes]]:
    """A log of these (register index, data), and the RTMRs that it leads to."""
    log = FakeEventLog(("sha384",))
    registers = [bytes(48)] * 5
    for index, data in events:
        log.measure(index, EventType.EV_EFI_ACTION, data)
        digest = hashlib.sha384(data).digest()
        registers[index % 5] = hashlib.sha384(registers[index % 5] + digest).digest()
    return log.to_bytes(), registers[1:]


def test_an_event_log_that_leads_to_the_rtmrs() -> None:
    log, rtmrs = log_of([(1, b"one"), (2, b"two"), (3, b"three")])
    result = verify_with_log(log, rtmrs)
    assert result["tdx.eventlog.replay"] == ("pass", "3 events lead to RTMR 0, 1, 2")


@pytest.mark.parametrize(
    ("told", "happened", "said"),
    [
        ([1, 2], [1], "RTMR 1 differs: nothing was extended, but the log begins with"),
        ([1, 2], [1, 2, 2], "RTMR 1 differs: no event of the log can be told"),
        ([1, 1, 2], [1, 2], "RTMR 0 differs: the quote ends at event 0"),
        ([1, 2, 4], [1, 2, 4, 4], "RTMR 3 differs"),
    ],
)
def test_an_event_log_that_does_not(
    told: list[int], happened: list[int], said: str
) -> None:
    log, _ = log_of([(index, b"same") for index in told])
    _, rtmrs = log_of([(index, b"same") for index in happened])
    status, detail = verify_with_log(log, rtmrs)["tdx.eventlog.replay"]
    assert status == "fail"
    assert detail.startswith(said)


def test_registers_that_only_the_guest_extends_need_not_be_in_the_log() -> None:
    log, _ = log_of([(1, b"one"), (2, b"two")])
    _, rtmrs = log_of([(1, b"one"), (2, b"two"), (3, b"kernel"), (4, b"app")])
    assert verify_with_log(log, rtmrs)["tdx.eventlog.replay"][0] == "pass"


def test_firmware_registers_have_to_be() -> None:
    log, _ = log_of([(1, b"one")])
    _, rtmrs = log_of([(1, b"one"), (2, b"boot loader")])
    status, detail = verify_with_log(log, rtmrs)["tdx.eventlog.replay"]
    assert (status, detail[:14]) == ("fail", "RTMR 1 differs")


def verify_with_log(log: bytes, rtmrs: list[bytes]) -> dict[str, tuple[str, str]]:
    registers: dict[str, Any] = {
        f"rtmr{number}": value for number, value in enumerate(rtmrs)
    }
    document = {**item(quote=INTEL.quote(**registers)), "event_log": b64(log)}
    result = verify(document)
    assert (result.claims is not None) is (verdict(result.checks) is Verdict.VERIFIED)
    return {check.id: (check.status.value, check.detail) for check in result.checks}


def test_a_log_of_other_registers_is_malformed() -> None:
    for events in ([(5, b"five")], [(0, b"zero")]):
        log, _ = log_of(events)
        with pytest.raises(MalformedError, match="register index"):
            VERIFIERS["tdx"].parse({**item(), "event_log": b64(log)}, 0)
    with pytest.raises(MalformedError, match="SHA-384"):
        VERIFIERS["tdx"].parse({**item(), "event_log": b64(header(["sha256"]))}, 0)


# --- parsing --------------------------------------------------------------------------


def tdx_item(**changes: object) -> dict[str, object]:
    document: dict[str, object] = {"kind": "tdx", "quote": b64(INTEL.quote())}
    return {**document, **changes}


MALFORMED: dict[str, dict[str, object]] = {
    "another kind": tdx_item(kind="sgx"),
    "no quote": {"kind": "tdx"},
    "unknown member": tdx_item(certificates=[]),
    "a quote of SGX": tdx_item(quote=b64(INTEL.quote(tee="sgx", version=3))),
    "a quote cut short": tdx_item(quote=b64(INTEL.quote()[:-1])),
    "a quote of version 6": tdx_item(quote=b64(b"\x06" + INTEL.quote()[1:])),
    "certificates that are none": tdx_item(
        quote=b64(INTEL.quote(certification=(5, b"no PEM")))
    ),
    "a PCK without its extension's values": tdx_item(
        quote=b64(
            INTEL.quote(
                certification=(5, pem(INTEL.make_pck(extension=b"\x30\0")).encode())
            )
        )
    ),
    "collateral that is a list": tdx_item(collateral=[]),
    "collateral of another shape": tdx_item(collateral={"tcb": "{}"}),
    "a log that is none": tdx_item(event_log=b64(b"log")),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_items_of_another_shape_are_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        VERIFIERS["tdx"].parse(MALFORMED[name], 0)


def test_an_enclave_has_no_event_log() -> None:
    document = INTEL.bundle_item(tee="sgx")
    with pytest.raises(MalformedError, match="event_log"):
        VERIFIERS["sgx"].parse({**document, "event_log": ""}, 0)


def test_the_binding_fills_the_whole_field() -> None:
    verifier = VERIFIERS["tdx"]

    def matches(report_data: bytes, binding: bytes = BINDING) -> bool:
        document = tdx_item(quote=b64(INTEL.quote(report_data=report_data)))
        return verifier.bound_matches(verifier.parse(document, 0), binding)

    assert matches(BINDING)
    assert not matches(BINDING + b"\x01")
    assert not matches(BINDING[:-1])
    assert not matches(BINDING, BINDING[:-1])
    assert not matches(b"\0" + BINDING)


def test_an_item_of_another_family_is_the_programs_mistake() -> None:
    sgx = VERIFIERS["sgx"].parse(INTEL.bundle_item(tee="sgx"), 0)
    with pytest.raises(TypeError):
        VERIFIERS["tdx"].verify(sgx, trust())
    odd = ParsedItem(kind="tdx", index=0, core=b"", bound=b"", body=b"")
    with pytest.raises(TypeError):
        VERIFIERS["tdx"].inspect(odd)


def test_a_report_of_the_other_family_is_the_programs_mistake() -> None:
    for tee, other in (("tdx", "sgx"), ("sgx", "tdx")):
        body = VERIFIERS[tee].parse_body(INTEL.bundle_item(tee=tee))
        with pytest.raises(TypeError):
            VERIFIERS[other].report_claims(body)


def test_inspection_needs_no_certificate() -> None:
    verifier = VERIFIERS["tdx"]
    quote = INTEL.quote(certification=(3, bytes(404)))
    shown = verifier.inspect(verifier.parse(tdx_item(quote=b64(quote)), 0))
    assert shown["certificates"] == []
    assert "pck" not in shown


def test_inspection_shows_every_part() -> None:
    verifier = VERIFIERS["tdx"]
    shown = verifier.inspect(verifier.parse(INTEL.bundle_item(BINDING), 0))
    assert shown["mr_td"] == bytes(range(48)).hex()
    assert shown["certification_data_type"] == 5
    assert shown["pck"]["fmspc"] == INTEL.fmspc  # type: ignore[index]
    assert len(shown["certificates"]) == 3  # type: ignore[arg-type]
    kinds = {one["kind"] for one in shown["documents"]}  # type: ignore[attr-defined]
    assert kinds == {"intel.tcb_info", "intel.qe_identity"}
