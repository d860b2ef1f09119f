"""Beside requests: what is erased, and what only the reserve of the disk allows."""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timedelta

import pytest

from kbs.broker import evidence as keeping
from kbs.broker.health import DISK_RESERVE_BYTES
from kbs.broker.reserve import DiskReserve
from kbs.broker.upkeep import PURGE_MARGIN, Upkeep
from kbs.channel.binding import Mode
from kbs.channel.challenge import (
    CHALLENGE_LIFETIME_SECONDS,
    CLOCK_SKEW_SECONDS,
    parse_challenge,
)
from kbs.core.clock import format_time
from kbs.core.errors import ConflictError, IntegrityError, UnavailableError
from kbs.governance.statement import Action, Kind
from tests.fakes.answers import refusals, releases, see
from tests.fakes.steps import Bench
from tests.fakes.world import Request, World

CHAT = "acme/model/chat"
RETENTION = timedelta(days=30)


def _upkeep(world: World) -> Upkeep:
    return world.broker.audit._upkeep


def _digest(request: Request) -> str:
    return hashlib.sha256(request.body).hexdigest()


def _is_kept(world: World, request: Request) -> bool:
    with world.parts.database.read() as tx:
        return tx.evidence.find(hashlib.sha256(request.body).digest()) is not None


def _send(world: World, request: Request) -> Request:
    assert see(world, request).status == 200
    return request


# -- evidence --------------------------------------------------------------------------


def test_evidence_that_is_erased_is_told_in_the_log(any_world: World) -> None:
    world = any_world
    tpm = world.standard()
    old = [_send(world, world.request(tpm)) for _ in "12"]
    world.clock.advance(24 * 3600)
    young = _send(world, world.request(tpm))
    world.clock.time += RETENTION - timedelta(hours=12)
    _upkeep(world).purge()
    (entry,) = world.entries("evidence.expired")
    digests = entry["digests"]
    assert isinstance(digests, list)
    assert sorted(digests) == sorted(_digest(one) for one in old)
    assert entry["count"] == 2
    assert entry["before"] == format_time(world.clock.now())
    assert [_is_kept(world, one) for one in (*old, young)] == [False, False, True]
    # Nothing to erase, nothing to tell.
    _upkeep(world).purge()
    assert world.entries("evidence.expired") == [entry]


def test_erasing_and_its_entry_are_one_transaction(sqlite_bench: Bench) -> None:
    world = sqlite_bench.world
    request = _send(world, sqlite_bench.request())
    world.clock.time += RETENTION + timedelta(seconds=1)

    # First what was spent is forgotten, then the evidence goes.
    sqlite_bench.probe.at("after-commit", lambda: _fail_next(sqlite_bench))
    with pytest.raises(UnavailableError):
        _upkeep(world).purge()
    assert _is_kept(world, request)
    assert world.entries("evidence.expired") == []
    _upkeep(world).purge()
    assert not _is_kept(world, request)
    assert len(world.entries("evidence.expired")) == 1


def _fail_next(bench: Bench) -> None:
    bench.database.fail_before = 1


def test_much_evidence_goes_in_batches(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "ERASED_AT_ONCE", 2)
    monkeypatch.setattr("kbs.broker.upkeep.ERASED_AT_ONCE", 2)
    tpm = world.standard()
    for _ in range(5):
        _send(world, world.request(tpm))
    world.clock.time += RETENTION + timedelta(seconds=1)
    _upkeep(world).purge()
    counts = [entry["count"] for entry in world.entries("evidence.expired")]
    assert counts == [2, 2, 1]


def test_over_the_cap_the_oldest_goes_before_its_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tpm = world.standard()
    first = _send(world, world.request(tpm))
    size = len(first.body)
    world.clock.advance(10)
    second = _send(world, world.request(tpm))
    locker = world.broker.audit._locker
    monkeypatch.setattr(locker, "_max_bytes", size * 3)
    world.clock.advance(10)
    _upkeep(world).purge()
    assert world.entries("evidence.expired") == []
    # Two fit with what sealing adds, a third does not.
    world.clock.advance(10)
    third = _send(world, world.request(tpm))
    _upkeep(world).purge()
    assert [_is_kept(world, one) for one in (first, second, third)] == [
        False,
        True,
        True,
    ]
    (entry,) = world.entries("evidence.expired")
    assert entry["digests"] == [_digest(first)]
    # The entry says that it went before its time.
    assert str(entry["before"]) > format_time(world.clock.now())


