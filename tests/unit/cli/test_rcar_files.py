"""Primary evidence of RCAR in a file of its own, known by what is in it."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from kbs.cli.evidence_files import guess_kind
from kbs.core.checks import Status
from kbs.core.encode import b64
from kbs.evidence.forms import tee_of
from tests.fakes.admin_bench import Ran, run
from tests.fakes.cca import FakeCca
from tests.fakes.intel import FakeIntel
from tests.fakes.rcar_evidence import cca_evidence

INTEL, CCA = FakeIntel(), FakeCca()
DIGEST = hashlib.sha384(b"a message").digest()
NONCE = base64.urlsafe_b64encode(DIGEST).decode()
FIELD = DIGEST.ljust(64, b"\0")
TDX = {"cc_eventlog": None, "quote": b64(INTEL.quote(report_data=FIELD))}
SGX = {"quote": b64(INTEL.quote(report_data=FIELD, tee="sgx", version=3))}
REALM = cca_evidence(CCA)(DIGEST)
AT = "2026-11-22T08:00:00Z"


def verify(path: Path, *options: object) -> Ran:
    return run("evidence", "verify", str(path), *map(str, options), "--json")


def statuses(ran: Ran) -> dict[str, str]:
    return {check["id"]: check["status"] for check in ran.json["checks"]}


def written(folder: Path, name: str, document: object) -> Path:
    path = folder / name
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("document", "tee"),
    [
        (TDX, "tdx"),
        ({"quote": TDX["quote"]}, "tdx"),
        ({**TDX, "more": 1}, "tdx"),
        (SGX, "sgx"),
        (REALM, "cca"),
        # Not what they look like: a token of words, another's document.
        ({"quote": 1}, None),
        ({"quote": b64(b"x" * 700)}, None),
        ({"quote": "%"}, None),
        ({"quote": {"message": "00"}}, None),
        ({"token": "a.b.c"}, None),
        ({"token": []}, None),
        ({"token": [256]}, None),
        ({"token": [1, 2, 3]}, None),
        ({"format": "kbs.evidence/1", **SGX}, None),
    ],
)
def test_a_file_is_known_by_what_is_in_it(
    document: dict[str, Any], tee: str | None
) -> None:
    if "format" not in document:
        assert tee_of(document) == tee
    kind = "bundle" if tee is None else "rcar"
    assert guess_kind(json.dumps(document).encode()) == kind
    wrapped = {"platform": "x", "evidence": document}
    assert guess_kind(json.dumps(wrapped).encode()) == kind


@pytest.mark.parametrize(("document", "tee"), [(TDX, "tdx"), (SGX, "sgx")])
def test_a_quote_of_somebody_elses_root_is_refused(
    tmp_path: Path, document: dict[str, Any], tee: str
) -> None:
    """All else holds, and so does the nonce that the digest of the message is."""
    collateral = written(tmp_path, "collateral", INTEL.collateral_json(tee))
    evidence = written(tmp_path, "evidence", document)
    ran = verify(evidence, "--collateral", collateral, "--at", AT, "--nonce", NONCE)
    assert (ran.code, ran.json["verdict"]) == (1, "refused")
    found = statuses(ran)
    assert found[f"{tee}.parse"] == found[f"{tee}.quote.signature"] == "pass"
    assert found[f"{tee}.chain"] == "fail"
    assert found["binding.nonce"] == "pass"
    other = base64.urlsafe_b64encode(DIGEST[::-1]).decode()
    ran = verify(evidence, "--collateral", collateral, "--at", AT, "--nonce", other)
    assert statuses(ran)["binding.nonce"] == "fail"
    shown: Any = run("evidence", "inspect", str(evidence), "--json").json
    assert shown["items"][0]["kind"] == tee


def test_a_realm_is_verified_by_the_keys_that_are_given(tmp_path: Path) -> None:
    evidence = written(tmp_path, "evidence", REALM)
    platforms: Any = CCA.document()["platforms"]
    keys = written(tmp_path, "keys", platforms[0]["key"])
    ran = verify(evidence, "--collateral", keys, "--at", AT, "--nonce", NONCE)
    assert (ran.code, ran.json["verdict"]) == (0, "verified"), ran.json
    assert statuses(ran)["binding.nonce"] == "pass"
    ran = verify(evidence, "--at", AT)
    assert (ran.code, ran.json["verdict"]) == (3, "unchecked")


@pytest.mark.parametrize("name", ["tdx/v4-phala", "sgx/v3-phala", "cca/coco-example"])
def test_recorded_evidence_in_this_form_gives_the_same_verdict(
    vectors: Path, tmp_path: Path, name: str
) -> None:
    folder = vectors / name.partition("/")[0]
    stem = name.partition("/")[2]
    raw = next(
        path
        for path in (folder / f"{stem}.bin", folder / f"{stem}.cbor")
        if path.exists()
    )
    given = folder / f"{stem}.collateral.json"
    data = raw.read_bytes()
    document = {"token": list(data)} if raw.suffix == ".cbor" else {"quote": b64(data)}
    options: list[object] = ["--at", "2025-06-20T00:00:00Z"]
    if given.exists():
        options += ["--collateral", given]
    if raw.suffix == ".cbor":
        options += ["--collateral", folder / "coco-cpak-pub.json"]
    plain = verify(raw, *options)
    loose = verify(written(tmp_path, "evidence", document), *options)
    assert (loose.code, loose.json) == (plain.code, plain.json)
    passed = [one for one, status in statuses(loose).items() if status == Status.PASS]
    assert len(passed) > 3, loose.json
