"""`kbs evidence`: documents, verdicts and exit codes, on recorded and made evidence."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.channel.binding import (
    Mode,
    ReleaseRequest,
    RuntimeData,
    primary_binding,
)
from kbs.channel.recipient import Suite, generate_recipient_key, recipient_of
from kbs.cli.context import EXIT_UNCHECKED
from kbs.cli.evidence import time_of
from kbs.core.clock import format_time, parse_time
from kbs.core.encode import b64, b64u, parse_b64
from kbs.core.ids import parse_key_ref
from kbs.pki.certificates import der
from tests.fakes.admin_bench import Ran, run
from tests.fakes.amd import FakeAmd
from tests.fakes.eventlog import typical_log
from tests.fakes.tpm import FakeTpm

NONCE = b"a nonce of some request"
SNP = {
    "genoa-v3-ms": ("genoa-v3-ms.vcek.pem", "amd-genoa-ask-ark.pem"),
    "genoa-v5-live": ("genoa-v5-live.vcek.der", "amd-genoa-ask-ark.pem"),
    "milan-v2-aci": ("milan-v2-aci.vcek.pem", "amd-milan-ask-ark.pem"),
    "milan-v2-coco": ("milan-v2-coco.vcek.der", "amd-milan-ask-ark.pem"),
    "milan-v2-google": ("milan-v2-google.vcek.der", "amd-milan-ask-ark.pem"),
    "milan-v2-virtee": ("milan-v2-virtee.vcek.der", "amd-milan-ask-ark.pem"),
    "milan-v3-aws-vlek": ("milan-v3-aws-vlek.vlek.der", "amd-milan-ask-ark-vlek.pem"),
    "milan-v3-dstack": ("milan-v3-dstack.vcek.pem", "amd-milan-ask-ark.pem"),
    "milan-v3-ms": ("milan-v3-ms.vcek.pem", "amd-milan-ask-ark.pem"),
}


def statuses(ran: Ran) -> dict[str, str]:
    return {check["id"]: check["status"] for check in ran.json["checks"]}


def verify(*arguments: object) -> Ran:
    ran = run("evidence", "verify", *map(str, arguments), "--json")
    assert ran.out.count("\n") == 1
    return ran


class Quote:
    """A quote of a fake TPM in loose files, and as a bundle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tpm = FakeTpm()
        self.item: dict[str, Any] = dict(self.tpm.quote_item(NONCE))
        self.message = self._write(
            "quote", parse_b64(self.item["quote"]["message"], "m", limit=4096)
        )
        self.signature = self._write(
            "signature", parse_b64(self.item["quote"]["signature"], "s", limit=4096)
        )
        self.pcrs = self._write("pcrs", json.dumps(self.item["pcrs"]).encode())
        self.ak = self._write("ak", self.tpm.ak_public)

    def _write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def options(self) -> list[object]:
        return [
            "--signature",
            self.signature,
            "--pcrs",
            self.pcrs,
            "--ak",
            self.ak,
        ]

    def bundle(self, **members: object) -> Path:
        document = {"format": "kbs.evidence/1", "items": [self.item], **members}
        return self._write("bundle.json", json.dumps(document).encode())

    def bound_bundle(self) -> tuple[Path, str]:
        data = RuntimeData(
            audience="kbs.test/0",
            nonce="AQEB",
            recipient=recipient_of(generate_recipient_key(Suite.X25519)),
            request=ReleaseRequest(
                keys=(parse_key_ref("acme/model/chat"),),
                mode=Mode.CHECK,
                partial=False,
                suite=Suite.X25519,
            ),
        )
        self.item = dict(self.tpm.quote_item(primary_binding("vtpm", data, [])[:32]))
        return self.bundle(runtime_data=data.to_json()), data.nonce


@pytest.fixture
def quote(tmp_path: Path) -> Quote:
    return Quote(tmp_path)


