"""What changes while a release is under way: governance, keys, rivals, the clock."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kbs.audit.log import CLOCK_TOLERANCE
from kbs.channel.binding import Mode
from kbs.core.encode import b64
from kbs.governance.statement import Action, Kind
from tests.fakes.answers import releases, see
from tests.fakes.steps import Bench
from tests.fakes.world import World

CHAT = "acme/model/chat"


def _policy(world: World, action: Action) -> None:
    stored = world.must("GET", "/admin/v1/objects/release-policy/acme/chat/1")
    response = world.sign(action, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert response.status_code == 201


def test_a_policy_withdrawn_meanwhile(bench: Bench) -> None:
    request = bench.request()
    bench.probe.at("sealed", lambda: _policy(bench.other, Action.DEACTIVATE))
    seen = bench.send(request)
    assert (seen.status, seen.denied) == (403, {CHAT: ["policy.none"]})
    assert bench.probe.reached.count("verified") == 2
    (entry,) = releases(bench.other)
    assert entry["kind"] == "release.denied"


def test_a_policy_that_comes_into_force_meanwhile(bench: Bench) -> None:
    _policy(bench.world, Action.DEACTIVATE)
    request = bench.request()
    bench.probe.at("sealed", lambda: _policy(bench.other, Action.ACTIVATE))
    assert bench.send(request).status == 200


def test_a_denial_that_comes_into_force_meanwhile(bench: Bench) -> None:
    content = b'{"target":"all","value":"","reason":"stop"}'
    request = bench.request()
    bench.probe.at(
        "sealed",
        lambda: bench.other.govern(Action.DENY, Kind.DENY, "*", "stop", content),
    )
    assert bench.send(request).denied == {CHAT: ["deny.all"]}
    # Log order is truth: no grant after the entry of the denial.
    kinds = [entry["kind"] for entry in bench.other.entries()]
    assert "release.granted" not in kinds


@pytest.mark.parametrize("step", ["appraised", "sealed"])
def test_a_key_rotated_meanwhile(bench: Bench, step: str) -> None:
    request = bench.request()
    path = "/admin/v1/keys/acme/model/chat/rotate"
    body = {"value": b64(b"the second")}
    bench.probe.at(step, lambda: bench.other.must("POST", path, body))
    assert bench.world.released(request) == {f"{CHAT}@2": b"the second"}
    (entry,) = releases(bench.other)
    assert entry["keys"][0]["version"] == 2


def test_a_key_destroyed_meanwhile(bench: Bench) -> None:
    request = bench.request()
    path = "/admin/v1/keys/acme/model/chat/destroy"
    bench.probe.at("sealed", lambda: bench.other.must("POST", path, {"version": 1}))
    seen = bench.send(request)
    assert (seen.status, seen.code) == (404, "key.not_found")


def test_a_key_retired_during_a_dry_run(bench: Bench) -> None:
    request = bench.world.request(bench.tpm, mode=Mode.CHECK)
    path = "/admin/v1/keys/acme/model/chat/destroy"
    bench.probe.at("sealed", lambda: bench.other.must("POST", path, {"version": 1}))
    assert bench.send(request).denied == {CHAT: ["key.not_found"]}


def test_a_challenge_spent_meanwhile_by_the_same_request(bench: Bench) -> None:
    request = bench.request()
    stored: list[bytes] = []
    bench.probe.at(
        "sealed", lambda: stored.append(bench.other.send(request).get_data())
    )
    assert bench.world.send(request).get_data() == stored[0]
    assert len(releases(bench.other)) == 1


def test_a_challenge_spent_meanwhile_by_another_request(bench: Bench) -> None:
    request = bench.request()
    rival = bench.world.request(bench.tpm, challenge=request.runtime_data.nonce)
    bench.probe.at("sealed", lambda: bench.other.send(rival))
    seen = bench.send(request)
    assert (seen.status, seen.code) == (401, "challenge.replayed")
    assert len(releases(bench.other)) == 1


# -- clocks ----------------------------------------------------------------------------


def test_a_clock_behind_the_log_refuses(bench: Bench) -> None:
    request = bench.request()
    start = bench.world.clock.time
    bench.world.clock.time = start + timedelta(seconds=100)
    bench.world.create_key("acme/model/later")
    bench.world.clock.time = start + timedelta(seconds=100) - CLOCK_TOLERANCE
    assert bench.send(request).status == 200
    bench.world.clock.time -= timedelta(seconds=1)
    seen = bench.send(bench.request())
    assert (seen.status, seen.code) == (503, "clock.behind")
    assert len(releases(bench.other)) == 1


def test_a_clock_that_falls_back_between_decision_and_entry(bench: Bench) -> None:
    request = bench.request()

    def fall() -> None:
        bench.world.clock.time -= timedelta(seconds=61)

    bench.probe.at("sealed", fall)
    assert bench.send(request).code == "clock.behind"
    bench.world.clock.time += timedelta(seconds=61)
    assert bench.send(request).status == 200


def test_a_clock_that_jumps_forward(bench: Bench) -> None:
    request = bench.request()
    bench.world.clock.advance(3600)
    assert bench.send(request).code == "challenge.expired"
    assert bench.send(bench.request()).status == 200


def test_the_challenge_key_changes_daily_and_both_hold(bench: Bench) -> None:
    bench.world.clock.advance(24 * 3600 - 10)
    old = bench.request()
    older = bench.request()
    bench.world.clock.advance(20)
    new = bench.request()
    ids = {parse.runtime_data.nonce[:4] for parse in (old, new)}
    assert len(ids) == 2
    # Both processes know both keys.
    assert see(bench.other, new).status == 200
    assert bench.send(old).status == 200
    bench.world.clock.advance(400)
    assert bench.send(older).code in {"challenge.mac", "challenge.expired"}
    assert bench.send(bench.request()).status == 200
    bench.world.clock.advance(24 * 3600)
    assert bench.send(bench.request()).status == 200
    with bench.database.read() as tx:
        assert len(tx.broker_keys.list("challenge")) == 2
