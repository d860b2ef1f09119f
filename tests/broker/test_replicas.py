"""Two replicas over one database whose clocks differ at the day boundary."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from kbs.broker.identity import (
    CHALLENGE_KEY_AGE,
    RELOAD_INTERVAL,
    Identity,
)
from kbs.broker.ports import Database
from kbs.broker.vault import Vault
from kbs.channel.challenge import Challenge, Door, mint_challenge, verify_challenge
from kbs.core.errors import AuthenticationError, UnavailableError
from tests.fakes.answers import releases, see
from tests.fakes.databases import FailingDatabase, Place
from tests.fakes.world import KEK, START, FakeClock, World

BOUNDARY = START + CHALLENGE_KEY_AGE


class Replica:
    """One process: its own clock, its own memory, the common database."""

    def __init__(self, world: World, database: Database) -> None:
        self.clock = FakeClock()
        self.database = FailingDatabase(database)
        vault = Vault(KEK, world.parts.instance)
        instance = world.parts.instance
        self.identity = Identity(self.database, vault, self.clock, instance)

    def mint(self) -> Challenge:
        now = self.clock.now()
        return mint_challenge(
            self.identity.challenge_keys(now)[0],
            door=Door.V1,
            origin=self.identity.origin,
            now=now,
        )

    def verify(self, challenge: Challenge) -> None:
        now = self.clock.now()
        verify_challenge(
            challenge,
            self.identity.challenge_keys(now, challenge.key_id),
            door=Door.V1,
            origin=self.identity.origin,
            now=now,
        )


@pytest.fixture
def pair(any_world: World) -> tuple[Replica, Replica]:
    """A replica that is at the new day, and one that is a second behind."""
    ahead, behind = (Replica(any_world, any_world.parts.database) for _ in "12")
    ahead.clock.time = BOUNDARY
    behind.clock.time = BOUNDARY - timedelta(seconds=1)
    return ahead, behind


def test_a_key_of_a_day_that_has_not_begun_here(pair: tuple[Replica, Replica]) -> None:
    ahead, behind = pair
    old = behind.mint()
    new = ahead.mint()
    assert new.key_id != old.key_id
    behind.verify(new)
    ahead.verify(old)
    # One key of the day, whoever comes to it.
    behind.clock.time = BOUNDARY
    assert behind.mint().key_id == new.key_id
    with behind.database.read() as tx:
        assert len(tx.broker_keys.list("challenge")) == 2


def test_invented_key_ids_buy_one_reading_a_second(
    pair: tuple[Replica, Replica],
) -> None:
    _, behind = pair
    raw = bytearray(behind.mint().raw)
    read: list[int] = []
    for key_id in range(100, 110):
        raw[1] = key_id
        keys = behind.identity.challenge_keys(behind.clock.now(), key_id)
        read.append(len(keys))
    # The database is not even asked within the second.
    behind.database.fail_reads = 1
    behind.identity.challenge_keys(behind.clock.now(), 111)
    assert behind.database.fail_reads == 1
    behind.clock.time += RELOAD_INTERVAL
    with pytest.raises(UnavailableError):
        behind.identity.challenge_keys(behind.clock.now(), 111)
    assert set(read) == {1}


def test_a_key_made_within_the_second_is_known_after_it(
    pair: tuple[Replica, Replica],
) -> None:
    ahead, behind = pair
    behind.clock.time -= timedelta(seconds=5)
    behind.identity.challenge_keys(behind.clock.now(), 200)
    new = ahead.mint()
    with pytest.raises(AuthenticationError) as refused:
        behind.verify(new)
    assert refused.value.code == "challenge.mac"
    behind.clock.time += RELOAD_INTERVAL
    behind.verify(new)


def test_a_release_at_the_day_boundary(tmp_path: Path, place: Place) -> None:
    with closing(place.connect()) as one, closing(place.connect()) as two:
        world = World.create(tmp_path, database=one)
        tpm = world.standard()
        late = FakeClock()
        other = world.restarted(database=two, clock=late)
        world.clock.time = BOUNDARY
        late.time = BOUNDARY - timedelta(seconds=1)
        assert see(other, world.request(tpm)).status == 200
        assert len(releases(other)) == 1
