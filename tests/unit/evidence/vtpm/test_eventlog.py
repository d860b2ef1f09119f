"""Event logs: what parses, what is refused, how PCRs replay."""

from __future__ import annotations

import hashlib

import pytest

from kbs.core.errors import MalformedError
from kbs.evidence.vtpm import eventlog
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.eventlog import LogFormat, extend, parse_event_log, replay
from kbs.evidence.vtpm.events import Event, EventType
from tests.fakes.eventlog import FakeEventLog, event1, event2, header, typical_log
from tests.fakes.tpm import FakeTpm

SHA256 = {"sha256": bytes(32)}
HEADER = header(("sha256",))


def test_a_log_replays_to_what_the_tpm_holds(ecc_tpm: FakeTpm) -> None:
    tpm = FakeTpm()
    fake = typical_log(("sha256", "sha384"))
    fake.boot(tpm)
    log = parse_event_log(fake.to_bytes())
    registers = replay(log)
    assert registers == {entry: tpm.pcrs[entry] for entry in registers}
    assert {pcr for _, pcr in registers} == set(range(8))
    assert log.banks == (Algorithm.SHA256, Algorithm.SHA384)
    assert log.used_bytes == len(fake.to_bytes())
    assert [event.index for event in log.events] == list(range(len(log.events)))


def test_locality_starts_pcr_0_and_no_action_extends_nothing() -> None:
    log = FakeEventLog().startup_locality(b"\x03")
    log.measure(0, EventType.EV_S_CRTM_VERSION, b"v")
    log.measure(0, EventType.EV_NO_ACTION, b"SP800-155 Event")
    parsed = parse_event_log(log.to_bytes())
    assert parsed.startup_locality == 3
    value = hashlib.sha256(b"v").digest()
    start = bytes(31) + b"\x03"
    assert replay(parsed) == {
        (Algorithm.SHA256, 0): hashlib.sha256(start + value).digest()
    }


def test_a_locality_after_pcr_0_was_extended_does_not_count() -> None:
    log = FakeEventLog().measure(1, EventType.EV_POST_CODE, b"x")
    log.measure(0, EventType.EV_S_CRTM_VERSION, b"v").startup_locality(b"\x03")
    assert parse_event_log(log.to_bytes()).startup_locality == 0


def test_dynamic_pcrs_start_at_ones() -> None:
    log = FakeEventLog().measure(17, EventType.EV_POST_CODE, b"x")
    value = hashlib.sha256(b"\xff" * 32 + hashlib.sha256(b"x").digest()).digest()
    assert replay(parse_event_log(log.to_bytes())) == {(Algorithm.SHA256, 17): value}


def test_a_bank_that_we_cannot_compute_is_kept_and_not_replayed() -> None:
    digests = {"sm3_256": bytes(32), "sha256": bytes(32)}
    data = header(("sm3_256", "sha256")) + event2(0, 1, digests, b"")
    log = parse_event_log(data)
    assert log.banks == (Algorithm.SHA256,)
    assert {bank for bank, _ in replay(log)} == {Algorithm.SHA256}
    assert log.events[0].digest_of(Algorithm.SM3_256) == bytes(32)
    assert log.events[0].is_recomputed(Algorithm.SM3_256) is None


def test_vendor_information_and_events_of_no_pcr_are_allowed() -> None:
    data = header(("sha256",), vendor=b"vendor")
    data += event2(0xFFFFFFFF, EventType.EV_NO_ACTION, SHA256, b"note")
    assert len(parse_event_log(data).events) == 1


@pytest.mark.parametrize("start", [b"", event1(0, 3, bytes(20), b"Spec ID Event02\0")])
def test_sha1_logs_are_parsed_and_not_replayed(start: bytes) -> None:
    data = start + event1(0, 8, bytes(20), b"v1") + event1(7, 4, bytes(20), bytes(4))
    log = parse_event_log(data)
    assert log.format is LogFormat.SHA1
    assert len(log.events) == 2
    assert log.header == start
    assert log.banks == ()
    assert replay(log) == {}


def test_names_of_types_are_the_profiles() -> None:
    log = FakeEventLog().measure(1, EventType.EV_IPL, b"x").measure(1, 0x77, b"y")
    names = [event.type_name for event in parse_event_log(log.to_bytes()).events]
    assert names == ["EV_IPL", "0x00000077"]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "bytes left"),
        (HEADER[:-1], "bytes left"),
        (HEADER + b"\0", "bytes left"),
        (HEADER + bytes(64), "0 digests"),
        (HEADER + b"\xff" * 64, "pcrIndex"),
        (HEADER + event2(24, 1, SHA256, b""), "pcrIndex"),
        (HEADER + event2(0xFFFFFFFF, 1, SHA256, b""), "pcrIndex"),
        (HEADER + event2(0, 1, {}, b""), "0 digests"),
        (HEADER + event2(0, 1, {"sha384": bytes(48)}, b""), "digests SHA384"),
        (HEADER + event2(0, 1, SHA256, b"")[:-4] + b"\0\0\x05\0", "eventSize"),
        (HEADER + event2(0, 1, SHA256, b"abcd")[:-1], "bytes left"),
        (
            HEADER + event2(0, 1, SHA256, b"").replace(b"\x0b\0", b"\x99\0"),
            "digest algorithm",
        ),
        (header(("sha256", "sha256")), "twice"),
        (header(()), "numberOfAlgorithms"),
        (header(("sha256",), sizes={"sha256": 20}), "digestSize"),
        (HEADER.replace(b"\x0b\0\x20", b"\x99\0\x20"), "algorithmId"),
        (event1(0, 3, bytes(20), b"Spec ID Event03\0" + bytes(3)), "bytes left"),
        (event1(1, 3, bytes(20), HEADER[32:]), "EV_NO_ACTION of PCR 0"),
        (event1(0, 8, bytes(20), HEADER[32:]), "EV_NO_ACTION of PCR 0"),
        (event1(0, 3, bytes(20), HEADER[32:] + b"\0"), "after its end"),
        (FakeEventLog().startup_locality(b"\x01").to_bytes(), "StartupLocality"),
        (FakeEventLog().startup_locality(b"").to_bytes(), "StartupLocality"),
        (bytes(1024 * 1024 + 1), "at most 1048576"),
        (b"bogus\ninvalid\nevent\nlog\nfile\nhere\n", "pcrIndex"),
    ],
)
def test_what_is_no_event_log_is_refused(data: bytes, match: str) -> None:
    with pytest.raises(MalformedError, match=match):
        parse_event_log(data)


def test_the_number_of_events_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MAX_EVENTS", 2)
    agile = HEADER + event2(0, 1, SHA256, b"") * 3
    old = event1(0, 8, bytes(20), b"") * 3
    for data in (agile, old):
        with pytest.raises(MalformedError, match="at most 2"):
            parse_event_log(data)


def test_a_bank_that_an_event_lacks_cannot_be_extended() -> None:
    event = Event(index=0, pcr=0, type=1, digests=(), data=b"")
    with pytest.raises(MalformedError):
        extend(Algorithm.SHA256, bytes(32), event)
