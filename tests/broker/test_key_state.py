"""Key rows changed behind the broker's back: none of the past counts again.

Each row carries a MAC, so whoever writes the database can only put back what once was.
The sealed state of the table and its number in the high-water mark find that.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from kbs.app import check_start
from kbs.broker.governance import StaleReadError
from kbs.channel.binding import Mode
from kbs.core.errors import IntegrityError
from kbs.core.ids import parse_key_id
from tests.fakes.answers import see
from tests.fakes.world import World, writer

CHAT = "acme/model/chat"
PATH = f"/admin/v1/keys/{CHAT}"


def _save(world: World, *tables: str) -> dict[str, list[dict[str, object]]]:
    with writer(world) as connection:
        return {
            name: [
                dict(row)
                for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()
            ]
            for name in tables
        }


def _put_back(world: World, saved: dict[str, list[dict[str, object]]]) -> None:
    with writer(world) as connection:
        for name, rows in saved.items():
            connection.execute(text(f"DELETE FROM {name}"))
            for row in rows:
                columns = ", ".join(row)
                values = ", ".join(f":{column}" for column in row)
                insert = text(f"INSERT INTO {name} ({columns}) VALUES ({values})")
                connection.execute(insert, row)


CHANGES = {
    "destroyed": (("destroy", {"version": 1}),),
    "retired": (("retire", {"version": 1}),),
    "rotated": (("rotate", {}),),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_version_of_the_past_that_is_put_back_does_not_leave(
    any_world: World, name: str
) -> None:
    world = any_world
    tpm = world.standard()
    saved = _save(world, "key_versions")
    for verb, body in CHANGES[name]:
        world.must("POST", f"{PATH}/{verb}", body)
    _put_back(world, saved)
    for each in (world, world.restarted()):
        for _ in range(2):
            seen = see(each, each.request(tpm))
            assert (seen.status, seen.code) == (503, "keys.tampered")
        probe = see(each, each.request(tpm, mode=Mode.CHECK))
        assert (probe.status, probe.code) == (503, "keys.tampered")
    subjects = [one["subject"] for one in world.entries("integrity.reported")]
    assert "keys.tampered" in subjects
    with pytest.raises(IntegrityError, match="keys"):
        check_start(world.parts, world.settings)
    # Nor does a change of another key make it good.
    world.create_key("acme/model/other")
    assert see(world, world.request(tpm)).code == "keys.tampered"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE key_versions SET state = 'destroyed'",
        "UPDATE key_versions SET origin = 'generated'",
        "UPDATE key_versions SET revision = revision + 1",
        "DELETE FROM key_versions",
        "DELETE FROM key_state",
        "UPDATE key_state SET seq = seq + 1",
        "UPDATE key_state SET digest = mac",
    ],
)
def test_a_changed_row_is_no_answer_about_the_key(world: World, change: str) -> None:
    tpm = world.standard()
    assert world.send(world.request(tpm)).status_code == 200
    with writer(world) as connection:
        connection.execute(text(change))
    for mode in (Mode.RELEASE, Mode.CHECK):
        seen = see(world, world.request(tpm, mode=mode))
        assert seen.status == 503
        assert seen.code in {"keys.tampered", "keys.state"}
    assert world.call("GET", PATH).status_code == 503


def test_table_and_state_of_before_are_found_older(world: World) -> None:
    tpm = world.standard()
    saved = _save(world, "key_versions", "key_state")
    world.must("POST", f"{PATH}/destroy", {"version": 1})
    _put_back(world, saved)
    for each in (world, world.restarted()):
        seen = see(each, each.request(tpm))
        assert (seen.status, seen.code) == (503, "keys.tampered")
    with pytest.raises(IntegrityError, match="changes of keys"):
        check_start(world.parts, world.settings)
    # The operator may take it as it is; the state of before is not good any more.
    check_start(world.parts, replace(world.settings, accept_rollback="lost a disk"))
    again = world.restarted()
    assert see(again, again.request(tpm)).status == 200
    _put_back(world, {"key_state": saved["key_state"]})
    assert see(again, again.request(tpm)).code == "keys.tampered"


def test_a_row_that_nobody_asks_for_is_found_by_the_watch(world: World) -> None:
    world.standard()
    ledger = world.broker.keeping._ledger
    ledger.watch()
    assert world.entries("integrity.reported") == []
    with writer(world) as connection:
        connection.execute(text("UPDATE key_versions SET mac = wrapped"))
    restarted = world.restarted().broker.keeping._ledger
    for _ in range(3):
        restarted.watch()
        ledger.watch()
    assert len(world.entries("integrity.reported")) <= 2
    assert world.entries("integrity.reported") != []


def test_a_transaction_of_before_a_change_is_no_tampering(world: World) -> None:
    world.standard()
    ledger = world.broker.keeping._ledger
    key_id = parse_key_id(CHAT)
    with world.parts.database.read() as tx:
        tx.log.head()
        world.must("POST", f"{PATH}/rotate", {})
        with world.parts.database.read() as fresh:
            assert len(ledger.versions(fresh, key_id)) == 2
        # What was changed since counts, and the transaction is known to be older.
        assert len(ledger.versions(tx, key_id)) == 2
        with pytest.raises(StaleReadError):
            ledger.check(tx)
    assert world.entries("integrity.reported") == []


def test_a_change_that_is_rolled_back_is_forgotten(world: World) -> None:
    tpm = world.standard()
    answer = world.call("POST", "/admin/v1/keys", {"id": CHAT, "kind": "opaque"})
    assert answer.status_code == 409
    ledger = world.broker.keeping._ledger

    def change() -> None:
        with world.parts.database.write() as tx:
            rows = ledger.versions(tx, parse_key_id(CHAT), writing=True)
            ledger.changed(tx, rows)
            assert ledger.versions(tx, parse_key_id(CHAT), writing=True) == rows
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change()
    assert world.send(world.request(tpm)).status_code == 200


def test_a_database_of_the_schema_before_is_taken_over_once(world: World) -> None:
    """It has keys and no states of its tables, and no key that signs tokens."""
    tpm = world.standard()
    with writer(world) as connection:
        for change in (
            "DELETE FROM key_state",
            "DELETE FROM collateral_state",
            "DELETE FROM broker_keys WHERE purpose = 'token'",
        ):
            connection.execute(text(change))
    # Its mark lacks members of today's.
    world.parts.highwater.write(b'{"mark":{}}\n')
    with pytest.raises(IntegrityError):
        check_start(world.parts, world.settings)
    check_start(world.parts, replace(world.settings, accept_rollback="new schema"))
    again = world.restarted()
    assert again.send(again.request(tpm)).status_code == 200
    check_start(world.parts, world.settings)
