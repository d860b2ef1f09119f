"""What a writer to the database can do: stop releases. Not: cause one, or hide."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, delete, insert, select, update

from kbs.adapters.sql import schema
from kbs.adapters.sql.database import SqlDatabase
from kbs.app import check_start, create_app_with
from kbs.core.encode import canonical_json
from kbs.core.errors import IntegrityError
from kbs.governance.signature import sign_statement
from kbs.governance.statement import Action, Envelope, Kind, Statement
from tests.fakes.tpm import FakeTpm
from tests.fakes.tpm_ca import FakeTpmCA, certificate_b64
from tests.fakes.world import WORKLOAD, World

POLICY = """\
kind: ReleasePolicy
name: chat
releases: ["acme/model/*"]
allow:
  - rule: enrolled-host
    all:
      - {safe: true}
      - {claim: vtpm.ak.group, equals: hosts}
      - {claim: vtpm.pcr.sha256.0, in: {reference: firmware}}
      - {claim: vtpm.pcr.sha256.15, measures: {workload_policy: runtime, version: 1}}
"""
PCR0 = hashlib.sha256(bytes(32) + hashlib.sha256(b"firmware").digest()).hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()
OBJECTS = schema.governed_objects
STATEMENTS = schema.statements


@dataclass
class Site:
    """A broker in use, and a writer behind its back."""

    world: World
    tpm: FakeTpm

    @property
    def database(self) -> SqlDatabase:
        database = self.world.parts.database
        assert isinstance(database, SqlDatabase)
        return database

    def saved(self) -> dict[str, list[dict[str, object]]]:
        with self.database.engine.connect() as connection:
            return {
                table.name: [
                    dict(row) for row in connection.execute(select(table)).mappings()
                ]
                for table in (OBJECTS, STATEMENTS)
            }

    def restore(self, saved: dict[str, list[dict[str, object]]]) -> None:
        with self.database.engine.begin() as connection:
            for table in (OBJECTS, STATEMENTS):
                connection.execute(delete(table))
                connection.execute(insert(table), saved[table.name])

    def ask(self) -> int:
        return self.world.send(self.world.request(self.tpm)).status_code

    def ready(self) -> tuple[int, list[str]]:
        answer = self.world.app.test_client().get("/health/ready")
        missing = [
            one["what"] for one in answer.get_json()["missing"] if one["blocking"]
        ]
        return answer.status_code, missing


@pytest.fixture
def site(any_world: World) -> Site:
    world = any_world
    tpm = world.booted_tpm()
    world.enrol(tpm)
    world.govern(Action.ACTIVATE, Kind.WORKLOAD_POLICY, "acme", "runtime", WORKLOAD)
    values = json.dumps({"values": [PCR0]}).encode()
    world.govern(Action.ADD, Kind.REFERENCE_SET, "acme", "firmware", values)
    ca = {"purpose": "ak", "certificate": certificate_b64(FakeTpmCA().root)}
    world.govern(Action.ADD, Kind.CA, "acme", "maker", json.dumps(ca).encode())
    world.activate_policy(POLICY)
    world.create_key("acme/model/chat", b"the model key")
    found = Site(world, tpm)
    assert found.ask() == 200
    return found


def _content(kind: str, change: Callable[[bytes], bytes]) -> Callable[..., None]:
    """Change an object's content, and its digest column with it."""

    def run(connection: Connection, _: Site) -> None:
        where = OBJECTS.c.kind == kind
        row = connection.execute(select(OBJECTS).where(where)).mappings().one()
        content = change(row["content"])
        assert content != row["content"]
        connection.execute(update(OBJECTS).where(where).values(content=content))

    return run


def _with_digest(connection: Connection, _: Site) -> None:
    where = OBJECTS.c.kind == "reference-set"
    content = canonical_json({"values": [PCR0, OTHER]})
    digest = hashlib.sha256(content).hexdigest()
    values = {"content": content, "digest": digest}
    connection.execute(update(OBJECTS).where(where).values(values))


def _twin(connection: Connection, _: Site) -> None:
    """Another row that claims the same digest, sorted behind the honest one."""
    where = OBJECTS.c.kind == "reference-set"
    row = dict(connection.execute(select(OBJECTS).where(where)).mappings().one())
    content = canonical_json({"values": [PCR0, OTHER]})
    twin = {**row, "kind": "workload-policy", "name": "zz", "content": content}
    connection.execute(insert(OBJECTS), [twin])


def _deleted(kind: str) -> Callable[..., None]:
    def run(connection: Connection, _: Site) -> None:
        connection.execute(delete(OBJECTS).where(OBJECTS.c.kind == kind))

    return run


def _rows(connection: Connection) -> list[dict[str, object]]:
    found = connection.execute(select(STATEMENTS).order_by(STATEMENTS.c.seq))
    return [dict(row) for row in found.mappings()]