def test_a_quote_is_verified_under_the_key_that_somebody_vouches_for(
    quote: Quote,
) -> None:
    ran = verify(quote.message, *quote.options())
    assert ran.code == 0
    assert ran.json["verdict"] == "verified"
    found = statuses(ran)
    assert found["vtpm.parse"] == "pass"
    assert found["vtpm.quote.signature"] == "pass"
    assert found["vtpm.quote.pcr_digest"] == "pass"
    assert found["vtpm.ak.trust"] == "skipped"
    assert found["binding.primary"] == "skipped"
    assert ran.json["claims"]["vtpm"]["extra_data"] == NONCE.hex()
    assert ran.err == ""


@pytest.mark.parametrize(
    ("left_out", "code"),
    [("--ak", 1), ("--signature", 3), ("--pcrs", 3)],
)
def test_what_a_quote_lacks_is_said(quote: Quote, left_out: str, code: int) -> None:
    options = quote.options()
    place = options.index(left_out)
    del options[place : place + 2]
    ran = verify(quote.message, *options)
    assert ran.code == code
    signature = "pass" if left_out == "--pcrs" else "unchecked"
    assert statuses(ran)["vtpm.quote.signature"] == signature
    assert (statuses(ran).get("vtpm.ak.trust") == "fail") is (code == 1)
    assert ran.json["claims"] == {}
    nonce = verify(quote.message, *options, "--nonce", b64u(b"other"))
    assert nonce.code == 1
    assert statuses(nonce)["binding.nonce"] == "fail"


def test_a_quote_without_pcrs_is_verified_but_for_them(quote: Quote) -> None:
    options = [one for one in quote.options() if one not in {"--pcrs", quote.pcrs}]
    ran = verify(quote.message, *options, "--nonce", b64u(NONCE))
    found = statuses(ran)
    assert (ran.code, ran.json["verdict"]) == (3, "unchecked")
    assert found["vtpm.quote.signature"] == "pass"
    assert found["vtpm.ak.trust"] == "skipped"
    assert found["vtpm.ak.attributes"] == "pass"
    assert found["binding.nonce"] == "pass"
    open_checks = {name for name, status in found.items() if status == "unchecked"}
    assert open_checks == {"vtpm.quote.pcr_selection", "vtpm.quote.pcr_digest"}
    log = quote.folder / "log"
    log.write_bytes(typical_log().to_bytes())
    with_log = verify(quote.message, *options, "--event-log", log)
    assert statuses(with_log)["vtpm.eventlog.replay"] == "unchecked"
    quote.ak.write_bytes(FakeTpm().ak_public)
    forged = verify(quote.message, *options)
    assert (forged.code, forged.json["verdict"]) == (1, "refused")
    assert statuses(forged)["vtpm.quote.signature"] == "fail"
    quote.signature.write_bytes(b"")
    assert verify(quote.message, *options).code == 2


def test_an_event_log_alone_proves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(typical_log().to_bytes())
    for options in ((), ("--kind", "eventlog")):
        ran = verify(path, *options)
        assert (ran.code, ran.json["verdict"]) == (3, "unchecked")
        assert statuses(ran) == {
            "vtpm.parse": "pass",
            "vtpm.eventlog.replay": "unchecked",
        }
        assert ran.json["claims"] == {}
        assert len(ran.json["replayed"]["sha256"]["7"]) == 64
    human = run("evidence", "verify", str(path))
    assert "give it by --event-log with a quote" in human.out
    assert "replayed:" in human.out
    path.write_bytes(typical_log().to_bytes()[:-1])
    cut = verify(path)
    assert (cut.code, statuses(cut)) == (2, {"vtpm.parse": "fail"})
    inspected = run("evidence", "inspect", str(path), "--json")
    assert inspected.code == 2
    assert inspected.json["items"][0]["kind"] == "eventlog"


@pytest.mark.vectors
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("keylime-bios.bin", 3),
        ("keylime-bios-bogus.bin", 2),
        ("tpm2tools-event-uefi-sha1-log.bin", 3),
    ],
)
def test_recorded_event_logs_are_known_by_their_content(
    vectors: Path, name: str, code: int
) -> None:
    # The damaged one has no shape at all: somebody has to say what it should be.
    kind = () if code == EXIT_UNCHECKED else ("--kind", "eventlog")
    ran = verify(vectors / "eventlogs" / name, *kind)
    assert ran.code == code
    assert statuses(ran)["vtpm.parse"] == ("pass" if code == EXIT_UNCHECKED else "fail")


