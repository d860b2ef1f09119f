"""Recorded event logs replay to the registers that other tools found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kbs.core.errors import MalformedError
from kbs.evidence.vtpm.algorithms import Algorithm, bank_name
from kbs.evidence.vtpm.eventlog import LogFormat, parse_event_log, replay
from kbs.evidence.vtpm.replay import find_difference, proven_claims

pytestmark = pytest.mark.vectors

# Name and whether Secure Boot was on; None where the log cannot tell.
AGILE = {
    "gtt-cos-85-amd-sev": True,
    "gtt-eventlogwithsp800155": True,
    "gtt-rhel8-uefi": True,
    "gtt-ubuntu-1804-amd-sev": False,
    "gtt-ubuntu-2104-no-secure-boot": False,
    "gtt-ubuntu-2404-amd-sevsnp": False,
    "keylime-bios": False,
    "tpm2tools-event-postcode": True,
}
SHA1 = {"gtt-debian-10": 25, "tpm2tools-event-uefi-sha1-log": 17}


@pytest.fixture
def folder(vectors: Path) -> Path:
    return vectors / "eventlogs"


def test_every_file_is_in_one_of_the_tables(folder: Path) -> None:
    """Logs of TDs (`ccel-`) are in the tables of the Intel families."""
    names = {path.name.split(".")[0] for path in folder.iterdir()}
    others = {name for name in names if not name.startswith("ccel-")}
    assert others == {*AGILE, *SHA1, "keylime-bios-bogus"}


@pytest.mark.parametrize("name", AGILE)
def test_a_log_replays_as_recorded(folder: Path, name: str) -> None:
    expected = json.loads((folder / f"{name}.expected.json").read_text())["replay"]
    log = parse_event_log((folder / f"{name}.bin").read_bytes())
    assert len(log.events) == expected["events"]
    assert log.used_bytes == expected["used_bytes"]
    assert log.startup_locality == expected["startup_locality"]
    registers: dict[str, dict[str, str]] = {}
    for (bank, pcr), value in replay(log).items():
        registers.setdefault(bank_name(bank), {})[str(pcr)] = value.hex()
    assert registers == expected["registers"]


@pytest.mark.parametrize(("name", "secure_boot"), AGILE.items())
def test_secure_boot_is_told_by_the_log(
    folder: Path, name: str, *, secure_boot: bool
) -> None:
    log = parse_event_log((folder / f"{name}.bin").read_bytes())
    quoted = {
        entry: value
        for entry, value in replay(log).items()
        if entry[0] is Algorithm.SHA256
    }
    assert find_difference(log, quoted) is None
    assert proven_claims(log, quoted) == {"vtpm.eventlog.secure_boot": secure_boot}


@pytest.mark.parametrize("name", AGILE)
def test_a_changed_digest_is_noticed_in_its_pcr(folder: Path, name: str) -> None:
    data = (folder / f"{name}.bin").read_bytes()
    log = parse_event_log(data)
    quoted = {
        entry: value
        for entry, value in replay(log).items()
        if entry[0] is Algorithm.SHA256
    }
    event = next(event for event in log.events if event.extends)
    digest = event.digest_of(Algorithm.SHA256)
    assert digest is not None
    changed = parse_event_log(data.replace(digest, bytes(32), 1))
    difference = find_difference(changed, quoted)
    assert difference is not None
    assert difference.entry == (Algorithm.SHA256, event.pcr)


@pytest.mark.parametrize(("name", "count"), SHA1.items())
def test_sha1_logs_are_parsed_and_not_replayed(
    folder: Path, name: str, count: int
) -> None:
    data = (folder / f"{name}.bin").read_bytes()
    log = parse_event_log(data)
    assert log.format is LogFormat.SHA1
    assert len(log.events) == count
    assert log.used_bytes == len(data)
    assert replay(log) == {}
    path = folder / f"{name}.expected.json"
    if path.exists():
        expected = json.loads(path.read_text())["replay"]
        assert expected["events"] == 0
        assert expected["registers"] == {}
        assert expected["used_bytes"] == log.used_bytes
        assert expected["startup_locality"] == log.startup_locality


def test_a_file_that_is_no_log_is_refused(folder: Path) -> None:
    with pytest.raises(MalformedError):
        parse_event_log((folder / "keylime-bios-bogus.bin").read_bytes())
