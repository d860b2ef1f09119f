"""Whatever is sent to the v1 door: a documented answer, and no partial effect."""

from __future__ import annotations

import base64
import copy
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbs.adapters.sql.database import SqlDatabase
from kbs.api.limits import MAX_BODY_BYTES
from kbs.evidence.bundle import MAX_BUNDLE_BYTES
from tests.fakes.answers import Document, Seen, see
from tests.fakes.databases import Place
from tests.fakes.tpm import FakeTpm
from tests.fakes.world import World

DOCUMENTED = {400, 401, 403, 404}


@dataclass
class Target:
    """A broker, and a good request of which no copy was sent yet."""

    world: World
    tpm: FakeTpm
    body: bytes

    @property
    def document(self) -> Document:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    def counts(self) -> tuple[int, int]:
        """Entries in the log, and challenges that were spent."""
        database = self.world.parts.database
        assert isinstance(database, SqlDatabase)
        with database.engine.connect() as connection:
            ask = connection.exec_driver_sql
            entries = ask("SELECT size FROM log_head").scalar_one()
            spent = ask("SELECT count(*) FROM spent_challenges").scalar_one()
        return entries, spent


@pytest.fixture(scope="module")
def opened(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("door")
    (folder / "data").mkdir()
    (folder / "data" / sqlite_template.name).write_bytes(sqlite_template.read_bytes())
    with closing(Place("sqlite", folder / "data").connect()) as opened:
        world = World.create(folder, database=opened)
        tpm = world.standard()
        yield Target(world, tpm, b"")


@pytest.fixture
def target(opened: Target) -> Target:
    """The broker with a good request that nobody sent yet."""
    opened.body = opened.world.request(opened.tpm).body
    return opened


def _refused(target: Target, body: bytes) -> Seen:
    """Send, and check that nothing happened that the answer does not tell."""
    before = target.counts()
    seen = see(target.world, body)
    recorded = int("receipt" in seen.document)
    assert target.counts() == (before[0] + recorded, before[1] + recorded)
    if recorded:
        # It authenticated, so it was spent: the next example needs a new one.
        target.body = target.world.request(target.tpm).body
    return seen


# -- any bytes -------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "AAAA", "=", "\ud800", "0" * 64, "acme/model/chat"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    members: Any = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    for name, member in members:
        yield from _paths(member, (*at, name))


def _parent(document: Document, path: tuple[Any, ...]) -> Any:
    value: Any = document
    for name in path[:-1]:
        value = value[name]
    return value


def _delete(parent: Any, name: Any, _: Any) -> None:
    del parent[name]


def _replace(parent: Any, name: Any, other: Any) -> None:
    parent[name] = other


def _twice(parent: Any, name: Any, _: Any) -> None:
    parent[name] = [parent[name], parent[name]]


def _add(parent: Any, name: Any, other: Any) -> None:
    if isinstance(parent, dict):
        parent["extra"] = other
    else:
        parent.append(other)


def _shorten(parent: Any, name: Any, _: Any) -> None:
    value = parent[name]
    parent[name] = value[:-1] if isinstance(value, (str, list)) else value


Change = Callable[[Any, Any, Any], None]

CHANGES: list[Change] = [
    _delete,
    _replace,
    _twice,
    _add,
    _shorten,
]

EXAMPLES = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@EXAMPLES
@given(st.integers(0, 2**16), st.sampled_from(CHANGES), JSON_VALUES)
def test_a_good_bundle_with_one_change(
    target: Target, place: int, change: Change, other: Any
) -> None:
    document = target.document
    paths = sorted(_paths(document), key=repr)
    path = paths[place % len(paths)]
    changed = copy.deepcopy(document)
    change(_parent(changed, path), path[-1], other)
    if changed != document:
        body = json.dumps(changed).encode()
        assert _refused(target, body).status in DOCUMENTED


@EXAMPLES
@given(st.integers(0, 2**16), st.integers(0, 8), st.binary(max_size=8))
def test_a_good_bundle_with_other_bytes(
    target: Target, place: int, length: int, other: bytes
) -> None:
    body = bytearray(target.body)
    start = place % len(body)
    body[start : start + length] = other
    try:
        is_same = json.loads(body) == target.document
    except ValueError:
        is_same = False
    if not is_same:
        assert _refused(target, bytes(body)).status in DOCUMENTED


@EXAMPLES
@given(st.binary(max_size=300) | JSON_VALUES.map(lambda v: json.dumps(v).encode()))
def test_any_body(target: Target, body: bytes) -> None:
    assert _refused(target, body).status == 400


# -- one by one ------------------------------------------------------------------------


def _raw(before: str, after: str) -> Callable[[str], bytes]:
    def change(text: str) -> bytes:
        assert before in text
        return text.replace(before, after, 1).encode("utf-8", "surrogatepass")

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda _: b"null",
        lambda _: b"[]",
        lambda _: b"[" * 100_000,
        lambda _: b'{"a":' * 100_000,
        lambda text: text.encode("utf-16"),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode() + b"\xff",
        lambda text: text.encode() + b"{}",
        lambda text: gzip.compress(text.encode()),
        lambda text: text.encode().ljust(MAX_BUNDLE_BYTES + 1),
        _raw('"format"', '"format":"kbs.evidence/1","format"'),
        _raw('"audience"', '"audience":"x","audience"'),
        _raw('"partial":false', '"partial":NaN'),
        _raw('"partial":false', '"partial":Infinity'),
        _raw('"partial":false', '"partial":0'),
        _raw('"partial":false', '"partial":1e400'),
        _raw('"partial":false', '"partial":' + "9" * 5000),
        _raw('"mode":"release"', '"mode":"RELEASE"'),
        _raw('"mode":"release"', '"mode":"\ud800"'),
        _raw('"mode":"release"', '"mode":"re\\u0000lease"'),
        _raw("acme/model/chat", "acme/model/../chat"),
        _raw("acme/model/chat", "acme/model/*"),
        _raw("acme/model/chat", "acme/model/chat@0"),
        _raw("acme/model/chat", "acme/model/chat@01"),
        _raw("acme/model/chat", "acme/model/" + "x" * 300),
        _raw('"suite":"0020', '"suite":"ffff'),
        _raw('"suite":"0020', '"suite":"0010'),
        _raw('"kind":"vtpm"', '"kind":"../etc"'),
        _raw('"items":[', '"items":[1,'),
        _raw('"items":[', '"surplus":{},"items":['),
    ],
)
def test_a_malformed_body(target: Target, change: Callable[[str], bytes]) -> None:
    seen = _refused(target, change(target.body.decode()))
    assert seen.status == 400
    assert seen.document["detail"]
    # Its challenge is as good as before.
    assert see(target.world, target.body).status == 200


