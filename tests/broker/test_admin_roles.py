"""Who may call what: every endpoint and role, inside and outside its repositories."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.channel.token import SignedRequest, mint_token
from kbs.core.encode import b64, b64u
from kbs.governance.authority import Administrator, Authority, Role, RoleGrant
from kbs.governance.signature import key_id, spki_of
from kbs.governance.statement import Action, Kind
from tests.fakes.world import World

KEYS = {
    role: Ed25519PrivateKey.from_private_bytes(bytes([40 + place]) * 32)
    for place, role in enumerate(Role)
}
NOBODY = Ed25519PrivateKey.from_private_bytes(bytes([60]) * 32)
ANY = frozenset(Role)
ENTRY = "0" * 32
NAME = b64(b"bytes of a workload policy")


@dataclass(frozen=True)
class Endpoint:
    """One call with a body that is good, so that only the role decides."""

    method: str
    path: str
    roles: frozenset[Role]
    body: Mapping[str, object] | None = None
    scoped: bool = True
    hidden: bool = False  # other tenants' things are not found instead of forbidden


def _only(*roles: Role) -> frozenset[Role]:
    return frozenset(roles)


STORED = _only(Role.POLICY_ADMIN, Role.APPROVER)
KEY = _only(Role.KEY_ADMIN)
AUDIT = _only(Role.AUDITOR)
ENDPOINTS = [
    Endpoint("GET", "/admin/v1/governance/head", ANY, scoped=False),
    Endpoint("GET", "/admin/v1/governance/statements", ANY, scoped=False),
    Endpoint("GET", "/admin/v1/objects", ANY, scoped=False),
    Endpoint(
        "GET",
        "/admin/v1/objects/workload-policy/{tenant}/seen/1",
        ANY,
        hidden=True,
    ),
    Endpoint(
        "POST",
        "/admin/v1/objects",
        STORED,
        {"kind": "workload-policy", "tenant": "{tenant}", "name": "w", "source": NAME},
    ),
    Endpoint("GET", "/admin/v1/keys", ANY, scoped=False),
    Endpoint(
        "POST",
        "/admin/v1/keys",
        KEY,
        {"id": "{tenant}/model/{role}", "kind": "opaque"},
    ),
    Endpoint("GET", "/admin/v1/keys/{tenant}/model/seen", ANY, hidden=True),
    Endpoint("GET", "/admin/v1/keys/{tenant}/model/seen/explain", ANY),
    Endpoint("POST", "/admin/v1/keys/{tenant}/model/seen/rotate", KEY, {}),
    Endpoint("POST", "/admin/v1/keys/{tenant}/model/seen/retire", KEY, {"version": 1}),
    Endpoint("POST", "/admin/v1/keys/{tenant}/model/seen/destroy", KEY, {"version": 1}),
    Endpoint("GET", "/admin/v1/enrolments", ANY, scoped=False),
    Endpoint("GET", "/admin/v1/collateral", ANY, scoped=False),
    Endpoint(
        "POST",
        "/admin/v1/collateral",
        # The table is everybody's: it takes the role everywhere (`root` has it).
        _only(),
        {"items": []},
        scoped=False,
    ),
    Endpoint("GET", "/admin/v1/audit/entries", AUDIT, scoped=False),
    Endpoint("GET", "/admin/v1/audit/export", AUDIT, scoped=False),
    Endpoint("GET", "/admin/v1/audit/consistency?first=1&second=1", ANY, scoped=False),
    Endpoint("POST", "/admin/v1/integrity", AUDIT, {}, scoped=False),
]
CALLS = [
    pytest.param(
        endpoint, role, tenant, id=f"{endpoint.method} {endpoint.path} {role} {tenant}"
    )
    for endpoint in ENDPOINTS
    for role in Role
    for tenant in ("acme", "other")
]


def _authority(world: World) -> Authority:
    everything = tuple(RoleGrant(role, ("*",)) for role in Role)
    root = Administrator("root", spki_of(world.admin.public_key()), everything)
    scoped = tuple(
        Administrator(
            f"acme-{role.value}",
            spki_of(KEYS[role].public_key()),
            (RoleGrant(role, ("acme",)),),
        )
        for role in Role
    )
    idle = Administrator("idle", spki_of(NOBODY.public_key()), ())
    return Authority((root, *scoped, idle), 1, ("*",))


@pytest.fixture(scope="module")
def staffed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A broker with an administrator of each role in acme, and one without any."""
    with closing(World.create(tmp_path_factory.mktemp("staffed"))) as world:
        authority = _authority(world).canonical()
        world.govern(Action.ACTIVATE, Kind.AUTHORITY, "*", "authority", authority)
        for tenant in ("acme", "other"):
            seen = b"seen by " + tenant.encode()
            world.create_key(f"{tenant}/model/seen")
            world.store(Kind.WORKLOAD_POLICY, tenant, "seen", seen)
        yield world


