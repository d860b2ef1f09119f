"""A release from the first byte to the receipt, through the v1 door."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.create(tmp_path)


def test_a_guest_that_proves_itself_gets_its_key(world: World) -> None:
    tpm = world.standard()
    request = world.request(tpm)
    assert world.released(request) == {"acme/model/chat@1": b"the model key"}


def test_the_same_bytes_again_get_the_same_bytes_back(world: World) -> None:
    request = world.request(world.standard())
    first, second = world.send(request), world.send(request)
    assert first.status_code == second.status_code == 200
    assert first.get_data() == second.get_data()
    assert len(world.entries("release.granted")) == 1
