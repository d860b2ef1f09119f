"""`kbs evidence` on evidence of clouds: files are known by what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kbs.cli.evidence_files import guess_kind
from kbs.core.encode import b64u
from tests.fakes.admin_bench import Ran, run
from tests.fakes.azure import azure
from tests.fakes.nitro import nitro
from tests.fakes.rcar_evidence import tpm_evidence
from tests.fakes.tpm import FakeTpm

AWS = nitro()
VM = azure()
AT = "2026-01-01T00:00:00Z"


def verify(*arguments: object) -> Ran:
    return run("evidence", "verify", *map(str, arguments), "--json")


def statuses(ran: Ran) -> dict[str, str]:
    return {check["id"]: check["status"] for check in ran.json["checks"]}


def written(folder: Path, data: bytes) -> Path:
    path = folder / "evidence"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (AWS.document(), "nitro"),
        (AWS.tpm_document(), "nitrotpm"),
        (VM.hcl(), "azure"),
        (json.dumps(VM.evidence(bytes(48))).encode(), "rcar"),
        (json.dumps({"platform": "x", "evidence": VM.evidence(b"")}).encode(), "rcar"),
        (json.dumps(tpm_evidence(FakeTpm())(bytes(48))).encode(), "rcar"),
        (json.dumps({"format": "x", **VM.evidence(b"")}).encode(), "bundle"),
        (b'{"hcl_report": 1', "bundle"),
        (b'{"hcl_report": "x"}', "bundle"),
    ],
)
def test_a_file_is_known_by_what_is_in_it(data: bytes, kind: str) -> None:
    assert guess_kind(data) == kind


def test_a_document_of_somebody_elses_root_is_refused(tmp_path: Path) -> None:
    ran = verify(written(tmp_path, AWS.document()))
    assert (ran.code, ran.json["verdict"]) == (1, "refused")
    assert statuses(ran)["nitro.chain"] == "fail"
    assert statuses(ran)["nitro.document.signature"] == "pass"


@pytest.mark.parametrize(
    ("document", "nonce", "status"),
    [
        (AWS.document(nonce=b"n" * 100), b"n" * 100, "pass"),
        (AWS.document(nonce=b"n" * 100), b"n" * 99, "fail"),
        (AWS.document(user_data=b"u"), b"u", "pass"),
        (AWS.document(user_data=b"u", nonce=b"n"), b"u", "fail"),
        (AWS.document(), b"u", "fail"),
    ],
)
def test_the_nonce_of_a_document(
    tmp_path: Path, document: bytes, nonce: bytes, status: str
) -> None:
    ran = verify(written(tmp_path, document), "--nonce", b64u(nonce))
    assert statuses(ran)["binding.nonce"] == status


@pytest.mark.parametrize(
    ("data", "kind", "check"),
    [
        (AWS.document()[:-1], None, "nitro.parse"),
        (b"?", "nitro", "nitro.parse"),
        (AWS.document(), "nitrotpm", "nitrotpm.parse"),
        (b"HCLA", None, "azure.parse"),
        (VM.hcl()[:1300], "azure", "azure.parse"),
        (json.dumps({**VM.evidence(b""), "vcek": 1}).encode(), None, "azure.parse"),
        (b"{}", "rcar", "bundle.parse"),
    ],
)
def test_what_lacks_its_shape_is_malformed(
    tmp_path: Path, data: bytes, kind: str | None, check: str
) -> None:
    named = () if kind is None else ("--kind", kind)
    ran = verify(written(tmp_path, data), *named)
    assert (ran.code, ran.json["verdict"]) == (2, "refused")
    assert statuses(ran)[check] == "fail"
    shown = run("evidence", "inspect", str(written(tmp_path, data)), *named, "--json")
    assert "error" in shown.json["items"][0]


def test_an_hcl_report_alone_is_unchecked(tmp_path: Path) -> None:
    ran = verify(written(tmp_path, VM.hcl()))
    assert (ran.code, ran.json["verdict"]) == (3, "unchecked")
    assert statuses(ran)["azure.runtime_data"] == "pass"
    shown: Any = run("evidence", "inspect", str(tmp_path / "evidence"), "--json").json
    assert shown["items"][0]["azure"]["hcl"]["report_type"] == "snp"


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"tcbm": "0"}, "JSON with tcbm"),
        ({"vcekCert": 1, "certificateChain": ""}, "vcekCert"),
        ({"vcekCert": "x", "certificateChain": "y"}, "--cert"),
    ],
)
def test_other_json_holds_no_certificates(
    tmp_path: Path, document: dict[str, object], why: str
) -> None:
    path = tmp_path / "certificates.json"
    path.write_text(json.dumps(document))
    ran = verify(written(tmp_path, VM.hcl()), "--cert", path)
    assert ran.code == 2
    assert why in ran.err


def test_certificates_come_as_azures_metadata_service_gives_them(
    tmp_path: Path,
) -> None:
    pems: Any = VM.amd.bundle_item()["certificates"]
    document = {
        "vcekCert": pems[0],
        "tcbm": "DB18000000000004",
        "certificateChain": "".join(pems[1:]),
        "cacheControl": "86400",
    }
    path = tmp_path / "certificates.json"
    path.write_text(json.dumps(document))
    ran = verify(written(tmp_path, VM.hcl()), "--cert", path)
    assert statuses(ran)["snp.report.signature"] == "pass"
    # The fake's root is nobody's.
    assert statuses(ran)["snp.chain"] == "fail"


@pytest.mark.vectors
def test_a_recorded_document_of_a_host(vectors: Path) -> None:
    folder = vectors / "snp"
    certificates = folder / "milan-v2-aci.host-amd-certificate.json"
    at = "2024-01-01T00:00:00Z"
    ran = verify(folder / "milan-v2-aci.bin", "--cert", certificates, "--at", at)
    assert ran.code == 0


@pytest.mark.vectors
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("snp-evidence-v0.json", 0),
        ("snp-evidence-v1.json", 0),
        ("snp-evidence-v2.json", 0),
        ("snp-milan-v3.json", 0),
        ("tdx-evidence-v0.json", 3),
        ("tdx-evidence-v1.json", 3),
        ("cvm-tooling-hcl-report-tdx.bin", 3),
    ],
)
def test_recorded_evidence_of_azure(vectors: Path, name: str, code: int) -> None:
    issuers = vectors / "snp" / "amd-milan-ask-ark.pem"
    ran = verify(vectors / "vtpm-azure" / name, "--cert", issuers, "--at", AT)
    assert ran.code == code


@pytest.mark.vectors
def test_recorded_evidence_of_google(vectors: Path) -> None:
    folder = vectors / "vtpm-gcp"
    path = folder / "gce-cos-85-nonce9009.pb"
    certificates: list[object] = []
    for name in ("tpm-ek-intermediate-2.crt", "tpm-ek-root-1.cer"):
        certificates += ["--cert", folder / name]
    ran = verify(path, *certificates, "--at", AT, "--nonce", "kAk")
    assert ran.code == 0
    claims = ran.json["claims"]["vtpm"]
    assert claims["gce"]["zone"] == "us-central1-a"
    assert verify(path, *certificates, "--at", AT, "--nonce", "AAAA").code == 1
    assert verify(path, "--at", AT).code == 3


@pytest.mark.vectors
def test_recorded_documents_of_nitro(vectors: Path) -> None:
    path = vectors / "nitro" / "veracruz.cbor"
    at = ("--at", "2022-11-09T22:52:00Z")
    ran = verify(path, *at)
    assert ran.code == 0
    claims = ran.json["claims"]["nitro"]
    assert claims["debug"] is False
    nonce = bytes.fromhex(claims["nonce"])
    assert verify(path, *at, "--nonce", b64u(nonce)).code == 0
    assert verify(path, *at, "--nonce", b64u(nonce[:-1])).code == 1
    # Three hours later nobody can say any more.
    assert verify(path).code == 1
