"""`kbs evidence` on quotes of TDX and SGX in files, and `kbs collateral import`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.cli.context import EXIT_DONE, EXIT_REFUSED, EXIT_UNCHECKED, EXIT_USAGE
from kbs.core.encode import b64, b64u
from tests.fakes.admin_bench import Bench, Ran, run
from tests.fakes.eventlog import FakeEventLog
from tests.fakes.intel import FakeIntel, pem

AT = "2025-07-04T10:24:15Z"
AT_2026 = "2026-03-31T22:11:06Z"
SHARED = (
    "confidential-ai-tcb-info-90c06f000000.json",
    "confidential-ai-td-qe-identity.json",
)
INTEL = FakeIntel()


def verify(*arguments: object) -> Ran:
    ran = run("evidence", "verify", *map(str, arguments), "--json")
    assert ran.out.count("\n") == 1
    return ran


def statuses(ran: Ran) -> dict[str, str]:
    return {check["id"]: check["status"] for check in ran.json["checks"]}


def test_a_quote_with_its_collateral_verifies(vectors: Path) -> None:
    quote = vectors / "tdx" / "v4-phala.bin"
    collateral = vectors / "tdx" / "v4-phala.collateral.json"
    ran = verify(quote, "--collateral", collateral, "--at", AT)
    assert (ran.code, ran.json["verdict"]) == (EXIT_DONE, "verified")
    assert ran.json["claims"]["tdx"]["tcb_status"] == "UpToDate"
    assert statuses(ran)["tdx.revocation"] == "pass"
    assert statuses(ran)["binding.primary"] == "skipped"


SPELLINGS: dict[str, Callable[[bytes], str]] = {
    "hex": bytes.hex,
    "lines of base64": lambda data: base64.encodebytes(data).decode(),
    "base64url": b64u,
    "JSON, hex": lambda data: json.dumps({"quote": data.hex()}),
    "JSON, base64": lambda data: json.dumps({"quote": b64(data), "user_data": None}),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in SPELLINGS for kind in (None, "tdx")),
        ("JSON, base64", "rcar"),
    ],
)
def test_a_quote_in_text_is_the_same_quote(
    vectors: Path, tmp_path: Path, name: str, kind: str | None
) -> None:
    quote = (vectors / "tdx" / "v4-phala.bin").read_bytes()
    path = tmp_path / "quote.txt"
    path.write_text(SPELLINGS[name](quote))
    collateral = vectors / "tdx" / "v4-phala.collateral.json"
    options = [] if kind is None else ["--kind", kind]
    ran = verify(path, "--collateral", collateral, "--as-of", AT, *options)
    assert (ran.code, ran.json["verdict"]) == (EXIT_DONE, "verified")
    assert ran.json["claims"]["tdx"]["tcb_status"] == "UpToDate"


def test_a_dstack_report_verifies_with_its_events(
    vectors: Path, tmp_path: Path
) -> None:
    folder = vectors / "tdx"
    options: list[object] = ["--at", AT_2026]
    for name in (*SHARED, "confidential-ai-tcb-signing-chain.pem"):
        options += ["--collateral", folder / name]
    ran = verify(folder / "v4-dstack-app.json", *options)
    assert (ran.code, ran.json["verdict"]) == (EXIT_DONE, "verified")
    assert statuses(ran)["tdx.eventlog.replay"] == "pass"
    document = json.loads((folder / "v4-dstack-app.json").read_text())
    events = json.loads(document["event_log"])
    events[-1]["digest"] = "00" * 48
    path = tmp_path / "changed.json"
    path.write_text(json.dumps({**document, "event_log": json.dumps(events)}))
    ran = verify(path, *options)
    assert (ran.code, ran.json["verdict"]) == (EXIT_REFUSED, "refused")
    (check,) = (one for one in ran.json["checks"] if one["status"] == "fail")
    assert check["id"] == "tdx.eventlog.replay"
    assert check["detail"].startswith("RTMR 3 differs")
    path.write_text(json.dumps({**document, "event_log": "what is this"}))
    ran = verify(path, *options)
    assert (ran.code, ran.json["verdict"]) == (EXIT_USAGE, "refused")
    assert statuses(ran)["tdx.parse"] == "fail"


def test_collateral_may_come_in_several_files(vectors: Path) -> None:
    folder = vectors / "tdx"
    options: list[object] = []
    for name in SHARED:
        options += ["--collateral", folder / name]
    options += ["--cert", folder / "confidential-ai-tcb-signing-chain.pem"]
    options += ["--crl", folder / "confidential-ai-root-ca-crl.der"]
    options += ["--crl", folder / "confidential-ai-pck-crl-platform.der"]
    ran = verify(folder / "v5-google.bin", *options, "--at", AT_2026)
    assert ran.code == EXIT_DONE, ran.out
    assert "skipped" not in {
        status
        for name, status in statuses(ran).items()
        if name.startswith("tdx.") and name != "tdx.eventlog.replay"
    }


@pytest.mark.parametrize("name", ["tdx/v4-dstack-ratls", "sgx/v3-mobilecoin"])
def test_without_collateral_it_says_what_to_fetch(vectors: Path, name: str) -> None:
    ran = verify(vectors / f"{name}.bin", "--at", AT)
    kind = name.partition("/")[0]
    assert (ran.code, ran.json["verdict"]) == (EXIT_UNCHECKED, "unchecked")
    assert ran.json["claims"] == {}
    assert statuses(ran)[f"{kind}.quote.signature"] == "pass"
    assert statuses(ran)[f"{kind}.tcb_info"] == "unchecked"
    assert statuses(ran)[f"{kind}.revocation"] == "skipped"
    assert f"/{kind}/certification/v4/tcb?fmspc=" in ran.out


def test_an_event_log_is_replayed(vectors: Path) -> None:
    quote = vectors / "tdx" / "v4-google-cos113.bin"
    logs = vectors / "eventlogs"
    ours = verify(quote, "--event-log", logs / "ccel-google-cos113.bin", "--at", AT)
    assert statuses(ours)["tdx.eventlog.replay"] == "pass"
    theirs = verify(quote, "--event-log", logs / "ccel-dstack.bin", "--at", AT)
    assert theirs.code == EXIT_REFUSED
    assert statuses(theirs)["tdx.eventlog.replay"] == "fail"


def test_an_event_log_alone_proves_nothing(vectors: Path) -> None:
    log = vectors / "eventlogs" / "ccel-coco-grub.bin"
    ran = verify(log)
    assert ran.code == EXIT_UNCHECKED
    assert statuses(ran) == {"tdx.parse": "pass", "tdx.eventlog.replay": "unchecked"}
    assert set(ran.json["replayed"]["sha384"]) >= {"1", "2"}
    shown = run("evidence", "inspect", str(log), "--json").json
    assert len(shown["items"][0]["eventlog"]["events"]) == 37


def test_inspection_needs_nothing_else(vectors: Path) -> None:
    for name, field in (("tdx/v5-google", "mr_td"), ("sgx/v3-occlum", "mr_enclave")):
        kind = name.partition("/")[0]
        ran = run("evidence", "inspect", str(vectors / f"{name}.bin"), "--json")
        wanted = json.loads((vectors / f"{name}.expected.json").read_text())
        (item,) = ran.json["items"]
        assert item["kind"] == kind
        assert item[kind][field] == wanted["parsed"][field]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("tdx/v4-phala.collateral.json", (3, 2, 2)),
        ("tdx/coco-tcbinfo.json", (0, 0, 1)),
        ("sgx/mobilecoin-qe-identity.json", (0, 0, 1)),
        ("tdx/google-pck-platform-crl.der", (0, 1, 0)),
    ],
)
def test_collateral_can_be_looked_at(
    vectors: Path, name: str, counts: tuple[int, int, int]
) -> None:
    ran = run("evidence", "inspect", str(vectors / name), "--json")
    (item,) = ran.json["items"]
    assert (ran.code, item["kind"]) == (EXIT_DONE, "collateral")
    shown = item["collateral"]
    lists = ("certificates", "revocation_lists", "documents")
    assert tuple(len(shown[one]) for one in lists) == counts
    for document in shown["documents"]:
        assert document["tcb_levels"][0]["tcb_status"]
    assert run("evidence", "inspect", str(vectors / name)).code == EXIT_DONE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A quote of the fake Intel, a nonce in it, and what may stand beside it."""
    (tmp_path / "quote").write_bytes(INTEL.quote(report_data=b"nonce"))
    (tmp_path / "enclave").write_bytes(INTEL.quote(tee="sgx", version=3))
    (tmp_path / "short").write_bytes(INTEL.quote()[:-1])
    log = FakeEventLog(("sha384",)).to_bytes()
    (tmp_path / "log").write_bytes(log + b"\xff" * 100)
    (tmp_path / "collateral").write_text(json.dumps(INTEL.collateral_json()))
    (tmp_path / "bad").write_text('{"tcbInfo": 1}')
    return tmp_path