@pytest.mark.parametrize(("endpoint", "role", "tenant"), CALLS)
def test_a_role_reaches_its_endpoints_in_its_repositories(
    staffed: World, endpoint: Endpoint, role: Role, tenant: str
) -> None:
    words = {"tenant": tenant, "role": role.value}
    path = endpoint.path.format(**words)
    body = None
    if endpoint.body is not None:
        body = {
            name: value.format(**words) if isinstance(value, str) else value
            for name, value in endpoint.body.items()
        }
    before = staffed.entries("admin.refused")
    answer = staffed.call(endpoint.method, path, body, key=KEYS[role])
    inside = not endpoint.scoped or tenant == "acme"
    if role in endpoint.roles and inside:
        # 409: another role of the table retired or destroyed it before.
        assert answer.status_code in {200, 201, 409}, answer.get_data(as_text=True)
        return
    if endpoint.hidden:
        assert answer.status_code == 404
        return
    assert answer.status_code == 403, answer.get_data(as_text=True)
    document = answer.get_json()
    assert document["code"] == "admin.role"
    assert answer.mimetype == "application/problem+json"
    # A refusal of a known administrator is on record.
    refused = staffed.entries("admin.refused")[len(before) :]
    assert [one["actor"] for one in refused] == [key_id(KEYS[role].public_key())]
    assert str(refused[0]["action"]).startswith(f"{endpoint.method} /admin/v1/")


@pytest.mark.parametrize(
    "endpoint", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}"
)
def test_an_administrator_without_a_role_reaches_nothing(
    staffed: World, endpoint: Endpoint
) -> None:
    path = endpoint.path.format(tenant="acme", role="none")
    body = None if endpoint.body is None else dict(endpoint.body)
    if body is not None and "tenant" in body:
        body["tenant"] = "acme"
    if body is not None and "id" in body:
        body["id"] = "acme/model/none"
    answer = staffed.call(endpoint.method, path, body, key=NOBODY)
    assert answer.status_code == 403, answer.get_data(as_text=True)


def test_every_group_of_the_door_is_in_the_table(staffed: World) -> None:
    # What takes a body of its own kind is refused in the tests of that kind.
    elsewhere = {("POST", one) for one in ("governance", "explain", "enrolments")}
    told = {(one.method, one.path.split("/")[3].partition("?")[0]) for one in ENDPOINTS}
    for rule in staffed.app.url_map.iter_rules():
        if rule.rule.startswith("/admin/v1/"):
            group = rule.rule.split("/")[3]
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                assert (method, group) in told | elsewhere, rule.rule


def test_lists_show_what_the_roles_reach(staffed: World) -> None:
    for role in Role:
        keys = staffed.call("GET", "/admin/v1/keys", key=KEYS[role]).get_json()["keys"]
        assert keys
        assert {key["id"].partition("/")[0] for key in keys} == {"acme"}
        rows = staffed.call("GET", "/admin/v1/objects", key=KEYS[role]).get_json()
        assert {row["tenant"] for row in rows["objects"]} <= {"acme", "*", "shared"}


def test_a_change_is_on_record_with_who_made_it(world: World) -> None:
    world.store(Kind.WORKLOAD_POLICY, "acme", "w", b"bytes")
    world.create_key("acme/model/one")
    world.must("POST", "/admin/v1/keys/acme/model/one/rotate", {})
    world.must("POST", "/admin/v1/keys/acme/model/one/retire", {"version": 2})
    world.must("POST", "/admin/v1/keys/acme/model/one/destroy", {"version": 1})
    world.must("POST", "/admin/v1/collateral", {"items": []})
    me = key_id(world.admin.public_key())
    entries = [entry for entry in world.entries() if "actor" in entry]
    assert {entry["actor"] for entry in entries} == {me}
    kinds = [entry["kind"] for entry in entries]
    assert kinds == [
        *("admin.action", "key.created", "key.rotated", "key.retired"),
        *("key.destroyed", "admin.action"),
    ]
    actions = [entry["action"] for entry in entries if "action" in entry]
    assert actions == ["object.store", "collateral.import"]


# -- tokens ----------------------------------------------------------------------------

PATH = "/admin/v1/keys"
BODY = json.dumps({"id": "acme/model/x", "kind": "opaque"}).encode()


def _send(
    world: World, header: str | None, *, path: str = PATH, body: bytes = BODY
) -> tuple[int, str]:
    answer = world.app.test_client().post(
        path,
        data=body,
        content_type="application/json",
        headers={} if header is None else {"Authorization": header},
    )
    return answer.status_code, str(answer.get_json().get("code"))


