"""`kbs collateral` and `kbs health`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.fakes.admin_bench import Bench, run
from tests.fakes.tpm_ca import FakeTpmCA

pytestmark = pytest.mark.enable_socket


def test_certificates_are_imported_once(shared_bench: Bench, tmp_path: Path) -> None:
    authority = FakeTpmCA()
    pem, der = tmp_path / "ca.pem", tmp_path / "ca.der"
    pem.write_bytes(authority.root.public_bytes(Encoding.PEM))
    der.write_bytes(authority.root.public_bytes(Encoding.DER))
    first = shared_bench.must("collateral", "import", str(pem), str(der))
    assert (first["read"], first["added"]) == (1, 1)
    again = shared_bench.run("collateral", "import", str(der))
    assert "1 items read, 0 of them new" in again.out
    digest = hashlib.sha256(der.read_bytes()).hexdigest()
    (row,) = [
        one
        for one in shared_bench.must("collateral", "list")["collateral"]
        if one["sha256"] == digest
    ]
    assert row["kind"] == "certificate"
    assert row["sha256"] in shared_bench.run("collateral", "list").out


@pytest.mark.parametrize("data", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----"])
def test_what_is_no_collateral_is_refused_here(
    shared_bench: Bench, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    before = len(shared_bench.requests)
    ran = shared_bench.run("collateral", "import", str(path))
    assert ran.code == 2
    ran.assert_one_error_line()
    assert len(shared_bench.requests) == before


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"weights\x00\x01", "bytes that are neither PEM nor DER"),
        (b"# A text\n\nof lines\n", "bytes that are neither PEM nor DER"),
        (b"\x30\x03abc", "damaged or other content in PEM or DER"),
    ],
)
def test_errors_are_in_our_words(tmp_path: Path, data: bytes, got: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    for command in (
        ("collateral", "import", str(path)),
        ("ref", "add", "ca", "acme/x", str(path), "--purpose", "ek"),
    ):
        ran = run(*command)
        assert ran.code == 2
        assert f"got {got}" in ran.err
        assert "ParseError" not in ran.err


@pytest.mark.parametrize("before", [b"", b"certificate"])
def test_a_private_key_is_no_collateral(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "file"
    pem = FakeTpmCA().root.public_bytes(Encoding.PEM) if before else b""
    path.write_bytes(
        pem + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    )
    ran = run("collateral", "import", str(path))
    assert ran.code == 2
    assert "got PEM PRIVATE KEY, expected CERTIFICATE or X509 CRL" in ran.err


def test_remarks_above_certificates_are_read(
    shared_bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "vendor.pem"
    pem = [FakeTpmCA().root.public_bytes(Encoding.PEM) for _ in range(2)]
    path.write_bytes(b"Subject: one\n" + pem[0] + b"Subject: two\n" + pem[1])
    assert shared_bench.must("collateral", "import", str(path))["read"] == 2


def test_too_many_at_once_are_refused(
    shared_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kbs.cli.collateral._MAX_ITEMS", 0)
    path = tmp_path / "ca.der"
    path.write_bytes(FakeTpmCA().root.public_bytes(Encoding.DER))
    ran = shared_bench.run("collateral", "import", str(path))
    assert ran.code == 2
    ran.assert_one_error_line()


def test_health_says_what_is_missing(bench: Bench) -> None:
    ready = bench.must("health")
    assert ready["ready"] is True
    assert ready["development"] is True
    human = bench.run("health")
    assert human.out.startswith(f"{bench.url} is ready\n")
    assert "  development: " in human.out
    body = b'{"live": true, "ready": false, "missing": [{"what": "a", "detail": "b"}]}'
    with bench.tampering(lambda path, _: body if path == "/health" else None):
        ran = bench.run("health")
    assert ran.code == 3
    assert "NOT ready\n  a: b\n" in ran.out
    body = b"""{"live": true, "ready": true, "missing":
        [{"what": "a", "detail": "b", "blocking": false}]}"""
    with bench.tampering(lambda path, _: body if path == "/health" else None):
        ran = bench.run("health")
    assert ran.code == 0
    assert "is ready\n  a: b (not blocking)\n" in ran.out


def test_health_needs_no_profile(bench: Bench, tmp_path: Path) -> None:
    nowhere = ("--profile", str(tmp_path / "none"))
    assert run("health", "--server", bench.url, *nowhere).code == 0
    assert run("health", *nowhere).code == 2
    assert run("health", "--server", "http://127.0.0.1:1", *nowhere).code == 3
    ran = run("health", "--server", bench.url + "/nowhere", *nowhere)
    assert ran.code == 3
    ran.assert_one_error_line()
