"""The auditors' door: what happened, proven, within their tenants."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete, select, update
from werkzeug.test import TestResponse

from kbs.adapters.sql import schema
from kbs.adapters.sql.database import SqlDatabase
from kbs.adapters.sql.engine import POOL_SIZE
from kbs.app import check_start
from kbs.audit.checkpoint import verify_checkpoint
from kbs.audit.highwater import verify_mark
from kbs.audit.proof import leaf_hash, node_hash, verify_consistency
from kbs.audit.receipt import parse_receipt, verify_receipt
from kbs.audit.report import ExportError
from kbs.audit.verification import verify_export
from kbs.core.clock import format_time
from kbs.core.encode import parse_b64
from kbs.core.errors import IntegrityError
from kbs.governance.authority import Administrator, Authority, Role, RoleGrant
from kbs.governance.signature import spki_of
from kbs.governance.statement import Action, Kind
from tests.fakes.world import Request, World

ENTRIES = "/admin/v1/audit/entries"
ACME = Ed25519PrivateKey.from_private_bytes(bytes([71]) * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(bytes([72]) * 32)


@pytest.fixture
def used(any_world: World) -> tuple[World, Request, Request]:
    """A broker that granted once, denied once, and refused a stranger."""
    world = any_world
    tpm = world.standard()
    root = Administrator(
        "root",
        spki_of(world.admin.public_key()),
        tuple(RoleGrant(role, ("*",)) for role in Role),
    )
    auditors = tuple(
        Administrator(
            tenant,
            spki_of(key.public_key()),
            (RoleGrant(Role.AUDITOR, (tenant,)),),
        )
        for tenant, key in (("acme", ACME), ("other", OTHER))
    )
    authority = Authority((root, *auditors), 1, ("*",))
    world.govern(
        Action.ACTIVATE, Kind.AUTHORITY, "*", "authority", authority.canonical()
    )
    world.create_key("other/model/theirs")
    granted = world.request(tpm)
    assert world.send(granted).status_code == 200
    world.clock.advance(10)
    denied = world.request(tpm, ["other/model/theirs"])
    assert world.send(denied).status_code == 403
    stranger = world.booted_tpm()
    assert world.send(world.request(stranger)).status_code == 403
    return world, granted, denied


Used = tuple[World, Request, Request]


def _query(
    world: World, arguments: str, key: Ed25519PrivateKey | None = None
) -> list[dict[str, object]]:
    answer = world.call("GET", f"{ENTRIES}?{arguments}", key=key)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    entries = answer.get_json()["entries"]
    assert isinstance(entries, list)
    return entries


def _kinds(entries: list[dict[str, object]]) -> list[str]:
    return [str(entry["kind"]) for entry in entries]


def test_filters_narrow_what_is_listed(used: Used) -> None:
    world, _, _ = used
    every = _query(world, "limit=1000")
    assert [entry["index"] for entry in every] == list(range(len(every)))
    (grant,) = _query(world, "decision=granted")
    assert grant["kind"] == "release.granted"
    assert _kinds(_query(world, "decision=denied")) == ["release.denied", "refusals"]
    assert _query(world, f"decision={grant['decision']}") == [grant]
    assert _kinds(_query(world, "key=acme/model/chat")) == [
        *("key.imported", "release.granted")
    ]
    assert _kinds(_query(world, "policy=acme/chat")) == ["statement", "release.granted"]
    assert set(_kinds(_query(world, "kind=statement"))) == {"statement"}
    assert _query(world, "kind=statement&decision=granted") == []
    later = format_time(world.clock.now() - timedelta(seconds=5))
    assert "release.granted" not in _kinds(_query(world, f"since={later}"))
    assert "release.denied" not in _kinds(_query(world, f"until={later}"))
    assert _query(world, "after=0&limit=2") == every[1:3]
    assert _query(world, "newest=true&limit=2") == every[-2:]
    assert _query(world, "limit=0") == every[:1]


@pytest.mark.parametrize(
    "arguments",
    [
        "key=acme",
        "key=acme/model/chat@1",
        "decision=maybe",
        "kind=nothing",
        "policy=chat",
        "policy=%00",
        "since=yesterday",
        "until=2026-13-01T00:00:00Z",
        "after=-1",
        "after=99999999999999999999",
        "newest=1",
        "limit=x",
        "limit=1&limit=2",
        "after=%D9%A1",
    ],
)
def test_wrong_filters_are_named(world: World, arguments: str) -> None:
    answer = world.call("GET", f"{ENTRIES}?{arguments}")
    assert answer.status_code == 400
    assert answer.mimetype == "application/problem+json"


def test_an_auditor_reads_its_tenants_and_the_instance(used: Used) -> None:
    world, _, _ = used
    acme, other = _query(world, "limit=1000", ACME), _query(world, "limit=1000", OTHER)
    assert "release.granted" in _kinds(acme)
    assert "release.granted" not in _kinds(other)
    assert "release.denied" in _kinds(other)
    assert "release.denied" not in _kinds(acme)
    assert "other/" not in json.dumps(acme)
    assert "acme/" not in json.dumps(other)
    (grant,) = _query(world, "decision=granted")
    for path in (f"{ENTRIES}/{grant['id']}", f"{ENTRIES}/{grant['decision']}"):
        assert world.call("GET", path, key=ACME).status_code == 200
        assert world.call("GET", path, key=OTHER).status_code == 404
        assert world.call("GET", f"{path}/proof", key=OTHER).status_code == 404


def test_what_concerns_two_tenants_shows_each_its_own_keys_only(used: Used) -> None:
    world, granted, _ = used
    tpm = world.booted_tpm()
    world.enrol(tpm, "g", "other")
    refused = world.request(tpm, ["other/x/y", "acme/model/chat"], partial=True)
    decision = world.send(refused).get_json()["answer"]["decision"]
    (whole,) = _query(world, f"decision={decision}")
    body = whole["body"]
    assert isinstance(body, dict)
    assert {one["id"] for one in body["keys"]} == {"other/x/y", "acme/model/chat"}
    for key, own in ((ACME, "acme/model/chat"), (OTHER, "other/x/y")):
        (listed,) = _query(world, f"decision={decision}", key)
        shown = world.call("GET", f"{ENTRIES}/{whole['id']}", key=key).get_json()
        for entry in (listed, shown):
            assert entry["id"] == whole["id"]
            part = entry["body"]
            assert isinstance(part, dict)
            assert set(part) == {"id", "time", "kind", "withheld", "keys"}
            assert part["withheld"] is True
            assert part["keys"] == [one for one in body["keys"] if one["id"] == own]
        proof = world.call("GET", f"{ENTRIES}/{whole['id']}/proof", key=key).get_json()
        assert "body" not in proof
        assert "salt" not in proof
        index = whole["index"]
        assert isinstance(index, int)
        line = json.loads(_export(world, key)[2 + index])
        assert line["body"] is None
        assert line["salt"] is None
        found = _evidence(world, body["evidence"], key)
        assert (found.status_code, found.get_json()["code"]) == (403, "admin.role")
    assert _evidence(world, body["evidence"]).status_code == 200
    # Nor do another tenant's names find it.
    for name in ("key=acme/model/chat", "policy=acme/chat"):
        assert _query(world, name) != []
        assert _query(world, name, OTHER) == []
    # What is the auditor's alone stays whole.
    (grant,) = _query(world, "decision=granted", ACME)
    alone = grant["body"]
    assert isinstance(alone, dict)
    assert "withheld" not in alone
    assert alone["request"] == hashlib.sha256(granted.body).hexdigest()


def test_a_sample_is_found_by_its_decision_and_shows_no_others(used: Used) -> None:
    world, _, _ = used
    stranger = world.booted_tpm()
    mine = world.send(world.request(stranger)).get_json()["decision"]
    found = world.must("GET", f"{ENTRIES}/{mine}")
    sample = found["sample"]
    assert isinstance(sample, dict)
    assert sample["decision"] == mine
    assert sample["check"] == "vtpm.ak.trust"
    scoped = world.call("GET", f"{ENTRIES}/{mine}", key=OTHER).get_json()
    assert scoped["sample"] == sample
    assert "samples" not in scoped["body"]
    proof = world.call("GET", f"{ENTRIES}/{mine}/proof", key=OTHER).get_json()
    assert "body" not in proof
    assert world.call("GET", f"{ENTRIES}/{'0' * 32}").status_code == 404
    assert world.call("GET", f"{ENTRIES}/nothing").status_code == 400


def test_every_entry_can_be_proven_offline(used: Used) -> None:
    world, _, _ = used
    key = world.broker.identity.log_key
    for entry in _query(world, "limit=1000"):
        answer = world.call("GET", f"{ENTRIES}/{entry['id']}/proof")
        receipt = parse_receipt(answer.get_data())
        verify_receipt(receipt, keys=[key], origin=key.origin)


def _export(world: World, key: Ed25519PrivateKey | None = None) -> list[bytes]:
    answer = world.call("GET", "/admin/v1/audit/export", key=key)
    assert answer.status_code == 200
    return answer.get_data().splitlines(keepends=True)


def test_an_export_verifies_offline_withheld_bodies_or_not(used: Used) -> None:
    world, _, _ = used
    key = world.broker.identity.log_key
    report = verify_export(_export(world), keys=[key])
    assert report.pinned
    assert report.withheld == 0
    scoped = _export(world, OTHER)
    assert b"acme/model/chat" not in b"".join(scoped)
    report = verify_export(scoped, keys=[key])
    assert report.withheld > 0
    # Who took the log away is in the log.
    actions = [one["action"] for one in world.entries("admin.action")]
    assert actions.count("audit.export") == 2


def test_exports_that_are_read_slowly_hold_no_connection(used: Used) -> None:
    world, _, _ = used
    path = "/admin/v1/audit/export"
    begun = [world.call("GET", path) for _ in range(2 * POOL_SIZE)]
    world.create_key("acme/model/meanwhile")
    key = world.broker.identity.log_key
    for answer in begun:
        lines = answer.get_data().splitlines(keepends=True)
        assert verify_export(lines, keys=[key]).pinned


def test_one_byte_is_found_and_located(used: Used) -> None:
    world, _, _ = used
    key = world.broker.identity.log_key
    lines = _export(world)
    for number in (2, 4, len(lines) - 1):
        line = bytearray(lines[number])
        place = line.index(b'"leaf":"') + 30
        line[place] ^= 1
        changed = [*lines[:number], bytes(line), *lines[number + 1 :]]
        with pytest.raises(ExportError) as caught:
            verify_export(changed, keys=[key])
        assert caught.value.report.problems[0].line == number + 1


def test_tiles_and_checkpoint_give_the_root(used: Used) -> None:
    world, _, _ = used
    client = world.app.test_client()
    note = client.get("/v1/log/checkpoint").get_data()
    key = world.broker.identity.log_key
    checkpoint, _ = verify_checkpoint(note, origin=key.origin, keys=[key])
    size = checkpoint.size
    tile = client.get(f"/v1/log/tile/0/000.p/{size}").get_data()
    hashes = [tile[at : at + 32] for at in range(0, len(tile), 32)]
    assert len(hashes) == size
    assert _root(hashes) == checkpoint.root
    bundle = client.get(f"/v1/log/tile/entries/000.p/{size}").get_data()
    leaves = []
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        leaves.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    assert [leaf_hash(leaf) for leaf in leaves] == hashes
    # Leaves name nobody and nothing.
    assert b"acme" not in b"".join(leaves)


def _root(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    middle = 1 << (len(hashes) - 1).bit_length() - 1
    return node_hash(_root(hashes[:middle]), _root(hashes[middle:]))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("0/001", 404),
        ("0/000.p/200", 404),
        ("0/000", 404),
        ("99/000", 400),
        ("0/0", 400),
        ("x", 400),
        ("entries/x", 400),
        ("0/000.p/0", 400),
        ("0/000.p/256", 400),
        ("0/x999/999", 400),
    ],
)
def test_tiles_that_are_not_there(world: World, path: str, status: int) -> None:
    answer = world.app.test_client().get(f"/v1/log/tile/{path}")
    assert answer.status_code in {status, 404 if status == 400 else status}
    assert answer.mimetype == "application/problem+json"


def test_consistency_between_any_two_checkpoints(used: Used) -> None:
    world, _, _ = used
    tile_of = world.app.test_client()
    note = tile_of.get("/v1/log/checkpoint").get_data()
    key = world.broker.identity.log_key
    size = verify_checkpoint(note, origin=key.origin, keys=[key])[0].size
    tile = tile_of.get(f"/v1/log/tile/0/000.p/{size}").get_data()
    hashes = [tile[at : at + 32] for at in range(0, len(tile), 32)]
    for first in range(1, size + 1):
        answer = world.must(
            "GET", f"/admin/v1/audit/consistency?first={first}&second={size}"
        )
        proof = answer["proof"]
        assert isinstance(proof, list)
        verify_consistency(
            first=first,
            first_root=_root(hashes[:first]),
            second=size,
            second_root=_root(hashes),
            proof=[parse_b64(one, "hash", limit=32) for one in proof],
        )
    for pair in ("first=0&second=1", "first=3&second=2", "first=1&second=999"):
        assert (
            world.call("GET", f"/admin/v1/audit/consistency?{pair}").status_code == 400
        )


def _evidence(
    world: World, digest: object, key: Ed25519PrivateKey | None = None
) -> TestResponse:
    return world.call("GET", f"/admin/v1/audit/evidence/{digest}", key=key)


def test_evidence_is_kept_sealed_read_on_record_and_erased(used: Used) -> None:
    world, granted, _ = used
    (grant,) = _query(world, "decision=granted")
    body = grant["body"]
    assert isinstance(body, dict)
    found = _evidence(world, body["evidence"], ACME)
    assert found.status_code == 200
    bundle = parse_b64(found.get_json()["bundle"], "bundle", limit=2**22)
    # Byte for byte what came: the digest in the log is that of the bundle.
    assert bundle == granted.body
    assert hashlib.sha256(bundle).hexdigest() == body["evidence"]
    assert _evidence(world, body["evidence"], OTHER).status_code == 404
    assert _evidence(world, "0" * 64).status_code == 404
    assert _evidence(world, "xyz").status_code == 400
    actions = world.entries("admin.action")
    assert actions[-1]["action"] == "audit.evidence"
    # At rest nothing of it can be read.
    database = world.parts.database
    assert isinstance(database, SqlDatabase)
    with database.engine.connect() as connection:
        rows = connection.execute(select(schema.evidence.c.sealed)).scalars().all()
    assert rows
    assert all(b'"items"' not in row for row in rows)
    world.clock.advance(30 * 24 * 3600 + 1)
    with database.write() as tx:
        gone = tx.evidence.purge(world.clock.now(), limit=len(rows) + 1)
    assert len(gone) == len(rows)
    assert _evidence(world, body["evidence"]).status_code == 404


def test_a_retention_of_nothing_keeps_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("none")
    with closing(World.create(folder, evidence_retention_days=0)) as world:
        assert world.send(world.request(world.standard())).status_code == 200
        (grant,) = _query(world, "decision=granted")
        body = grant["body"]
        assert isinstance(body, dict)
        assert _evidence(world, body.get("evidence", "0" * 64)).status_code == 404


# -- changes to the log behind the broker's back ---------------------------------------


def _sql(world: World) -> SqlDatabase:
    database = world.parts.database
    assert isinstance(database, SqlDatabase)
    return database


def test_integrity_says_that_all_is_well(used: Used) -> None:
    world, _, _ = used
    entries = _query(world, "limit=1000")
    found = world.must("POST", "/admin/v1/integrity", {})
    assert found["statements"] == 4
    assert found["entries"] == len(entries)


@pytest.mark.parametrize("column", ["leaf", "body", "salt"])
def test_a_changed_entry_is_found_and_named(used: Used, column: str) -> None:
    world, _, _ = used
    entries = schema.log_entries
    (grant,) = _query(world, "decision=granted")
    where = entries.c.leaf_index == grant["index"]
    with _sql(world).engine.begin() as connection:
        row = connection.execute(select(entries).where(where)).mappings().one()
        data = bytes(row[column])
        changed = (
            data.replace(b"granted", b"refused") if column != "salt" else bytes(16)
        )
        assert changed != data
        connection.execute(update(entries).where(where).values({column: changed}))
    answer = world.call("POST", "/admin/v1/integrity", {})
    assert answer.status_code == 503
    assert f"entry {grant['index']}" in answer.get_json()["detail"]
    assert world.entries("integrity.reported")
    with pytest.raises(ExportError) as caught:
        verify_export(_export(world), keys=[world.broker.identity.log_key])
    assert caught.value.report.problems[0].index == grant["index"]


def _take_away(world: World, index: object) -> None:
    entries, subjects = schema.log_entries, schema.log_subjects
    with _sql(world).engine.begin() as connection:
        for table in (subjects, entries):
            connection.execute(delete(table).where(table.c.leaf_index == index))


def test_an_entry_that_is_gone_is_found(used: Used) -> None:
    world, _, _ = used
    (grant,) = _query(world, "decision=granted")
    _take_away(world, grant["index"])
    assert world.call("POST", "/admin/v1/integrity", {}).status_code == 503


def test_an_export_that_misses_an_entry_stops_releases(used: Used) -> None:
    """Its reader was told 200 before: nobody else would hear of it."""
    world, _, _ = used
    tpm = world.booted_tpm()
    (grant,) = _query(world, "decision=granted")
    _take_away(world, grant["index"])
    with pytest.raises(IntegrityError, match="rows are missing"):
        _export(world)
    assert world.send(world.request(tpm)).status_code == 503
    assert not world.broker.health.report().ready


def test_a_changed_tree_is_refused_at_start(used: Used) -> None:
    world, _, _ = used
    nodes = schema.log_nodes
    check_start(world.parts, world.settings)
    with _sql(world).engine.begin() as connection:
        connection.execute(update(nodes).values(hash=bytes(32)))
    with pytest.raises(IntegrityError):
        check_start(world.parts, world.settings)
    assert world.call("POST", "/admin/v1/integrity", {}).status_code == 503


def test_a_log_whose_tail_is_cut_is_refused_at_start(used: Used) -> None:
    world, _, _ = used
    last = len(_query(world, "limit=1000")) - 1
    check_start(world.parts, world.settings)
    entries, subjects = schema.log_entries, schema.log_subjects
    with _sql(world).engine.begin() as connection:
        connection.execute(delete(subjects).where(subjects.c.leaf_index == last))
        connection.execute(delete(entries).where(entries.c.leaf_index == last))
        connection.execute(
            delete(schema.log_checkpoints).where(
                schema.log_checkpoints.c.size == last + 1
            )
        )
        connection.execute(
            delete(schema.log_nodes).where(
                schema.log_nodes.c.level == 0, schema.log_nodes.c.position == last
            )
        )
        connection.execute(update(schema.log_head).values(size=last))
    with pytest.raises(IntegrityError, match="older than its high-water mark"):
        check_start(world.parts, world.settings)


def test_a_statement_is_marked_before_it_is_acknowledged(used: Used) -> None:
    world, _, _ = used
    stop = {"target": "key", "value": "acme/model/chat", "reason": "stolen"}
    source = json.dumps(stop).encode()
    world.govern(Action.DENY, Kind.DENY, "acme", "stop", source)
    data = world.parts.highwater.read()
    assert data is not None
    mark = verify_mark(data, keys=[world.broker.identity.log_key])
    assert mark.seq == 5
    (entry,) = _query(world, "kind=statement&newest=true&limit=1")
    assert mark.size > int(str(entry["index"]))
