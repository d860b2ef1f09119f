"""Where a planted secret may not be: files, rows, logs, texts, representations."""

from __future__ import annotations

import base64
import gc
import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kbs.adapters.sql.database import SqlDatabase
from kbs.broker.vault import Vault
from kbs.core.errors import IntegrityError, KbsError
from kbs.core.ids import parse_key_id
from kbs.keys.secret import Secret
from kbs.keys.wrap import LocalKEK
from tests.fakes.answers import see
from tests.fakes.databases import Place
from tests.fakes.postgres import PostgresServer
from tests.fakes.steps import STEPS, Bench
from tests.fakes.world import World

MARKER = b"MARKER:" + bytes(range(0x61, 0x7B)) + b":the planted secret"
KEY = "acme/model/marked"
PATH = f"/admin/v1/keys/{KEY}"

# As it is, and as anything that prints or encodes it would write it.
FORMS = (
    MARKER[8:40],
    MARKER[8:40].hex().encode(),
    # Every alignment of base64, without the characters that hold neighbours' bits.
    *(
        base64.b64encode(bytes(shift) + MARKER)[8 + 4 * (shift > 0) : 40]
        for shift in range(3)
    ),
)


def _found_in(data: bytes) -> bool:
    return any(form in data for form in FORMS)


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.name, path.read_bytes()


def test_the_search_finds_what_it_should() -> None:
    for text in (repr(MARKER), MARKER.hex(), base64.b64encode(b"x" + MARKER).decode()):
        assert _found_in(text.encode())


def test_no_file_ever_holds_it(tmp_path: Path, sqlite_place: Place) -> None:
    with closing(sqlite_place.connect()) as opened:
        world = World.create(tmp_path, database=opened)
        tpm = world.standard()
        world.create_key(KEY, MARKER)
        request = world.request(tpm, [KEY])
        assert world.released(request) == {f"{KEY}@1": MARKER}
        # With the connections open: the write-ahead log is part of it.
        names = {name for name, _ in _files(tmp_path)}
        assert {"kbs.db", "kbs.db-wal"} <= names
        for name, data in _files(tmp_path):
            assert not _found_in(data), name
    for name, data in _files(tmp_path):
        assert not _found_in(data), name


def test_no_row_or_file_of_postgresql_holds_it(
    tmp_path: Path, postgresql_place: Place, postgresql_server: PostgresServer
) -> None:
    with closing(postgresql_place.connect()) as opened:
        world = World.create(tmp_path, database=opened)
        tpm = world.standard()
        world.create_key(KEY, MARKER)
        assert world.released(world.request(tpm, [KEY])) == {f"{KEY}@1": MARKER}
        for data in _rows(opened):
            assert not _found_in(data)
        with opened.engine.connect() as connection:
            connection.exec_driver_sql("CHECKPOINT")
    names = set()
    for name, data in _files(postgresql_server.folder):
        names.add(name)
        assert not _found_in(data), name
    assert {"PG_VERSION", "log"} <= names


def _rows(database: SqlDatabase) -> Iterator[bytes]:
    with database.engine.connect() as connection:
        tables = connection.exec_driver_sql(
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = 'public'"
        ).scalars()
        for table in list(tables):
            for row in connection.exec_driver_sql(f'SELECT * FROM "{table}"'):
                for value in row:
                    is_bytes = isinstance(value, (bytes, memoryview))
                    yield bytes(value) if is_bytes else str(value).encode()


def test_no_log_line_holds_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("sqlalchemy.engine").setLevel(logging.DEBUG)
    try:
        tpm = world.standard()
        world.create_key(KEY, MARKER)
        assert world.released(world.request(tpm, [KEY])) == {f"{KEY}@1": MARKER}
        assert see(world, world.request(world.booted_tpm(), [KEY])).status == 403
    finally:
        logging.getLogger("sqlalchemy.engine").setLevel(logging.NOTSET)
    assert "BEGIN" in caplog.text
    assert not _found_in(caplog.text.encode())