def test_too_many_items_and_keys(target: Target) -> None:
    document = target.document
    many = document | {"items": document["items"] * 17}
    assert _refused(target, json.dumps(many).encode()).status == 400
    keys = [f"acme/model/k{number}" for number in range(65)]
    document["runtime_data"]["request"]["keys"] = keys
    assert _refused(target, json.dumps(document).encode()).status == 400


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text + "\n",
        lambda text: text[:20] + " " + text[20:],
        lambda text: text.rstrip("=") + "A",
        lambda text: "=" + text,
        lambda text: text.translate(str.maketrans("+/", "-_")) + "-",
        lambda text: base64.b64decode(text).hex(),
    ],
)
def test_base64_has_one_spelling(target: Target, spell: Callable[[str], str]) -> None:
    document = target.document
    quote = document["items"][0]["quote"]
    quote["signature"] = spell(quote["signature"])
    seen = _refused(target, json.dumps(document).encode())
    assert (seen.status, seen.checks) == (403, ["vtpm.parse"])


# -- HTTP ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "media_type",
    [None, "text/plain", "application/cbor", "application/json-seq", "multipart/mixed"],
)
@pytest.mark.parametrize("path", ["/v1/release", "/v1/challenge", "/v1/enrolments"])
def test_another_media_type(target: Target, media_type: str | None, path: str) -> None:
    before = target.counts()
    response = target.world.app.test_client().post(
        path, data=target.body, content_type=media_type
    )
    seen = Seen.of(target.world, response)
    assert (seen.status, seen.code) == (415, "http.media_type")
    assert target.counts() == before


