"""Broker processes killed at every step of a release lose nothing and leak nothing.

After each kill the broker starts again as `kbs serve` does (high-water mark, chain of
statements), the tree is computed anew from its leaves, and the same request is sent
again: good if death came before the commit, answered from the store if after.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kbs.adapters.sql.engine import DATABASE_NAME
from kbs.app import check_start
from kbs.audit import merkle
from kbs.channel.token import SignedRequest, mint_token
from kbs.core.encode import b64
from kbs.core.errors import IntegrityError
from tests.e2e.killer import (
    Answered,
    Call,
    Killer,
    Order,
    order_time,
    parts_of,
    running_killer,
)
from tests.fakes.answers import Document, Seen
from tests.fakes.databases import (
    Place,
    place,
    postgresql_place,
    postgresql_server,
    postgresql_template,
    sqlite_place,
    sqlite_template,
)
from tests.fakes.rcar_client import Answer, RcarClient, Send, open_jwe
from tests.fakes.rcar_evidence import tpm_evidence
from tests.fakes.steps import DURABLE, STEPS
from tests.fakes.tpm import FakeTpm
from tests.fakes.world import Request, World

__all__ = [
    "place",
    "postgresql_place",
    "postgresql_server",
    "postgresql_template",
    "sqlite_place",
    "sqlite_template",
]

ROUNDS = int(os.environ.get("KBS_KILL_ROUNDS", "6"))
"""Kills at each step, on each database; `make kills` asks for more."""

ROUNDS_AT_ONCE = 30
"""Rounds of one instance: each kill is followed by a look at its whole log, and many
short logs cost less than a long one. They run side by side, too."""

PARTS = [
    range(first, min(first + ROUNDS_AT_ONCE, ROUNDS))
    for first in range(0, ROUNDS, ROUNDS_AT_ONCE)
]

THREADS = 4
KEY = {"acme/model/chat@1": b"the model key"}


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with running_killer() as started:
        yield started


@dataclasses.dataclass
class Scene:
    """An instance whose broker processes die."""

    folder: Path
    place: Place
    genesis: str
    killer: Killer
    world: World
    tpm: FakeTpm
    kills: int = 0

    def kill(
        self, step: str, requests: Sequence[Request], *, nth: int = 1, threads: int = 1
    ) -> list[Answered]:
        """Let a process answer requests until it dies; return what left it."""
        calls = [Call(body=b64(request.body)) for request in requests]
        return self.kill_at(step, calls, nth=nth, threads=threads)

    def kill_at(
        self, step: str, calls: Sequence[Call], *, nth: int = 1, threads: int = 1
    ) -> list[Answered]:
        """The same for requests to any door."""
        self.kills += 1
        order = Order(
            data=str(self.folder / "data"),
            trust=str(self.folder / "trust"),
            url=self.place.url,
            instance=self.world.parts.instance,
            genesis=self.genesis,
            now=order_time(self.world.clock.now()),
            step=step,
            nth=nth,
            threads=threads,
            calls=list(calls),
            answers=str(self.folder / f"answers-{self.kills}"),
        )
        status, answered = self.killer.run(order)
        assert os.WIFSIGNALED(status), f"the process ended by itself: {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        return answered

    @contextmanager
    def restarted(self) -> Iterator[World]:
        """Start again, with all that is checked then."""
        parts = parts_of(
            data=self.folder / "data",
            trust=self.folder / "trust",
            url=self.place.url,
            instance=self.world.parts.instance,
            genesis=self.genesis,
            now=self.world.clock.now(),
        )
        try:
            check_start(parts, self.world.settings)
            yield self.world.restarted(database=parts.database)
        finally:
            parts.close()


@contextmanager
def _scene(folder: Path, place: Place, killer: Killer) -> Iterator[Scene]:
    with closing(place.connect()) as opened:
        world = World.create(folder, database=opened)
        tpm = world.standard()
        genesis = world.parts.genesis_digest
        yield Scene(folder, place, genesis, killer, world, tpm)


@pytest.fixture
def scene(tmp_path: Path, place: Place, killer: Killer) -> Iterator[Scene]:
    """An instance on each kind of database in turn."""
    with _scene(tmp_path, place, killer) as made:
        yield made


def _by_request(world: World, after: int = 0) -> dict[str, list[Document]]:
    """The releases in the log from an index on, by the digest of their request."""
    found: dict[str, list[Document]] = {}
    with world.parts.database.read() as tx:
        for entry in tx.log.read_entries(after, tx.log.head().size):
            body = json.loads(entry.body)
            if "request" in body:
                found.setdefault(body["request"], []).append(body)
    return found


def _size(world: World) -> int:
    with world.parts.database.read() as tx:
        return tx.log.head().size


def _digest(request: Request) -> str:
    return hashlib.sha256(request.body).hexdigest()


def _check_tree(world: World) -> None:
    """The root of the latest checkpoint is that of all leaves, computed anew."""
    with world.parts.database.read() as tx:
        head = tx.log.head()
        entries = tx.log.read_entries(0, head.size)
        checkpoint = tx.log.latest_checkpoint()
        stored = merkle.root(tx.log, head.size)
    assert [entry.index for entry in entries] == list(range(head.size))
    assert checkpoint is not None
    assert checkpoint.size == head.size
    assert _root([entry.leaf for entry in entries]) == stored


def _root(leaves: Sequence[bytes]) -> bytes:
    # RFC 6962, section 2.1, written down a second time.
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(
        b"\x01" + _root(leaves[:half]) + _root(leaves[half:])
    ).digest()


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.start}-{part.stop}")
def test_killed_at_every_step(scene: Scene, part: range) -> None:
    for step in [step for _ in part for step in STEPS]:
        request, size = scene.world.request(scene.tpm), _size(scene.world)
        assert scene.kill(step, [request]) == []
        with scene.restarted() as world:
            left = _by_request(world, size).get(_digest(request), [])
            assert len(left) == (1 if step in DURABLE else 0), step
            # Whoever retries gets the key, from the store if the entry stands.
            assert world.released(request) == KEY
            after = _by_request(world, size)[_digest(request)]
            assert len(after) == 1
            assert left in ([], after)
            _check_tree(world)
    assert scene.kills == len(part) * len(STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 3, 6])
def test_killed_while_several_threads_release(scene: Scene, nth: int) -> None:
    for step in ("sealed", "recorded", "before-commit", "after-commit", "committed"):
        requests = [scene.world.request(scene.tpm) for _ in range(3 * THREADS)]
        # One commit may carry a request of each thread, so that 3 are sure to come.
        times = min(nth, 3) if step.endswith("-commit") else nth
        answered = scene.kill(step, requests, nth=times, threads=THREADS)
        with scene.restarted() as world:
            entries = _by_request(world)
            for one in answered:
                assert one.status == 200
                # No release without its entry.
                assert len(entries[_digest(requests[one.place])]) == 1
            _check_answers(world, requests, answered)
            entries = _by_request(world)
            assert all(len(entries[_digest(request)]) == 1 for request in requests)
            _check_tree(world)


def _check_answers(
    world: World, requests: Sequence[Request], answered: Sequence[Answered]
) -> None:
    """Send everything again: what was answered is answered with the same bytes."""
    before = _by_request(world)
    left = {one.place: one.body for one in answered}
    for number, request in enumerate(requests):
        response = world.send(request)
        seen = Seen.of(world, response)
        assert seen.status == 200
        assert world.open(request, response).keys
        if number in left:
            assert response.get_data() == left[number]
        for entry in before.get(_digest(request), []):
            assert (
                entry["decision"]
                == json.loads(response.get_data())["answer"]["decision"]
            )


def _sender(world: World) -> Send:
    def send(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        client = world.app.test_client(use_cookies=False)
        found = client.open(path, method=method, data=body, headers=dict(headers))
        return Answer(found.status_code, dict(found.headers), found.get_data())

    return send


CHAT = "acme/model/chat"
IN_A_TRANSACTION = ("verified", "recorded", "before-commit", "after-commit")


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.start}-{part.stop}")
def test_the_rcar_door_is_killed_at_every_step(scene: Scene, part: range) -> None:
    for number in range(len(part) * 2):
        step = IN_A_TRANSACTION[number % len(IN_A_TRANSACTION)]
        guest = RcarClient(
            _sender(scene.world), tee="tpm", evidence=tpm_evidence(scene.tpm)
        )
        assert guest.auth().status == 200
        message = json.dumps(guest.message()).encode()
        cookie = f"kbs-session-id={guest.cookie}"
        attest = Call(body=b64(message), path="/kbs/v0/attest", cookie=cookie)
        assert scene.kill_at(step, [attest]) == []
        size = _size(scene.world)
        with scene.restarted() as world:
            guest.send = _sender(world)
            # The same message again: verified anew, or the token from the store.
            assert guest.call("POST", "/attest", message).status == 200
            assert _size(world) == size
        fetch = Call(method="GET", path=f"/kbs/v0/resource/{CHAT}", cookie=cookie)
        step = ("sealed", "recorded", "before-commit", "after-commit")[number % 4]
        assert scene.kill_at(step, [fetch]) == []
        with scene.restarted() as world:
            guest.send = _sender(world)
            written = _size(world) - size
            assert written == (1 if step == "after-commit" else 0)
            answer = guest.get(CHAT)
            assert open_jwe(answer.json, guest.key) == b"the model key"
            assert _size(world) == size + written + 1
            _check_tree(world)


@pytest.mark.slow
def test_the_import_of_a_key_is_killed_at_every_step(scene: Scene) -> None:
    """A key is there whole, or not at all."""
    for number in range(min(ROUNDS, ROUNDS_AT_ONCE)):
        step = ("before-commit", "after-commit")[number % 2]
        path, value = f"acme/model/k{number}", os.urandom(32)
        document = {"id": path, "kind": "opaque", "value": b64(value)}
        assert scene.kill_at(step, [_import(scene.world, document)]) == []
        with scene.restarted() as world:
            again = world.call("POST", "/admin/v1/keys", document)
            assert again.status_code == (201 if step == "before-commit" else 409)
            request = world.request(scene.tpm, [path])
            assert world.released(request) == {f"{path}@1": value}
            _check_tree(world)


def _import(world: World, document: object) -> Call:
    path, body = "/admin/v1/keys", json.dumps(document).encode()
    token = mint_token(
        world.admin,
        SignedRequest("POST", path, body),
        instance=world.parts.instance,
        now=world.clock.now(),
    )
    return Call(body=b64(body), path=path, authorization=f"Bearer {token}")


def test_a_lost_entry_is_noticed_at_the_start(
    tmp_path: Path, sqlite_place: Place, killer: Killer
) -> None:
    """The check itself: a database from before an acknowledged release."""
    with _scene(tmp_path, sqlite_place, killer) as scene:
        request = scene.world.request(scene.tpm)
    file = sqlite_place.folder / DATABASE_NAME
    before = file.read_bytes()
    with scene.restarted() as world:
        assert world.released(request) == KEY
    with scene.restarted():
        pass
    file.write_bytes(before)
    with pytest.raises(IntegrityError, match="older than"), scene.restarted():
        pass