def _envelope_of(kind: str, connection: Connection) -> tuple[int, dict[str, object]]:
    for row in _rows(connection):
        raw, seq = row["envelope"], row["seq"]
        assert isinstance(raw, bytes)
        assert isinstance(seq, int)
        document = json.loads(raw)
        if document["statement"]["kind"] == kind:
            return seq, document
    raise AssertionError(kind)


def _statement_changed(connection: Connection, _: Site) -> None:
    seq, document = _envelope_of("release-policy", connection)
    statement = document["statement"]
    assert isinstance(statement, dict)
    statement["digest"] = OTHER
    connection.execute(
        update(STATEMENTS)
        .where(STATEMENTS.c.seq == seq)
        .values(envelope=canonical_json(document))
    )


def _signature_changed(connection: Connection, _: Site) -> None:
    seq, document = _envelope_of("release-policy", connection)
    raw = canonical_json(document)
    place = raw.index(b'"sig":"') + 9
    other = b"A" if raw[place : place + 1] != b"A" else b"B"
    changed = raw[:place] + other + raw[place + 1 :]
    where = STATEMENTS.c.seq == seq
    connection.execute(update(STATEMENTS).where(where).values(envelope=changed))


def _statement_deleted(kind: str) -> Callable[..., None]:
    def run(connection: Connection, _: Site) -> None:
        seq, _document = _envelope_of(kind, connection)
        connection.execute(delete(STATEMENTS).where(STATEMENTS.c.seq == seq))

    return run


def _swapped(connection: Connection, _: Site) -> None:
    first, *_middle, last = _rows(connection)
    for seq, envelope in (
        (first["seq"], last["envelope"]),
        (last["seq"], first["envelope"]),
    ):
        where = STATEMENTS.c.seq == seq
        connection.execute(update(STATEMENTS).where(where).values(envelope=envelope))


def _replayed(connection: Connection, _: Site) -> None:
    """An old approval once more, as the next statement."""
    rows = _rows(connection)
    last = rows[-1]
    seq = last["seq"]
    assert isinstance(seq, int)
    connection.execute(insert(STATEMENTS), [{**last, "seq": seq + 1}])


def _forged(connection: Connection, site: Site) -> None:
    """The next statement, signed by somebody who is no administrator."""
    rows = _rows(connection)
    raw = rows[-1]["envelope"]
    assert isinstance(raw, bytes)
    before = json.loads(raw)["statement"]
    statement = Statement(
        instance=before["instance"],
        seq=before["seq"] + 1,
        prev=hashlib.sha256(canonical_json(before)).hexdigest(),
        action=Action.DEACTIVATE,
        kind=Kind.RELEASE_POLICY,
        tenant="acme",
        name="chat",
        version=1,
        digest=before["digest"],
    )
    mallory = Ed25519PrivateKey.generate()
    envelope = Envelope(statement, (sign_statement(statement, mallory),))
    connection.execute(
        insert(STATEMENTS),
        [
            {
                "seq": statement.seq,
                "envelope": envelope.canonical(),
                "accepted": rows[-1]["accepted"],
            }
        ],
    )


def _wider(data: bytes) -> bytes:
    return data.replace(b"hosts", b"other")