def test_a_charset_is_no_other_media_type(target: Target) -> None:
    body = target.world.request(target.tpm).body
    response = target.world.app.test_client().post(
        "/v1/release", data=body, content_type="application/json; charset=utf-8"
    )
    assert response.status_code == 200


def test_a_body_beyond_every_cap(target: Target) -> None:
    before = target.counts()
    seen = see(target.world, target.body.ljust(MAX_BODY_BYTES + 1))
    assert (seen.status, seen.code) == (413, "http.too_large")
    assert target.counts() == before


def _stream(target: Target, body: bytes, **environ: Any) -> Seen:
    response = target.world.app.test_client().post(
        "/v1/release",
        input_stream=BytesIO(body),
        content_type="application/json",
        environ_overrides=environ,
    )
    return Seen.of(target.world, response)


def _chunked(target: Target, body: bytes, *, ends: bool) -> Seen:
    # A server that undoes `chunked` says whether the stream ends by itself.
    environ: dict[str, object] = {"HTTP_TRANSFER_ENCODING": "chunked"}
    if ends:
        environ["wsgi.input_terminated"] = True
    return _stream(target, body, **environ)


def test_bodies_without_a_length(target: Target) -> None:
    # Where the stream might never end nothing is read.
    assert _chunked(target, target.body, ends=False).status == 400
    endless = target.body.ljust(MAX_BODY_BYTES + 1)
    seen = _chunked(target, endless, ends=True)
    assert (seen.status, seen.code) == (413, "http.too_large")
    assert _chunked(target, target.body, ends=True).status == 200


@pytest.mark.parametrize(
    ("length", "status"),
    [("10", 400), ("999999", 400), ("-1", 400), ("many", 400), ("9" * 30, 413)],
)
def test_lengths_that_lie(target: Target, length: str, status: int) -> None:
    before = target.counts()
    seen = _stream(target, target.body, CONTENT_LENGTH=length)
    assert seen.status == status
    assert target.counts() == before


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE"])
def test_other_methods(target: Target, method: str) -> None:
    response = target.world.app.test_client().open("/v1/release", method=method)
    assert Seen.of(target.world, response).code == "http.method"
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize("path", ["/", "/v1/", "/v1/release/", "/v1/releases", "/v2"])
def test_other_paths(target: Target, path: str) -> None:
    response = target.world.app.test_client().post(path, json={})
    seen = Seen.of(target.world, response)
    assert (seen.status, seen.code) == (404, "http.not_found")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":1}', b"null", b" " * 2000])
def test_challenge_requests(target: Target, body: bytes) -> None:
    response = target.world.app.test_client().post(
        "/v1/challenge", data=body, content_type="application/json"
    )
    assert response.status_code == (200 if body == b"" else 400)


@pytest.mark.parametrize(
    ("method", "path", "media_type", "detail"),
    [
        ("GET", "/v1/x\u202e\n", None, r"path: got '/v1/x\u202e\n', expected one that"),
        ("GET", "/" + "a" * 300, None, f"path: got '/{'a' * 99}'…, expected one that"),
        ("PUT", "/v1/release", None, "method: got 'PUT', expected POST"),
        ("POST", "/v1/release", None, "Content-Type: got none, expected application/"),
        ("POST", "/v1/release", "a/b", "Content-Type: got 'a/b', expected applicat"),
    ],
)
def test_refusals_of_http_say_what_came_and_what_is_taken(
    target: Target, method: str, path: str, media_type: str | None, detail: str
) -> None:
    response = target.world.app.test_client().open(
        quote(path), method=method, content_type=media_type, data=b"{}"
    )
    assert response.get_json()["detail"].startswith(detail)


def test_a_body_that_is_too_large_hears_the_limit(target: Target) -> None:
    response = target.world.app.test_client().post(
        "/v1/release",
        data=bytes(MAX_BODY_BYTES + 1),
        content_type="application/json",
    )
    assert response.get_json()["detail"] == (
        f"request body: got {MAX_BODY_BYTES + 1} bytes, "
        f"expected at most {MAX_BODY_BYTES} bytes"
    )