def test_a_sample_is_read_when_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sample"
    item = {"kind": "sample", "report_data": b64(bytes(48))}
    path.write_text(json.dumps(item))
    ran = verify(path, "--kind", "sample")
    assert ran.code == 1
    assert statuses(ran)["sample.development"] == "fail"
    for wrong in ({"kind": "snp"}, {"kind": "sample"}):
        path.write_text(json.dumps(wrong))
        ran = verify(path, "--kind", "sample")
        assert (ran.code, statuses(ran)) == (2, {"sample.parse": "fail"})


def test_another_key_than_the_named_one_is_refused(
    quote: Quote, tmp_path: Path
) -> None:
    quote.ak.write_bytes(FakeTpm().ak_public)
    ran = verify(quote.message, *quote.options())
    assert ran.code == 1
    assert statuses(ran)["vtpm.quote.signature"] == "fail"
    assert ran.json["claims"] == {}


def test_a_bundle_without_a_key_to_trust_is_refused_and_with_one_verified(
    quote: Quote,
) -> None:
    refused = verify(quote.bundle())
    assert refused.code == 1
    assert statuses(refused)["vtpm.ak.trust"] == "fail"
    assert verify(quote.bundle(), "--ak", quote.ak).code == 0


def test_runtime_data_is_checked_against_the_binding(quote: Quote) -> None:
    bundle, nonce = quote.bound_bundle()
    good = verify(bundle, "--ak", quote.ak, "--nonce", nonce)
    assert good.code == 0
    assert statuses(good)["binding.primary"] == "pass"
    assert statuses(good)["binding.nonce"] == "pass"
    other = verify(bundle, "--ak", quote.ak, "--nonce", "AQEC")
    assert other.code == 1
    assert statuses(other)["binding.nonce"] == "fail"
    document = json.loads(bundle.read_bytes())
    document["runtime_data"]["audience"] = "kbs.test/1"
    bundle.write_text(json.dumps(document))
    moved = verify(bundle, "--ak", quote.ak)
    assert moved.code == 1
    assert statuses(moved)["binding.primary"] == "fail"


def test_a_nonce_of_a_bundle_without_runtime_data_fails(quote: Quote) -> None:
    ran = verify(quote.bundle(), "--ak", quote.ak, "--nonce", b64u(NONCE))
    assert ran.code == 1
    assert statuses(ran)["binding.nonce"] == "fail"


@pytest.mark.parametrize(
    ("nonce", "status"),
    [(NONCE, "pass"), (NONCE + b"\0", "fail"), (NONCE[:-1], "fail")],
)
def test_the_nonce_of_a_raw_quote_is_all_of_extra_data(
    quote: Quote, nonce: bytes, status: str
) -> None:
    ran = verify(quote.message, *quote.options(), "--nonce", b64u(nonce))
    assert statuses(ran)["binding.nonce"] == status
    assert ran.code == (0 if status == "pass" else 1)


