"""Hostile input behind a good token: documented answers, no partial effect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from kbs.channel.token import SignedRequest, mint_token
from kbs.core.encode import b64
from kbs.governance.statement import Action, Kind
from tests.fakes.databases import Place
from tests.fakes.world import WORKLOAD, World

DOCUMENTED = {200, 201, 400, 401, 403, 404, 405, 409, 413, 415}
KNOBS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=40),
    st.sampled_from(
        [
            "acme",
            "*",
            "",
            "acme/model/chat",
            "\x00",
            "\ud800",
            "a" * 300,
            "YQ==",
            "../x",
        ]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=8), inner, max_size=4),
    ),
    max_leaves=8,
)
POSTS: dict[str, dict[str, object]] = {
    "/admin/v1/objects": {
        "kind": "reference-set",
        "tenant": "acme",
        "name": "values",
        "source": b64(b'{"values": ["00"]}'),
    },
    "/admin/v1/governance/statements": {
        "envelope": {
            "statement": {
                "typ": "kbs.statement/1",
                "instance": "0123456789abcdef" * 2,
                "seq": 2,
                "prev": "0" * 64,
                "action": "activate",
                "kind": "workload-policy",
                "tenant": "acme",
                "name": "runtime",
                "version": 1,
                "digest": "0" * 64,
                "not_before": None,
                "expires": None,
            },
            "signatures": [{"keyid": "0" * 64, "alg": "EdDSA", "sig": "YQ"}],
        }
    },
    "/admin/v1/explain": {
        "name": "acme/chat",
        "claims": {"vtpm": {"ak": {"group": "hosts"}}},
        "request": {"door": "v1", "freshness": "challenge"},
        "at": "2026-11-22T08:00:00Z",
    },
    "/admin/v1/keys": {"id": "acme/model/new", "kind": "opaque", "value": "YQ=="},
    "/admin/v1/keys/acme/model/chat/rotate": {"value": "YQ=="},
    "/admin/v1/keys/acme/model/chat/retire": {"version": 1},
    "/admin/v1/keys/acme/model/chat/destroy": {"version": 1},
    "/admin/v1/collateral": {"items": ["YQ=="]},
    "/admin/v1/integrity": {},
    f"/admin/v1/enrolments/{'0' * 32}/forget": {},
}
EMPTY = {path for path, body in POSTS.items() if not body}
GETS = [
    "/admin/v1/objects?kind={0}&tenant={1}&name={2}",
    "/admin/v1/objects/{0}/{1}/{2}/1",
    "/admin/v1/objects/ak/acme/x/{0}",
    "/admin/v1/governance/statements?after={0}",
    "/admin/v1/keys/{0}/{1}/{2}",
    "/admin/v1/keys/{0}/{1}/{2}/explain",
    "/admin/v1/enrolments/{0}",
    "/admin/v1/audit/entries?key={0}&decision={1}&kind={2}",
    "/admin/v1/audit/entries?policy={0}&since={1}&until={2}",
    "/admin/v1/audit/entries?after={0}&limit={1}&newest={2}",
    "/admin/v1/audit/entries?policy={0}",
    "/admin/v1/audit/entries/{0}",
    "/admin/v1/audit/entries/{0}/proof",
    "/admin/v1/audit/consistency?first={0}&second={1}",
    "/admin/v1/audit/evidence/{0}",
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A broker with something in it, on each database, for many examples."""
    folder = tmp_path_factory.mktemp("hostile")
    url = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        url = server.url(
            server.take_database(request.getfixturevalue("postgresql_template"))
        )
    else:
        template = request.getfixturevalue("sqlite_template")
        (folder / template.name).write_bytes(template.read_bytes())
    place = Place(request.param, folder, url)
    with closing(place.connect()) as database:
        world = World.create(folder, database=database)
        world.govern(Action.ACTIVATE, Kind.WORKLOAD_POLICY, "acme", "runtime", WORKLOAD)
        world.create_key("acme/model/chat")
        yield world


def _raw(world: World, method: str, path: str, data: bytes, media: str) -> TestResponse:
    token = mint_token(
        world.admin,
        SignedRequest(method, path, data),
        instance=world.parts.instance,
        now=world.clock.now(),
    )
    return world.app.test_client().open(
        path,
        method=method,
        data=data,
        content_type=media,
        headers={"Authorization": f"Bearer {token}"},
    )


def _judge(answer: TestResponse, what: object) -> None:
    assert answer.status_code in DOCUMENTED, (what, answer.get_data(as_text=True))
    if answer.status_code >= 400:
        assert answer.mimetype == "application/problem+json", what
        assert answer.get_json()["status"] == answer.status_code


def _state(world: World) -> tuple[object, ...]:
    with world.parts.database.read() as tx:
        return (
            tx.log.head().size,
            tx.governance.head(),
            len(tx.keys.list_keys()),
            sum(len(tx.governance.objects(kind.value)) for kind in Kind),
            len(tx.collateral.list()),
        )


