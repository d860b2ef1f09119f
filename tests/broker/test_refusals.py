"""Refusals that never authenticated: counted, and one entry a reason and flush."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from kbs.broker.refusals import MAX_REASONS, MAX_SAMPLES, MAX_TEXT
from kbs.broker.upkeep import PURGE_MARGIN
from kbs.channel.binding import device_binding, device_digest, primary_binding
from kbs.channel.challenge import CHALLENGE_LIFETIME_SECONDS, CLOCK_SKEW_SECONDS
from kbs.core.encode import b64, parse_b64u
from kbs.core.errors import UnavailableError
from kbs.evidence.registry import VERIFIERS
from tests.fakes.amd import FakeAmd
from tests.fakes.answers import Document, refusals, releases, see
from tests.fakes.snp_world import KEY
from tests.fakes.steps import Bench
from tests.fakes.world import Request, World, request_of


def _rubbish(world: World, kind: str = "vtpm") -> bytes:
    request = world.request_by("vtpm", lambda _: {"kind": kind, "x": 1})
    return request.body


def test_a_thousand_refusals_are_one_entry(world: World) -> None:
    world.standard()
    request = _rubbish(world)
    before = len(world.entries())
    decisions = {see(world, request).document["decision"] for _ in range(1000)}
    assert len(decisions) == 1000
    with world.parts.database.read() as tx:
        assert tx.log.head().size == before
    (entry,) = refusals(world)
    assert (entry["reason"], entry["count"]) == ("vtpm.parse", 1000)
    assert len(entry["samples"]) == MAX_SAMPLES
    assert {sample["decision"] for sample in entry["samples"]} <= decisions
    # Nothing is counted twice.
    assert refusals(world) == [entry]
    assert releases(world) == []


def test_one_entry_a_reason_with_what_was_got_and_expected(world: World) -> None:
    tpm = world.standard()
    stranger = world.booted_tpm()
    see(world, world.request(stranger))
    see(world, world.request(stranger))
    see(world, world.request(tpm, challenge="AQEB"))
    late = world.request(tpm)
    world.clock.advance(301)
    see(world, late)
    found = {entry["reason"]: entry for entry in refusals(world)}
    assert {reason: entry["count"] for reason, entry in found.items()} == {
        "vtpm.ak.trust": 2,
        "challenge.malformed": 1,
        "challenge.expired": 1,
    }
    sample = found["vtpm.ak.trust"]["samples"][0]
    assert sample["got"]
    assert sample["expected"] == "an enrolled or certified attestation key"
    assert sample["check"] == "vtpm.ak.trust"


def test_a_refusal_is_found_by_its_decision(world: World) -> None:
    world.standard()
    seen = see(world, world.request(world.booted_tpm()))
    decision = seen.document["decision"]
    found: Document = world.must("GET", f"/admin/v1/audit/entries/{decision}")
    assert found["body"]["kind"] == "refusals"
    assert found["sample"]["decision"] == decision
    assert found["sample"]["check"] == "vtpm.ak.trust"


def test_kinds_that_strangers_invent_are_one_reason(world: World) -> None:
    world.standard()
    for number in range(MAX_REASONS + 10):
        assert see(world, _rubbish(world, f"kind-{number}")).status == 403
    see(world, world.request(world.booted_tpm()))
    found = {entry["reason"]: entry["count"] for entry in refusals(world)}
    assert found == {"bundle.kind": MAX_REASONS + 10, "vtpm.ak.trust": 1}


def test_what_cannot_be_logged_is_counted_again(bench: Bench) -> None:
    world = bench.world
    for _ in range(3):
        see(world, _rubbish(world))
    bench.database.fail_before = 1
    upkeep = world.broker.audit._upkeep
    with pytest.raises(UnavailableError):
        upkeep.flush()
    see(world, _rubbish(world))
    world.clock.advance(60)
    (entry,) = refusals(world)
    assert entry["count"] == 4
    assert entry["since"] < entry["until"]
    assert len(entry["samples"]) == 4


def test_upkeep_survives_a_database_that_is_away(bench: Bench) -> None:
    world = bench.world
    see(world, _rubbish(world))
    upkeep = world.broker.audit._upkeep
    bench.database.fail_before = 2
    bench.database.fail_reads = 1
    upkeep.every_second()
    upkeep.every_minute()
    bench.database.fail_before = bench.database.fail_reads = 0
    upkeep.every_second()
    upkeep.every_minute()
    assert [entry["count"] for entry in world.entries("refusals")] == [1]


def test_what_expired_is_erased(bench: Bench) -> None:
    world = bench.world
    request = bench.request()
    assert bench.send(request).status == 200
    upkeep = world.broker.audit._upkeep
    nonce = parse_b64u(request.runtime_data.nonce, "challenge", limit=59)
    digest = hashlib.sha256(request.body).digest()

    def kept() -> tuple[bool, bool]:
        with bench.database.read() as tx:
            spent = tx.spent.find(hashlib.sha256(nonce).digest())
            return spent is not None, tx.evidence.find(digest) is not None

    upkeep.purge()
    assert kept() == (True, True)
    # A spent challenge outlives its expiry by twice the clocks' skew, and an hour of
    # the log's time, which moves with its entries.
    lives = CHALLENGE_LIFETIME_SECONDS + 2 * CLOCK_SKEW_SECONDS
    world.clock.advance(lives + PURGE_MARGIN.total_seconds())
    world.create_key("acme/model/later")
    upkeep.purge()
    assert kept() == (True, True)
    world.clock.advance(2)
    upkeep.purge()
    assert kept() == (True, True)
    world.create_key("acme/model/latest")
    upkeep.purge()
    assert kept() == (False, True)
    world.clock.advance(30 * 24 * 3600)
    upkeep.purge()
    assert kept() == (False, False)


# -- hostile texts ---------------------------------------------------------------------

HOSTILE = (
    "\ud800",
    "\x00",
    "é" * 5000,
    "\u202e",
    "<script>",
    "9" * 5000,
    "\\u0000",
)


def _hostile(world: World, request: Request, text: str) -> list[Request]:
    """Requests with a text wherever a stranger may put one."""
    document = json.loads(request.body)
    (item,) = document["items"]
    places: list[dict[str, object]] = [
        {**item, "ak": text},
        {**item, text: 1},
        {**item, "pcrs": {text: {}}},
        {**item, "pcrs": {"sha256": {text: "00"}}},
        {**item, "quote": {"message": text, "signature": b64(b"x")}},
        {**item, "kind": "sample", "claims": {text: 1}},
    ]
    return [
        dataclasses.replace(
            request, body=json.dumps(document | {"items": [place]}).encode()
        )
        for place in places
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_keeps_the_aggregate_from_the_log(world: World, text: str) -> None:
    tpm = world.standard()
    sent = 0
    for request in _hostile(world, world.request(tpm), text):
        seen = see(world, request)
        assert seen.status in (400, 403)
        sent += seen.status == 403
    entries = refusals(world)
    assert sum(entry["count"] for entry in entries) == sent
    for entry in entries:
        for sample in entry["samples"]:
            assert len(sample["detail"]) <= MAX_TEXT


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_beside_a_good_quote_keeps_its_entry_from_the_log(
    snp_world: World, amd: FakeAmd, text: str
) -> None:
    """A host that authenticated, with a surplus item that says anything."""
    data, private = snp_world.runtime_data([KEY])
    tpm = snp_world.booted_tpm()
    quoted = tpm.quote_item(device_binding("vtpm", data)[:32])
    device = {**quoted, "event_log": b64(text.encode("utf-8", "replace"))}
    digest = device_digest("vtpm", VERIFIERS["vtpm"].parse(quoted, 1).core)
    primary = primary_binding("snp", data, [digest])
    items = [amd.bundle_item(primary), device]
    seen = see(snp_world, request_of(data, private, primary, items))
    assert seen.status == 403
    # It parsed, and has its entry; or it did not, and was counted.
    if "vtpm.parse" in seen.checks:
        assert [entry["count"] for entry in refusals(snp_world)] == [1]
    else:
        assert seen.entry(snp_world)["kind"] == "release.denied"
