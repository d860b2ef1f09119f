"""Keys at the administrators' door: made, changed, shown, never given away."""

from __future__ import annotations

import json
import threading

import pytest
from sqlalchemy import update

from kbs.adapters.sql import schema
from kbs.adapters.sql.database import SqlDatabase
from kbs.core.encode import b64
from kbs.core.errors import IntegrityError
from kbs.core.ids import parse_key_id
from kbs.keys.secret import Secret
from kbs.keys.wrap import LocalKEK
from tests.fakes.world import World

KEY = "acme/model/chat"
PATH = f"/admin/v1/keys/{KEY}"
JWK = {"kty": "oct", "k": "c2VjcmV0IGJ5dGVzIG9mIGEgSldLIHRoYXQgaXMgbG9uZw"}
PLANTED = b"planted-secret-that-nobody-may-see"
KINDS = ["opaque", "aes256", "hpke", "jwk", "passphrase"]


def _create(world: World, kind: str, **body: object) -> dict[str, object]:
    return world.must("POST", "/admin/v1/keys", {"id": KEY, "kind": kind, **body})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_lives_its_life(any_world: World, kind: str) -> None:
    world = any_world
    made = _create(world, kind)
    assert (made["version"], made["state"], made["origin"]) == (
        1,
        "enabled",
        "generated",
    )
    rotated = world.must("POST", f"{PATH}/rotate", {})
    assert (rotated["version"], rotated["state"]) == (2, "enabled")
    shown = world.must("GET", PATH)
    assert shown["kind"] == kind
    assert _states(shown) == ["retired", "enabled"]
    assert ("public" in shown) == (kind == "hpke")
    assert '"d"' not in json.dumps(shown)
    assert world.must("POST", f"{PATH}/retire", {"version": 2})["state"] == "retired"
    for version in (1, 2):
        gone = world.must("POST", f"{PATH}/destroy", {"version": version})
        assert gone["state"] == "destroyed"
    shown = world.must("GET", PATH)
    assert _states(shown) == ["destroyed", "destroyed"]
    assert "public" not in shown
    # A key whose versions are all gone still has a name, and goes on at 3.
    assert world.must("POST", f"{PATH}/rotate", {})["version"] == 3


def _states(shown: dict[str, object]) -> list[str]:
    versions = shown["versions"]
    assert isinstance(versions, list)
    return [one["state"] for one in versions]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("opaque", PLANTED),
        ("aes256", PLANTED[:32]),
        ("passphrase", PLANTED),
        ("jwk", json.dumps(JWK).encode()),
    ],
)
def test_what_is_imported_is_never_shown(world: World, kind: str, value: bytes) -> None:
    made = _create(world, kind, value=b64(value))
    assert made["origin"] == "imported"
    world.must("POST", f"{PATH}/rotate", {"value": b64(value)})
    texts = [
        world.call("GET", path).get_data(as_text=True)
        for path in (
            "/admin/v1/keys",
            PATH,
            f"{PATH}/explain",
            "/admin/v1/audit/export",
        )
    ]
    texts.append(json.dumps(world.entries()))
    needle = JWK["k"] if kind == "jwk" else value.decode()
    for text in texts:
        assert needle not in text
        assert b64(value) not in text


