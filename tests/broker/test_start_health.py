"""What must hold at a start, what health names, what explain says."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.adapters.sql.collateral import SqlCollateralStore
from kbs.adapters.sql.database import connect
from kbs.app import check_start, create_app_with
from kbs.core.encode import b64
from kbs.core.errors import ConfigurationError, IntegrityError
from kbs.governance.statement import Action, Kind
from kbs.keys.secret import Secret
from kbs.keys.wrap import LocalKEK
from tests.fakes.amd import NOW, FakeAmd
from tests.fakes.databases import FailingDatabase
from tests.fakes.tpm_ca import FakeTpmCA, certificate_b64
from tests.fakes.world import World


def _ready(world: World) -> tuple[int, dict[str, str]]:
    answer = world.app.test_client().get("/health/ready")
    missing = {one["what"]: one["detail"] for one in answer.get_json()["missing"]}
    return answer.status_code, missing


def test_health_says_that_it_is_ready_and_what_it_runs_on(any_world: World) -> None:
    client = any_world.app.test_client()
    assert client.get("/health/live").get_json() == {"live": True}
    whole = client.get("/health").get_json()
    assert whole["live"] is True
    assert whole["ready"] is True
    assert whole["kek"] == "local"
    assert whole["development"] is False
    assert {note["what"] for note in whole["notes"]} == {"collateral", "policies"}


def test_health_names_what_is_missing(any_world: World) -> None:
    world = any_world
    assert _ready(world) == (200, {})
    full = world.restarted(free_bytes=lambda: 1)
    status, missing = _ready(full)
    assert status == 503
    assert "1 bytes free" in missing["disk"]
    world.clock.advance(-3600)
    assert _ready(world) == (503, {"clock": "clock.behind"})
    world.clock.advance(3600)
    away = FailingDatabase(world.parts.database)
    again = world.restarted(database=away)
    away.fail_reads = 1
    status, missing = _ready(again)
    assert status == 503
    assert set(missing) == {"database"}
    assert again.app.test_client().get("/health/live").status_code == 200
    assert _ready(again) == (200, {})


def _health(world: World) -> dict[str, Any]:
    answer = world.app.test_client().get("/health/ready")
    document = answer.get_json()
    assert isinstance(document, dict)
    assert document["ready"] is (answer.status_code == 200)
    return document


def _import(world: World, *crls: x509.CertificateRevocationList) -> None:
    items = [b64(crl.public_bytes(Encoding.DER)) for crl in crls]
    world.must("POST", "/admin/v1/collateral", {"items": items})


def test_health_names_collateral_that_policies_need(
    snp_world: World, amd: FakeAmd
) -> None:
    world = snp_world
    (missing,) = _health(world)["missing"]
    assert (missing["what"], missing["blocking"]) == ("collateral", False)
    assert "for Milan, Genoa, Turin" in missing["detail"]
    assert _health(world)["notes"] == []
    # A list of somebody else's, or one that is not current, is none.
    _import(world, amd.crl(issuer="ARK-Other"))
    world.clock.advance(3600)
    _import(world, amd.crl(this_update=NOW - timedelta(days=9), next_update=NOW))
    (missing,) = _health(world)["missing"]
    assert missing["what"] == "collateral"
    _import(world, amd.crl())
    document = _health(world)
    assert document["missing"] == []
    (note,) = document["notes"]
    assert note["what"] == "collateral"
    assert amd.product not in note["detail"]
    others = [line for line in ("Milan", "Genoa", "Turin") if line != amd.product]
    assert all(line in note["detail"] for line in others)
    _import(world, *(amd.crl(issuer=f"ARK-{line}") for line in others))
    assert _health(world)["notes"] == []
    world.clock.advance(11 * 24 * 3600)
    assert [one["what"] for one in _health(world)["missing"]] == ["collateral"]
    # Without a policy that asks for them, nothing is missing.
    for name in ("snp", "both"):
        stored = world.must("GET", f"/admin/v1/objects/release-policy/acme/{name}/1")
        gone = world.sign(Action.DEACTIVATE, Kind.RELEASE_POLICY, "acme", name, stored)
        assert gone.status_code == 201
    assert _health(world)["missing"] == []


def test_health_reads_no_collateral_while_it_does_not_change(
    snp_world: World, amd: FakeAmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    _import(snp_world, amd.crl())
    reads = []
    listed = SqlCollateralStore.list

    def counted(self: SqlCollateralStore) -> object:
        reads.append(1)
        return listed(self)

    monkeypatch.setattr(SqlCollateralStore, "list", counted)
    for _ in range(5):
        assert _health(snp_world)["missing"] == []
    assert len(reads) <= 1


def test_health_counts_cas_without_a_revocation_list(world: World) -> None:
    maker, other = FakeTpmCA(), FakeTpmCA("Other")
    for name, ca in (("maker", maker), ("other", other)):
        content = {"purpose": "ak", "certificate": certificate_b64(ca.intermediate)}
        world.govern(Action.ADD, Kind.CA, "acme", name, json.dumps(content).encode())
    (missing,) = _health(world)["missing"]
    assert (missing["what"], missing["blocking"]) == ("collateral", False)
    assert missing["detail"].startswith("2 registered CAs")
    assert "acme" not in missing["detail"]
    _import(world, maker.revocation_lists(at=world.clock.now())[0])
    (missing,) = _health(world)["missing"]
    assert missing["detail"].startswith("1 registered CAs")
    assert _health(world)["ready"]
    _import(world, other.revocation_lists(at=world.clock.now())[0])
    assert _health(world)["missing"] == []
    world.clock.advance(8 * 24 * 3600)
    assert _health(world)["missing"][0]["detail"].startswith("2 registered CAs")


def test_another_kek_or_instance_does_not_start(any_world: World) -> None:
    parts, chosen = any_world.parts, any_world.settings
    for wrong in (
        replace(parts, kek=LocalKEK(Secret(bytes(range(1, 33))))),
        replace(parts, genesis_digest="0" * 64),
    ):
        with pytest.raises(IntegrityError):
            check_start(wrong, chosen)
    with pytest.raises(ConfigurationError, match="belong to different brokers"):
        check_start(replace(parts, instance="f" * 32), chosen)
    check_start(parts, chosen)


def test_development_and_production_do_not_mix(any_world: World) -> None:
    parts, chosen = any_world.parts, any_world.settings
    development = replace(chosen, development=True)
    check_start(parts, development)
    check_start(parts, chosen)  # a broker may grow up,
    with pytest.raises(ConfigurationError, match="production"):
        check_start(parts, development)  # but not go back


def test_an_accepted_rollback_is_on_record_and_ends_challenges(tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = stack.enter_context(closing(World.create(tmp_path)))
        tpm = world.standard()
        check_start(world.parts, world.settings)
        request = world.request(tpm)
        copy = tmp_path / "copy"
        copy.mkdir()
        with world.parts.database.write():
            for file in (tmp_path / "data").iterdir():
                shutil.copy(file, copy / file.name)
        world.create_key("acme/model/later")
        check_start(world.parts, world.settings)
        older = stack.enter_context(closing(connect(None, data_dir=copy)))
        old = replace(world.parts, database=older)
        with pytest.raises(IntegrityError, match="older than its high-water mark"):
            check_start(old, world.settings)
        with pytest.raises(IntegrityError):
            create_app_with(old, world.settings, serving=True)
        accepting = replace(world.settings, accept_rollback="backup of Monday")
        check_start(old, accepting)
        again = replace(world, parts=old, app=create_app_with(old, world.settings))
        (entry,) = again.entries("rollback.accepted")
        assert entry["reason"] == "backup of Monday"
        mark, found = entry["mark"], entry["found"]
        assert isinstance(mark, dict)
        assert isinstance(found, dict)
        assert mark["size"] > found["size"]
        # A challenge of before could have been spent in what was lost.
        answer = again.send(request)
        assert answer.status_code == 401
        assert again.send(again.request(tpm)).status_code == 200
        check_start(old, world.settings)


CLAIMS = {"vtpm": {"ak": {"group": "hosts"}}}


def test_explain_shows_the_tree_and_releases_nothing(any_world: World) -> None:
    world = any_world
    tpm = world.standard()
    size = len(world.entries())
    path = "/admin/v1/explain"
    told = world.must("POST", path, {"name": "acme/chat", "claims": CLAIMS})
    assert told["decision"] == "denied"
    assert told["assumed_request"] is True
    assert told["rules"]
    bundle = json.loads(world.request(tpm).body)
    told = world.must("POST", path, {"name": "acme/chat", "bundle": bundle})
    assert told["decision"] == "granted"
    key = world.must("GET", "/admin/v1/keys/acme/model/chat/explain")
    assert key["exists"] is True
    policies = key["policies"]
    assert isinstance(policies, list)
    assert [one["name"] for one in policies] == ["acme/chat"]
    assert policies[0]["rests_on"]
    none = world.must("GET", "/admin/v1/keys/acme/prompt/none/explain")
    assert (none["exists"], none["policies"]) == (False, [])
    assert "denied" in str(none["summary"])
    assert len(world.entries()) == size


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"name": "acme/none", "claims": CLAIMS}, 404),
        ({"name": "chat", "claims": CLAIMS}, 400),
        ({"name": "acme/chat"}, 400),
        ({"name": "acme/chat", "claims": {"nothing": 1}}, 400),
        ({"name": "acme/chat", "claims": CLAIMS, "request": {"door": 1}}, 400),
        ({"name": "acme/chat", "claims": CLAIMS, "request": {"dor": "v1"}}, 400),
        ({"name": "acme/chat", "claims": CLAIMS, "at": "now"}, 400),
        ({"name": "acme/chat", "bundle": {}}, 400),
        ({"policy": "!", "claims": CLAIMS}, 400),
    ],
)
def test_explain_says_what_is_wrong(
    world: World, body: dict[str, object], status: int
) -> None:
    world.standard()
    answer = world.call("POST", "/admin/v1/explain", body)
    assert answer.status_code == status, answer.get_data(as_text=True)
