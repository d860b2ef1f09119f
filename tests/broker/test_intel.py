"""Keys for TDs and enclaves: collateral from the table, TCB by policy, both doors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.broker.intel_collateral import lacking_documents
from kbs.core.encode import b64
from kbs.evidence.model import GivenCollateral, ItemResult, ParsedItem, Trust
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.sgx.verify import SgxVerifier
from kbs.evidence.tdx.verify import TdxVerifier
from kbs.evidence.vtpm.events import EventType
from kbs.governance.statement import Action, Kind
from tests.fakes.answers import Document, releases, see
from tests.fakes.databases import Place
from tests.fakes.eventlog import FakeEventLog
from tests.fakes.intel import NOW, FakeIntel, pem, platform_level
from tests.fakes.rcar_client import Answer, RcarClient
from tests.fakes.rcar_evidence import Evidence
from tests.fakes.world import Request, World

INTEL = FakeIntel()
MR_TD = bytes(range(48)).hex()
MR_ENCLAVE = bytes(range(32)).hex()
TD = "acme/td/model"
ENCLAVE = "acme/enclave/model"
LENIENT = "acme/lenient/model"

POLICY = """\
kind: ReleasePolicy
name: %s
releases: ["acme/%s/*"]
%sallow:
  - rule: only
%s    all:
      - {safe: true}
      - %s