TAMPERINGS: dict[str, Callable[..., None]] = {
    "release policy": _content("release-policy", _wider),
    "reference value": _content(
        "reference-set",
        lambda c: c.replace(b'"values":["', b'"values":["' + OTHER.encode() + b'","'),
    ),
    "reference value and digest": _with_digest,
    "twin of a reference set": _twin,
    "workload policy": _content("workload-policy", lambda c: c + b"# more\n"),
    "ak group": _content("ak", _wider),
    "ca": _content("ca", lambda c: c.replace(b'"ak"', b'"ek"')),
    "authority": _content("authority", lambda c: c.replace(b'"root"', b'"toor"')),
    "release policy deleted": _deleted("release-policy"),
    "reference set deleted": _deleted("reference-set"),
    "ak deleted": _deleted("ak"),
    "authority deleted": _deleted("authority"),
    "statement changed": _statement_changed,
    "signature changed": _signature_changed,
    "statement deleted": _statement_deleted("ak"),
    "chain truncated": _statement_deleted("release-policy"),
    "statements swapped": _swapped,
    "old approval replayed": _replayed,
    "statement forged": _forged,
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_change_behind_a_running_broker_is_refused_reported_and_mended(
    site: Site, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved = site.saved()
    with site.database.engine.begin() as connection:
        TAMPERINGS[name](connection, site)
    with caplog.at_level(logging.CRITICAL):
        answer = site.world.send(site.world.request(site.tpm))
    assert answer.status_code == 503
    assert answer.mimetype == "application/problem+json"
    assert OTHER not in answer.get_data(as_text=True)
    assert [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert site.ready() == (503, ["governance"])
    # Auditors still read, and find the report.
    reports = site.world.entries("integrity.reported")
    assert reports
    assert str(reports[0]["subject"]).startswith("governance.")
    # Nothing changes under governance that does not hold.
    refused = site.world.call(
        "POST", "/admin/v1/keys", {"id": "acme/a/b", "kind": "opaque"}
    )
    assert refused.status_code == 503
    # With the rows back the broker goes on by itself.
    site.restore(saved)
    assert site.ask() == 200
    assert site.ready() == (200, [])


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_change_behind_the_broker_is_refused_at_start(
    site: Site, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved = site.saved()
    check_start(site.world.parts, site.world.settings)
    with site.database.engine.begin() as connection:
        TAMPERINGS[name](connection, site)
    with (
        caplog.at_level(logging.CRITICAL),
        pytest.raises(IntegrityError) as caught,
    ):
        check_start(site.world.parts, site.world.settings)
    if name == "chain truncated":
        assert "older than its high-water mark" in str(caught.value)
        with pytest.raises(IntegrityError, match="high-water mark"):
            create_app_with(site.world.parts, site.world.settings, serving=True)
        return
    assert caught.value.code.startswith("governance.")
    # A worker that is started all the same releases nothing.
    with pytest.raises(IntegrityError):
        create_app_with(site.world.parts, site.world.settings, serving=True)
    again = Site(site.world.restarted(), site.tpm)
    assert again.world.send(b"{}").status_code == 400
    assert again.ask() == 503
    assert again.ready() == (503, ["governance"])
    site.restore(saved)
    check_start(site.world.parts, site.world.settings)
    assert again.ask() == 200


def test_a_row_that_nobody_asks_for_is_found_by_the_watch(site: Site) -> None:
    unused = json.dumps({"values": [OTHER]}).encode()
    site.world.govern(Action.ADD, Kind.REFERENCE_SET, "acme", "unused", unused)
    assert site.ready() == (200, [])
    saved = site.saved()
    with site.database.engine.begin() as connection:
        where = OBJECTS.c.name == "unused"
        connection.execute(update(OBJECTS).where(where).values(content=b"{}"))
    assert site.ready() == (200, [])
    site.world.broker.governing.watch()
    assert site.ready() == (503, ["governance"])
    assert site.ask() == 503
    site.restore(saved)
    assert site.ready() == (200, [])


def test_another_genesis_is_refused_at_start(site: Site) -> None:
    world = site.world.restarted(genesis_digest=OTHER)
    with pytest.raises(IntegrityError, match="genesis"):
        check_start(world.parts, world.settings)
    assert Site(world, site.tpm).ask() == 503


def _rivals(site: Site) -> tuple[Envelope, Envelope]:
    """Two statements, both well signed, for the same place in the chain."""
    head = site.world.must("GET", "/admin/v1/governance/head")
    stop = {"target": "key", "value": "acme/model/chat", "reason": "stolen"}
    harmless = {"target": "key", "value": "acme/model/none", "reason": "not used"}
    envelopes = []
    for name, document in (("stop", stop), ("harmless", harmless)):
        source = json.dumps(document).encode()
        stored = site.world.store(Kind.DENY, "acme", name, source)
        seq, version = head["seq"], stored["version"]
        assert isinstance(seq, int)
        assert isinstance(version, int)
        statement = Statement(
            instance=site.world.parts.instance,
            seq=seq + 1,
            prev=str(head["prev"]),
            action=Action.DENY,
            kind=Kind.DENY,
            tenant="acme",
            name=name,
            version=version,
            digest=str(stored["digest"]),
        )
        signature = sign_statement(statement, site.world.admin)
        envelopes.append(Envelope(statement, (signature,)))
    return envelopes[0], envelopes[1]


def test_a_signed_statement_that_lost_cannot_take_the_winners_place(site: Site) -> None:
    won, lost = _rivals(site)
    path = "/admin/v1/governance/statements"
    assert site.world.call("POST", path, {"envelope": won.to_json()}).status_code == 201
    assert (
        site.world.call("POST", path, {"envelope": lost.to_json()}).status_code == 409
    )
    assert site.ask() == 403
    with site.database.engine.begin() as connection:
        where = STATEMENTS.c.seq == won.statement.seq
        values = {"envelope": lost.canonical()}
        connection.execute(update(STATEMENTS).where(where).values(values))
    with pytest.raises(IntegrityError, match="is another one"):
        check_start(site.world.parts, site.world.settings)
    assert site.world.call("POST", "/admin/v1/integrity", {}).status_code == 503


def test_content_of_another_kind_never_comes_into_force(site: Site) -> None:
    """A digest alone is not enough: the version must be of that kind and name."""
    smuggled = POLICY.replace("acme/model/*", "other/model/*").encode()
    stored = site.world.store(Kind.WORKLOAD_POLICY, "acme", "chat", smuggled)
    answer = site.world.sign(
        Action.ACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", {**stored, "version": 9}
    )
    assert answer.status_code == 404
    assert answer.get_json()["code"] == "statement.content"
    assert site.ask() == 200
