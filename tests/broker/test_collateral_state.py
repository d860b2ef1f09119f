"""A writer to the database takes no revocation list away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from kbs.app import check_start
from kbs.broker.governance import StaleReadError
from kbs.core.encode import b64
from kbs.core.errors import IntegrityError
from tests.fakes import snp_world as confidential
from tests.fakes.amd import FakeAmd
from tests.fakes.answers import see
from tests.fakes.databases import Place
from tests.fakes.snp_world import report
from tests.fakes.world import World, writer

PATH = "/admin/v1/collateral"


@pytest.fixture
def revoked(
    tmp_path: Path,
    place: Place,
    amd: FakeAmd,
    newer: x509.CertificateRevocationList,
) -> Iterator[World]:
    """A broker with two lists, of which the newer one revokes everything."""
    with closing(place.connect()) as opened:
        world = confidential.create(tmp_path, opened, amd)
        _import(world, amd.crl(number=7))
        world.clock.advance(60)
        _import(world, newer)
        assert see(world, report(world, amd, crl=False)).status == 403
        yield world


@pytest.fixture
def newer(amd: FakeAmd) -> x509.CertificateRevocationList:
    """The list that revokes everything; each signature is another one."""
    return amd.crl(number=8, revoked=(amd.ask.serial_number,))


def _import(world: World, *crls: x509.CertificateRevocationList) -> None:
    world.must("POST", PATH, {"items": _items(*crls)})


def _items(*crls: x509.CertificateRevocationList) -> list[str]:
    return [b64(crl.public_bytes(Encoding.DER)) for crl in crls]


NEWEST = "WHERE imported = (SELECT max(imported) FROM collateral)"

CHANGES = {
    "taken away": f"DELETE FROM collateral {NEWEST}",
    "all taken away": "DELETE FROM collateral",
    "another kind": f"UPDATE collateral SET kind = 'certificate' {NEWEST}",
    "another content": f"UPDATE collateral SET der = digest {NEWEST}",
    "state taken away": "DELETE FROM collateral_state",
    "state of no import": "UPDATE collateral_state SET seq = 0",
    "state of a later import": "UPDATE collateral_state SET seq = seq + 1",
    "another digest": "UPDATE collateral_state SET digest = mac",
    "another mac": "UPDATE collateral_state SET mac = digest",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("restart", [False, True])
def test_a_table_that_was_changed_is_not_believed(
    revoked: World, amd: FakeAmd, change: str, *, restart: bool
) -> None:
    with writer(revoked) as connection:
        assert connection.execute(text(change)).rowcount
    if "der" in change and not restart:
        # What is in memory is what was proven, for as long as nobody imports.
        assert see(revoked, report(revoked, amd, crl=False)).status == 403
    world = (
        revoked.restarted() if restart or "UPDATE collateral " in change else revoked
    )
    for _ in range(2):
        seen = see(world, report(world, amd, crl=False))
        assert (seen.status, seen.code) == (503, "collateral.tampered")
    answer = world.app.test_client().get("/health/ready")
    assert answer.status_code == 503
    assert {
        "what": "collateral",
        "detail": "collateral.tampered",
        "blocking": True,
    } in (answer.get_json()["missing"])
    subjects = [one["subject"] for one in world.entries("integrity.reported")]
    assert subjects.count("collateral.tampered") == 1
    # An import of something else does not make it good.
    other = amd.crl(number=6, revoked=())
    answer = world.call("POST", PATH, {"items": _items(other)})
    assert (answer.status_code, answer.get_json()["code"]) == (
        *(503, "collateral.tampered"),
    )
    with pytest.raises(IntegrityError):
        check_start(world.parts, world.settings)


def test_what_was_taken_away_may_be_imported_again(
    revoked: World, amd: FakeAmd, newer: x509.CertificateRevocationList
) -> None:
    with writer(revoked) as connection:
        connection.execute(text(CHANGES["taken away"]))
    assert see(revoked, report(revoked, amd, crl=False)).status == 503
    _import(revoked, newer)
    assert see(revoked, report(revoked, amd, crl=False)).status == 403
    check_start(revoked.parts, revoked.settings)


def test_table_and_state_of_before_are_found_older(
    revoked: World, amd: FakeAmd, tmp_path: Path
) -> None:
    tables = ("collateral", "collateral_state")
    with writer(revoked) as connection:
        before = {
            name: connection.execute(text(f"SELECT * FROM {name}")).mappings().all()
            for name in tables
        }
    revoked.clock.advance(60)
    _import(revoked, amd.crl(number=9, revoked=(amd.ask.serial_number,)))
    with writer(revoked) as connection:
        for name, rows in before.items():
            connection.execute(text(f"DELETE FROM {name}"))
            for row in rows:
                columns = ", ".join(dict(row))
                values = ", ".join(f":{column}" for column in dict(row))
                insert = text(f"INSERT INTO {name} ({columns}) VALUES ({values})")
                connection.execute(insert, dict(row))
    for world in (revoked, revoked.restarted()):
        seen = see(world, report(world, amd, crl=False))
        assert (seen.status, seen.code) == (503, "collateral.tampered")
    with pytest.raises(IntegrityError, match="imports of collateral"):
        check_start(revoked.parts, revoked.settings)
    # The operator may take it as it is; nothing of before is good any more.
    accepting = replace(revoked.settings, accept_rollback="list was lost")
    check_start(revoked.parts, accepting)
    again = revoked.restarted()
    assert see(again, report(again, amd, crl=False)).status == 403
    check_start(revoked.parts, revoked.settings)
    with writer(revoked) as connection:
        connection.execute(text("DELETE FROM collateral_state"))
        (row,) = before["collateral_state"]
        connection.execute(
            text(
                "INSERT INTO collateral_state (id, seq, digest, mac) "
                "VALUES (1, :seq, :digest, :mac)"
            ),
            {name: row[name] for name in ("seq", "digest", "mac")},
        )
    seen = see(again, report(again, amd, crl=False))
    assert (seen.status, seen.code) == (503, "collateral.tampered")


def test_a_state_that_nobody_can_read_is_accepted_by_an_operator_only(
    revoked: World, amd: FakeAmd
) -> None:
    with writer(revoked) as connection:
        connection.execute(text("UPDATE collateral_state SET mac = digest"))
    with pytest.raises(IntegrityError, match="state row"):
        check_start(revoked.parts, revoked.settings)
    check_start(revoked.parts, replace(revoked.settings, accept_rollback="damaged"))
    again = revoked.restarted()
    assert see(again, report(again, amd, crl=False)).status == 403


def test_a_transaction_of_before_an_import_is_no_tampering(
    revoked: World, amd: FakeAmd
) -> None:
    table = revoked.broker.collateral
    with revoked.parts.database.read() as tx:
        tx.log.head()
        _import(revoked, amd.crl(number=9))
        with pytest.raises(StaleReadError):
            table.current(tx)
    with revoked.parts.database.read() as tx:
        assert len(table.current(tx).revocation_lists()) == 3
    assert revoked.entries("integrity.reported") == []


def test_an_import_of_nothing_new_changes_nothing(
    revoked: World, amd: FakeAmd, newer: x509.CertificateRevocationList
) -> None:
    def state() -> object:
        with revoked.parts.database.read() as tx:
            return tx.collateral.state()

    before = state()
    _import(revoked, newer)
    assert state() == before
    _import(revoked, amd.crl(number=9))
    assert state() != before