"""
MEASURED = f'{{claim: tdx.mr_td, equals: "{MR_TD}"}}'
RUNNING = f'{{claim: sgx.mr_enclave, equals: "{MR_ENCLAVE}"}}'
POLICIES = {
    "td": POLICY % ("td", "td", "", "", MEASURED),
    "enclave": POLICY
    % (
        "enclave",
        "enclave",
        "",
        "",
        f'{{claim: sgx.mr_enclave, equals: "{MR_ENCLAVE}"}}',
    ),
    "lenient": POLICY
    % (
        "lenient",
        "lenient",
        "revocation: {tolerate_missing: true}\n",
        "    unsafe: {tdx.tcb_status: laboratory}\n",
        MEASURED,
    ),
}


class PinnedTdx(TdxVerifier):
    """The TDX verifier of a broker that was built with other roots."""

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        return super().verify(parsed, replace(trust, pinned_roots=INTEL.pins()))


class PinnedSgx(SgxVerifier):
    """The SGX verifier of a broker that was built with other roots."""

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        return super().verify(parsed, replace(trust, pinned_roots=INTEL.pins()))


@pytest.fixture
def world(tmp_path: Path, sqlite_place: Place) -> Iterator[World]:
    """A broker that trusts the fake Intel, with a key under each policy."""
    verifiers = {**VERIFIERS, "tdx": PinnedTdx(), "sgx": PinnedSgx()}
    with closing(sqlite_place.connect()) as opened:
        made = World.create(tmp_path, database=opened, verifiers=verifiers)
        for name, source in POLICIES.items():
            made.activate_policy(source, name=name)
            made.create_key(f"acme/{name}/model", name.encode())
        yield made


def known(world: World, *documents: str, lists: bool = True) -> Document:
    """Import collateral as an operator does: issuers, lists, documents."""
    items = [pem(INTEL.tcb_signer).encode(), pem(INTEL.root).encode()]
    items += [document.encode() for document in documents]
    if lists:
        items += [
            INTEL.crl(which).public_bytes(Encoding.DER) for which in ("pck", "root")
        ]
    body = {"items": [b64(one) for one in items]}
    return world.must("POST", "/admin/v1/collateral", body)


def quote(world: World, key: str = TD, *, tee: str = "tdx", **changes: Any) -> Request:
    changes.setdefault("collateral", False)
    return world.request_by(
        tee, lambda primary: INTEL.bundle_item(primary, tee=tee, **changes), [key]
    )


def test_a_td_gets_its_key_by_collateral_of_the_table(world: World) -> None:
    answer = known(world, INTEL.tcb_info(), INTEL.qe_identity())
    assert (answer["read"], answer["added"]) == (6, 6)
    assert world.released(quote(world)) == {f"{TD}@1": b"td"}


def test_an_enclave_gets_its_key_by_collateral_of_its_own(world: World) -> None:
    request = quote(world, ENCLAVE, tee="sgx", collateral=True)
    assert world.released(request) == {f"{ENCLAVE}@1": b"enclave"}


def test_without_collateral_it_could_not_be_checked(world: World) -> None:
    request = quote(world)
    seen = see(world, request)
    assert (seen.status, seen.code) == (503, "evidence.unchecked")
    assert {"tdx.tcb_info", "tdx.qe_identity", "tdx.revocation"} <= set(seen.checks)
    # The challenge was not spent: with collateral the same request is good.
    known(world, INTEL.tcb_info(), INTEL.qe_identity())
    assert world.released(request) == {f"{TD}@1": b"td"}


def test_collateral_that_ran_out_is_none(world: World) -> None:
    known(world, INTEL.tcb_info(), INTEL.qe_identity())
    world.clock.time = NOW + timedelta(days=29)
    seen = see(world, quote(world))
    assert seen.status == 503
    assert {"tdx.tcb_info", "tdx.qe_identity"} <= set(seen.checks)
    fresh = replace(INTEL, now=NOW + timedelta(days=29))
    items = [fresh.tcb_info().encode(), fresh.qe_identity().encode()]
    items += [
        fresh.crl(one, number=2).public_bytes(Encoding.DER) for one in ("pck", "root")
    ]
    world.must("POST", "/admin/v1/collateral", {"items": [b64(one) for one in items]})
    assert world.released(quote(world)) == {f"{TD}@1": b"td"}


def test_a_bad_tcb_is_denied_by_policy_and_not_refused(world: World) -> None:
    old = INTEL.tcb_info(tcbLevels=[platform_level("TDX", "OutOfDate", "INTEL-SA-1")])
    known(world, old, INTEL.qe_identity())
    seen = see(world, quote(world))
    assert seen.status == 403
    assert "tdx.tcb_status" in json.dumps(seen.document)
    assert world.released(quote(world, LENIENT)) == {f"{LENIENT}@1": b"lenient"}


def test_a_td_under_debug_is_denied(world: World) -> None:
    known(world, INTEL.tcb_info(), INTEL.qe_identity())
    debug = quote(world, td_attributes=bytes.fromhex("0100001000000000"))
    seen = see(world, debug)
    assert seen.status == 403
    assert "tdx.debug" in json.dumps(seen.document)


def test_only_missing_lists_can_be_tolerated(world: World) -> None:
    known(world, INTEL.tcb_info(), INTEL.qe_identity(), lists=False)
    assert see(world, quote(world)).checks == ["tdx.revocation"]
    assert world.released(quote(world, LENIENT)) == {f"{LENIENT}@1": b"lenient"}
    (entry,) = releases(world)
    assert entry["tolerated"] == ["tdx.revocation"]


def test_a_denied_platform_gets_nothing(world: World) -> None:
    known(world, INTEL.tcb_info(), INTEL.qe_identity())
    request = quote(world)
    entry = {"target": "chip", "value": INTEL.ppid.hex(), "reason": "stolen"}
    deny = json.dumps(entry).encode()
    world.govern(Action.DENY, Kind.DENY, "acme", "stolen", deny)
    seen = see(world, request)
    assert seen.status == 403
    # In the log the platform is a keyed hash.
    told = json.dumps(world.entries())
    assert INTEL.ppid.hex() not in told.replace(json.dumps(entry), "")


def test_documents_are_listed_with_the_rest(world: World) -> None:
    known(world, INTEL.tcb_info(), INTEL.qe_identity())
    listed = world.must("GET", "/admin/v1/collateral")["collateral"]
    assert isinstance(listed, list)
    found = {row["kind"]: row for row in listed}
    assert set(found) == {
        "certificate",
        "crl",
        "intel.tcb_info",
        "intel.qe_identity",
    }
    row = found["intel.tcb_info"]
    assert row["subject"] == f"FMSPC {INTEL.fmspc}, TDX, evaluation 18"
    assert row["not_after"] == "2026-12-20T08:00:00Z"
    again = known(world, INTEL.tcb_info(), INTEL.qe_identity())
    # ECDSA signs anew each time, so that only certificates are the same again.
    assert again["read"] == 6


def test_a_whole_set_can_be_imported_at_once(world: World) -> None:
    members = json.dumps(INTEL.collateral_json()).encode()
    answer = world.must("POST", "/admin/v1/collateral", {"items": [b64(members)]})
    assert answer["read"] == 7
    assert world.released(quote(world)) == {f"{TD}@1": b"td"}


def test_what_is_no_collateral_is_refused_whole(world: World) -> None:
    items = [b64(INTEL.tcb_info().encode()), b64(b'{"tcbInfo": 1}')]
    response = world.call("POST", "/admin/v1/collateral", {"items": items})
    assert response.status_code == 400
    assert world.must("GET", "/admin/v1/collateral")["collateral"] == []


def test_health_names_the_documents_that_policies_need(world: World) -> None:
    def missing() -> list[str]:
        report = world.app.test_client().get("/health/ready").get_json()
        assert report["ready"]
        return [one["detail"] for one in report["missing"]]

    (detail,) = missing()
    for name in ("TCB info (TDX)", "QE identity (TD_QE)", "TCB info (SGX)"):
        assert name in detail
    known(world, INTEL.tcb_info(), INTEL.qe_identity())
    (detail,) = missing()
    assert "TDX" not in detail
    known(world, INTEL.tcb_info("SGX"), INTEL.qe_identity("QE"))
    assert missing() == []
    world.clock.advance(29 * 24 * 3600)
    (detail,) = missing()
    assert "TCB info (TDX)" in detail


@pytest.mark.parametrize("families", [{"azure_tdx"}, {"azure_tdx", "tdx"}])
def test_vms_of_azure_on_tdx_need_the_same_documents(families: set[str]) -> None:
    wanted = ("TCB info (TDX)", "QE identity (TD_QE)")
    assert lacking_documents(GivenCollateral(), families, NOW) == wanted


# --- RCAR -----------------------------------------------------------------------------


def guest(world: World, tee: str, evidence: Evidence, **options: Any) -> RcarClient:
    def send(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        client = world.app.test_client(use_cookies=False)
        found = client.open(path, method=method, data=body, headers=dict(headers))
        return Answer(found.status_code, dict(found.headers), found.get_data())

    return RcarClient(send, tee=tee, evidence=evidence, **options)


def td_evidence(event_log: bytes | None = None, **fields: Any) -> Evidence:
    """A TD's evidence: it carries no collateral."""

    def make(digest: bytes) -> dict[str, Any]:
        log = None if event_log is None else b64(event_log)
        made = INTEL.quote(report_data=digest, **fields)
        return {"cc_eventlog": log, "quote": b64(made)}

    return make


