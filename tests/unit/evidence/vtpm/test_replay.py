"""A log beside a quote: what it proves, and what is said when they differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest

from kbs.core.checks import Check, Status
from kbs.core.encode import b64
from kbs.evidence.model import EnrolledKey, ItemResult, Trust
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.eventlog import parse_event_log
from kbs.evidence.vtpm.events import EventType
from kbs.evidence.vtpm.replay import separator_index
from kbs.evidence.vtpm.verify import VtpmVerifier
from tests.fakes.eventlog import (
    FakeEventLog,
    event1,
    event2,
    header,
    typical_log,
    variable_data,
)
from tests.fakes.tpm import FakeTpm
from tests.fakes.tpm_ca import NOW

VERIFIER = VtpmVerifier()
BOUND = bytes(32)
BOOT = tuple(range(8))
SECURE_BOOT = "vtpm.eventlog.secure_boot"


def verify(tpm: FakeTpm, item: Mapping[str, object]) -> ItemResult:
    key = EnrolledKey(
        tenant="acme", group="hosts", name=tpm.ak_name, public=tpm.ak_public
    )
    trust = Trust(now=NOW, enrolled_keys={tpm.ak_name: (key,)})
    return VERIFIER.verify(VERIFIER.parse(item, 0), trust)


def booted(
    log: FakeEventLog,
    *,
    claimed: bytes | None = None,
    selection: tuple[int, ...] = BOOT,
    banks: tuple[str, ...] = ("sha256",),
) -> ItemResult:
    """Boot a TPM by one log and show the verifier another, or the same."""
    tpm = FakeTpm()
    log.boot(tpm)
    shown = log.to_bytes() if claimed is None else claimed
    return verify(tpm, tpm.quote_item(BOUND, selection, banks, shown))


def replay_check(result: ItemResult) -> Check:
    return next(check for check in result.checks if check.id == "vtpm.eventlog.replay")


def secure_boot_claim(result: ItemResult) -> object:
    assert replay_check(result).status is Status.PASS
    assert result.claims is not None
    return result.claims.values.get(SECURE_BOOT)


@pytest.mark.parametrize("banks", [("sha256",), ("sha384",), ("sha1", "sha256")])
@pytest.mark.parametrize(("value", "expected"), [(b"\x01", True), (b"\x00", False)])
def test_secure_boot_is_what_the_firmware_measured(
    banks: tuple[str, ...], value: bytes, *, expected: bool
) -> None:
    result = booted(typical_log(banks, secure_boot=value), banks=banks)
    assert secure_boot_claim(result) is expected


def crtm() -> FakeEventLog:
    return FakeEventLog().measure(0, EventType.EV_S_CRTM_VERSION, b"v1\0")


@pytest.mark.parametrize(
    "log",
    [
        crtm().separator(*BOOT).variable("SecureBoot", b"\x01"),
        crtm().variable("SecureBoot", b"\x01"),
        crtm().variable("SecureBoot", b"\x02").separator(*BOOT),
        crtm().variable("SecureBoot", b"\x01\x01").separator(*BOOT),
        crtm().variable("PK", b"\x01").separator(*BOOT),
        crtm().variable("SecureBoot", b"\x01").separator(7, data=b"\x01\0\0\0"),
        crtm()
        .measure(7, EventType.EV_IPL, variable_data("SecureBoot", b"\x01"))
        .separator(7),
        crtm()
        .measure(
            7,
            EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
            variable_data("SecureBoot", b"\x01"),
            hashed=b"\x01",
        )
        .separator(7),
        crtm()
        .measure(
            7,
            EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
            variable_data("SecureBoot", b"\x01", vendor=bytes(16)),
        )
        .separator(7),
        crtm()
        .measure(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, b"short")
        .separator(7),
    ],
    ids=[
        "after the separator",
        "no separator",
        "no boolean",
        "two bytes",
        "another variable",
        "error separator",
        "another type",
        "digest of something else",
        "another vendor",
        "no variable",
    ],
)
def test_no_claim_is_read_from_what_is_not_proven(log: FakeEventLog) -> None:
    assert secure_boot_claim(booted(log)) is None


def test_a_relabelled_separator_is_still_one() -> None:
    """The type is the host's word: hiding the separator must not open the log's end."""
    real = crtm().variable("SecureBoot", b"\x00").separator(7)
    real.variable("SecureBoot", b"\x01")
    relabelled = crtm()
    relabelled.measure(
        7,
        EventType.EV_IPL,
        b"renamed",
        hashed=variable_data("SecureBoot", b"\x00"),
    )
    relabelled.measure(7, EventType.EV_IPL, b"renamed", hashed=bytes(4))
    relabelled.variable("SecureBoot", b"\x01")
    assert secure_boot_claim(booted(real, claimed=relabelled.to_bytes())) is None


def test_a_log_without_quoted_pcr_7_says_nothing_of_secure_boot() -> None:
    assert secure_boot_claim(booted(typical_log(), selection=(0, 4))) is None


def test_a_sha1_bank_alone_gives_no_claim() -> None:
    result = booted(typical_log(("sha1",)), banks=("sha1",))
    assert secure_boot_claim(result) is None


def test_the_operating_systems_pcrs_may_go_unmentioned() -> None:
    tpm = FakeTpm()
    log = typical_log()
    log.boot(tpm)
    tpm.extend(15, hashlib.sha256(b"workload policy").digest())
    item = tpm.quote_item(BOUND, (*BOOT, 15), event_log=log.to_bytes())
    assert replay_check(verify(tpm, item)).status is Status.PASS


def test_a_boot_pcr_may_not_go_unmentioned() -> None:
    tpm = FakeTpm()
    log = crtm()
    log.boot(tpm)
    tpm.extend(4, hashlib.sha256(b"loader").digest())
    check = replay_check(
        verify(tpm, tpm.quote_item(BOUND, BOOT, event_log=log.to_bytes()))
    )
    assert check.status is Status.FAIL
    assert check.detail.startswith("sha256:4 differs")


def test_the_last_extended_event_is_named_when_the_log_goes_on() -> None:
    short = crtm().measure(4, EventType.EV_ACTION, b"one")
    longer = crtm().measure(4, EventType.EV_ACTION, b"one")
    longer.measure(4, EventType.EV_ACTION, b"two")
    result = booted(short, claimed=longer.to_bytes())
    check = replay_check(result)
    assert check.status is Status.FAIL
    assert "sha256:4 differs" in check.detail
    assert "ends at event 1 (EV_ACTION)" in check.detail
    assert check.got != check.expected
    assert result.claims is None


def test_a_log_of_a_pcr_that_was_never_extended_is_named() -> None:
    longer = crtm().measure(4, EventType.EV_ACTION, b"one")
    check = replay_check(booted(crtm(), claimed=longer.to_bytes()))
    assert "nothing was extended" in check.detail
    assert "event 1 (EV_ACTION)" in check.detail


def test_an_event_whose_digest_is_not_of_its_data_is_named() -> None:
    real = crtm().measure(5, EventType.EV_ACTION, b"Exit Boot Services")
    shown = crtm().measure(
        5, EventType.EV_ACTION, b"Exit Boot Services", hashed=b"forged"
    )
    check = replay_check(booted(real, claimed=shown.to_bytes()))
    assert check.status is Status.FAIL
    assert "event 1 (EV_ACTION) is not the hash of its data" in check.detail


def test_otherwise_only_the_pcr_is_named() -> None:
    real = crtm().measure(4, EventType.EV_POST_CODE, b"a", hashed=b"firmware a")
    shown = crtm().measure(4, EventType.EV_POST_CODE, b"a", hashed=b"firmware b")
    check = replay_check(booted(real, claimed=shown.to_bytes()))
    assert check.status is Status.FAIL
    assert "no event of the log can be told" in check.detail


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (event1(0, 8, bytes(20), b"v1"), "SHA-1 only"),
        (
            header(("sha384",)) + event2(0, 8, {"sha384": bytes(48)}, b"v"),
            "covers none",
        ),
    ],
)
def test_a_log_that_cannot_be_compared_is_skipped(log: bytes, why: str) -> None:
    result = booted(FakeEventLog(), claimed=log)
    check = replay_check(result)
    assert check.status is Status.SKIPPED
    assert why in check.detail
    assert result.claims is not None
    assert SECURE_BOOT not in result.claims.values


def test_only_boot_pcrs_have_a_separator() -> None:
    log = parse_event_log(crtm().separator(0, 9).to_bytes())
    assert separator_index(log, Algorithm.SHA256, 0) == 1
    assert separator_index(log, Algorithm.SHA256, 9) is None
    assert separator_index(log, Algorithm.SM3_256, 0) is None


def test_an_item_shows_the_size_of_its_log(ecc_tpm: FakeTpm) -> None:
    item = {**ecc_tpm.quote_item(BOUND), "event_log": b64(typical_log().to_bytes())}
    shown = VERIFIER.inspect(VERIFIER.parse(item, 0))
    assert shown["event_log"] == {"format": "crypto-agile", "events": 12}