MALFORMED = {
    "not json": (b"{", "bundle.parse"),
    "another format": (b'{"format": "x", "items": []}', "bundle.parse"),
    "no items": (b'{"format": "kbs.evidence/1", "items": []}', "bundle.parse"),
    "bad runtime data": (
        b'{"format": "kbs.evidence/1", "runtime_data": {}, "items": [{"kind": "snp"}]}',
        "bundle.parse",
    ),
    "item without shape": (
        b'{"format": "kbs.evidence/1", "items": [{"kind": "snp"}]}',
        "snp.parse",
    ),
    "unknown kind": (
        b'{"format": "kbs.evidence/1", "items": [{"kind": "abc"}]}',
        "abc.parse",
    ),
    "quote cut short": (bytes.fromhex("ff5443478018"), "vtpm.parse"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_evidence_is_exit_2_with_the_same_document(
    tmp_path: Path, name: str
) -> None:
    data, check = MALFORMED[name]
    path = tmp_path / "evidence"
    path.write_bytes(data)
    ran = verify(path)
    assert ran.code == 2
    assert ran.json["verdict"] == "refused"
    assert statuses(ran)[check] == "fail"
    assert ran.json["claims"] == {}
    assert ran.err == ""


def test_a_signature_file_without_shape_is_malformed_evidence(quote: Quote) -> None:
    quote.signature.write_bytes(b"")
    ran = verify(quote.message, *quote.options())
    assert ran.code == 2
    assert statuses(ran) == {"vtpm.parse": "fail"}


def test_a_raw_report_of_another_length_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_bytes(b"\0" * 100)
    ran = verify(path, "--kind", "snp")
    assert ran.code == 2
    assert statuses(ran) == {"snp.parse": "fail"}
    assert ran.json["checks"][0]["item"] == 0


USAGE = {
    "no such file": ["nowhere"],
    "a folder": ["."],
    "a pipe that nobody writes to": ["pipe"],
    "a link to nowhere": ["link"],
    "100 MB": ["large"],
    "100 MB beside it": ["bundle.json", "--cert", "large"],
    "time": ["quote", "--at", "tomorrow"],
    "empty nonce": ["quote", "--nonce", ""],
    "nonce that is none": ["quote", "--nonce", "ä"],
    "nonce too long": ["quote", "--nonce", "A" * 88],
    "nonce of a log": ["blob", "--kind", "eventlog", "--nonce", "AQEB"],
    "key beside a log": ["blob", "--kind", "eventlog", "--ak", "ak"],
    "certificates beside a sample": ["blob", "--kind", "sample", "--cert", "ak"],
    "rim beside a quote": ["quote", "--rim", "blob"],
    "signature beside a bundle": ["bundle.json", "--signature", "blob"],
    "key beside a report": ["blob", "--kind", "snp", "--ak", "ak"],
    "key that is none": [
        "quote",
        "--signature",
        "blob",
        "--pcrs",
        "blob",
        "--ak",
        "blob",
    ],
    "certificate that is none": ["bundle.json", "--cert", "blob"],
    "list that is none": ["bundle.json", "--crl", "blob"],
    "collateral that is none": ["bundle.json", "--collateral", "blob"],
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_options_are_one_line_and_exit_2(
    quote: Quote, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(quote.folder)
    quote.bundle()
    (quote.folder / "blob").write_bytes(b"\x01\x02 nothing")
    (quote.folder / "empty").write_bytes(b"")
    (quote.folder / "link").symlink_to("nowhere")
    os.mkfifo(quote.folder / "pipe")
    with (quote.folder / "large").open("wb") as file:
        file.write(b"{")
        file.truncate(100_000_000)
    ran = run("evidence", "verify", *USAGE[name])
    assert ran.code == 2
    assert ran.out == ""
    ran.assert_one_error_line()
    with_json = run("evidence", "verify", *USAGE[name], "--json")
    assert (with_json.code, with_json.out) == (2, "")
    assert with_json.err == ran.err


@pytest.mark.parametrize("data", [b"\x01\x02 nothing", b"", b"hello\n"])
def test_what_is_no_evidence_at_all_is_refused_with_a_document(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(data)
    ran = run("evidence", "verify", str(path), "--json")
    assert (ran.code, ran.err) == (2, "")
    assert ran.json["verdict"] == "refused"
    (check,) = ran.json["checks"]
    assert (check["id"], check["status"]) == ("bundle.parse", "fail")
    assert "--kind" in check["detail"]
    assert run("evidence", "verify", str(path)).out.startswith("verdict: refused\n")


@pytest.mark.parametrize("made", ["certificate", "list"])
def test_what_stands_beside_evidence_is_told_its_option(
    tmp_path: Path, made: str
) -> None:
    amd = FakeAmd()
    given = tmp_path / "given"
    data = amd.crl().public_bytes(Encoding.DER) if made == "list" else der(amd.ark)
    given.write_bytes(data)
    ran = verify(given)
    assert ran.code == 2
    (check,) = ran.json["checks"]
    assert check["detail"].endswith(
        "(what vendors publish stands beside evidence: --collateral FILE)"
    )


def test_a_file_that_breaks_off_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "evidence").write_bytes(b"{}")
    monkeypatch.setattr("kbs.artifacts.files.io.FileIO", Broken)
    ran = run("evidence", "verify", str(tmp_path / "evidence"), "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "Input/output error" in ran.err
    ran.assert_one_error_line()


def test_an_item_of_an_unknown_kind_is_malformed_evidence(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.json"
    items = [{"kind": "other", "quote": ""}]
    bundle.write_text(json.dumps({"format": "kbs.evidence/1", "items": items}))
    ran = verify(bundle)
    assert (ran.code, ran.json["verdict"], ran.err) == (2, "refused", "")
    assert statuses(ran) == {"other.parse": "fail"}
    inspected = run("evidence", "inspect", str(bundle), "--json")
    assert inspected.code == 2
    assert "unknown kind" in inspected.json["items"][0]["error"]


def test_people_read_verdict_checks_and_claims(quote: Quote) -> None:
    good = run("evidence", "verify", *map(str, [quote.message, *quote.options()]))
    assert good.out.startswith("verdict: verified\n")
    assert "vtpm.quote.signature" in good.out
    assert f"extra_data: {NONCE.hex()}" in good.out
    bad = run("evidence", "verify", str(quote.message))
    assert bad.out.startswith("verdict: refused\n")
    assert "  expected: --ak FILE\n" in bad.out
    assert "claims:" not in bad.out


def test_inspect_shows_a_bundle_and_its_runtime_data(quote: Quote) -> None:
    bundle, nonce = quote.bound_bundle()
    ran = run("evidence", "inspect", str(bundle), "--json")
    assert ran.code == 0
    (item,) = ran.json["items"]
    assert item["kind"] == "vtpm"
    assert item["vtpm"]["attest"]["reset_count"] >= 0
    assert ran.json["runtime_data"]["nonce"] == nonce
    assert f"nonce: {nonce}\n" in run("evidence", "inspect", str(bundle)).out


def test_inspect_shows_a_quote_alone_and_with_its_files(quote: Quote) -> None:
    alone = run("evidence", "inspect", str(quote.message), "--json")
    assert alone.json["items"][0]["vtpm"]["attest"]["extra_data"] == NONCE.hex()
    arguments = map(str, [quote.message, *quote.options()])
    whole = run("evidence", "inspect", *arguments, "--json")
    assert whole.json["items"][0]["vtpm"]["pcrs"] == quote.item["pcrs"]
    assert whole.json["items"][0]["vtpm"]["attest"]["extra_data"] == NONCE.hex()


def test_inspect_reads_event_logs_by_their_content(tmp_path: Path) -> None:
    log = typical_log()
    path = tmp_path / "log"
    path.write_bytes(log.to_bytes())
    ran = run("evidence", "inspect", str(path), "--json")
    assert ran.code == 0, ran.err
    (item,) = ran.json["items"]
    assert item["kind"] == "eventlog"
    assert item["eventlog"]["events"]
    assert item["eventlog"]["pcrs"]["sha256"]


@pytest.mark.parametrize("name", MALFORMED)
def test_inspect_says_what_does_not_parse(tmp_path: Path, name: str) -> None:
    if name == "bad runtime data":
        return
    path = tmp_path / "evidence"
    path.write_bytes(MALFORMED[name][0])
    ran = run("evidence", "inspect", str(path), "--json")
    assert ran.code == 2
    assert ran.json["items"][0]["error"]


def test_inspect_of_nothing_known_asks_for_the_kind(tmp_path: Path) -> None:
    path = tmp_path / "evidence"
    path.write_bytes(b"")
    ran = run("evidence", "inspect", str(path))
    assert ran.code == 2
    assert "--kind" in ran.err
    ran.assert_one_error_line()


@pytest.mark.vectors
@pytest.mark.parametrize("stem", SNP)
def test_recorded_reports_verify_inside_their_window_only(
    vectors: Path, stem: str
) -> None:
    folder = vectors / "snp"
    wanted = json.loads((folder / f"{stem}.expected.json").read_text())
    leaf, issuers = (folder / name for name in SNP[stem])
    begins, ends = wanted["valid_time_window"]
    late = format_time(parse_time(ends) + timedelta(seconds=1))
    for at, code in ((begins, 0), (ends, 0), (late, 1)):
        ran = verify(
            folder / f"{stem}.bin", "--cert", leaf, "--cert", issuers, "--at", at
        )
        assert ran.code == code, ran.out
        assert ran.json["verdict"] == ("refused" if code else "verified")
        assert statuses(ran)["snp.revocation"] == "skipped"
    good = verify(
        folder / f"{stem}.bin",
        *("--cert", leaf, "--collateral", issuers, "--at", begins),
        *("--nonce", b64u(bytes.fromhex(wanted["parsed"]["report_data"]))),
    )
    assert good.code == 0
    assert good.json["claims"]["snp"]["measurement"] == wanted["parsed"]["measurement"]


@pytest.mark.vectors
def test_recorded_revocation_lists_count_while_they_are_current(vectors: Path) -> None:
    folder = vectors / "snp"
    leaf, issuers = (folder / name for name in SNP["milan-v2-coco"])
    given = ["--cert", leaf, "--cert", issuers, "--at", "2025-06-01T00:00:00Z"]
    crl = ["--crl", folder / "amd-milan-kds.crl.pem"]
    ran = verify(folder / "milan-v2-coco.bin", *given, *crl)
    assert statuses(ran)["snp.revocation"] == "pass"


@pytest.mark.vectors
def test_collateral_may_mix_certificates_and_lists(
    vectors: Path, tmp_path: Path
) -> None:
    folder = vectors / "snp"
    leaf, issuers = (folder / name for name in SNP["milan-v2-coco"])
    mixed = tmp_path / "collateral.pem"
    mixed.write_bytes(
        b"# The issuers:\n"
        + issuers.read_bytes()
        + b"# Their list:\n"
        + (folder / "amd-milan-kds.crl.pem").read_bytes()
    )
    ran = verify(
        folder / "milan-v2-coco.bin",
        *("--cert", leaf, "--collateral", mixed, "--at", "2025-06-01T00:00:00Z"),
    )
    assert ran.code == 0
    assert statuses(ran)["snp.revocation"] == "pass"


@pytest.mark.vectors
@pytest.mark.parametrize("which", ["legacy", "new"])
def test_altered_certificates_are_refused(vectors: Path, which: str) -> None:
    folder = vectors / "snp"
    ran = verify(
        folder / "milan-v2-coco.bin",
        *("--cert", folder / f"milan-v2-coco.vcek-invalid-{which}.der"),
        *("--cert", folder / "amd-milan-ask-ark.pem", "--at", "2024-06-01T00:00:00Z"),
    )
    assert ran.code == 1
    assert ran.json["verdict"] == "refused"
    assert statuses(ran)["snp.report.signature"] == "fail"


@pytest.mark.vectors
def test_a_report_without_certificates_is_unchecked(vectors: Path) -> None:
    ran = verify(vectors / "snp" / "lit-guest-report.bin")
    assert ran.code == 3
    assert ran.json["verdict"] == "unchecked"


@pytest.mark.vectors
def test_a_truncated_report_needs_its_kind_and_is_malformed(vectors: Path) -> None:
    path = vectors / "snp" / "lit-corrupt.bin"
    ran = verify(path, "--kind", "snp")
    assert ran.code == 2
    assert statuses(ran) == {"snp.parse": "fail"}
    assert run("evidence", "verify", str(path)).code == 2


@pytest.mark.vectors
def test_a_bundle_takes_certificates_from_options(
    vectors: Path, tmp_path: Path
) -> None:
    folder = vectors / "snp"
    leaf, issuers = (folder / name for name in SNP["milan-v2-coco"])
    report = (folder / "milan-v2-coco.bin").read_bytes()
    bundle = tmp_path / "bundle.json"
    item = {"kind": "snp", "report": b64(report)}
    bundle.write_text(json.dumps({"format": "kbs.evidence/1", "items": [item]}))
    at = ("--at", "2025-06-01T00:00:00Z")
    assert verify(bundle, *at).code == 3
    assert verify(bundle, "--cert", leaf, "--cert", issuers, *at).code == 0


@pytest.mark.vectors
@pytest.mark.parametrize("ak", ["keylime-akpub.pem", "keylime-ak.pub"])
def test_a_recorded_quote_of_tpm2_tools_verifies(vectors: Path, ak: str) -> None:
    folder = vectors / "tpm"
    wanted = json.loads((folder / "keylime-quote.expected.json").read_text())
    extra = wanted["attest"]["extra_data"]
    ran = verify(
        folder / "keylime-quote.out",
        *("--signature", folder / "keylime-quotesig.out"),
        *("--pcrs", folder / "keylime-quotepcr.out", "--ak", folder / ak),
        *("--nonce", b64u(bytes.fromhex(extra))),
    )
    assert ran.code == 0, ran.out
    claims = ran.json["claims"]["vtpm"]
    assert claims["extra_data"] == extra
    assert claims["clock"] == f"{wanted['attest']['clock']:016x}"
    assert set(claims["pcr"]["sha256"]) == {"15", "16", "22"}


@pytest.mark.vectors
def test_a_foreign_document_with_a_quote_verifies_from_its_parts(
    vectors: Path, tmp_path: Path
) -> None:
    folder = vectors / "tpm"
    wanted = json.loads((folder / "coco-tpm-evidence.expected.json").read_text())
    assert wanted["checks"]["pcr_digest_matches"] is True
    # It is evidence as RCAR carries it, of a key that nobody vouches for.
    ran = verify(folder / "coco-tpm-evidence.json")
    assert ran.code == 1
    assert statuses(ran)["vtpm.quote.signature"] == "pass"
    assert statuses(ran)["vtpm.ak.trust"] == "fail"
    given = json.loads((folder / "coco-tpm-evidence.json").read_text())
    parts = {
        "quote": base64.b64decode(given["tpm_quote"]["message"]),
        "signature": base64.b64decode(given["tpm_quote"]["signature"]),
        "pcrs": json.dumps(
            {"sha256": {str(n): v for n, v in enumerate(given["tpm_quote"]["pcrs"])}}
        ).encode(),
        "ak": base64.b64decode(given["ak_public"]),
    }
    for name, data in parts.items():
        (tmp_path / name).write_bytes(data)
    options = [("--" + name, tmp_path / name) for name in ("signature", "pcrs", "ak")]
    good = verify(tmp_path / "quote", *(part for pair in options for part in pair))
    assert good.code == 0
    whole = verify(folder / "coco-tpm-evidence.json", "--ak", tmp_path / "ak")
    assert whole.json == good.json
    extra = good.json["claims"]["vtpm"]["extra_data"]
    assert extra == wanted["attest"]["extra_data"]


@pytest.mark.vectors
def test_a_recorded_quote_without_a_signature_is_not_trusted(vectors: Path) -> None:
    ran = verify(vectors / "tpm" / "dstack-gcp-quote-attest.bin")
    assert ran.code == 1
    assert statuses(ran)["vtpm.parse"] == "pass"
    assert statuses(ran)["vtpm.ak.trust"] == "fail"


@pytest.mark.vectors
def test_a_lone_certificate_is_parsed(vectors: Path) -> None:
    path = vectors / "snp" / "turin-vcek-virtee.der"
    ran = run("evidence", "inspect", str(path), "--json")
    assert ran.code == 0
    fields = ran.json["items"][0]["certificate"]
    assert fields["endorsement_key"]["tcb"]["fmc"] == 0
    pem = run("evidence", "inspect", str(vectors / "snp" / "amd-turin-ask-ark.pem"))
    assert "CN=ARK-Turin" in pem.out


@pytest.mark.vectors
def test_a_recorded_report_is_inspected(vectors: Path) -> None:
    ran = run("evidence", "inspect", str(vectors / "snp" / "milan-v3-ms.bin"), "--json")
    assert ran.json["items"][0]["snp"]["version"] == 3


def test_now_is_the_default_time() -> None:
    assert abs(datetime.now(UTC) - time_of(None)) < timedelta(minutes=1)