@pytest.mark.parametrize(
    "path", ["objects?tennant=acme", "keys?tenant=acme", "audit/entries?key=a&limits=1"]
)
def test_a_misspelt_argument_is_refused(target: World, path: str) -> None:
    """Rather than to answer with everything."""
    answer = target.call("GET", f"/admin/v1/{path}")
    assert answer.status_code == 400
    assert "unknown argument" in answer.get_json()["detail"]


@KNOBS
@given(path=st.sampled_from(sorted(POSTS)), data=st.binary(max_size=200))
def test_any_bytes_are_refused_whole(target: World, path: str, data: bytes) -> None:
    before = _state(target)
    answer = _raw(target, "POST", path, data, "application/json")
    _judge(answer, data)
    if answer.status_code >= 400:
        assert _state(target) == before


@KNOBS
@given(path=st.sampled_from(sorted(POSTS)), value=VALUES)
def test_any_json_is_refused_or_meant(target: World, path: str, value: object) -> None:
    before = _state(target)
    data = json.dumps(value).encode()
    answer = _raw(target, "POST", path, data, "application/json")
    _judge(answer, value)
    if answer.status_code >= 400:
        assert _state(target) == before


@KNOBS
@given(
    path=st.sampled_from(sorted(set(POSTS) - EMPTY)),
    place=st.integers(0, 10**6),
    value=VALUES,
)
def test_one_member_changed_is_refused_or_meant(
    target: World, path: str, place: int, value: object
) -> None:
    document = json.loads(json.dumps(POSTS[path]))
    holders = list(_members(document))
    holder, name = holders[place % len(holders)]
    holder[name] = value
    before = _state(target)
    answer = _raw(
        target, "POST", path, json.dumps(document).encode(), "application/json"
    )
    _judge(answer, document)
    # A refusal by role or signature is on record; nothing else of it remains.
    if answer.status_code >= 400 and answer.status_code != 403:
        assert _state(target) == before


def _members(value: object) -> Iterator[tuple[dict[str, object], str]]:
    if isinstance(value, dict):
        for name in list(value):
            yield value, name
            yield from _members(value[name])
    elif isinstance(value, list):
        for element in value:
            yield from _members(element)


@KNOBS
@given(
    path=st.sampled_from(GETS),
    words=st.tuples(*[st.one_of(st.text(max_size=30), SCALARS.map(str))] * 3),
)
def test_any_path_and_argument_is_answered(
    target: World, path: str, words: tuple[str, str, str]
) -> None:
    quoted = [
        quote(word.encode("utf-8", "surrogatepass"), safe="") or "x" for word in words
    ]
    wanted = path.format(*quoted)
    before = _state(target)
    _, _, query = wanted.partition("?")
    # The token speaks for the path as the server reads it.
    with target.app.test_request_context(wanted, method="GET") as context:
        seen = context.request.path + (f"?{query}" if query else "")
    token = mint_token(
        target.admin,
        SignedRequest("GET", seen.encode("utf-8", "replace").decode(), b""),
        instance=target.parts.instance,
        now=target.clock.now(),
    )
    answer = target.app.test_client().get(
        wanted, headers={"Authorization": f"Bearer {token}"}
    )
    _judge(answer, wanted)
    assert _state(target) == before


@pytest.mark.parametrize("path", sorted(POSTS))
@pytest.mark.parametrize(
    ("data", "media", "status"),
    [
        (b"{}", "text/plain", {400, 415}),
        (b"{}", "multipart/form-data", {400, 415}),
        (b"[" * 10_000, "application/json", {400}),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "application/json", {400}),
        (b'{"id":"a","id":"b"}', "application/json", {400}),
        (b"\xef\xbb\xbf{}", "application/json", {400}),
        (b'"' + b"x" * (2 * 1024 * 1024) + b'"', "application/json", {413}),
        (b"", "application/json", {400}),
    ],
)
def test_bodies_of_another_shape(
    target: World, path: str, data: bytes, media: str, status: set[int]
) -> None:
    if path in EMPTY and data == b"":
        status = {200, 404}
    before = _state(target)
    answer = _raw(target, "POST", path, data, media)
    assert answer.status_code in status, answer.get_data(as_text=True)
    assert answer.status_code == 200 or answer.mimetype == "application/problem+json"
    assert _state(target) == before


@pytest.mark.parametrize("path", sorted(EMPTY))
@pytest.mark.parametrize(
    "data", [b'{"a":1}', b'{"a":1,"a":1}', b'{"a":NaN}', b"[]", b"null", b"{}{}", b"x"]
)
def test_what_takes_no_members_takes_none(
    target: World, path: str, data: bytes
) -> None:
    answer = _raw(target, "POST", path, data, "application/json")
    assert answer.status_code == 400, answer.get_data(as_text=True)
    assert _raw(target, "POST", path, b"{}", "application/json").status_code != 400
