"""Many requests at once: one entry each, a log without gaps, keys always whole."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from kbs.core.encode import b64
from tests.fakes.answers import Seen, releases, see
from tests.fakes.databases import Place
from tests.fakes.world import World

T = TypeVar("T")

CHAT = "acme/model/chat"
THREADS = 8


def at_once(runs: Sequence[Callable[[], T]]) -> list[T]:
    """Run everything in threads of its own, started together."""
    gate = threading.Barrier(len(runs))

    def run(one: Callable[[], T]) -> T:
        gate.wait(timeout=10)
        return one()

    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(run, runs))


@pytest.fixture
def pair(tmp_path: Path, place: Place) -> Iterator[tuple[World, World]]:
    """Two processes of one instance, on each kind of database in turn."""
    with closing(place.connect()) as first, closing(place.connect()) as second:
        world = World.create(tmp_path, database=first)
        yield world, world.restarted(database=second)


def _check_log(world: World) -> None:
    with world.parts.database.read() as tx:
        size = tx.log.head().size
        entries = tx.log.read_entries(0, size)
    assert [entry.index for entry in entries] == list(range(size))
    assert len({entry.id for entry in entries}) == size


def test_one_request_many_times_at_once(pair: tuple[World, World]) -> None:
    tpm = pair[0].standard()
    request = pair[0].request(tpm)
    runs = [partial(pair[number % 2].send, request) for number in range(THREADS)]
    responses = at_once(runs)
    assert {response.status_code for response in responses} == {200}
    assert len({response.get_data() for response in responses}) == 1
    assert len(releases(pair[0])) == 1
    _check_log(pair[0])


def test_many_requests_on_one_challenge_at_once(pair: tuple[World, World]) -> None:
    tpm = pair[0].standard()
    nonce = pair[0].challenge()
    requests = [pair[0].request(tpm, challenge=nonce) for _ in range(THREADS)]
    runs = [
        partial(see, pair[number % 2], requests[number]) for number in range(THREADS)
    ]
    seen = at_once(runs)
    assert Counter(one.status for one in seen) == {200: 1, 401: THREADS - 1}
    assert {one.code for one in seen if one.status == 401} == {"challenge.replayed"}
    assert len(releases(pair[0])) == 1


def test_many_releases_at_once(pair: tuple[World, World]) -> None:
    each = 5
    tpm = pair[0].standard()
    requests = [[pair[0].request(tpm) for _ in range(each)] for _ in range(THREADS)]

    def work(number: int) -> list[Seen]:
        return [see(pair[number % 2], one) for one in requests[number]]

    runs = [partial(work, number) for number in range(THREADS)]
    seen = [one for some in at_once(runs) for one in some]
    assert {one.status for one in seen} == {200}
    # Every receipt was verified by `see`; each is for an entry of its own.
    indexes = {one.receipt.index for one in seen if one.receipt is not None}
    assert len(indexes) == each * THREADS
    wanted = {hashlib.sha256(r.body).hexdigest() for some in requests for r in some}
    assert {entry["request"] for entry in releases(pair[0])} == wanted
    assert len(releases(pair[0])) == each * THREADS
    _check_log(pair[0])


def test_readers_of_a_rotating_key_get_a_whole_version(
    pair: tuple[World, World],
) -> None:
    tpm = pair[0].standard()
    values = {f"{CHAT}@1": b"the model key"}
    values |= {f"{CHAT}@{n}": bytes([n]) * 500 for n in range(2, 8)}
    requests = [[pair[0].request(tpm) for _ in range(6)] for _ in range(4)]
    got: list[dict[str, bytes]] = []

    def read(number: int) -> None:
        for one in requests[number]:
            # A key that changes faster than it can be decided about is a 503.
            while pair[number % 2].send(one).status_code == 503:
                pass
            got.append(pair[number % 2].released(one))

    def rotate() -> None:
        for version in range(2, 8):
            body = {"value": b64(values[f"{CHAT}@{version}"])}
            pair[0].must("POST", "/admin/v1/keys/acme/model/chat/rotate", body)

    readers: list[Callable[[], None]] = [partial(read, number) for number in range(4)]
    at_once([rotate, *readers])
    assert len(got) == 24
    for one in got:
        ((name, value),) = one.items()
        assert values[name] == value
