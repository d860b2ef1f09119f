"""Arm CCA realms at the RCAR door."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest

from kbs.core.encode import canonical_json
from kbs.governance.statement import Action, Kind
from tests.fakes.answers import releases
from tests.fakes.cca import FakeCca
from tests.fakes.rcar_client import Answer, RcarClient
from tests.fakes.rcar_evidence import cca_evidence
from tests.fakes.snp_world import policy
from tests.fakes.world import World

KEY = "acme/realm/model"
RIM = "ab" * 32
INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha512"\n\n[data]\n"aa.toml" = "x"\n'


def guest(world: World, fake: FakeCca, **options: Any) -> RcarClient:
    def send(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        client = world.app.test_client(use_cookies=False)
        found = client.open(path, method=method, data=body, headers=dict(headers))
        return Answer(found.status_code, dict(found.headers), found.get_data())

    return RcarClient(send, **{"tee": "cca", "evidence": cca_evidence(fake), **options})


def prepared(world: World, fake: FakeCca) -> World:
    content = canonical_json(fake.document())
    world.govern(Action.ADD, Kind.TOKEN_ISSUER, "acme", "arm", content)
    measured = f'{{claim: cca.realm.initial_measurement, equals: "{RIM}"}}'
    world.activate_policy(policy("realm", measured), name="realm")
    world.create_key(KEY, b"realm")
    return world


@pytest.mark.parametrize("fake", [FakeCca(), FakeCca(draft=False)])
def test_a_realm_gets_its_resource(world: World, fake: FakeCca) -> None:
    prepared(world, fake)
    assert guest(world, fake).fetch(KEY) == b"realm"
    (entry,) = releases(world)
    assert (entry["door"], entry["primary"]) == ("rcar", "cca")
    forged = FakeCca(cpak=8, draft=fake.draft)
    assert guest(world, forged).handshake().status == 401


def test_a_session_ends_when_the_platforms_key_is_taken_back(world: World) -> None:
    """What was verified under a key is verified anew once it changes."""
    fake = FakeCca()
    prepared(world, fake)
    client = guest(world, fake)
    assert client.fetch(KEY) == b"realm"
    found = world.must("GET", "/admin/v1/objects?kind=token-issuer")["objects"]
    assert isinstance(found, list)
    answer = world.sign(Action.REMOVE, Kind.TOKEN_ISSUER, "acme", "arm", found[0])
    assert answer.status_code == 201
    assert client.get(KEY).status == 401


def test_init_data_is_the_personalization_value(world: World) -> None:
    """The whole value, so that only a digest of 64 bytes can be it."""
    fake = FakeCca(realm={44235: hashlib.sha512(INIT_DATA.encode()).digest()})
    prepared(world, fake)
    given = {"format": "toml", "body": INIT_DATA}
    assert guest(world, fake, init_data=given).handshake().status == 200
    for text in (INIT_DATA + "# changed\n", INIT_DATA.replace("sha512", "sha256")):
        liar = guest(world, fake, init_data={"format": "toml", "body": text})
        answer = liar.handshake()
        assert answer.status == 401
        assert "rcar.init_data" in answer.json["detail"]


@pytest.mark.parametrize("token", ["text", [256], [-1], [], [1, 2], None, [0] * 70000])
def test_evidence_is_an_array_of_bytes(world: World, token: object) -> None:
    prepared(world, FakeCca())
    client = guest(world, FakeCca(), evidence=lambda _: {"token": token})
    assert client.handshake().status == 401