def test_what_is_kept_is_measured_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tpm = world.standard()
    first = _send(world, world.request(tpm))
    locker = world.broker.audit._locker
    asked: list[datetime] = []

    def before() -> datetime:
        now = world.clock.now()
        found = locker.expired_before(world.parts.database, now).kept
        asked.append(now)
        return found

    assert before() == world.clock.now()
    monkeypatch.setattr(locker, "_max_bytes", 20 * len(first.body))
    monkeypatch.setattr(keeping, "_RECOUNT_PART", 10)
    # Little was added: it is not measured, whatever there is.
    with world.parts.database.write() as tx:
        row = tx.evidence.find(hashlib.sha256(first.body).digest())
        assert row is not None
        huge = bytes(40 * len(first.body))
        tx.evidence.purge(row.expires + RETENTION, limit=9)
        tx.evidence.insert(
            type(row)(
                digest=row.digest,
                sealed=huge,
                decision=row.decision,
                created=row.created,
                expires=row.expires,
            )
        )
    assert before() == world.clock.now()
    world.clock.advance(3600)
    assert before() > world.clock.now()
    # Or when this process added its part.
    assert before() == world.clock.now()
    for _ in range(3):
        _send(world, world.request(tpm))
    assert before() > world.clock.now()


def test_a_large_bundle_is_not_kept_and_has_its_entry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tpm = world.standard()
    request = world.request(tpm)
    monkeypatch.setattr(keeping, "MAX_KEPT_BYTES", len(request.body) - 1)
    _send(world, request)
    assert not _is_kept(world, request)
    (entry,) = releases(world)
    assert entry["evidence"] == _digest(request)
    monkeypatch.setattr(keeping, "MAX_KEPT_BYTES", len(request.body) + 9)
    assert _is_kept(world, _send(world, world.request(tpm)))


def test_the_bytes_as_they_came_are_kept(world: World) -> None:
    tpm = world.standard()
    request = world.request(tpm)
    spelled = json.dumps(json.loads(request.body), indent=3).encode()
    assert see(world, spelled).status == 200
    digest = hashlib.sha256(spelled).digest()
    with world.parts.database.read() as tx:
        kept = world.broker.audit._locker.open(tx, digest)
    assert kept == spelled


# -- the reserve of the disk -----------------------------------------------------------


class Disk:
    """How much is free, and how often that was asked."""

    def __init__(self) -> None:
        self.free = DISK_RESERVE_BYTES
        self.asked = 0
        self.time = 0.0

    def __call__(self) -> int:
        self.asked += 1
        return self.free

    def fill(self) -> None:
        self.free = DISK_RESERVE_BYTES - 1
        self.time += 1


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def full(any_world: World, disk: Disk) -> World:
    """A broker with an enrolled guest, whose disk can be filled."""
    return any_world.restarted(free_bytes=disk, monotonic=lambda: disk.time)


def test_only_the_reserve_is_left(full: World, disk: Disk) -> None:
    world, tpm = full, full.standard()
    denied = world.request(tpm, ["acme/db/other"])
    probe = world.request(tpm, mode=Mode.CHECK)
    size = len(world.entries())
    disk.fill()
    for request in (denied, probe):
        seen = see(world, request)
        assert (seen.status, seen.code) == (503, "disk.reserve")
        assert "answer" not in seen.document
        assert seen.document["decision"]
    assert len(world.entries()) == size
    # A grant goes on, in part too; its evidence is not kept.
    for keys in ([CHAT], [CHAT, "acme/db/other"]):
        request = world.request(tpm, keys, partial=True)
        assert see(world, request).status == 200
        assert not _is_kept(world, request)
    assert [entry["kind"] for entry in releases(world)] == ["release.granted"] * 2
    # So does the emergency stop, which makes denials of grants.
    stop = b'{"target":"all","value":"","reason":"stop"}'
    world.govern(Action.DENY, Kind.DENY, "*", "stop", stop)
    assert see(world, world.request(tpm)).code == "disk.reserve"
    # The challenges are good yet.
    disk.free += 1
    disk.time += 1
    assert see(world, denied).status == 403
    assert see(world, probe).status == 200
    kinds = [entry["kind"] for entry in releases(world)][2:]
    assert kinds == ["release.denied", "release.probe"]
    assert _is_kept(world, denied)


def test_refusals_wait_for_room(full: World, disk: Disk) -> None:
    world, tpm = full, full.standard()
    disk.fill()
    see(world, world.request(tpm, challenge="AQEB"))
    _upkeep(world).every_minute()
    assert refusals(world) == []
    see(world, world.request(tpm, challenge="AQEB"))
    disk.free += 1
    disk.time += 1
    (entry,) = refusals(world)
    assert entry["count"] == 2


