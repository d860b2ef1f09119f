"""Signed statements at the door: what is accepted, what is refused, what is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from werkzeug.test import TestResponse

from kbs.core.encode import b64
from kbs.core.errors import UnavailableError
from kbs.governance.authority import Administrator, Authority, Role, RoleGrant
from kbs.governance.signature import sign_statement, spki_of
from kbs.governance.statement import Action, Envelope, Kind, Statement
from tests.fakes.databases import FailingDatabase
from tests.fakes.world import WORKLOAD, World

PATH = "/admin/v1/governance/statements"
POLICY_ADMIN = Ed25519PrivateKey.from_private_bytes(bytes([81]) * 32)
KEY_ADMIN = Ed25519PrivateKey.from_private_bytes(bytes([82]) * 32)
SECOND = Ed25519PrivateKey.from_private_bytes(bytes([83]) * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes([84]) * 32)


def _draft(world: World, name: str = "runtime", tenant: str = "acme") -> Statement:
    """The next statement, about a workload policy that is stored."""
    stored = world.store(Kind.WORKLOAD_POLICY, tenant, name, WORKLOAD)
    head = world.must("GET", "/admin/v1/governance/head")
    seq, version = head["seq"], stored["version"]
    assert isinstance(seq, int)
    assert isinstance(version, int)
    return Statement(
        instance=world.parts.instance,
        seq=seq + 1,
        prev=str(head["prev"]),
        action=Action.ACTIVATE,
        kind=Kind.WORKLOAD_POLICY,
        tenant=tenant,
        name=name,
        version=version,
        digest=str(stored["digest"]),
    )


def _submit(
    world: World, statement: Statement, *keys: Ed25519PrivateKey
) -> TestResponse:
    signatures = tuple(sign_statement(statement, key) for key in keys or (world.admin,))
    envelope = Envelope(statement, signatures)
    return world.call("POST", PATH, {"envelope": envelope.to_json()})


def _administrator(
    name: str, key: Ed25519PrivateKey, *grants: RoleGrant
) -> Administrator:
    return Administrator(name, spki_of(key.public_key()), grants)


def _appoint(world: World, threshold: int = 1) -> None:
    everything = tuple(RoleGrant(role, ("*",)) for role in Role)
    authority = Authority(
        (
            _administrator("root", world.admin, *everything),
            _administrator("second", SECOND, *everything),
            _administrator(
                "acme-policy", POLICY_ADMIN, RoleGrant(Role.POLICY_ADMIN, ("acme",))
            ),
            _administrator(
                "acme-keys", KEY_ADMIN, RoleGrant(Role.KEY_ADMIN, ("acme",))
            ),
        ),
        threshold,
        ("*",),
    )
    stored = world.store(Kind.AUTHORITY, "*", "authority", authority.canonical())
    statement = Statement(
        instance=world.parts.instance,
        seq=1,
        prev=world.parts.genesis_digest,
        action=Action.ACTIVATE,
        kind=Kind.AUTHORITY,
        tenant="*",
        name="authority",
        version=2,
        digest=str(stored["digest"]),
    )
    assert _submit(world, statement, world.admin, SECOND).status_code == 201


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (lambda s: replace(s, seq=s.seq + 1), 409, "statement.sequence"),
        (lambda s: replace(s, seq=1, prev="0" * 64), 409, "statement.sequence"),
        (lambda s: replace(s, prev="0" * 64), 409, "statement.sequence"),
        (lambda s: replace(s, instance="f" * 32), 403, "statement.instance"),
        (lambda s: replace(s, digest="0" * 64), 404, "statement.content"),
        (lambda s: replace(s, version=7), 404, "statement.content"),
        (lambda s: replace(s, name="other"), 404, "statement.content"),
        (lambda s: replace(s, tenant="other"), 404, "statement.content"),
        (lambda s: replace(s, action=Action.DEACTIVATE), 409, "statement.active"),
    ],
)
def test_a_statement_is_the_next_of_this_chain_about_what_is_stored(
    world: World, change: Callable[[Statement], Statement], status: int, code: str
) -> None:
    _appoint(world)
    answer = _submit(world, change(_draft(world)))
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert world.must("GET", "/admin/v1/governance/head")["seq"] == 1
    assert len(world.entries("statement")) == 1
    assert _submit(world, _draft(world)).status_code == 201


@pytest.mark.parametrize(
    ("keys", "tenant", "status"),
    [
        ((POLICY_ADMIN,), "acme", 201),
        ((POLICY_ADMIN,), "other", 403),
        ((KEY_ADMIN,), "acme", 403),
        ((STRANGER,), "acme", 403),
        ((SECOND, POLICY_ADMIN), "acme", 201),
        ((SECOND, STRANGER), "acme", 403),
    ],
)
def test_the_signers_role_and_tenant_decide(
    any_world: World, keys: tuple[Ed25519PrivateKey, ...], tenant: str, status: int
) -> None:
    _appoint(any_world)
    answer = _submit(any_world, _draft(any_world, tenant=tenant), *keys)
    assert answer.status_code == status, answer.get_data(as_text=True)
    if status == 403:
        (refused,) = any_world.entries("admin.refused")
        assert refused["action"] == f"POST {PATH}"


def test_a_statement_has_its_time(world: World) -> None:
    now = world.clock.now()
    draft = _draft(world)
    early = replace(draft, not_before=now + timedelta(minutes=1))
    late = replace(draft, expires=now)
    assert _submit(world, early).get_json()["code"] == "statement.early"
    assert _submit(world, late).get_json()["code"] == "statement.expired"
    bounded = replace(draft, not_before=now, expires=now + timedelta(minutes=1))
    assert _submit(world, bounded).status_code == 201
    # What it made active stays active, also when it is read again much later.
    world.clock.advance(3600)
    again = world.restarted()
    assert again.must("GET", "/admin/v1/governance/head")["seq"] == 1


def test_the_same_envelope_again_is_refused(world: World) -> None:
    draft = _draft(world)
    assert _submit(world, draft).status_code == 201
    assert _submit(world, draft).get_json()["code"] == "statement.sequence"
    away = replace(draft, seq=2, prev=draft.hash(), action=Action.DEACTIVATE)
    assert _submit(world, away).status_code == 201
    # An old approval never counts again.
    assert _submit(world, draft).get_json()["code"] == "statement.sequence"


def test_administrators_at_once_lose_nothing(any_world: World) -> None:
    world = any_world
    _appoint(world)
    names = [f"w{number}" for number in range(4)]
    failures: list[str] = []

    def put(name: str) -> None:
        for _ in range(20):
            answer = _submit(world, _draft(world, name))
            if answer.status_code == 201:
                return
            if answer.get_json()["code"] != "statement.sequence":
                failures.append(answer.get_data(as_text=True))
        failures.append(name)

    threads = [threading.Thread(target=put, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rows = world.must("GET", "/admin/v1/objects?kind=workload-policy")["objects"]
    assert isinstance(rows, list)
    assert {row["name"] for row in rows if row["active"]} == set(names)
    listed = world.must("GET", PATH)["statements"]
    assert isinstance(listed, list)
    assert [one["seq"] for one in listed] == [1, 2, 3, 4, 5]
    assert world.restarted().must("GET", "/admin/v1/governance/head")["seq"] == 5


def test_an_authority_change_needs_both_thresholds(world: World) -> None:
    _appoint(world, threshold=2)
    head = world.must("GET", "/admin/v1/governance/head")
    assert head["authority_version"] == 2
    draft = _draft(world)
    assert _submit(world, draft).get_json()["code"] == "statement.threshold"
    assert _submit(world, draft, world.admin, SECOND).status_code == 201
    everything = tuple(RoleGrant(role, ("*",)) for role in Role)
    third = Ed25519PrivateKey.from_private_bytes(bytes([85]) * 32)
    successor = Authority(
        (
            _administrator("second", SECOND, *everything),
            _administrator("third", third, *everything),
        ),
        2,
        ("*",),
    )
    stored = world.store(Kind.AUTHORITY, "*", "authority", successor.canonical())
    statement = replace(
        draft,
        seq=3,
        prev=draft.hash(),
        kind=Kind.AUTHORITY,
        tenant="*",
        name="authority",
        version=3,
        digest=str(stored["digest"]),
    )
    assert stored["version"] == 3
    for keys in ((world.admin, SECOND), (SECOND, third), (world.admin, third)):
        assert _submit(world, statement, *keys).status_code == 403
    assert _submit(world, statement, world.admin, SECOND, third).status_code == 201


def test_a_commit_that_fails_leaves_nothing_in_force(any_world: World) -> None:
    """Not even in memory: a later request must not see what was rolled back."""
    failing = FailingDatabase(any_world.parts.database)
    world = any_world.restarted(database=failing)
    draft, other = _draft(world), _draft(world, "other")
    signed = [
        Envelope(one, (sign_statement(one, world.admin),)) for one in (draft, other)
    ]
    head = world.must("GET", "/admin/v1/governance/head")
    # The token's own write comes first: let that one through.
    original = failing.write
    with pytest.MonkeyPatch.context() as patch:
        writes = iter([0, 1])

        def write() -> object:
            failing.fail_before = next(writes)
            return original()

        patch.setattr(failing, "write", write)
        answer = world.call("POST", PATH, {"envelope": signed[0].to_json()})
    assert answer.status_code == 503
    failing.fail_before = 0
    assert world.must("GET", "/admin/v1/governance/head") == head
    answer = world.call("POST", PATH, {"envelope": signed[1].to_json()})
    assert answer.status_code == 201
    assert world.must("GET", "/admin/v1/governance/head")["seq"] == 1
    assert world.app.test_client().get("/health/ready").status_code == 200


def test_storing_needs_a_role_that_signs(world: World) -> None:
    _appoint(world)
    body = {
        "kind": "workload-policy",
        "tenant": "acme",
        "name": "w",
        "source": b64(WORKLOAD),
    }
    answer = world.call("POST", "/admin/v1/objects", body, key=KEY_ADMIN)
    assert answer.status_code == 403
    deny = json.dumps({"target": "key", "value": "acme/a/b", "reason": "r"}).encode()
    body = {"kind": "deny", "tenant": "acme", "name": "d", "source": b64(deny)}
    assert (
        world.call("POST", "/admin/v1/objects", body, key=KEY_ADMIN).status_code == 201
    )


# -- registering -----------------------------------------------------------------------


def _store(world: World, kind: str, name: str, source: bytes) -> TestResponse:
    body = {"kind": kind, "tenant": "acme", "name": name, "source": b64(source)}
    return world.call("POST", "/admin/v1/objects", body)


POLICY = """\
kind: ReleasePolicy
name: chat
releases: ["acme/model/*"]
allow:
  - rule: one
    all:
      - {safe: true}
      - {claim: vtpm.ak.group, equals: hosts}
      - {claim: vtpm.pcr.sha256.0, in: {reference: firmware}}
      - {claim: vtpm.pcr.sha256.15, measures: {workload_policy: runtime, version: 2}}
