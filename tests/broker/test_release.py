"""Grants through the v1 door, from the first byte to the receipt."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

import pytest

from kbs.channel.binding import Mode
from kbs.channel.recipient import Suite
from kbs.core.encode import b64, canonical_json
from tests.fakes.answers import is_spent, releases, see
from tests.fakes.tpm import FakeTpm
from tests.fakes.world import BOOT_POLICY, WORKLOAD, Request, World

CHAT = "acme/model/chat"


def test_a_guest_that_proves_itself_gets_its_key(any_world: World) -> None:
    request = any_world.request(any_world.standard())
    assert any_world.released(request) == {"acme/model/chat@1": b"the model key"}


def test_the_same_bytes_again_get_the_same_bytes_back(any_world: World) -> None:
    request = any_world.request(any_world.standard())
    first = any_world.send(request)
    # Later entries must not change the receipt that a retry gets.
    any_world.create_key("acme/model/later")
    any_world.send(any_world.request(any_world.booted_tpm()))
    second = any_world.send(request)
    assert first.status_code == second.status_code == 200
    assert first.get_data() == second.get_data()
    assert len(any_world.entries("release.granted")) == 1


def test_the_entry_of_a_grant_says_who_got_what_why(world: World) -> None:
    request = world.request(world.standard())
    seen = see(world, request)
    assert seen.status == 200
    assert seen.receipt is not None
    assert seen.receipt.body is not None
    entry = seen.entry(world)
    # What the guest holds is what the auditor reads.
    assert seen.receipt.body.members.items() <= entry.items()
    recipient = canonical_json(request.runtime_data.recipient.to_json())
    assert entry["kind"] == "release.granted"
    assert entry["request"] == hashlib.sha256(request.body).hexdigest()
    assert entry["recipient"] == hashlib.sha256(recipient).hexdigest()
    assert entry["door"] == "v1"
    assert entry["freshness"] == "challenge"
    assert entry["primary"] == "vtpm"
    assert entry["governance"] == 3
    assert "tolerated" not in entry
    (key,) = entry["keys"]
    assert (key["id"], key["version"], key["decision"]) == (CHAT, 1, "granted")
    assert [(p["name"], p["rule"]) for p in key["policies"]] == [
        ("acme/chat", "enrolled-host")
    ]
    assert is_spent(world, request)


@pytest.mark.parametrize("suite", list(Suite))
def test_every_suite(world: World, suite: Suite) -> None:
    request = world.request(world.standard(), suite=suite)
    assert world.released(request) == {"acme/model/chat@1": b"the model key"}


@pytest.mark.parametrize(
    ("scheme", "hash_name"),
    [("ecdsa", "sha384"), ("rsassa", "sha256"), ("rsapss", "sha256")],
)
def test_every_scheme_of_a_tpm(world: World, scheme: str, hash_name: str) -> None:
    world.standard()
    tpm = FakeTpm(scheme, hash_name)
    tpm.extend(0, hashlib.sha256(b"firmware").digest())
    tpm.extend(15, hashlib.sha256(WORKLOAD).digest())
    world.enrol(tpm)
    assert world.released(world.request(tpm)) == {"acme/model/chat@1": b"the model key"}


def test_several_keys_leave_together(any_world: World) -> None:
    tpm = any_world.standard()
    any_world.create_key("acme/model/other", b"the other key")
    request = any_world.request(tpm, ["acme/model/other", CHAT])
    assert any_world.released(request) == {
        "acme/model/other@1": b"the other key",
        "acme/model/chat@1": b"the model key",
    }
    assert len(any_world.entries("release.granted")) == 1


def _two_tenants(world: World) -> FakeTpm:
    tpm = world.standard()
    pcr0 = hashlib.sha256(bytes(32) + hashlib.sha256(b"firmware").digest()).hexdigest()
    source = (BOOT_POLICY % pcr0).replace("acme/", "globex/")
    world.govern_workload("globex")
    world.activate_policy(source, name="chat", tenant="globex")
    world.create_key("globex/model/theirs", b"the other tenant's key")
    return tpm


def test_two_tenants_must_both_grant(world: World) -> None:
    tpm = _two_tenants(world)
    keys = [CHAT, "globex/model/theirs"]
    # The second tenant enrolled nobody: the first one's enrolment is not theirs.
    refused = see(world, world.request(tpm, keys))
    assert (refused.status, refused.code) == (403, "denied")
    assert refused.denied[CHAT] == ["request.not_all"]
    assert "vtpm.ak.group" in refused.denied["globex/model/theirs"]
    world.enrol(tpm, tenant="globex")
    assert world.released(world.request(tpm, keys)) == {
        "acme/model/chat@1": b"the model key",
        "globex/model/theirs@1": b"the other tenant's key",
    }


def test_what_can_leave_does_where_the_guest_takes_a_part(world: World) -> None:
    tpm = _two_tenants(world)
    keys = [CHAT, "globex/model/theirs"]
    request = world.request(tpm, keys, partial=True)
    response = world.send(request)
    assert {str(one.ref) for one in world.open(request, response).keys} == {
        "acme/model/chat@1"
    }
    seen = see(world, request)
    assert seen.status == 200
    assert list(seen.denied) == ["globex/model/theirs"]
    decisions = {key["id"]: key["decision"] for key in seen.entry(world)["keys"]}
    assert decisions == {CHAT: "granted", "globex/model/theirs": "denied"}


def test_the_receipt_of_a_part_hides_why_the_rest_stayed(world: World) -> None:
    # The entry says what the other tenant's policy asks for; the guest may not know.
    tpm = _two_tenants(world)
    world.enrol(tpm, group="strangers", tenant="globex")
    request = world.request(tpm, [CHAT, "globex/model/theirs"], partial=True)
    seen = see(world, request)
    assert seen.status == 200
    assert seen.receipt is not None
    assert seen.receipt.body is None
    (theirs,) = [
        key for key in seen.entry(world)["keys"] if key["decision"] != "granted"
    ]
    assert any(reason.get("expected") for reason in theirs["reasons"])
    assert "equals" not in str(seen.document)


def test_named_versions(any_world: World) -> None:
    tpm = any_world.standard()
    path = "/admin/v1/keys/acme/model/chat"
    any_world.must("POST", f"{path}/rotate", {"value": b64(b"the second")})
    both = [f"{CHAT}@1", f"{CHAT}@2", CHAT]
    # Rotation retired the first: it still opens old data, for whoever names it.
    assert any_world.released(any_world.request(tpm, both[2:])) == {
        f"{CHAT}@2": b"the second"
    }
    assert any_world.released(any_world.request(tpm, both[:2])) == {
        f"{CHAT}@1": b"the model key",
        f"{CHAT}@2": b"the second",
    }
    any_world.must("POST", f"{path}/destroy", {"version": 1})
    seen = see(any_world, any_world.request(tpm, both[:1]))
    assert (seen.status, seen.code) == (404, "key.not_found")


def test_one_key_by_two_names_is_answered_by_both(world: World) -> None:
    tpm = world.standard()
    request = world.request(tpm, [CHAT, f"{CHAT}@1"])
    opened = world.open(request, world.send(request))
    assert [str(one.ref) for one in opened.keys] == [f"{CHAT}@1", f"{CHAT}@1"]


def _probe(world: World, tpm: FakeTpm, keys: tuple[str, ...]) -> Request:
    return world.request(tpm, keys, mode=Mode.CHECK)


def test_a_dry_run_seals_nothing_and_unwraps_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tpm = world.standard()
    unwrapped: list[object] = []
    vault = world.broker.release._sealer._vault
    monkeypatch.setattr(type(vault), "open_key", lambda *args: unwrapped.append(args))
    request = _probe(world, tpm, (CHAT, "acme/model/absent", "acme/none/k"))
    seen = see(world, request)
    assert seen.status == 200
    answer = seen.document["answer"]
    assert answer["outcome"] == "checked"
    assert "sealed" not in answer
    assert seen.denied["acme/model/absent"] == ["key.not_found"]
    assert seen.denied["acme/none/k"] == ["policy.none"]
    assert unwrapped == []
    assert seen.receipt is not None
    assert seen.receipt.body is None
    assert seen.entry(world)["kind"] == "release.probe"
    assert is_spent(world, request)


def test_a_dry_run_of_what_would_be_granted(world: World) -> None:
    request = _probe(world, world.standard(), (CHAT,))
    seen = see(world, request)
    assert (seen.status, seen.document["answer"]["outcome"]) == (200, "checked")
    assert seen.document["answer"]["keys"] == [{"id": CHAT, "version": 1}]
    assert world.open(request, world.send(request)).keys == ()
    assert [entry["outcome"] for entry in releases(world)] == ["granted"]


def test_a_development_broker_beside_a_production_one_releases_nothing(
    tmp_path: Path,
) -> None:
    with closing(World.create(tmp_path, development=True)) as world:
        tpm = world.standard()
        assert world.send(world.request(tpm)).status_code == 200
        with world.parts.database.write() as tx:
            tx.instance.set_mode("production")
        refused = world.send(world.request(tpm))
        assert refused.status_code == 503
        assert refused.get_json()["code"] == "mode.production"
        assert len(world.entries("release.granted")) == 1