def _token(world: World, **changes: object) -> str:
    request = SignedRequest(
        str(changes.get("method", "POST")),
        str(changes.get("path", PATH)),
        changes.get("body", BODY),  # type: ignore[arg-type]
    )
    key = changes.get("key", world.admin)
    assert isinstance(key, Ed25519PrivateKey)
    token = mint_token(
        key,
        request,
        instance=str(changes.get("instance", world.parts.instance)),
        now=world.clock.now(),
    )
    return f"Bearer {token}"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"method": "GET"}, "token.request"),
        ({"path": "/admin/v1/objects"}, "token.request"),
        ({"path": PATH + "?x=1"}, "token.request"),
        ({"body": b"{}"}, "token.request"),
        ({"instance": "f" * 32}, "token.malformed"),
        ({"key": NOBODY}, "token.key"),
    ],
)
def test_a_token_speaks_for_one_request(
    world: World, changes: dict[str, object], code: str
) -> None:
    assert _send(world, _token(world, **changes)) == (401, code)
    assert world.must("GET", PATH)["keys"] == []


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer a.b.c"]
)
def test_without_a_token_nothing_is_said(world: World, header: str | None) -> None:
    status, code = _send(world, header)
    assert status == 401
    assert code in {"admin.token", "token.malformed"}


@pytest.mark.parametrize(
    ("seconds", "status"), [(59, 201), (60, 401), (-5, 201), (-7, 401)]
)
def test_a_token_lives_a_minute(world: World, seconds: int, status: int) -> None:
    header = _token(world)
    world.clock.advance(seconds)
    found, code = _send(world, header)
    assert found == status
    assert status == 201 or code in {"token.time", "clock.behind"}


def test_a_token_is_good_for_one_write(any_world: World) -> None:
    header = _token(any_world)
    assert _send(any_world, header)[0] == 201
    assert _send(any_world, header) == (401, "admin.token_replayed")
    # Not by another process either.
    assert _send(any_world.restarted(), header) == (401, "admin.token_replayed")


def test_a_refused_write_spends_its_token(world: World) -> None:
    header = _token(world, body=b"[]")
    assert _send(world, header, body=b"[]")[0] == 400
    assert _send(world, header, body=b"[]")[0] == 401


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES256"])
def test_other_algorithms_do_not_count(world: World, algorithm: str) -> None:
    good = _token(world).removeprefix("Bearer ")
    claims = jwt.decode(good, options={"verify_signature": False})
    keyid = key_id(world.admin.public_key())
    header = {"typ": "kbs-admin+jwt", "kid": keyid, "alg": algorithm}
    if algorithm == "HS256":
        forged = jwt.encode(claims, b"k" * 32, algorithm, headers=header)
    else:
        _, payload, signature = good.split(".")
        first = b64u(json.dumps(header).encode())
        forged = f"{first}.{payload}.{'' if algorithm == 'none' else signature}"
    assert _send(world, f"Bearer {forged}") == (401, "token.malformed")


def test_a_key_that_lost_its_place_is_unknown(world: World) -> None:
    """Authority in force decides, not the one of yesterday."""
    other = Ed25519PrivateKey.from_private_bytes(bytes([61]) * 32)
    everything = tuple(RoleGrant(role, ("*",)) for role in Role)
    both = Authority(
        (
            Administrator("root", spki_of(world.admin.public_key()), everything),
            Administrator("next", spki_of(other.public_key()), everything),
        ),
        1,
        ("*",),
    )
    world.govern(Action.ACTIVATE, Kind.AUTHORITY, "*", "authority", both.canonical())
    assert world.call("GET", PATH, key=other).status_code == 200
    alone = Authority(both.administrators[1:], 1, ("*",))
    stored = world.store(Kind.AUTHORITY, "*", "authority", alone.canonical())
    # Needs the old threshold and the new one: the new key is in both.
    answer = world.sign(Action.ACTIVATE, Kind.AUTHORITY, "*", "authority", stored)
    assert answer.status_code == 403
    answer = world.sign(
        Action.ACTIVATE, Kind.AUTHORITY, "*", "authority", stored, key=other
    )
    assert answer.status_code == 201
    assert world.call("GET", PATH).status_code == 401
    assert world.call("GET", PATH, key=other).status_code == 200


def test_neither_loopback_nor_a_forwarded_header_gives_rights(world: World) -> None:
    for headers in (
        {},
        {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
        {"X-Forwarded-User": "root", "X-Real-IP": "127.0.0.1"},
    ):
        answer = world.app.test_client().get(PATH, headers=headers)
        assert answer.status_code == 401


def test_tokens_that_fail_are_counted(world: World) -> None:
    for _ in range(3):
        assert _send(world, None)[0] == 401
    (aggregate,) = world.entries("refusals")
    assert aggregate["door"] == "admin"
    assert aggregate["count"] == 3