def test_states_only_go_forward(world: World) -> None:
    _create(world, "opaque")
    for action, status in (
        ("retire", 200),
        ("retire", 409),
        ("destroy", 200),
        ("destroy", 409),
        ("retire", 409),
    ):
        answer = world.call("POST", f"{PATH}/{action}", {"version": 1})
        assert answer.status_code == status
    kinds = [str(entry["kind"]) for entry in world.entries()]
    # What was refused is no entry.
    assert kinds == ["instance.init", "key.created", "key.retired", "key.destroyed"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/admin/v1/keys", {"id": KEY, "kind": "opaque"}, 409),
        ("POST", "/admin/v1/keys", {"id": "acme/x", "kind": "opaque"}, 400),
        ("POST", "/admin/v1/keys", {"id": "ACME/x/y", "kind": "opaque"}, 400),
        ("POST", "/admin/v1/keys", {"id": "a/b/c@1", "kind": "opaque"}, 400),
        ("POST", "/admin/v1/keys", {"id": "a/b/c", "kind": "rsa"}, 400),
        ("POST", "/admin/v1/keys", {"id": "a/b/c"}, 400),
        (
            "POST",
            "/admin/v1/keys",
            {"id": "a/b/c", "kind": "opaque", "value": None},
            400,
        ),
        ("POST", "/admin/v1/keys", {"id": "a/b/c", "kind": "opaque", "value": ""}, 400),
        (
            "POST",
            "/admin/v1/keys",
            {"id": "a/b/c", "kind": "aes256", "value": "YQ=="},
            400,
        ),
        (
            "POST",
            "/admin/v1/keys",
            {"id": "a/b/c", "kind": "jwk", "value": "e30="},
            400,
        ),
        (
            "POST",
            "/admin/v1/keys",
            {"id": "a/b/c", "kind": "opaque", "value": "YQ"},
            400,
        ),
        ("POST", "/admin/v1/keys", {"id": "a/b/c", "kind": "opaque", "x": 1}, 400),
        ("POST", f"{PATH}/rotate", {"value": None}, 400),
        ("POST", f"{PATH}/rotate", {"version": 1}, 400),
        ("POST", f"{PATH}/retire", {}, 400),
        ("POST", f"{PATH}/retire", {"version": 0}, 400),
        ("POST", f"{PATH}/retire", {"version": True}, 400),
        ("POST", f"{PATH}/retire", {"version": 2}, 404),
        ("POST", f"{PATH}/destroy", {"version": 10**12}, 400),
        ("POST", f"{PATH}/enable", {"version": 1}, 404),
        ("POST", "/admin/v1/keys/acme/model/none/rotate", {}, 404),
        ("GET", "/admin/v1/keys/acme/model/none", None, 404),
        ("GET", "/admin/v1/keys/acme/model/NONE", None, 400),
    ],
)
def test_wrong_calls_change_nothing(
    world: World, method: str, path: str, body: object, status: int
) -> None:
    _create(world, "opaque")
    before = world.must("GET", "/admin/v1/keys"), len(world.entries())
    answer = world.call(method, path, body)
    assert answer.status_code == status, answer.get_data(as_text=True)
    assert answer.mimetype == "application/problem+json"
    assert (world.must("GET", "/admin/v1/keys"), len(world.entries())) == before


def test_a_reader_during_rotations_sees_old_or_new_whole(any_world: World) -> None:
    world = any_world
    _create(world, "opaque")
    key_id = parse_key_id(KEY)
    done = threading.Event()
    torn: list[object] = []

    def watch() -> None:
        while not done.is_set():
            with world.parts.database.read() as tx:
                states = [row.key.state.value for row in tx.keys.versions(key_id)]
            if states != ["retired"] * (len(states) - 1) + ["enabled"]:
                torn.append(states)

    threads = [threading.Thread(target=watch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        world.must("POST", f"{PATH}/rotate", {})
    done.set()
    for thread in threads:
        thread.join()
    assert torn == []


def test_rotations_at_once_lose_none(any_world: World) -> None:
    world = any_world
    _create(world, "opaque")
    answers: list[int] = []

    def rotate() -> None:
        answers.append(world.call("POST", f"{PATH}/rotate", {}).status_code)

    threads = [threading.Thread(target=rotate) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 6
    assert _states(world.must("GET", PATH)) == ["retired"] * 6 + ["enabled"]
    assert len(world.entries("key.rotated")) == 6


def test_a_state_changed_behind_the_broker_is_not_believed(any_world: World) -> None:
    world = any_world
    _create(world, "opaque")
    world.must("POST", f"{PATH}/retire", {"version": 1})
    database = world.parts.database
    assert isinstance(database, SqlDatabase)
    with database.engine.begin() as connection:
        connection.execute(update(schema.key_versions).values(state="enabled"))
    for method, path in (("GET", PATH), ("GET", "/admin/v1/keys")):
        answer = world.call(method, path)
        assert answer.status_code == 503
        assert answer.get_json()["code"] == "keys.state"


def test_a_key_of_another_broker_does_not_open_here(world: World) -> None:
    with pytest.raises(IntegrityError):
        world.restarted(kek=LocalKEK(Secret(bytes(range(1, 33)))))
    with pytest.raises(IntegrityError):
        world.restarted(instance="f" * 32)
