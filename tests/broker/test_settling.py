"""Whatever moves on meanwhile, a decision comes to its end, and leaves one trace."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from kbs.adapters.sql import schema
from kbs.adapters.sql.database import SqlDatabase
from kbs.broker.ports import Database, Transaction
from kbs.broker.settling import ATTEMPTS
from kbs.core.encode import b64
from kbs.governance.statement import Action, Kind
from tests.fakes.answers import releases
from tests.fakes.databases import Place
from tests.fakes.rcar_client import Answer, RcarClient, Send, open_jwe
from tests.fakes.rcar_evidence import tpm_evidence
from tests.fakes.steps import Bench, open_bench
from tests.fakes.world import World, writer

CHAT = "acme/model/chat"
ROTATE = f"/admin/v1/keys/{CHAT}/rotate"


def _count(world: World, table: str) -> int:
    database = world.parts.database
    assert isinstance(database, SqlDatabase)
    counted = select(func.count()).select_from(schema.METADATA.tables[table])
    with database.engine.connect() as connection:
        return int(connection.execute(counted).scalar_one())


def _policy(world: World, action: Action) -> None:
    stored = world.must("GET", "/admin/v1/objects/release-policy/acme/chat/1")
    response = world.sign(action, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert response.status_code == 201


def _rotations(bench: Bench) -> Iterator[object]:
    for number in range(2, 100):
        yield bench.other.must("POST", ROTATE, {"value": b64(b"%d" % number)})


def _in_turn(acts: Sequence[Callable[[], object]]) -> Callable[[], object]:
    left = iter(acts)

    def act() -> object:
        return next(left)()

    return act


def _sender(world: World) -> Send:
    def send(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        client = world.app.test_client(use_cookies=False)
        found = client.open(path, method=method, data=body, headers=dict(headers))
        return Answer(found.status_code, dict(found.headers), found.get_data())

    return send


def _guest(bench: Bench) -> RcarClient:
    evidence = tpm_evidence(bench.tpm)
    return RcarClient(_sender(bench.world), tee="tpm", evidence=evidence)


def test_governance_that_never_rests(bench: Bench) -> None:
    """It moves on at every try that does not hold the lock."""
    _policy(bench.world, Action.DEACTIVATE)
    request = bench.request()
    turns = iter([Action.ACTIVATE, Action.DEACTIVATE, Action.ACTIVATE])
    bench.probe.at("sealed", lambda: _policy(bench.other, next(turns)), times=ATTEMPTS)
    seen = bench.send(request)
    assert seen.status == 200
    assert bench.probe.reached.count("verified") == ATTEMPTS + 1
    # Of the tries that came to nothing there is no trace.
    (entry,) = releases(bench.other)
    assert seen.entry(bench.other) == entry
    assert _count(bench.other, "spent_challenges") == 1
    assert _count(bench.other, "evidence") == 1


def test_a_key_that_never_rests(bench: Bench) -> None:
    request = bench.request()
    rotations = _rotations(bench)
    bench.probe.at("sealed", lambda: next(rotations), times=ATTEMPTS)
    newest = ATTEMPTS + 1
    assert bench.world.released(request) == {f"{CHAT}@{newest}": b"%d" % newest}
    assert bench.probe.reached.count("sealed") == ATTEMPTS + 1
    # What was verified stays so while governance rests.
    assert bench.probe.reached.count("verified") == 1
    (entry,) = releases(bench.other)
    assert entry["keys"][0]["version"] == newest
    assert _count(bench.other, "spent_challenges") == 1


def test_nobody_writes_while_the_lock_is_held(bench: Bench) -> None:
    request = bench.request()
    rotations = _rotations(bench)
    late = threading.Thread(target=lambda: next(rotations))
    turns = [*[lambda: next(rotations)] * ATTEMPTS, late.start]
    bench.probe.at("sealed", _in_turn(turns), times=ATTEMPTS + 1)
    newest = ATTEMPTS + 1
    assert bench.world.released(request) == {f"{CHAT}@{newest}": b"%d" % newest}
    late.join()
    told = [body for body in bench.other.entries() if body["kind"] != "admin.action"]
    assert [body["kind"] for body in told[-2:]] == ["release.granted", "key.rotated"]
    assert told[-1]["version"] == newest + 1


def test_a_challenge_spent_under_the_lock_is_answered_as_before(bench: Bench) -> None:
    request = bench.request()
    rotations = _rotations(bench)

    def rotate_and_send() -> None:
        next(rotations)
        assert bench.other.send(request).status_code == 200

    turns = [*[lambda: next(rotations)] * (ATTEMPTS - 1), rotate_and_send]
    bench.probe.at("sealed", _in_turn(turns), times=ATTEMPTS)
    assert bench.world.released(request) == {f"{CHAT}@{ATTEMPTS + 1}": b"4"}
    assert len(releases(bench.other)) == 1


@pytest.mark.parametrize("step", ["verified", "sealed"])
def test_another_key_that_is_rotated_costs_no_other_try(
    bench: Bench, step: str
) -> None:
    bench.world.create_key("acme/model/other", b"one")
    path = "/admin/v1/keys/acme/model/other/rotate"
    request = bench.request()
    bench.probe.at(step, lambda: bench.other.must("POST", path, {}))
    assert bench.world.released(request) == {f"{CHAT}@1": b"the model key"}
    assert bench.probe.reached.count("sealed") == 1


def test_a_key_that_is_rotated_before_it_is_read_costs_no_other_try(
    bench: Bench,
) -> None:
    request = bench.request()
    bench.probe.at("verified", lambda: next(_rotations(bench)))
    assert bench.world.released(request) == {f"{CHAT}@2": b"2"}
    assert bench.probe.reached.count("sealed") == 1


def test_who_writes_past_the_lock_gets_nothing_released(
    tmp_path: Path, postgresql_place: Place
) -> None:
    """Under PostgreSQL a row can be written by somebody who queues for nothing."""
    with open_bench(tmp_path, postgresql_place) as bench:
        request = bench.request()
        rows = schema.key_versions

        def revise(by: int) -> None:
            with writer(bench.other) as connection:
                connection.execute(update(rows).values(revision=rows.c.revision + by))

        rotations = _rotations(bench)
        turns: list[Callable[[], object]] = [
            *[lambda: next(rotations)] * ATTEMPTS,
            partial(revise, 1),
        ]
        bench.probe.at("sealed", _in_turn(turns), times=ATTEMPTS + 1)
        seen = bench.send(request)
        assert (seen.status, seen.code) == (503, "governance.moved")
        assert releases(bench.other) == []
        revise(-1)
        # Nor was the challenge spent.
        assert bench.send(request).status == 200


# -- the RCAR door ---------------------------------------------------------------------


def test_an_attestation_comes_to_its_end(bench: Bench) -> None:
    client = _guest(bench)
    client.auth()
    turns = iter([Action.DEACTIVATE, Action.ACTIVATE] * 2)
    bench.probe.at("verified", lambda: _policy(bench.other, next(turns)), ATTEMPTS)
    assert client.attest().status == 200
    assert bench.probe.reached.count("verified") == ATTEMPTS + 1
    assert _count(bench.other, "sessions") == 1
    assert releases(bench.other) == []


def test_a_fetch_comes_to_its_end(bench: Bench) -> None:
    client = _guest(bench)
    client.handshake()
    rotations = _rotations(bench)
    bench.probe.at("sealed", lambda: next(rotations), times=ATTEMPTS)
    answer = client.get(CHAT)
    assert answer.status == 200, answer.body
    assert open_jwe(answer.json, client.key) == b"%d" % (ATTEMPTS + 1)
    (entry,) = releases(bench.other)
    assert entry["keys"][0]["version"] == ATTEMPTS + 1


def test_a_denied_fetch_comes_to_its_end_with_one_entry(bench: Bench) -> None:
    client = _guest(bench)
    client.handshake()
    turns = iter([Action.DEACTIVATE, Action.ACTIVATE, Action.DEACTIVATE])
    bench.probe.at("sealed", lambda: _policy(bench.other, next(turns)), ATTEMPTS)
    assert {client.get(CHAT).error for _ in range(3)} == {"PolicyDeny"}
    (entry,) = releases(bench.other)
    assert entry["kind"] == "release.denied"


def test_many_attestations_of_one_session_at_once_are_one(
    tmp_path: Path, place: Place
) -> None:
    """Through two processes: one message counts, whoever sends it and how often."""
    with closing(place.connect()) as first, closing(place.connect()) as second:
        world = World.create(tmp_path, database=first)
        tpm = world.standard()
        pair = (world, world.restarted(database=second))
        client = RcarClient(_sender(world), tee="tpm", evidence=tpm_evidence(tpm))
        client.auth()
        bodies = [json.dumps(client.message()).encode() for _ in range(4)]
        gate = threading.Barrier(8)
        seen: list[tuple[int, Answer]] = []

        def attest(number: int) -> None:
            which = number // 2
            headers = {
                "Content-Type": "application/json",
                "Cookie": f"kbs-session-id={client.cookie}",
            }
            send = _sender(pair[number % 2])
            gate.wait(timeout=10)
            answer = send("POST", "/kbs/v0/attest", bodies[which], headers)
            seen.append((which, answer))

        threads = [threading.Thread(target=attest, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        good = {which for which, answer in seen if answer.status == 200}
        assert len(good) == 1
        # Both who sent it have the one token of it; the others begin again.
        tokens = {answer.json["token"] for _, answer in seen if answer.status == 200}
        assert len(tokens) == 1
        assert sorted(answer.status for _, answer in seen) == [200] * 2 + [401] * 6
        assert _count(world, "sessions") == 1


# -- administrators --------------------------------------------------------------------


READS_OF_HEAD = 2
"""Transactions of a request for the head: the token is read, and the head."""


class LateDatabase:
    """Lets something happen right after a reading transaction saw its state."""

    def __init__(self, wrapped: Database) -> None:
        self._wrapped = wrapped
        self.countdown = 0
        self.act: Callable[[], object] = lambda: None

    def write(self) -> AbstractContextManager[Transaction]:
        return self._wrapped.write()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        with self._wrapped.read() as tx:
            tx.log.head()
            self.countdown -= 1
            if self.countdown == 0:
                self.act()
            yield tx


@pytest.mark.parametrize(("nth", "status"), [(1, 409), (2, 409), (3, 201)])
def test_a_statement_meanwhile_makes_no_answer_unavailable(
    tmp_path: Path, place: Place, nth: int, status: int
) -> None:
    """When the token is read, when the statement is, and when it was accepted."""
    with closing(place.connect()) as first, closing(place.connect()) as second:
        late = LateDatabase(first)
        world = World.create(tmp_path, database=late)
        world.standard()
        other = world.restarted(database=second)
        stored = world.must("GET", "/admin/v1/objects/release-policy/acme/chat/1")
        head = world.must("GET", "/admin/v1/governance/head")
        late.act = lambda: other.govern_workload(name="meanwhile")
        late.countdown = READS_OF_HEAD + nth
        answer = world.sign(
            Action.DEACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", stored
        )
        assert answer.status_code == status
        if status == 409:
            assert answer.get_json()["code"] == "statement.sequence"
        seq = world.must("GET", "/admin/v1/governance/head")["seq"]
        assert isinstance(head["seq"], int)
        assert seq == head["seq"] + (2 if status == 201 else 1)
