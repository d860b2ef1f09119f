"""Denials through the v1 door: what each tells, to whom, and whether it spends.

Three sorts, by how far the evidence came: a challenge fault (401, counted), evidence
that did not authenticate (403, counted, challenge still good), and everything after
that (403 with an entry of its own, challenge spent).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest

from kbs.channel.binding import primary_binding
from kbs.governance.statement import Action, Kind
from tests.fakes.answers import Seen, is_spent, releases, see
from tests.fakes.tpm import FakeTpm
from tests.fakes.world import WORKLOAD, Request, World, request_of

CHAT = "acme/model/chat"

Make = Callable[[World, FakeTpm], Request]


def _items(request: Request) -> list[dict[str, Any]]:
    items = json.loads(request.body)["items"]
    assert isinstance(items, list)
    return items


def _with_items(request: Request, items: list[dict[str, Any]]) -> Request:
    document = json.loads(request.body) | {"items": items}
    return dataclasses.replace(request, body=json.dumps(document).encode())


# -- evidence that authenticated and does not hold -------------------------------------


def _changed_pcr(world: World, tpm: FakeTpm) -> Request:
    request = world.request(tpm)
    (item,) = _items(request)
    item["pcrs"]["sha256"]["7"] = "ab" * 32
    return _with_items(request, [item])


@pytest.mark.parametrize(("make", "check"), [(_changed_pcr, "vtpm.quote.pcr_digest")])
def test_authenticated_evidence_that_does_not_hold_has_its_entry(
    any_world: World, make: Make, check: str
) -> None:
    world = any_world
    tpm = world.standard()
    request = make(world, tpm)
    first, second = world.send(request), world.send(request)
    assert first.get_data() == second.get_data()
    seen = Seen.of(world, first)
    assert (seen.status, seen.code) == (403, "evidence.refused")
    assert seen.checks == [check]
    assert seen.denied == {CHAT: [check]}
    assert "expected" not in json.dumps(seen.document)
    entry = seen.entry(world)
    assert entry["kind"] == "release.denied"
    (failed,) = entry["checks"]["failed"]
    assert failed["id"] == check
    assert failed["got"] != failed["expected"]
    assert entry["keys"][0]["policies"] == []
    assert len(releases(world)) == 1
    assert is_spent(world, request)


# -- evidence that holds, and is not enough --------------------------------------------


def _wrong_workload(world: World, tpm: FakeTpm) -> Request:
    other = world.booted_tpm(b"kind: container-policy\nimages: [evil]\n")
    world.enrol(other)
    return world.request(other)


def _extended_after(world: World, tpm: FakeTpm) -> Request:
    tpm.pcrs = FakeTpm().pcrs | {
        key: value for key, value in tpm.pcrs.items() if key[1] != 15
    }
    tpm.extend(15, hashlib.sha256(b"another policy").digest())
    tpm.extend(15, hashlib.sha256(WORKLOAD).digest())
    return world.request(tpm)


def _booted_otherwise(world: World, tpm: FakeTpm) -> Request:
    tpm.extend(0, hashlib.sha256(b"a second firmware").digest())
    return world.request(tpm)


def _not_selected(world: World, tpm: FakeTpm) -> Request:
    data, private = world.runtime_data()
    primary = primary_binding("vtpm", data, [])
    item = tpm.quote_item(primary[:32], selection=(1, 2, 15))
    return request_of(data, private, primary, [item])


def _another_group(world: World, tpm: FakeTpm) -> Request:
    other = world.booted_tpm()
    world.enrol(other, group="laptops")
    return world.request(other)


def _no_policy(world: World, tpm: FakeTpm) -> Request:
    world.create_key("acme/none/k", b"nobody asked for it")
    return world.request(tpm, ["acme/none/k"])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_wrong_workload, "vtpm.pcr.sha256.15"),
        (_extended_after, "vtpm.pcr.sha256.15"),
        (_booted_otherwise, "vtpm.pcr.sha256.0"),
        (_not_selected, "vtpm.pcr.sha256.0"),
        (_another_group, "vtpm.ak.group"),
        (_no_policy, "policy.none"),
    ],
)
def test_what_a_policy_denies(world: World, make: Make, reason: str) -> None:
    request = make(world, world.standard())
    first, second = world.send(request), world.send(request)
    assert first.get_data() == second.get_data()
    seen = Seen.of(world, first)
    assert (seen.status, seen.code) == (403, "denied")
    assert seen.checks == []
    (reasons,) = seen.denied.values()
    assert reason in reasons
    # The workload learns the claim's name; values and policy stay with the auditor.
    text = json.dumps(seen.document)
    assert "expected" not in text
    assert "enrolled-host" not in text
    assert seen.receipt is not None
    assert seen.receipt.body is None
    entry = seen.entry(world)
    assert entry["kind"] == "release.denied"
    (key,) = entry["keys"]
    (why,) = [one for one in key["reasons"] if one["id"] == reason]
    assert why["detail"]
    if reason != "policy.none":
        assert why["expected"] not in text
        assert key["policies"][0]["name"] == "acme/chat"
    assert len(releases(world)) == 1
    assert is_spent(world, request)


def test_every_matching_policy_must_grant(world: World) -> None:
    tpm = world.standard()
    world.activate_policy(
        "kind: ReleasePolicy\nname: second\nreleases: ['acme/*/chat']\nallow:\n"
        "  - rule: other\n    all:\n      - {safe: true}\n"
        "      - {claim: vtpm.ak.group, equals: laptops}\n"
        f"      - {{claim: vtpm.pcr.sha256.0, equals: '{'0' * 64}'}}\n",
        name="second",
    )
    seen = see(world, world.request(tpm))
    assert seen.status == 403
    assert set(seen.denied[CHAT]) >= {"vtpm.ak.group"}
    world.create_key("acme/model/free", b"under the first policy alone")
    assert world.send(world.request(tpm, ["acme/model/free"])).status_code == 200


# -- existence ------------------------------------------------------------------------


def _shape(seen: Seen, key: str) -> str:
    document = dict(seen.document)
    for name in ("receipt", "signature", "instance", "decision"):
        document.pop(name)
    answer = dict(document["answer"])
    for name in ("nonce", "decision"):
        answer.pop(name)
    return json.dumps(document | {"answer": answer}, sort_keys=True).replace(key, "K")


@pytest.mark.parametrize("version", ["", "@1", "@7"])
def test_a_denied_key_looks_the_same_whether_it_exists(
    world: World, version: str
) -> None:
    world.standard()
    stranger = world.booted_tpm(b"another workload")
    world.enrol(stranger)
    shapes = set()
    for name in ("acme/model/chat", "acme/model/gone"):
        key = name + version
        seen = see(world, world.request(stranger, [key]))
        assert seen.status == 403
        shapes.add(_shape(seen, key))
    assert len(shapes) == 1


def test_a_key_that_no_policy_covers_looks_the_same_whether_it_exists(
    world: World,
) -> None:
    tpm = world.standard()
    world.create_key("acme/none/here")
    shapes = {
        _shape(see(world, world.request(tpm, [key])), key)
        for key in ("acme/none/here", "acme/none/gone")
    }
    assert len(shapes) == 1


def test_only_whom_it_is_granted_learns_that_a_key_is_not_there(world: World) -> None:
    tpm = world.standard()
    request = world.request(tpm, ["acme/model/gone"])
    seen = see(world, request)
    assert (seen.status, seen.code) == (404, "key.not_found")
    assert seen.denied == {"acme/model/gone": ["key.not_found"]}
    assert seen.receipt is not None
    assert seen.receipt.body is None
    assert seen.entry(world)["kind"] == "release.denied"
    assert is_spent(world, request)
    mixed = see(world, world.request(tpm, ["acme/model/gone", "acme/none/x"]))
    assert mixed.status == 403


# -- deny entries ---------------------------------------------------------------------


def _deny(
    world: World,
    target: str,
    value: str,
    tenant: str = "acme",
    name: str | None = None,
) -> None:
    content = {"target": target, "value": value, "reason": "stolen from a rack"}
    name = name or f"no-{target}"
    world.govern(Action.DENY, Kind.DENY, tenant, name, json.dumps(content).encode())


@pytest.mark.parametrize(
    ("target", "value", "tenant"),
    [
        ("all", lambda _: "", "*"),
        ("policy", lambda _: "acme/chat", "acme"),
        ("key", lambda _: CHAT, "acme"),
        ("key", lambda _: f"{CHAT}@1", "acme"),
        ("ak", lambda tpm: tpm.ak_name.hex(), "acme"),
        ("ak", lambda tpm: tpm.ak_name.hex(), "*"),
    ],
)
def test_a_deny_entry_overrides_every_grant(
    any_world: World, target: str, value: Callable[[FakeTpm], str], tenant: str
) -> None:
    world = any_world
    tpm = world.standard()
    assert world.send(world.request(tpm)).status_code == 200
    _deny(world, target, value(tpm), tenant)
    seen = see(world, world.request(tpm))
    assert (seen.status, seen.code) == (403, "denied")
    assert seen.denied == {CHAT: [f"deny.{target}"]}
    assert "rack" not in json.dumps(seen.document)
    (reason,) = seen.entry(world)["keys"][0]["reasons"]
    assert "stolen from a rack" in reason["detail"]
    lifted = world.must("GET", f"/admin/v1/objects/deny/{tenant}/no-{target}/1")
    assert (
        world.sign(Action.LIFT, Kind.DENY, tenant, f"no-{target}", lifted).status_code
        == 201
    )
    assert world.send(world.request(tpm)).status_code == 200


def test_a_deny_entry_of_another_tenant_is_not_ours(world: World) -> None:
    tpm = world.standard()
    _deny(world, "ak", tpm.ak_name.hex(), tenant="globex")
    assert world.send(world.request(tpm)).status_code == 200


def test_a_tenant_may_stop_itself_and_nobody_else(world: World) -> None:
    tpm = world.standard()
    _deny(world, "all", "", tenant="globex")
    assert world.send(world.request(tpm)).status_code == 200
    _deny(world, "all", "", tenant="acme")
    assert see(world, world.request(tpm)).denied == {CHAT: ["deny.all"]}


def test_a_denied_version_tells_a_stranger_nothing(world: World) -> None:
    tpm = world.standard()
    world.create_key("acme/none/here")
    for key in ("acme/none/here@1", "acme/none/gone@1"):
        _deny(world, "key", key, name=f"no-{key.partition('@')[0].rpartition('/')[2]}")
    shapes = {
        _shape(see(world, world.request(tpm, [key])), key)
        for key in ("acme/none/here", "acme/none/gone")
    }
    assert len(shapes) == 1


def test_a_policy_that_is_denied_cannot_be_taken_away(world: World) -> None:
    """Its keys would leave under whatever other policy grants them."""
    tpm = world.standard()
    stored = world.must("GET", "/admin/v1/objects/release-policy/acme/chat/1")
    _deny(world, "policy", "acme/chat")
    refused = world.sign(Action.DEACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "policy.denied")
    assert see(world, world.request(tpm)).denied == {CHAT: ["deny.policy"]}
    lifted = world.must("GET", "/admin/v1/objects/deny/acme/no-policy/1")
    assert (
        world.sign(Action.LIFT, Kind.DENY, "acme", "no-policy", lifted).status_code
        == 201
    )
    gone = world.sign(Action.DEACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert gone.status_code == 201


def test_a_policy_that_is_denied_keeps_its_keys(world: World) -> None:
    """A new version for other keys would do what taking it away does."""
    tpm = world.standard()
    stored = world.must("GET", "/admin/v1/objects/release-policy/acme/chat/1")
    text = b64decode(str(stored["source"])).decode()
    (globs,) = re.findall(r"releases: (\[.*\])", text)
    _deny(world, "policy", "acme/chat")
    elsewhere = text.replace(globs, '["acme/elsewhere/*"]').encode()
    other = world.store(Kind.RELEASE_POLICY, "acme", "chat", elsewhere)
    refused = world.sign(Action.ACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", other)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "policy.denied")
    assert see(world, world.request(tpm)).denied == {CHAT: ["deny.policy"]}
    # What governs the same keys and more may follow.
    more = text.replace(globs, globs.replace("]", ', "acme/elsewhere/*"]')).encode()
    wider = world.store(Kind.RELEASE_POLICY, "acme", "chat", more)
    taken = world.sign(Action.ACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", wider)
    assert taken.status_code == 201
    assert see(world, world.request(tpm)).denied == {CHAT: ["deny.policy"]}
