"""Challenges: whose, for which door, until when, and only once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing

import pytest

from kbs.channel.binding import primary_binding
from kbs.channel.challenge import (
    CHALLENGE_LIFETIME_SECONDS,
    Door,
    mint_challenge,
)
from kbs.core.encode import b64u, parse_b64u
from kbs.core.ids import InstanceId
from tests.fakes.answers import refusals, releases, see
from tests.fakes.tpm import FakeTpm
from tests.fakes.world import Request, World, request_of

Make = Callable[[World, FakeTpm], Request]


def _replayed(world: World, tpm: FakeTpm) -> Request:
    first = world.request(tpm)
    assert world.send(first).status_code == 200
    return world.request(tpm, challenge=first.runtime_data.nonce)


def _expired(world: World, tpm: FakeTpm) -> Request:
    request = world.request(tpm)
    world.clock.advance(CHALLENGE_LIFETIME_SECONDS)
    return request


def _minted(
    world: World, tpm: FakeTpm, *, door: Door = Door.V1, origin: str | None = None
) -> Request:
    identity, now = world.broker.identity, world.clock.now()
    challenge = mint_challenge(
        identity.challenge_keys(now)[0],
        door=door,
        origin=origin or identity.origin,
        now=now,
    )
    return world.request(tpm, challenge=str(challenge))


def _other_door(world: World, tpm: FakeTpm) -> Request:
    return _minted(world, tpm, door=Door.RCAR)


def _other_origin(world: World, tpm: FakeTpm) -> Request:
    return _minted(world, tpm, origin="kbs.local/" + "f" * 32)


def _changed_expiry(world: World, tpm: FakeTpm) -> Request:
    raw = bytearray(parse_b64u(world.challenge(), "challenge", limit=59))
    raw[10] ^= 0x7F
    return world.request(tpm, challenge=b64u(bytes(raw)))


def _of_another_length(world: World, tpm: FakeTpm) -> Request:
    return world.request(tpm, challenge=world.challenge()[:-4])


def _other_audience(world: World, tpm: FakeTpm) -> Request:
    data, private = world.runtime_data()
    data = dataclasses.replace(data, audience="kbs.local/" + "f" * 32)
    primary = primary_binding("vtpm", data, [])
    return request_of(data, private, primary, [tpm.quote_item(primary[:32])])


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (_replayed, "challenge.replayed"),
        (_expired, "challenge.expired"),
        (_other_door, "challenge.door"),
        (_other_origin, "challenge.mac"),
        (_changed_expiry, "challenge.mac"),
        (_of_another_length, "challenge.malformed"),
        (_other_audience, "challenge.audience"),
    ],
)
def test_challenge_faults_are_counted_and_have_no_entry(
    any_world: World, make: Make, code: str
) -> None:
    world = any_world
    tpm = world.standard()
    request = make(world, tpm)
    before = releases(world)
    seen = see(world, request)
    assert (seen.status, seen.code) == (401, code)
    assert "answer" not in seen.document
    assert releases(world) == before
    (entry,) = refusals(world)
    assert (entry["reason"], entry["count"], entry["door"]) == (code, 1, "v1")
    (sample,) = entry["samples"]
    assert sample["decision"] == seen.document["decision"]


def test_a_challenge_of_another_broker(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("other")
    with closing(World.create(folder, instance=OTHER)) as other:
        tpm = world.standard()
        seen = see(world, world.request(tpm, challenge=other.challenge()))
        assert (seen.status, seen.code) == (401, "challenge.mac")


OTHER = InstanceId("fedcba9876543210" * 2)


def test_a_challenge_just_before_it_expires(world: World) -> None:
    tpm = world.standard()
    request = world.request(tpm)
    world.clock.advance(CHALLENGE_LIFETIME_SECONDS - 1)
    assert world.send(request).status_code == 200
    # The retry comes too late: its challenge has expired, spent or not.
    world.clock.advance(2)
    assert see(world, request).code == "challenge.expired"
