"""Whatever is sent to the RCAR door: an answer of the protocol, and no effect."""

from __future__ import annotations

import base64
import copy
import json
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.broker.test_rcar import guest, prepared
from tests.fakes.amd import FakeAmd
from tests.fakes.answers import releases
from tests.fakes.databases import Place
from tests.fakes.rcar_client import Answer, RcarClient
from tests.fakes.rcar_evidence import PATH, SECRET, snp_evidence, tpm_evidence
from tests.fakes.tpm import FakeTpm
from tests.fakes.world import World

ERRORS = {
    "AttestationError",
    "InvalidRequestPath",
    "PluginNotFound",
    "PluginInternalError",
    "PolicyDeny",
    "TokenNotFound",
    "TokenVerifierError",
    "AdminAuthAccess",
}
SEEDED = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner)
    ),
    max_leaves=12,
)


@dataclass
class Target:
    """A broker in development mode, and guests of every sort."""

    world: World
    tpm: FakeTpm
    amd: FakeAmd

    def guest(self, tee: str) -> RcarClient:
        evidence = {"snp": snp_evidence(self.amd), "tpm": tpm_evidence(self.tpm)}
        options = {"evidence": evidence[tee]} if tee in evidence else {}
        return guest(self.world, tee=tee, **options)


@pytest.fixture(scope="module")
def target(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("rcar")
    (folder / "data").mkdir()
    (folder / "data" / sqlite_template.name).write_bytes(sqlite_template.read_bytes())
    with closing(Place("sqlite", folder / "data").connect()) as opened:
        world = prepared(World.create(folder, database=opened, development=True))
        yield Target(world, world.standard(), FakeAmd())


def refused(answer: Answer) -> None:
    # 503: an issuer that the message does not bring, and nobody imported.
    assert answer.status in {401, 404, 503}, answer
    assert answer.error in ERRORS
    assert set(answer.json) == {"type", "detail"}
    assert len(answer.json["detail"]) < 5000
    assert "Traceback" not in answer.json["detail"]


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:3]):
            yield from places(inner, (*path, index))


def replaced(document: Any, path: tuple[Any, ...], value: object) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(document)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed


@SEEDED
@given(st.sampled_from(["sample", "snp", "tpm"]), JSON, st.integers(0, 10**6))
def test_any_value_in_any_place_of_a_message(
    target: Target, tee: str, value: object, draw: int
) -> None:
    client = target.guest(tee)
    client.auth()
    message = client.message()
    known = list(places(message))
    path = known[draw % len(known)]
    before = len(releases(target.world))
    answer = client.attest(replaced(message, path, value))
    if answer.status != 200:
        refused(answer)
        assert client.get(PATH).status == 401
    assert len(releases(target.world)) - before <= 1


@SEEDED
@given(st.binary(max_size=300))
def test_any_bytes_are_no_message(target: Target, data: bytes) -> None:
    client = target.guest("sample")
    refused(client.call("POST", "/auth", data))
    client.auth()
    refused(client.call("POST", "/attest", data))


@SEEDED
@given(st.text(max_size=200))
def test_any_credential_is_none(target: Target, text: str) -> None:
    client = target.guest("sample")
    header = text.encode("latin-1", errors="replace").decode("latin-1")
    header = header.replace("\r", "").replace("\n", "").replace("\0", "")
    client.cookie = header
    refused(client.get(PATH))
    refused(client.get(PATH, cookie=False, bearer=header))
    refused(client.call("POST", f"/resource/{PATH}", b"evil", bearer=header))


@pytest.mark.parametrize("seed", range(4))
def test_any_path_is_answered(target: Target, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a seed, so that it can be repeated
    parts = ["resource", "auth", "attest", "a", "..", ".", "", "%00", "%2f", "ä", "A b"]
    for _ in range(100):
        chosen = chance.choices(parts, k=chance.randrange(6))
        method = chance.choice(["GET", "POST", "PUT", "DELETE"])
        path = "/" + "/".join(quote(one, safe="%") for one in chosen)
        answer = target.guest("sample").call(method, path)
        assert answer.status in {401, 404, 405}, (method, path, answer)
        assert {"type", "detail"} <= set(answer.json)


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE", "HEAD"])
def test_other_methods(target: Target, method: str) -> None:
    client = target.guest("sample")
    answer = client.call(method, f"/resource/{PATH}")
    assert answer.status in {401, 405}


def test_a_body_over_the_cap_is_413(target: Target) -> None:
    client = target.guest("sample")
    client.auth()
    answer = client.call("POST", "/attest", b" " * (2 * 1024 * 1024 + 1))
    assert answer.status == 413
    assert {"type", "detail"} <= set(answer.json)


def test_a_first_message_is_short(target: Target) -> None:
    message = {"version": "0.4.0", "tee": "sample", "extra-params": "x" * 16 * 1024}
    body = json.dumps(message).encode()
    answer = target.guest("sample").call("POST", "/auth", body)
    assert answer.status == 401
    assert "16384" in answer.json["detail"]


@pytest.mark.parametrize("tee", ["snp", "tpm"])
def test_every_flipped_bit_of_a_quote_is_refused(target: Target, tee: str) -> None:
    """One bit of each byte of what is signed, and of the signature."""
    client = target.guest(tee)
    client.auth()
    message: Any = client.message()
    primary = message["tee-evidence"]["primary_evidence"]
    if tee == "snp":
        report = primary["attestation_report"]
        arrays = [name for name, value in report.items() if isinstance(value, list)]
        for name in arrays:
            for index in range(0, len(report[name]), 5):
                report[name][index] ^= 1
                refused(client.attest(message))
                report[name][index] ^= 1
    else:
        for name in ("message", "signature"):
            good = primary["tpm_quote"][name]
            raw = base64.b64decode(good)
            for index in range(len(raw)):
                bad = raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]
                primary["tpm_quote"][name] = base64.b64encode(bad).decode()
                refused(client.attest(message))
            primary["tpm_quote"][name] = good
        assert client.attest(message).status == 200


def test_the_broker_still_serves(target: Target) -> None:
    assert target.guest("sample").fetch(PATH) == SECRET