def test_a_nonce_is_compared_with_zeros_behind_it(folder: Path) -> None:
    for nonce, status in ((b"nonce", "pass"), (b"nonc", "fail"), (b"other", "fail")):
        ran = verify(folder / "quote", "--nonce", b64u(nonce))
        assert statuses(ran)["binding.nonce"] == status


def test_another_vendor_is_no_vendor_of_ours(folder: Path) -> None:
    ran = verify(folder / "quote", "--collateral", folder / "collateral")
    assert ran.code == EXIT_REFUSED
    assert statuses(ran)["tdx.chain"] == "fail"


@pytest.mark.parametrize(
    ("kind", "name", "check"),
    [
        (None, "short", "tdx.parse"),
        ("tdx", "enclave", "tdx.parse"),
        ("sgx", "quote", "sgx.parse"),
        ("tdx", "log", "tdx.parse"),
    ],
)
def test_what_is_no_quote_is_refused_as_one(
    folder: Path, kind: str | None, name: str, check: str
) -> None:
    options: list[Any] = [] if kind is None else ["--kind", kind]
    ran = verify(folder / name, *options)
    assert ran.code == EXIT_USAGE
    assert statuses(ran) == {check: "fail"}
    assert ran.json["verdict"] == "refused"


@pytest.mark.parametrize(
    "options",
    [
        ["enclave", "--event-log", "log"],
        ["quote", "--pcrs", "log"],
        ["quote", "--ak", "log"],
        ["quote", "--collateral", "bad"],
        ["quote", "--collateral", "log"],
        ["quote", "--event-log", "missing"],
    ],
)
def test_files_that_mean_nothing_here_are_usage_errors(
    folder: Path, options: list[str]
) -> None:
    words = [
        option if option.startswith("--") else str(folder / option)
        for option in options
    ]
    ran = run("evidence", "verify", *words)
    assert ran.code == EXIT_USAGE