def enclave_evidence(**fields: Any) -> Evidence:
    """An enclave's evidence."""

    def make(digest: bytes) -> dict[str, Any]:
        made = INTEL.quote(tee="sgx", version=3, report_data=digest, **fields)
        return {"quote": b64(made)}

    return make


def test_a_td_fetches_its_key_by_rcar(world: World) -> None:
    known(world, INTEL.tcb_info(), INTEL.qe_identity())
    log = FakeEventLog(("sha384",)).measure(1, EventType.EV_EFI_ACTION, b"boot")
    rtmr0 = extended(b"boot")
    evidence = td_evidence(log.to_bytes() + b"\xff" * 64, rtmr0=rtmr0)
    assert guest(world, "tdx", evidence).fetch(TD) == b"td"
    (entry,) = releases(world)
    assert (entry["door"], entry["primary"]) == ("rcar", "tdx")
    lying = td_evidence(log.to_bytes())
    answer = guest(world, "tdx", lying).handshake()
    assert (answer.status, answer.error) == (401, "AttestationError")
    assert "tdx.eventlog.replay" in answer.json["detail"]


def extended(data: bytes) -> bytes:
    return hashlib.sha384(bytes(48) + hashlib.sha384(data).digest()).digest()


def test_an_enclave_fetches_its_key_by_rcar(world: World) -> None:
    known(world, INTEL.tcb_info("SGX"), INTEL.qe_identity("QE"))
    assert guest(world, "sgx", enclave_evidence()).fetch(ENCLAVE) == b"enclave"


def test_a_quote_for_another_session_is_refused(world: World) -> None:
    known(world, INTEL.tcb_info(), INTEL.qe_identity())
    stale = td_evidence()(bytes(48))
    answer = guest(world, "tdx", lambda _: stale).handshake()
    assert (answer.status, answer.error) == (401, "AttestationError")
    assert "binding.primary" in answer.json["detail"]


INIT_DATA = 'algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n"k" = "v"\n'


@pytest.mark.parametrize(
    ("tee", "make", "register"),
    [
        ("tdx", td_evidence, "mr_config_id"),
        ("sgx", enclave_evidence, "config_id"),
    ],
)
def test_init_data_is_what_the_register_holds(
    world: World, tee: str, make: Any, register: str
) -> None:
    kinds = ("TDX", "TD_QE") if tee == "tdx" else ("SGX", "QE")
    known(world, INTEL.tcb_info(kinds[0]), INTEL.qe_identity(kinds[1]))
    digest = hashlib.sha256(INIT_DATA.encode()).digest()
    given = {"format": "toml", "body": INIT_DATA}
    honest = make(**{register: digest})
    assert guest(world, tee, honest, init_data=given).handshake().status == 200
    for value in (bytes(32), digest + b"\x01"):
        liar = guest(world, tee, make(**{register: value}), init_data=given)
        answer = liar.handshake()
        assert (answer.status, answer.error) == (401, "AttestationError")
        assert "rcar.init_data" in answer.json["detail"]


def test_a_session_is_no_better_than_the_documents_it_was_checked_with(
    world: World,
) -> None:
    soon = INTEL.tcb_info(nextUpdate="2026-11-22T08:01:00Z")
    known(world, soon, INTEL.qe_identity())
    client = guest(world, "tdx", td_evidence())
    client.handshake()
    assert client.get(TD).status == 200
    world.clock.advance(61)
    assert client.get(TD).error == "TokenNotFound"