"""


def test_a_policy_says_its_own_name_and_tenant(world: World) -> None:
    assert _store(world, "release-policy", "chat", POLICY.encode()).status_code == 201
    for source in (
        POLICY.replace("name: chat", "name: other"),
        POLICY.replace("acme/model", "other/model"),
        POLICY.replace('["acme/model/*"]', '["acme/model/*", "other/a/b"]'),
    ):
        answer = _store(world, "release-policy", "chat", source.encode())
        assert answer.status_code == 400
    answer = _store(
        world, "release-policy", "chat", POLICY.replace("in:", "inn:").encode()
    )
    assert answer.status_code == 400
    assert "line 9" in answer.get_json()["detail"]


def test_the_same_document_again_is_the_same_version(any_world: World) -> None:
    world = any_world
    versions = [
        world.store(Kind.RELEASE_POLICY, "acme", "chat", source.encode())["version"]
        for source in (
            POLICY,
            "# a comment changes nothing\n" + POLICY,
            POLICY.replace("rule: one", "rule: two"),
            POLICY,
        )
    ]
    assert versions == [1, 1, 2, 1]
    # A workload policy is its exact bytes.
    versions = [
        world.store(Kind.WORKLOAD_POLICY, "acme", "w", source)["version"]
        for source in (b"a: 1\n", b"a:  1\n", b"\xff\x00", b"a: 1\n")
    ]
    assert versions == [1, 2, 3, 1]
    shown = world.must("GET", "/admin/v1/objects/workload-policy/acme/w/3")
    assert shown["content"] == shown["source"] == b64(b"\xff\x00")
    assert shown["active"] is False


def test_a_policy_needs_what_it_names(world: World) -> None:
    stored = world.store(Kind.RELEASE_POLICY, "acme", "chat", POLICY.encode())
    answer = world.sign(Action.ACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert (answer.status_code, answer.get_json()["code"]) == (
        409,
        "policy.dependencies",
    )
    assert "firmware" in answer.get_json()["detail"]
    values = json.dumps({"values": ["4e" * 32]}).encode()
    world.govern(Action.ADD, Kind.REFERENCE_SET, "acme", "firmware", values)
    world.govern(Action.ACTIVATE, Kind.WORKLOAD_POLICY, "acme", "runtime", WORKLOAD)
    answer = world.sign(Action.ACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert "runtime" in answer.get_json()["detail"]
    world.govern(Action.ACTIVATE, Kind.WORKLOAD_POLICY, "acme", "runtime", b"v2")
    answer = world.sign(Action.ACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert answer.status_code == 201


def test_a_reference_set_that_expired_grants_nothing_and_says_so(world: World) -> None:
    tpm = world.standard()
    pcr0 = world.booted_tpm().quote_item(bytes(32))["pcrs"]
    assert isinstance(pcr0, dict)
    values = {
        "values": [pcr0["sha256"]["0"]],
        "expires": "2026-11-22T09:00:00Z",
    }
    world.govern(
        Action.ADD, Kind.REFERENCE_SET, "acme", "firmware", json.dumps(values).encode()
    )
    source = POLICY.replace("version: 2", "version: 1").replace(
        "name: chat", "name: two"
    )
    world.activate_policy(source, "two")
    assert world.send(world.request(tpm)).status_code == 200
    world.clock.advance(3601)
    assert world.send(world.request(tpm)).status_code == 403
    (denied,) = world.entries("release.denied")
    assert "expired" in json.dumps(denied)


def test_a_deny_entry_stops_and_its_lifting_starts_again(world: World) -> None:
    tpm = world.standard()
    stop = {"target": "all", "value": "", "reason": "emergency"}
    source = json.dumps(stop).encode()
    stored = world.govern(Action.DENY, Kind.DENY, "*", "stop", source)
    assert world.send(world.request(tpm)).status_code == 403
    again = world.sign(Action.DENY, Kind.DENY, "*", "stop", stored)
    assert again.status_code == 409
    assert world.sign(Action.LIFT, Kind.DENY, "*", "stop", stored).status_code == 201
    assert world.send(world.request(tpm)).status_code == 200


def test_a_mark_that_cannot_be_written_is_no_acknowledgement(world: World) -> None:
    draft = _draft(world)

    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(world.parts.highwater, name)

        def write(self, mark: bytes) -> None:
            raise UnavailableError("high-water mark", got="a disk that is full")

    again = world.restarted(highwater=Full())
    assert _submit(again, draft).status_code == 503
    # It may stand all the same, as everything whose answer did not arrive.
    assert again.must("GET", "/admin/v1/governance/head")["seq"] == 1
