"""Whoever can write the database can stop releases, and undo nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, text

from kbs.adapters.sql import schema
from kbs.adapters.sql.database import SqlDatabase
from kbs.app import check_start
from kbs.broker.ports import StoredStatement
from kbs.core.errors import IntegrityError
from kbs.governance.signature import sign_statement
from kbs.governance.statement import Action, Envelope, Kind, Statement
from tests.fakes.tpm import FakeTpm
from tests.fakes.world import WORKLOAD, World

STATEMENTS = schema.statements
STOP = {"target": "all", "value": "", "reason": "incident"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(World.create(tmp_path)) as made:
        yield made


def sql(world: World) -> SqlDatabase:
    database = world.parts.database
    assert isinstance(database, SqlDatabase)
    return database


def tick(world: World) -> None:
    """What every process does each second."""
    world.broker.audit._upkeep.every_second()


def status(world: World, tpm: FakeTpm) -> int:
    return world.send(world.request(tpm)).status_code


def stop(world: World) -> int:
    stored = world.store(Kind.DENY, "*", "stop", json.dumps(STOP).encode())
    return world.sign(Action.DENY, Kind.DENY, "*", "stop", stored).status_code


def forget_last_statement(world: World) -> None:
    """Delete the row of the last statement, and hide its entry from queries."""
    with sql(world).engine.begin() as connection:
        seq = connection.execute(text("select max(seq) from statements")).scalar_one()
        connection.execute(delete(STATEMENTS).where(STATEMENTS.c.seq == seq))
        last = "select max(leaf_index) from log_entries where kind = 'statement'"
        connection.execute(
            text(
                "update log_entries set kind = 'admin.action' "
                f"where leaf_index = ({last})"
            )
        )


def test_an_emergency_stop_cannot_be_undone_by_sql(world: World) -> None:
    tpm = world.standard()
    assert status(world, tpm) == 200
    assert stop(world) == 201
    mark = world.parts.highwater.read()
    forget_last_statement(world)
    assert status(world, tpm) == 503
    tick(world)
    assert world.parts.highwater.read() == mark
    assert status(world, tpm) == 503
    # Nor by a process that starts, or that never saw the statement.
    with pytest.raises(IntegrityError, match="older than its high-water mark"):
        check_start(world.parts, world.settings)
    again = world.restarted()
    assert status(again, tpm) == 503


def test_another_worker_that_never_saw_the_stop_refuses_too(world: World) -> None:
    tpm = world.standard()
    other = world.restarted()
    assert status(other, tpm) == 200
    assert stop(world) == 201
    forget_last_statement(world)
    assert status(other, tpm) == 503


def test_a_statement_that_vanishes_as_it_is_accepted_is_not_acknowledged(
    world: World,
) -> None:
    tpm = world.standard()
    with sql(world).engine.begin() as connection:
        connection.execute(
            text(
                "create trigger vanish after insert on statements begin "
                "delete from statements where seq = new.seq; end"
            )
        )
    assert stop(world) == 503
    assert status(world, tpm) in {200, 503}


def test_a_log_that_is_cut_stops_releases_and_keeps_the_mark(world: World) -> None:
    tpm = world.standard()
    assert status(world, tpm) == 200
    tick(world)
    mark = world.parts.highwater.read()
    with sql(world).engine.begin() as connection:
        connection.execute(text("update log_head set size = size - 1"))
    tick(world)
    assert world.parts.highwater.read() == mark
    assert status(world, tpm) == 503
    with sql(world).engine.begin() as connection:
        connection.execute(text("update log_head set size = size + 1"))
    tick(world)
    assert status(world, tpm) == 200


def test_a_statement_that_was_refused_does_not_count_when_it_is_written_by_sql(
    world: World,
) -> None:
    """Signed, expired, and inserted with an acceptance time that is a lie."""
    tpm = world.standard()
    evil = world.booted_tpm(WORKLOAD + b"evil")
    world.enrol(evil, group="hosts")
    assert status(world, evil) == 403
    stored = world.store(Kind.WORKLOAD_POLICY, "acme", "other", WORKLOAD + b"evil")
    head = world.must("GET", "/admin/v1/governance/head")
    seq = head["seq"]
    assert isinstance(seq, int)
    version = stored["version"]
    assert isinstance(version, int)
    now = world.clock.now()
    statement = Statement(
        instance=world.parts.instance,
        seq=seq + 1,
        prev=str(head["prev"]),
        action=Action.ACTIVATE,
        kind=Kind.WORKLOAD_POLICY,
        tenant="acme",
        name="other",
        version=version,
        digest=str(stored["digest"]),
        expires=now + timedelta(seconds=60),
    )
    envelope = Envelope(statement, (sign_statement(statement, world.admin),))
    world.clock.advance(86_400)
    path = "/admin/v1/governance/statements"
    refused = world.call("POST", path, {"envelope": envelope.to_json()})
    assert refused.status_code == 403
    assert refused.get_json()["code"] == "statement.expired"
    with sql(world).write() as tx:
        tx.governance.append(StoredStatement(seq + 1, envelope.canonical(), now))
    assert status(world, tpm) == 503
    tick(world)
    assert status(world, tpm) == 503
    assert world.must("GET", "/admin/v1/audit/entries?kind=integrity.reported")[
        "entries"
    ]


def test_a_reader_that_began_before_a_statement_raises_no_alarm(world: World) -> None:
    tpm = world.standard()
    governance = world.broker.governing._governance
    with sql(world).read() as early:
        assert early.governance.head() > 0
        assert stop(world) == 201
        assert status(world, tpm) == 403
        with pytest.raises(Exception, match="a view of") as caught:
            governance.snapshot(early)
    assert type(caught.value).__name__ == "StaleReadError"
    assert governance.fault is None
    assert status(world, tpm) == 403


def test_a_mark_that_is_deleted_while_running_comes_back(world: World) -> None:
    tpm = world.standard()
    assert status(world, tpm) == 200
    tick(world)
    (world.folder / "trust" / "highwater").unlink()
    assert status(world, tpm) == 200
    tick(world)
    assert world.parts.highwater.read() is not None
    check_start(world.parts, world.settings)