def test_a_log_that_is_none_is_refused_as_evidence(folder: Path) -> None:
    ran = verify(folder / "quote", "--event-log", folder / "collateral")
    assert ran.code == EXIT_USAGE
    assert statuses(ran) == {"tdx.parse": "fail"}


@pytest.mark.enable_socket
def test_intels_documents_are_imported(shared_bench: Bench, tmp_path: Path) -> None:
    answer, whole = tmp_path / "tcb.json", tmp_path / "set.json"
    lists, issuers = tmp_path / "root.crl", tmp_path / "chain.pem"
    answer.write_text(INTEL.tcb_info())
    whole.write_text(json.dumps(INTEL.collateral_json("sgx")))
    lists.write_bytes(INTEL.crl("root").public_bytes(Encoding.DER))
    issuers.write_text(pem(INTEL.tcb_signer) + pem(INTEL.root))
    files = [str(path) for path in (answer, whole, lists, issuers)]
    done = shared_bench.must("collateral", "import", *files)
    # Two certificates stand in the set as well.
    assert done["read"] == 1 + 7 + 1
    kinds = {
        row["kind"] for row in shared_bench.must("collateral", "list")["collateral"]
    }
    assert {"intel.tcb_info", "intel.qe_identity"} <= kinds
    again = shared_bench.must("collateral", "import", str(answer))
    assert (again["read"], again["added"]) == (1, 0)
    refused = shared_bench.run("collateral", "import", __file__)
    assert refused.code == EXIT_USAGE
