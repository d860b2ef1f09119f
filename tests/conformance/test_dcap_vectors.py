"""Every recorded file of TDX and SGX gives the fields, checks and verdict beside it."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dcap_qvl
import pytest

from kbs.cli.evidence_files import read_event_log
from kbs.cli.x509_files import load_collateral
from kbs.core.checks import CheckLog, Status, Verdict, verdict
from kbs.core.clock import parse_time
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.collateral import read_collateral
from kbs.evidence.dcap.documents import parse_document
from kbs.evidence.dcap.item import DcapItem, inspect_item, parse_item
from kbs.evidence.dcap.levels import QeIdentity, TcbInfo
from kbs.evidence.dcap.quote import (
    looks_like_quote,
    parse_quote,
    serialize_quote,
    tee_type_of,
)
from kbs.evidence.dcap.reports import EnclaveReport, TdReport
from kbs.evidence.dcap.vouching import Missing, Vouched, Wrong, find_signers, vouched
from kbs.evidence.model import GivenCollateral, ItemResult, Trust
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.tdx.claims import report_claims
from kbs.evidence.tdx.eventlog import check_event_log, parse_td_log
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.eventlog import replay
from kbs.pki.cache import LinkCache
from kbs.pki.chain import out_of_date
from kbs.pki.crl import is_crl_of
from kbs.pki.roots import Purpose, pinned_roots

pytestmark = pytest.mark.vectors

QUOTES = (
    "sgx/v3-mobilecoin",
    "sgx/v3-occlum",
    "sgx/v3-phala",
    "tdx/v4-coco",
    "tdx/v4-dstack-app",
    "tdx/v4-dstack-ratls",
    "tdx/v4-google-cos113",
    "tdx/v4-google-spr",
    "tdx/v4-live-confidential",
    "tdx/v4-phala",
    "tdx/v5-coco-alibaba",
    "tdx/v5-google",
    "tdx/v5-phala-outofdate",
)
# Collateral of 2026 that fits quotes which came without any.
SHARED = (
    "tdx/confidential-ai-pck-crl-platform.der",
    "tdx/confidential-ai-root-ca-crl.der",
    "tdx/confidential-ai-tcb-info-50806f000000.json",
    "tdx/confidential-ai-tcb-info-90c06f000000.json",
    "tdx/confidential-ai-td-qe-identity.json",
    "tdx/confidential-ai-tcb-signing-chain.pem",
    "tdx/confidential-ai-qe-identity-signing-chain.pem",
)
DOCUMENTS = {
    "tdx/coco-enclave-identity.json": ("TD_QE", None),
    "tdx/coco-tcbinfo.json": ("TDX", "00a06d080000"),
    "tdx/confidential-ai-tcb-info-50806f000000.json": ("TDX", "50806f000000"),
    "tdx/confidential-ai-tcb-info-90c06f000000.json": ("TDX", "90c06f000000"),
    "tdx/confidential-ai-td-qe-identity.json": ("TD_QE", None),
    "tdx/google-qe-identity.json": ("TD_QE", None),
    "tdx/google-tcbinfo-fmspc50806f.json": ("TDX", "50806f000000"),
    "tdx/google-tcbinfo-v5.json": ("TDX", "90c06f000000"),
    "sgx/mobilecoin-qe-identity.json": ("QE", None),
    "sgx/mobilecoin-tcbinfo-fmspc00906ed50000.json": ("SGX", "00906ed50000"),
}
LISTS = (
    "tdx/confidential-ai-pck-crl-platform.der",
    "tdx/confidential-ai-root-ca-crl.der",
    "tdx/google-pck-platform-crl.der",
    "tdx/google-root-ca-crl.der",
    "sgx/mobilecoin-processor-crl.der",
    "sgx/mobilecoin-root-crl.der",
)
CERTIFICATES = (
    "tdx/confidential-ai-qe-identity-signing-chain.pem",
    "tdx/confidential-ai-tcb-signing-chain.pem",
    "tdx/intel-sgx-root-ca.pem",
    "sgx/mobilecoin-processor-ca.pem",
    "sgx/mobilecoin-tcb-signer.pem",
)
# Not evidence by themselves: what the rows name as companions.
COMPANIONS = (
    "tdx/v4-coco.claims.json",
    "tdx/v4-dstack-app.json",
    "tdx/v4-google-cos113.ccel-table.bin",
    "tdx/v4-google-cos113.nonce.bin",
    "tdx/v4-live-confidential.tdreport.bin",
)
SHARED_FITS = (
    "tdx/v4-coco",
    "tdx/v4-dstack-app",
    "tdx/v4-google-spr",
    "tdx/v5-coco-alibaba",
    "tdx/v5-google",
)
OWN_COLLATERAL = ("sgx/v3-phala", "tdx/v4-phala", "tdx/v5-phala-outofdate")
LOGS = (
    "ccel-coco-4",
    "ccel-coco-alibaba-aael",
    "ccel-coco-grub",
    "ccel-coco-ovmf",
    "ccel-dstack",
    "ccel-google-cos113",
    "ccel-live-confidential",
)
PAIRED_LOGS = {
    "ccel-coco-4": "v4-coco",
    "ccel-google-cos113": "v4-google-cos113",
    "ccel-live-confidential": "v4-live-confidential",
}
WITHOUT_COLLATERAL = {"qe_identity", "tcb_info", "revocation", "tcb"}
CORE = {
    "quote.signature",
    "qe_report.signature",
    "qe_report.data",
    "chain",
    "validity",
    *WITHOUT_COLLATERAL,
}


def expected(vectors: Path, stem: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((vectors / f"{stem}.expected.json").read_text())
    return found


@cache
def collateral(vectors: Path, *names: str) -> GivenCollateral:
    given = [load_collateral((vectors / name).read_bytes(), name) for name in names]
    return GivenCollateral(
        tuple(one for each in given for one in each.certificates()),
        tuple(one for each in given for one in each.revocation_lists()),
        given_documents=tuple(one for each in given for one in each.documents()),
    )


def fitting(
    vectors: Path, stem: str
) -> tuple[GivenCollateral, dict[str, Any] | None, datetime | None]:
    """What there is to check a quote by, what another verifier said, and when."""
    wanted = expected(vectors, stem)
    if stem in OWN_COLLATERAL:
        said = wanted["dcap_qvl"]
        given = collateral(vectors, f"{stem}.collateral.json")
        return given, said, parse_time(said["verified_at"])
    said = wanted.get("dcap_qvl_with_2026_collateral")
    if said is None:
        return GivenCollateral(), None, None
    return collateral(vectors, *SHARED), said, parse_time(said["verified_at"])


def verify(vectors: Path, stem: str, trust: Trust) -> ItemResult:
    kind = stem.partition("/")[0]
    quote = (vectors / f"{stem}.bin").read_bytes()
    verifier = VERIFIERS[kind]
    return verifier.verify(
        verifier.parse({"kind": kind, "quote": b64(quote)}, 0), trust
    )


def statuses(result: ItemResult) -> dict[str, str]:
    return {
        check.id.partition(".")[2]: check.status.value
        for check in result.checks
        if check.id != "tdx.eventlog.replay"
    }


def test_every_file_of_the_families_has_its_place_here(vectors: Path) -> None:
    known = {f"{stem}.bin" for stem in QUOTES}
    known |= {f"{stem}.collateral.json" for stem in OWN_COLLATERAL}
    known |= {*DOCUMENTS, *LISTS, *CERTIFICATES, *COMPANIONS}
    found = {
        f"{folder}/{path.name}"
        for folder in ("tdx", "sgx")
        for path in (vectors / folder).iterdir()
        if not path.name.endswith(".expected.json")
    }
    assert found == known
    logs = {path.stem for path in (vectors / "eventlogs").glob("ccel-*.bin")}
    assert logs == set(LOGS)


@pytest.mark.parametrize("stem", QUOTES)
def test_fields_are_as_other_implementations_read_them(
    vectors: Path, stem: str
) -> None:
    data = (vectors / f"{stem}.bin").read_bytes()
    wanted = expected(vectors, stem)
    assert looks_like_quote(data)
    quote = parse_quote(data)
    assert serialize_quote(quote) == data
    parsed = dict(wanted["parsed"])
    assert f"{tee_type_of(data):#x}" == parsed.pop("tee_type")
    assert quote.header.version == parsed.pop("version")
    assert len(quote.padding) == parsed.pop("trailing_bytes")
    assert quote.header.user_data.hex() == parsed.pop("user_data")
    size = 4 + parsed.pop("auth_data_size")
    assert len(quote.raw) == quote.signed_bytes + size
    parsed.pop("att_key_type")
    parsed.pop("qe_vendor_id")
    if "body_type" in parsed:
        assert quote.body_type == parsed.pop("body_type")
        assert quote.signed_bytes == 54 + parsed.pop("body_size")
    report = quote.report
    if isinstance(report, EnclaveReport):
        assert report.is_debug is parsed.pop("debug")
    else:
        claims = report_claims(4, report)
        assert claims["tdx.debug"] is parsed.pop("td_debug")
    shown = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in ((name, getattr(report, name)) for name in parsed)
    }
    assert shown == parsed


@pytest.mark.parametrize("stem", QUOTES)
def test_the_pck_is_as_other_implementations_read_it(vectors: Path, stem: str) -> None:
    data = (vectors / f"{stem}.bin").read_bytes()
    wanted = expected(vectors, stem)["verification"]
    kind = stem.partition("/")[0]
    item, _ = parse_item(
        {"kind": kind, "quote": b64(data)},
        kind,
        tee_type_of(data),
        optional=frozenset(),
    )
    pck = item.pck
    assert pck is not None
    extension = wanted["pck_extension"]
    assert pck.ppid.hex() == extension["ppid"]
    # Intel gives platforms both, and processors alone neither.
    assert (pck.piid is None) == (not pck.platform)
    assert pck.pce_svn == extension["pcesvn"]
    assert pck.cpu_svn.hex() == extension["cpusvn"]
    assert pck.pce_id.hex() == extension["pceid"]
    assert pck.fmspc.hex() == extension["fmspc"]
    assert list(pck.component_svns) == extension["tcb_comp_svn"]
    assert pck.spki_sha256 == wanted["pck"]["spki_sha256"]
    shown: Any = inspect_item(item)
    assert shown["qe_report"]["mr_signer"] == wanted["qe_mr_signer"]
    assert shown["qe_report"]["isv_svn"] == wanted["qe_isv_svn"]
    assert shown["certification_data_type"] == wanted["cert_data_type"]
    assert shown["pck"]["fmspc"] == extension["fmspc"]


@pytest.mark.parametrize("stem", QUOTES)
def test_signatures_hold_without_any_collateral(vectors: Path, stem: str) -> None:
    wanted = expected(vectors, stem)
    assert wanted["verdict"].startswith("signatures valid")
    leaf = wanted["verification"]["pck"]
    now = parse_time(leaf["not_before"]) + timedelta(days=30)
    result = verify(vectors, stem, Trust(now=now))
    assert statuses(result) == dict.fromkeys(CORE, "pass") | dict.fromkeys(
        WITHOUT_COLLATERAL, "unchecked"
    )
    # Could not check is its own thing: neither verified nor refused, and no claims.
    assert verdict(result.checks) is Verdict.UNCHECKED
    assert not result.authenticated
    assert result.claims is None
    details = " ".join(check.detail for check in result.checks)
    kind = stem.partition("/")[0]
    fmspc = wanted["verification"]["pck_extension"]["fmspc"]
    assert f"/{kind}/certification/v4/tcb?fmspc={fmspc}" in details
    assert f"/{kind}/certification/v4/qe/identity" in details
    assert "/sgx/certification/v4/pckcrl?ca=" in details
    assert "IntelSGXRootCA.der" in details


# What dcap-qvl refuses in words, and what is a claim here.
SAID = {
    "FAIL: Verification failed: Debug mode is enabled": ("debug", True),
    "FAIL: Verification failed: No matching TCB level found": (
        "tcb_status",
        "NotSupported",
    ),
}


@pytest.mark.parametrize("stem", OWN_COLLATERAL + SHARED_FITS)
def test_the_tcb_is_what_another_verifier_found(vectors: Path, stem: str) -> None:
    given, said, at = fitting(vectors, stem)
    assert said is not None
    assert at is not None
    kind = stem.partition("/")[0]
    result = verify(vectors, stem, Trust(now=at, collateral=given))
    assert statuses(result) == dict.fromkeys(CORE, "pass")
    assert verdict(result.checks) is Verdict.VERIFIED
    assert result.authenticated
    assert result.claims is not None
    values = result.claims.values
    if said["result"] == "OK":
        assert values[f"{kind}.tcb_status"] == said["tcb_status"]
        assert list(values[f"{kind}.advisory_ids"]) == said["advisory_ids"]  # type: ignore[arg-type]
        assert values[f"{kind}.debug"] is False
    else:
        name, value = SAID[said["result"]]
        assert values[f"{kind}.{name}"] == value
    number = values[f"{kind}.tcb_evaluation_data_number"]
    wanted = expected(vectors, stem)["collateral" if stem in OWN_COLLATERAL else "tool"]
    if isinstance(wanted, dict):
        assert number == wanted["tcb_evaluation_data_number"]


@pytest.mark.parametrize("stem", OWN_COLLATERAL)
def test_collateral_may_come_with_the_item(vectors: Path, stem: str) -> None:
    _, said, at = fitting(vectors, stem)
    assert said is not None
    assert at is not None
    kind = stem.partition("/")[0]
    item = {
        "kind": kind,
        "quote": b64((vectors / f"{stem}.bin").read_bytes()),
        "collateral": json.loads((vectors / f"{stem}.collateral.json").read_text()),
    }
    verifier = VERIFIERS[kind]
    result = verifier.verify(verifier.parse(item, 0), Trust(now=at))
    assert verdict(result.checks) is Verdict.VERIFIED


@pytest.mark.parametrize("stem", OWN_COLLATERAL)
def test_collateral_that_ran_out_is_no_collateral(vectors: Path, stem: str) -> None:
    window = expected(vectors, stem)["collateral"]["common_window"]
    given = collateral(vectors, f"{stem}.collateral.json")
    second = timedelta(seconds=1)
    begins, ends = (parse_time(time) for time in window)
    # The lists have windows of their own.
    trust = Trust(now=begins, collateral=given, require_revocation=False)
    for at in (begins, ends):
        good = verify(vectors, stem, replace(trust, now=at))
        assert verdict(good.checks) is Verdict.VERIFIED
    for at in (begins - second, ends + second):
        result = verify(vectors, stem, replace(trust, now=at))
        assert verdict(result.checks) is Verdict.UNCHECKED
        assert result.claims is None
        left = {name for name, status in statuses(result).items() if status != "pass"}
        assert left & {"tcb_info", "qe_identity"}


def test_dcap_qvl_agrees_about_the_recorded_quotes_today(vectors: Path) -> None:
    """The other implementation, run here, on the very same collateral and time."""
    for stem in OWN_COLLATERAL:
        text = (vectors / f"{stem}.collateral.json").read_text()
        given, said, at = fitting(vectors, stem)
        assert said is not None
        assert at is not None
        quote = (vectors / f"{stem}.bin").read_bytes()
        theirs = dcap_qvl.QuoteCollateralV3.from_json(text)
        result = verify(vectors, stem, Trust(now=at, collateral=given))
        assert result.claims is not None
        status = result.claims.values[f"{stem[:3]}.tcb_status"]
        try:
            theirs_found = dcap_qvl.verify(quote, theirs, int(at.timestamp())).status
        except ValueError as exc:
            theirs_found = SAID[f"FAIL: {exc}"][1]
        assert theirs_found == status


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_intels(vectors: Path, name: str) -> None:
    kind, fmspc = DOCUMENTS[name]
    document = parse_document((vectors / name).read_bytes())
    content = document.content
    assert isinstance(content, (TcbInfo, QeIdentity))
    assert content.id == kind
    if isinstance(content, TcbInfo):
        assert content.fmspc.hex() == fmspc
        assert (content.module is not None) is (kind == "TDX")
    pool = collateral(
        vectors,
        *CERTIFICATES,
        "tdx/v4-phala.collateral.json",
        "sgx/v3-phala.collateral.json",
    ).certificates()
    cache = LinkCache()
    signers = find_signers(pool, pinned_roots(Purpose.DCAP), cache)

    def at(time: datetime) -> object:
        return vouched(
            [document],
            type(content),
            lambda _: True,
            signers=signers,
            now=time,
            cache=cache,
        )

    found = at(content.issue_date)
    assert isinstance(found, Vouched)
    assert out_of_date(found.chain.certificates, content.issue_date) == ()
    assert isinstance(at(content.next_update), Vouched)
    assert isinstance(at(content.next_update + timedelta(seconds=1)), Missing)
    assert isinstance(at(content.issue_date - timedelta(seconds=1)), Missing)
    # One bit of the value, and no signer of Intel's made it.
    data = document.data.replace(
        b'"tcbEvaluationDataNumber":1', b'"tcbEvaluationDataNumber":2'
    )
    changed = parse_document(data)
    assert isinstance(
        vouched(
            [changed],
            type(content),
            lambda _: True,
            signers=signers,
            now=content.issue_date,
            cache=cache,
        ),
        Wrong,
    )


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_intels(vectors: Path, name: str) -> None:
    (crl,) = load_collateral((vectors / name).read_bytes(), name).revocation_lists()
    pool = [
        *collateral(
            vectors, *CERTIFICATES, "tdx/v4-phala.collateral.json"
        ).certificates()
    ]
    assert any(is_crl_of(crl, issuer, LinkCache()) for issuer in pool)


def test_the_pin_is_that_of_the_recorded_root(vectors: Path) -> None:
    anchors = json.loads((vectors / "trust-anchors.json").read_text())["anchors"]
    (found,) = (one for one in anchors if "SGX Root" in one["name"])
    assert pinned_roots(Purpose.DCAP) == {found["spki_sha256"]: "Intel SGX Root CA"}


# --- event logs -----------------------------------------------------------------------


@pytest.mark.parametrize("name", LOGS)
def test_logs_replay_as_another_implementation_does(vectors: Path, name: str) -> None:
    data = (vectors / "eventlogs" / f"{name}.bin").read_bytes()
    wanted = expected(vectors, f"eventlogs/{name}")["replay"]
    kind, log = read_event_log(data)
    assert kind == "tdx"
    assert log == parse_td_log(data)
    assert len(log.events) == wanted["events"]
    assert log.used_bytes == wanted["used_bytes"]
    registers = {str(index): value.hex() for (_, index), value in replay(log).items()}
    assert registers == wanted["registers"]["sha384"]


@pytest.mark.parametrize("name", PAIRED_LOGS)
def test_logs_lead_to_their_quote_or_not_as_recorded(vectors: Path, name: str) -> None:
    data = (vectors / "eventlogs" / f"{name}.bin").read_bytes()
    wanted = expected(vectors, f"eventlogs/{name}")["match_with_quote"]
    log = parse_td_log(data)
    report = parse_quote(
        (vectors / "tdx" / f"{PAIRED_LOGS[name]}.bin").read_bytes()
    ).report
    assert isinstance(report, TdReport)
    checks = CheckLog()
    claims = check_event_log(log, report, checks)
    (check,) = checks.checks
    told = {index for _, index in replay(log)}
    differing = [
        index
        for index in range(1, 5)
        if not wanted[f"sha384:{index}"] and index in told
    ]
    if differing:
        assert check.status is Status.FAIL
        assert check.detail.startswith(f"RTMR {differing[0] - 1} differs")
        assert claims == {}
    else:
        assert check.status is Status.PASS
        assert isinstance(claims["tdx.eventlog.secure_boot"], bool)


def test_a_changed_digest_is_blamed_on_its_event(vectors: Path) -> None:
    name = "ccel-google-cos113"
    data = (vectors / "eventlogs" / f"{name}.bin").read_bytes()
    report = parse_quote((vectors / "tdx/v4-google-cos113.bin").read_bytes()).report
    assert isinstance(report, TdReport)
    blamed = 0
    for event in parse_td_log(data).events:
        digest = event.digest_of(Algorithm.SHA384)
        if not event.extends or digest is None:
            continue
        # Changed at its own place: the same digest may stand elsewhere too.
        at = data.index(digest + len(event.data).to_bytes(4, "little") + event.data)
        changed = data[:at] + bytes([digest[0] ^ 1]) + data[at + 1 :]
        checks = CheckLog()
        assert check_event_log(parse_td_log(changed), report, checks) == {}
        (check,) = checks.checks
        assert check.status is Status.FAIL
        assert check.detail.startswith("RTMR ")
        if event.is_recomputed(Algorithm.SHA384):
            assert "is not the hash of its data" in check.detail
            blamed += 1
    assert blamed > 5


def test_the_events_of_a_dstack_guest_lead_to_its_rtmrs(vectors: Path) -> None:
    """Its digests say how RTMRs are extended; `dcap.files` reads the file itself."""
    document = json.loads((vectors / "tdx/v4-dstack-app.json").read_text())
    report = parse_quote(bytes.fromhex(document["quote"])).report
    assert isinstance(report, TdReport)
    registers = [bytes(48)] * 4
    for event in json.loads(document["event_log"]):
        before = registers[event["imr"]]
        digest = bytes.fromhex(event["digest"]).ljust(48, b"\0")
        registers[event["imr"]] = hashlib.sha384(before + digest).digest()
    assert tuple(registers) == report.rtmrs
    data = (vectors / "tdx/v4-dstack-app.bin").read_bytes()
    assert data == bytes.fromhex(document["quote"])


def test_claims_of_another_verifier_are_ours(vectors: Path) -> None:
    theirs = json.loads((vectors / "tdx/v4-coco.claims.json").read_text())
    report = parse_quote((vectors / "tdx/v4-coco.bin").read_bytes()).report
    assert isinstance(report, TdReport)
    body = theirs["quote"]["body"]
    ours = report_claims(4, report)
    for name in ("mr_td", "mr_config_id", "mr_owner", "mr_owner_config", "mr_seam"):
        assert ours[f"tdx.{name}"] == body[name]
    assert [ours[f"tdx.rtmr{i}"] for i in range(4)] == [
        body[f"rtmr_{i}"] for i in range(4)
    ]
    assert ours["tdx.report_data"] == theirs["report_data"]
    assert ours["tdx.debug"] is theirs["td_attributes"]["debug"]


def test_what_is_no_quote_is_no_quote(vectors: Path) -> None:
    for name in COMPANIONS:
        data = (vectors / name).read_bytes()
        assert not looks_like_quote(data)
        with pytest.raises(MalformedError):
            parse_quote(data)


# --- flipped bits ---------------------------------------------------------------------

# A quote of each family; how many of its bits each check has to catch at least.
FLIPPED = {"tdx/v4-phala": (600, 100), "sgx/v3-phala": (400, 100)}
EXHAUSTIVE = bool(os.environ.get("KBS_EVERY_BIT"))


@pytest.mark.parametrize("stem", FLIPPED)
def test_a_flipped_bit_anywhere_in_a_real_quote_is_refused(
    vectors: Path, stem: str
) -> None:
    """One bit of every byte (of the certificates: of every fifth), or every bit.

    `make bits` flips every bit of the quote. What may change and still verify is
    asserted here, and told in docs/evidence.md.
    """
    given, _, at = fitting(vectors, stem)
    assert at is not None
    trust = Trust(now=at, collateral=given)
    data = (vectors / f"{stem}.bin").read_bytes()
    quote = parse_quote(data)
    kind = stem.partition("/")[0]
    verifier = VERIFIERS[kind]
    parsed = verifier.parse({"kind": kind, "quote": b64(data)}, 0)
    certification = len(quote.raw) - len(quote.certification.data)
    issuers = quote.raw.index(b"-----BEGIN", quote.raw.index(b"-----END"))
    named: Counter[str] = Counter()
    verified = []
    for place, bit in flips(len(quote.raw), certification):
        raw = bytearray(quote.raw)
        raw[place] ^= 1 << bit
        try:
            changed = reparse(parsed.body, bytes(raw))
        except MalformedError:
            named["malformed"] += 1
            continue
        result = verifier.verify(replace(parsed, body=changed), trust)
        failed = {check.id for check in result.checks if check.status is Status.FAIL}
        named.update(failed)
        if place < quote.signed_bytes:
            assert f"{kind}.quote.signature" in failed, place
        if verdict(result.checks) is Verdict.VERIFIED:
            verified.append(place)
        elif not failed:
            # No issuer of that name, or no PCK under that type of data.
            assert place >= certification - 6
            assert not result.authenticated
    # Issuers that were spoilt are found among the collateral; and the terminator
    # behind the last certificate is nothing.
    assert all(place >= issuers for place in verified)
    signed, reported = FLIPPED[stem]
    assert named[f"{kind}.quote.signature"] > signed
    assert named[f"{kind}.qe_report.signature"] > reported
    assert named[f"{kind}.qe_report.data"] > reported
    assert named[f"{kind}.chain"] > 0


def flips(size: int, certification: int) -> Iterator[tuple[int, int]]:
    """Yield which bits of which bytes are flipped."""
    chosen = random.Random(7)  # noqa: S311 - a seed, not a secret
    for place in range(size):
        if EXHAUSTIVE:
            yield from ((place, bit) for bit in range(8))
        elif place < certification or place % 5 == 0:
            yield place, chosen.randrange(8)


def reparse(body: object, raw: bytes) -> DcapItem:
    """Parse a changed quote; certificates again only where they changed."""
    assert isinstance(body, DcapItem)
    quote = parse_quote(raw)
    if quote.certification == body.quote.certification:
        return replace(body, quote=quote)
    tee = quote.header.tee_type
    kind = "tdx" if tee else "sgx"
    item, _ = parse_item(
        {"kind": kind, "quote": b64(raw)}, kind, tee, optional=frozenset()
    )
    return item


def test_times_are_as_given(vectors: Path) -> None:
    """A quote is judged as of the time that is asked for, long ago or far ahead."""
    stem = "tdx/v4-phala"
    given, _, _ = fitting(vectors, stem)
    for year in (2020, 2040):
        now = datetime(year, 1, 1, tzinfo=UTC)
        result = verify(vectors, stem, Trust(now=now, collateral=given))
        assert statuses(result)["validity"] == "fail"
        assert statuses(result)["quote.signature"] == "pass"
        assert verdict(result.checks) is Verdict.REFUSED


def test_read_collateral_reads_what_the_recorded_files_hold(vectors: Path) -> None:
    for stem in OWN_COLLATERAL:
        found = read_collateral((vectors / f"{stem}.collateral.json").read_bytes())
        assert len(found.documents()) == 2
        assert len(found.revocation_lists()) == 2
        names = {one.subject.rfc4514_string() for one in found.certificates()}
        assert any("TCB Signing" in name for name in names)
