"""Intel's documents and the forms in which collateral comes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.collateral import parse_collateral, read_collateral
from kbs.evidence.dcap.documents import joined_document, parse_document
from kbs.evidence.dcap.levels import QeIdentity, TcbInfo
from kbs.evidence.dcap.status import TcbStatus, joined
from tests.fakes.intel import FakeIntel, module, pem, platform_level, svn_level

INTEL = FakeIntel()
BOTH = "ConfigurationAndSWHardeningNeeded"


def test_a_tcb_info_is_read() -> None:
    text = INTEL.tcb_info(tcbLevels=[platform_level("TDX", "OutOfDate", "INTEL-SA-1")])
    document = parse_document(text.encode())
    content = document.content
    assert isinstance(content, TcbInfo)
    assert document.kind == "intel.tcb_info"
    assert document.subject == f"FMSPC {INTEL.fmspc}, TDX, evaluation 18"
    assert (document.begins, document.ends) == (content.issue_date, content.next_update)
    (level,) = content.levels
    assert (level.status, level.advisories) == (TcbStatus.OUT_OF_DATE, ("INTEL-SA-1",))
    assert len(level.sgx) == len(level.tdx) == 16
    assert content.modules["TDX_01"].levels[0].isv_svn == 2
    assert text.startswith('{"tcbInfo":' + content.body.decode())


def test_levels_are_sorted_whatever_their_order() -> None:
    levels = [svn_level(svn) for svn in (2, 9, 4)]
    content = parse_document(INTEL.qe_identity(tcbLevels=levels).encode()).content
    assert isinstance(content, QeIdentity)
    assert [level.isv_svn for level in content.levels] == [9, 4, 2]
    low, high = platform_level(pce_svn=3), platform_level(pce_svn=4)
    for given in ([low, high], [high, low]):
        info = parse_document(INTEL.tcb_info(tcbLevels=given).encode()).content
        assert isinstance(info, TcbInfo)
        assert [level.pce_svn for level in info.levels] == [4, 3]


def test_a_qe_identity_is_read() -> None:
    content = parse_document(INTEL.qe_identity().encode()).content
    assert isinstance(content, QeIdentity)
    assert content.id == "TD_QE"
    assert content.isv_prod_id == 2
    assert content.attributes[0] == 0x11


@pytest.mark.parametrize(
    "spelt",
    [
        lambda body, sig: f' {{ "tcbInfo" : {body} , "signature" : "{sig}" }} \n',
        lambda body, sig: f'{{"signature":"{sig}","tcbInfo":{body}}}',
        lambda body, sig: f'{{"tcbInfo":{body},"signature":"{sig.upper()}"}}',
    ],
)
def test_the_signed_bytes_are_the_values_own(
    spelt: Callable[[str, str], str],
) -> None:
    text = INTEL.tcb_info()
    content: Any = parse_document(text.encode()).content
    body, signature = content.body.decode(), content.signature.hex()
    again: Any = parse_document(spelt(body, signature).encode()).content
    assert again.body == content.body
    assert again.signature == content.signature


def test_members_that_are_not_known_are_passed_over() -> None:
    text = INTEL.tcb_info(fromALaterDay={"deep": [1]})
    assert parse_document(text.encode()).content is not None


def sgx(**changes: Any) -> str:
    return INTEL.tcb_info("SGX", **changes)


BAD_DOCUMENTS: dict[str, str] = {
    "no JSON": "tcb",
    "a list": "[]",
    "nothing known": '{"pckCrl": 1, "signature": ""}',
    "no signature": '{"tcbInfo": {}}',
    "something beside it": INTEL.tcb_info()[:-1] + ',"more":1}',
    "a value that is no object": '{"tcbInfo": 1, "signature": "' + "00" * 64 + '"}',
    "a short signature": '{"tcbInfo": {}, "signature": "00"}',
    "a signature with spaces": '{"tcbInfo": {}, "signature": "' + "0 " * 64 + '"}',
    "version 2 with the components of version 3": sgx(version=2),
    "version 2 without a component": INTEL.first_tcb_info(
        platform_level("SGX", sgx=(0,) * 15)
    ),
    "version 4": sgx(version=4),
    "version 1": sgx(version=1),
    "another id": sgx(id="SGX2"),
    "another TCB type": sgx(tcbType=1),
    "a date without a zone": sgx(issueDate="2026-11-22T08:00:00"),
    "a short FMSPC": sgx(fmspc="00"),
    "an FMSPC that is no hex": sgx(fmspc="zz00f0a00000"),
    "no levels": sgx(tcbLevels=[]),
    "levels that are none": sgx(tcbLevels=[1]),
    "an unknown status": sgx(tcbLevels=[platform_level("SGX", "Fine")]),
    "our own word for none": sgx(tcbLevels=[platform_level("SGX", "NotSupported")]),
    "fifteen components": sgx(tcbLevels=[platform_level("SGX", sgx=(0,) * 15)]),
    "a component above 255": sgx(tcbLevels=[platform_level("SGX", sgx=(256,) * 16)]),
    "TDX without TDX components": INTEL.tcb_info(tcbLevels=[platform_level("SGX")]),
    "advisories that are none": sgx(
        tcbLevels=[{**platform_level("SGX"), "advisoryIDs": [1]}]
    ),
    "a module id twice": INTEL.tcb_info(
        tdxModuleIdentities=2 * [{"id": "A", **module(), "tcbLevels": [svn_level(1)]}]
    ),
    "a module id twice but for its case": INTEL.tcb_info(
        tdxModuleIdentities=[
            {"id": name, **module(), "tcbLevels": [svn_level(1)]} for name in "aA"
        ]
    ),
    "a module without levels": INTEL.tcb_info(
        tdxModuleIdentities=[{"id": "A", **module(), "tcbLevels": []}]
    ),
    "a module with a short signer": INTEL.tcb_info(tdxModule=module(mrsigner="00")),
    "an identity of version 1": INTEL.qe_identity(version=1),
    "an identity of another enclave": INTEL.qe_identity(id="QVE"),
    "an identity without a mask": INTEL.qe_identity(attributesMask=None),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_other_documents_are_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        parse_document(BAD_DOCUMENTS[name].encode())


# --- forms of collateral --------------------------------------------------------------


def test_an_answer_of_the_service_is_collateral() -> None:
    given = read_collateral(INTEL.tcb_info().encode())
    assert [one.kind for one in given.documents()] == ["intel.tcb_info"]
    assert given.certificates() == given.revocation_lists() == ()


def test_a_set_with_signatures_apart_is_the_same_as_with_answers() -> None:
    whole = INTEL.collateral_json()
    info, identity = json.loads(whole["tcb_info"]), json.loads(whole["qe_identity"])
    apart = {
        **whole,
        "tcb_info": json.dumps(info["tcbInfo"], separators=(",", ":")),
        "tcb_info_signature": info["signature"],
        "qe_identity": json.dumps(identity["enclaveIdentity"], separators=(",", ":")),
        "qe_identity_signature": identity["signature"],
    }
    assert parse_collateral(apart) == parse_collateral(whole)
    assert read_collateral(json.dumps(apart).encode()) == parse_collateral(whole)
    assert joined_document("tcbInfo", apart["tcb_info"], info["signature"]) == (
        whole["tcb_info"].encode()
    )


def test_lists_may_be_hex_base64_or_pem() -> None:
    crl = INTEL.crl()
    der = crl.public_bytes(Encoding.DER)
    spellings = (
        der.hex(),
        der.hex().upper(),
        b64(der),
        crl.public_bytes(Encoding.PEM).decode(),
    )
    for text in spellings:
        assert parse_collateral({"pck_crl": text}).revocation_lists() == (crl,)


def test_chains_may_be_percent_encoded_or_end_with_a_terminator() -> None:
    chain = pem(INTEL.pck_ca) + pem(INTEL.root)
    for text in (chain, quote(chain), chain + "\0"):
        given = parse_collateral({"pck_crl_issuer_chain": text})
        assert given.certificates() == (INTEL.pck_ca, INTEL.root)


def test_members_may_be_absent_or_null() -> None:
    given = parse_collateral({"tcb_info": None, "pck_certificate_chain": None})
    assert given == parse_collateral({})
    assert given.documents() == ()


BAD_COLLATERAL: dict[str, dict[str, object]] = {
    "an unknown member": {"root_crl": ""},
    "a number": {"tcb_info": 1},
    "a document that is none": {"tcb_info": "{}"},
    "a signature that is none": {"tcb_info": "{}", "tcb_info_signature": '"}'},
    "a list that is none": {"pck_crl": "30"},
    "a list in a spelling of its own": {"pck_crl": "zz"},
    "a chain that is none": {"pck_crl_issuer_chain": "PEM"},
    "a chain that is percent-encoded and none": {
        "pck_crl_issuer_chain": "-----BEGIN%20"
    },
}


@pytest.mark.parametrize("name", BAD_COLLATERAL)
def test_other_collateral_is_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        parse_collateral(BAD_COLLATERAL[name])


# --- statuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["UpToDate", "UpToDate"], "UpToDate"),
        (
            ["SWHardeningNeeded", "ConfigurationNeeded"],
            "ConfigurationAndSWHardeningNeeded",
        ),
        (["SWHardeningNeeded", "OutOfDate"], "OutOfDate"),
        (
            ["ConfigurationAndSWHardeningNeeded", "OutOfDate"],
            "OutOfDateConfigurationNeeded",
        ),
        (["OutOfDateConfigurationNeeded", "UpToDate"], "OutOfDateConfigurationNeeded"),
        (["OutOfDate", "NotSupported"], "NotSupported"),
        (["NotSupported", "Revoked"], "Revoked"),
    ],
)
def test_the_whole_needs_what_any_part_needs(parts: list[str], whole: str) -> None:
    assert joined(*(TcbStatus(part) for part in parts)) == whole