def test_a_full_disk_does_not_fill_the_broker_s_own_log(
    full: World, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    tpm = full.standard()
    disk.fill()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            see(full, full.request(tpm, ["acme/db/other"]))
    assert len([one for one in caplog.records if one.name.startswith("kbs")]) == 2


def test_how_much_is_free_is_asked_once_a_second(disk: Disk) -> None:
    reserve = DiskReserve(disk, lambda: disk.time)
    assert [reserve.is_low() for _ in range(5)] == [False] * 5
    reserve.require()
    assert disk.asked == 1
    disk.free -= 1
    assert not reserve.is_low()
    disk.time += 1
    assert reserve.is_low()
    assert disk.asked == 2
    with pytest.raises(UnavailableError) as full:
        reserve.require()
    assert full.value.code == "disk.reserve"


class Ticks:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return self.passed


def test_a_clock_that_jumps_erases_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    ticks = Ticks()
    again = world.restarted_with(monotonic=ticks)
    request = _send(again, again.request(again.standard()))
    upkeep = _upkeep(again)
    upkeep.every_minute()
    again.clock.time += RETENTION + timedelta(seconds=1)
    upkeep.every_minute()
    assert "clock: it jumped by 2592001 s" in caplog.text
    assert _is_kept(again, request)
    # Set right within the hour, it is as if nothing had been.
    again.clock.time -= RETENTION + timedelta(seconds=1)
    upkeep.every_minute()
    assert _is_kept(again, request)
    # A clock that stays where it is was right.
    again.clock.time += RETENTION + timedelta(seconds=1)
    upkeep.every_minute()
    for _ in range(60):
        again.clock.advance(60)
        ticks.passed += 60
        assert _is_kept(again, request)
        upkeep.every_minute()
    assert not _is_kept(again, request)


# -- what was spent --------------------------------------------------------------------

SPENT_FOR = timedelta(seconds=CHALLENGE_LIFETIME_SECONDS + 2 * CLOCK_SKEW_SECONDS)


def _is_spent(world: World, request: Request) -> bool:
    raw = parse_challenge(request.runtime_data.nonce).raw
    with world.parts.database.read() as tx:
        return tx.spent.find(hashlib.sha256(raw).digest()) is not None


def test_what_was_spent_is_forgotten_in_the_end(any_world: World) -> None:
    world = any_world
    request = _send(world, world.request(world.standard()))
    world.clock.time += SPENT_FOR + PURGE_MARGIN
    # The log's time moves with its entries.
    world.create_key("acme/model/later")
    _upkeep(world).purge()
    assert _is_spent(world, request)
    world.clock.advance(1)
    world.create_key("acme/model/latest")
    _upkeep(world).purge()
    assert not _is_spent(world, request)


def test_a_clock_that_jumps_ahead_and_back_forgets_nothing(any_world: World) -> None:
    world = any_world
    tpm = world.standard()
    request = _send(world, world.request(tpm))
    rival = world.request(tpm, challenge=request.runtime_data.nonce)
    start = world.clock.time
    world.clock.time += timedelta(days=10)
    _upkeep(world).purge()
    world.clock.time = start
    assert _is_spent(world, request)
    assert see(world, rival).code == "challenge.replayed"
    assert len(releases(world)) == 1


def test_nothing_is_forgotten_that_a_clock_behind_could_ask_for(
    any_world: World,
) -> None:
    """Entries of the time ahead: then nothing is decided once the clock is back."""
    world = any_world
    tpm = world.standard()
    request = _send(world, world.request(tpm))
    rival = world.request(tpm, challenge=request.runtime_data.nonce)
    start = world.clock.time
    world.clock.time += timedelta(days=10)
    world.create_key("acme/model/ahead")
    _upkeep(world).purge()
    world.clock.time = start
    assert not _is_spent(world, request)
    assert see(world, rival).code == "clock.behind"
    assert len(releases(world)) == 1


def test_a_used_token_is_remembered_alike(any_world: World) -> None:
    world = any_world
    start = world.clock.time
    with world.parts.database.write() as tx:
        tx.tokens.use("a" * 32, start + timedelta(seconds=60))
    world.clock.time += timedelta(days=10)
    _upkeep(world).purge()
    world.clock.time = start
    with pytest.raises(ConflictError), world.parts.database.write() as tx:
        tx.tokens.use("a" * 32, start + timedelta(seconds=60))


# -- faults ----------------------------------------------------------------------------


def test_faults_that_several_threads_write_are_told_once_each(world: World) -> None:
    """A second thread took out the next fault, which nobody had written."""
    upkeep = _upkeep(world)
    codes = ["keys.tampered", "collateral.tampered"]
    for code in codes:
        upkeep.report_integrity(IntegrityError("row", got="a", expected="b", code=code))
    with ThreadPoolExecutor(4) as threads:
        with world.parts.database.write():
            flushing = [threads.submit(upkeep.flush) for _ in range(4)]
            # Until they wait for the lock of the writers, or for each other.
            wait(flushing, timeout=0.5)
        for one in flushing:
            one.result()
    assert [one["subject"] for one in world.entries("integrity.reported")] == codes
