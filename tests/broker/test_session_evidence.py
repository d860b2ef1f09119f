"""Evidence of RCAR sessions: kept from the first entry that names it, or never."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from kbs.adapters.sql import schema
from kbs.adapters.sql.database import SqlDatabase
from kbs.broker.upkeep import PURGE_MARGIN
from kbs.channel.challenge import CLOCK_SKEW_SECONDS
from tests.fakes.answers import releases
from tests.fakes.databases import Place
from tests.fakes.rcar_client import Answer, RcarClient, sample
from tests.fakes.rcar_evidence import PATH, POLICY, SECRET
from tests.fakes.world import World

SESSION = timedelta(seconds=300 + 2 * CLOCK_SKEW_SECONDS)


@dataclass
class Pair:
    """Two processes of one broker in development mode, and a guest of the first."""

    first: World
    second: World

    def guest(self, svn: str = "1") -> tuple[RcarClient, bytes]:
        """A guest that has attested, and the message that it attested with."""
        client = RcarClient(
            lambda *request: _send(self.first, *request),
            evidence=lambda digest: {**sample(digest), "svn": svn},
        )
        client.auth()
        message = client.message()
        assert client.attest(message).status == 200
        client.send = lambda *request: _send(self.second, *request)
        return client, json.dumps(message).encode()


def _send(
    world: World, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> Answer:
    client = world.app.test_client(use_cookies=False)
    found = client.open(path, method=method, data=body, headers=dict(headers))
    return Answer(found.status_code, dict(found.headers), found.get_data())


@pytest.fixture
def pair(tmp_path: Path, place: Place) -> Iterator[Pair]:
    """On each kind of database in turn."""
    with closing(place.connect()) as first, closing(place.connect()) as second:
        world = World.create(tmp_path, database=first, development=True)
        world.activate_policy(POLICY, name="dev", tenant="default")
        world.create_key(PATH, SECRET)
        yield Pair(world, world.restarted(database=second))


def _waiting(world: World) -> list[bytes | None]:
    return _column(world, schema.sessions.c.evidence)


def _kept(world: World) -> list[bytes | None]:
    return _column(world, schema.evidence.c.digest)


def _column(world: World, column: object) -> list[bytes | None]:
    database = world.parts.database
    assert isinstance(database, SqlDatabase)
    with database.engine.connect() as connection:
        rows = connection.execute(select(column)).scalars()  # type: ignore[call-overload]
        return list(rows)


def _purge(world: World) -> None:
    world.broker.audit._upkeep.purge()


def _read(world: World, digest: object) -> bytes:
    found = world.must("GET", f"/admin/v1/audit/evidence/{digest}")
    return base64.urlsafe_b64decode(str(found["bundle"]) + "==")


def test_a_session_that_asks_for_nothing_leaves_nothing(pair: Pair) -> None:
    world = pair.first
    before = len(world.entries())
    _, message = pair.guest()
    (waiting,) = _waiting(world)
    assert waiting is not None
    assert b"report_data" in message
    assert b"report_data" not in waiting
    _purge(world)
    assert _waiting(world) == [waiting]
    world.clock.time += SESSION + timedelta(seconds=1)
    _purge(world)
    assert _waiting(world) == [None]
    world.create_key("default/test/later")  # the log's time goes on
    world.clock.time += PURGE_MARGIN
    world.create_key("default/test/last")
    _purge(world)
    assert _waiting(world) == []
    assert _kept(world) == []
    # Neither its coming nor its going is in the log.
    assert len(world.entries()) == before + 2


@pytest.mark.parametrize(("svn", "status"), [("1", 200), ("7", 401)])
def test_the_first_entry_that_names_it_keeps_it(
    pair: Pair, svn: str, status: int
) -> None:
    client, message = pair.guest(svn)
    assert [client.get(PATH).status for _ in range(3)] == [status] * 3
    world = pair.first
    first, *rest = releases(world)
    digest = hashlib.sha256(message).digest()
    assert {one["evidence"] for one in (first, *rest)} == {digest.hex()}
    assert _kept(world) == [digest]
    assert _waiting(world) == [None]
    # In every process, for as long as any evidence, whatever becomes of the session.
    world.clock.time += SESSION + PURGE_MARGIN + timedelta(days=1)
    world.create_key("default/test/later")
    _purge(pair.second)
    assert _waiting(world) == []
    for each in (pair.first, pair.second, world.restarted()):
        assert _read(each, first["evidence"]) == message
    found = world.must("GET", f"/admin/v1/audit/evidence/{digest.hex()}")
    assert found["decision"] == first["decision"]
    world.clock.time += timedelta(days=30)
    _purge(world)
    assert _kept(world) == []
    (expired,) = world.entries("evidence.expired")
    assert expired["digests"] == [digest.hex()]


def test_a_try_that_fails_leaves_the_evidence_where_it_is(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = pair.guest()
    committer = pair.second.broker.keeping._journal._committer

    def fail(step: str) -> None:
        if step == "before-commit":
            raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(committer, "_steps", fail)
        assert client.get(PATH).status == 503
    assert _kept(pair.first) == []
    assert None not in _waiting(pair.first)
    assert client.get(PATH).status == 200
    assert len(_kept(pair.first)) == 1


def test_what_waits_has_a_quarter_of_the_cap(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = pair.first
    named, _ = pair.guest()
    assert named.get(PATH).status == 200
    for _ in range(3):
        world.clock.advance(1)
        pair.guest()
    (one,) = _column(world, schema.evidence.c.sealed)
    assert one is not None
    locker = world.broker.audit._locker
    # A quarter has room for two; all of them have room for more than there is.
    monkeypatch.setattr(locker, "_max_bytes", 4 * (2 * len(one) + 9))
    _purge(world)
    assert [one is None for one in _waiting(world)].count(False) == 2
    assert len(_kept(world)) == 1
    assert world.entries("evidence.expired") == []


def test_live_sessions_keep_what_waits_where_older_evidence_goes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = pair.first
    for _ in range(5):
        client, _ = pair.guest()
        assert client.get(PATH).status == 200
        world.clock.advance(1)
    client, message = pair.guest()
    one = _column(world, schema.evidence.c.sealed)[0]
    assert one is not None
    monkeypatch.setattr(world.broker.audit._locker, "_max_bytes", 5 * len(one) + 9)
    _purge(world)
    (expired,) = world.entries("evidence.expired")
    assert expired["count"] == 1
    assert client.get(PATH).status == 200
    assert hashlib.sha256(message).digest() in _kept(world)


def test_a_retention_of_nothing_lets_nothing_wait(tmp_path: Path) -> None:
    made = World.create(tmp_path, development=True, evidence_retention_days=0)
    with closing(made) as world:
        world.activate_policy(POLICY, name="dev", tenant="default")
        world.create_key(PATH, SECRET)
        client, _ = Pair(world, world).guest()
        assert _waiting(world) == [None]
        assert client.get(PATH).status == 200
        assert _kept(world) == []