@pytest.mark.parametrize("step", ["appraised", "sealed", "recorded", "committed"])
def test_no_object_shows_it(sqlite_bench: Bench, step: str) -> None:
    """Everything of ours that is alive at a step, by its `repr` and `str`."""
    world = sqlite_bench.world
    world.create_key(KEY, MARKER)
    request = world.request(sqlite_bench.tpm, [KEY])
    looked: list[str] = []

    def look() -> None:
        for one in gc.get_objects():
            if str(type(one).__module__).startswith("kbs."):
                looked.append(type(one).__name__)
                assert not _found_in(f"{one!r} {one!s}".encode()), type(one)

    sqlite_bench.probe.at(step, look)
    assert see(world, request).status == 200
    assert len(looked) > 100


@pytest.mark.parametrize("step", STEPS)
def test_no_error_tells_it(
    sqlite_bench: Bench, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = sqlite_bench.world
    world.create_key(KEY, MARKER)
    caplog.set_level(logging.DEBUG)

    def fail() -> None:
        raise ValueError("a bug")

    sqlite_bench.probe.at(step, fail)
    response = world.send(world.request(sqlite_bench.tpm, [KEY]))
    assert response.status_code == 503
    assert not _found_in(response.get_data())
    assert not _found_in(caplog.text.encode())


def test_a_stolen_database_opens_nothing(tmp_path: Path, sqlite_place: Place) -> None:
    stolen = tmp_path / "stolen"
    with closing(sqlite_place.connect()) as opened:
        world = World.create(tmp_path, database=opened)
        world.standard()
        world.create_key(KEY, MARKER)
        shutil.copytree(sqlite_place.folder, stolen)
    with closing(Place("sqlite", stolen).connect()) as database:
        guessed = LocalKEK(Secret(bytes(range(1, 33))))
        with pytest.raises(IntegrityError):
            # Not even the broker's own keys: no answer can be signed with them.
            world.restarted(database=database, kek=guessed)
        vault = Vault(guessed, world.parts.instance)
        with database.read() as tx:
            (row,) = tx.keys.versions(parse_key_id(KEY))
        with pytest.raises(IntegrityError):
            vault.open_key(row)


def test_a_destroyed_key_is_gone_from_the_file(
    tmp_path: Path, sqlite_place: Place
) -> None:
    with closing(sqlite_place.connect()) as opened:
        world = World.create(tmp_path, database=opened)
        world.standard()
        world.create_key(KEY, MARKER)
        with opened.read() as tx:
            (row,) = tx.keys.versions(parse_key_id(KEY))
        assert row.envelope is not None
        parts = (row.envelope.wrapped, row.envelope.ciphertext)
        files = b"".join(data for _, data in _files(sqlite_place.folder))
        assert all(part in files for part in parts)
        world.must("POST", f"{PATH}/destroy", {"version": 1})
        # The write-ahead log is emptied as well, connections still open.
        files = b"".join(data for _, data in _files(sqlite_place.folder))
        assert not any(part in files for part in parts)


def test_the_stored_answer_is_the_sealed_one(world: World) -> None:
    tpm = world.standard()
    world.create_key(KEY, MARKER)
    request = world.request(tpm, [KEY])
    sealed = see(world, request).document["answer"]["sealed"]
    assert isinstance(world.parts.database, SqlDatabase)
    with world.parts.database.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM spent_challenges").fetchall()
    assert len(rows) == 1
    text = repr(tuple(rows[0]))
    assert sealed in text
    assert not _found_in(text.encode())


def test_evidence_is_kept_encrypted(world: World) -> None:
    tpm = world.standard()
    request = world.request(tpm)
    assert see(world, request).status == 200
    digest = world.entries("release.granted")[0]["evidence"]
    assert isinstance(digest, str)
    with world.parts.database.read() as tx:
        stored = tx.evidence.find(bytes.fromhex(digest))
    assert stored is not None
    assert request.runtime_data.nonce.encode() not in stored.sealed
    opened = world.broker.audit._locker
    with world.parts.database.read() as tx:
        assert request.runtime_data.nonce.encode() in opened.open(
            tx, bytes.fromhex(digest)
        )


def test_a_secret_too_many_is_no_excuse(world: World) -> None:
    # An error about a row names the row, not what is in it.
    world.create_key(KEY, MARKER)
    with world.parts.database.read() as tx:
        (row,) = tx.keys.versions(parse_key_id(KEY))
    other = Vault(LocalKEK(Secret(bytes(range(32, 64)))), world.parts.instance)
    with pytest.raises(KbsError) as caught:
        other.open_key(row)
    assert not _found_in(repr(caught.value).encode())
    assert KEY in str(caught.value)
