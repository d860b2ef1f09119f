"""What is committed stays: settings of every connection, and damage that is seen."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from kbs.adapters.sql import engine as engine_module
from kbs.adapters.sql.database import connect
from kbs.adapters.sql.engine import DATABASE_NAME, parse_url, sqlite_engines
from kbs.adapters.sql.migrate import check_schema, upgrade
from kbs.core.errors import ConfigurationError, IntegrityError, UnavailableError
from tests.fakes.databases import Place
from tests.fakes.postgres import PostgresServer

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


def _pragmas(engine: Engine, count: int) -> Iterator[dict[str, object]]:
    """Return the settings of `count` connections that are open at the same time."""
    names = (
        *("journal_mode", "synchronous", "foreign_keys", "secure_delete"),
        *("busy_timeout", "query_only", "trusted_schema"),
    )
    with ExitStack() as stack:
        held = [stack.enter_context(engine.connect()) for _ in range(count)]
        for connection in held:
            yield {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in names
            }


def test_every_sqlite_connection_syncs_at_every_commit(sqlite_place: Place) -> None:
    wanted = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "secure_delete": 1,
        "trusted_schema": 0,
    }
    # The writer waits for its lock by itself, and for nothing else.
    writing = {**wanted, "busy_timeout": 0, "query_only": 0}
    reading = {**wanted, "busy_timeout": 10_000, "query_only": 1}
    engines = sqlite_engines(sqlite_place.folder)
    for number in range(2):
        for found in _pragmas(engines.writing, 1):
            assert found == writing, number
        for found in _pragmas(engines.reading, 16):
            assert found == reading, number
        engines.writing.dispose()
        engines.reading.dispose()


def test_postgresql_commits_durably_and_gives_up_waiting(
    postgresql_place: Place,
) -> None:
    with (
        closing(postgresql_place.connect()) as database,
        database.engine.connect() as connection,
    ):
        shown = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("synchronous_commit", "fsync", "lock_timeout", "TimeZone")
        }
        level = connection.get_isolation_level()
    assert shown == {
        "synchronous_commit": "on",
        "fsync": "on",
        "lock_timeout": "10s",
        "TimeZone": "UTC",
    }
    assert level == "READ COMMITTED"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [("-c synchronous_commit=off", "synchronous_commit: got off, expected on")],
)
def test_a_server_that_commits_lazily_is_refused(
    postgresql_place: Place, options: str, complaint: str
) -> None:
    url = f"{postgresql_place.url}?options={options.replace(' ', '%20')}"
    with closing(connect(url, data_dir=postgresql_place.folder)) as database:
        for action in (check_schema, upgrade):
            with pytest.raises(ConfigurationError, match=complaint):
                action(database.engine)
        # While serving there are only errors that may pass.
        with pytest.raises(UnavailableError, match=complaint), database.write():
            pytest.fail("wrote without a durable commit")
        with pytest.raises(UnavailableError, match=complaint), database.read():
            pytest.fail("read from a server that was refused")


class _Answering:
    """A driver's connection whose queries are answered by a table."""

    def __init__(self, *answers: tuple[object, ...] | None) -> None:
        self.answers = list(answers)
        self.closed = False

    def cursor(self) -> _Answering:
        return self

    def execute(self, operation: str, parameters: tuple[object, ...] = (), /) -> object:
        return self

    def fetchone(self) -> tuple[object, ...] | None:
        return self.answers.pop(0)

    def commit(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((150004, "UTF8", "on", "on"), None),
        ((150004, "UTF8", "remote_apply", "on"), None),
        ((140010, "UTF8", "on", "on"), "got version 140010, expected 15 or newer"),
        ((150004, "LATIN1", "on", "on"), "encoding: got LATIN1, expected UTF8"),
        ((150004, "UTF8", "off", "on"), "synchronous_commit: got off"),
        ((150004, "UTF8", "on", "off"), "fsync: got off"),
        (None, "got version 0"),
    ],
)
def test_a_postgresql_server_is_asked_how_it_is_set_up(
    answer: tuple[object, ...] | None, complaint: str | None
) -> None:
    connection = _Answering(answer)
    if complaint is None:
        engine_module._set_up_postgresql(connection, 10.0)
        return
    with pytest.raises(ConfigurationError, match=complaint):
        engine_module._set_up_postgresql(connection, 10.0)


@pytest.mark.parametrize("answer", [("delete",), None])
def test_a_file_system_without_a_write_ahead_log_is_refused(
    answer: tuple[object, ...] | None,
) -> None:
    connection = _Answering(answer)
    with pytest.raises(ConfigurationError, match="SQLite journal_mode"):
        engine_module._set_up_sqlite(connection, None)
    assert connection.closed


def test_an_old_sqlite_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 9))
    with pytest.raises(ConfigurationError, match=r"expected 3\.37\.0 or newer"):
        connect(None, data_dir=tmp_path)


def test_the_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(connect(None, data_dir=tmp_path)) as database:
            upgrade(database.engine)
            modes = {
                path.name: stat.S_IMODE(path.stat().st_mode)
                for path in tmp_path.iterdir()
            }
    finally:
        os.umask(before)
    assert modes == {"kbs.db": 0o600, "kbs.db-wal": 0o600, "kbs.db-shm": 0o600}


def test_a_missing_data_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder"):
        connect(None, data_dir=tmp_path / "no")


def test_a_database_that_is_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).mkdir()
    with pytest.raises(UnavailableError, match="Is a directory"):
        connect(None, data_dir=tmp_path)


def test_the_file_is_sound_after_work(sqlite_place: Place) -> None:
    with closing(sqlite_place.connect()) as database:
        for number in range(50):
            with database.write() as transaction:
                transaction.tokens.use(f"jti {number}", NOW)
                transaction.tokens.purge(NOW)
        with database.engine.connect() as connection:
            checks = ("integrity_check", "foreign_key_check")
            found = [
                connection.exec_driver_sql(f"PRAGMA {check}").fetchall()
                for check in checks
            ]
    assert found == [[("ok",)], []]


def test_a_strict_table_takes_no_other_type(sqlite_place: Place) -> None:
    with (
        closing(sqlite3.connect(sqlite_place.folder / DATABASE_NAME)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT"),
    ):
        connection.execute("UPDATE log_head SET size = 'many'")


@pytest.mark.parametrize("offset", [0, 4096], ids=["header", "pages"])
def test_a_damaged_file_is_a_lack_of_integrity(
    sqlite_place: Place, offset: int
) -> None:
    path = sqlite_place.folder / DATABASE_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:offset] + b"\xff" * (len(whole) - offset))
    with closing(sqlite_place.connect()) as database:
        with pytest.raises(IntegrityError), database.read() as transaction:
            transaction.log.head()
        with pytest.raises(IntegrityError), database.write():
            pytest.fail("wrote into a damaged file")


def test_text_that_is_no_utf8_is_a_lack_of_integrity(sqlite_place: Place) -> None:
    with closing(sqlite_place.connect()) as database:
        with database.engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO instance VALUES (1, CAST(x'ff' AS TEXT), '', 0, '')"
            )
        with database.read() as transaction, pytest.raises(IntegrityError):
            transaction.instance.read()


def test_a_latin1_database_is_refused(
    postgresql_server: PostgresServer, tmp_path: Path
) -> None:
    postgresql_server.run_sql(
        "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'"
    )
    database = connect(postgresql_server.url("latin"), data_dir=tmp_path)
    with closing(database), pytest.raises(ConfigurationError, match="LATIN1"):
        upgrade(database.engine)
    postgresql_server.drop_database("latin")


@pytest.mark.parametrize(
    ("url", "host", "name"),
    [
        ("postgres://u:p@h/d", "h", "d"),
        ("postgresql://h:5433/d?sslmode=verify-full", "h", "d"),
        ("postgresql+psycopg://u@h/d", "h", "d"),
        ("postgresql://u@%2Frun%2Fpostgresql/d", "/run/postgresql", "d"),
        ("postgresql:///d?host=/run/postgresql", None, "d"),
    ],
)
def test_the_spellings_of_a_postgresql_url(
    url: str, host: str | None, name: str
) -> None:
    parsed = parse_url(url)
    assert (parsed.drivername, parsed.host, parsed.database) == (
        "postgresql+psycopg",
        host,
        name,
    )


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "got no URL"),
        ("kbs.db", "got no URL"),
        ("postgresql://u:sEcret@h:port/d", "got no URL"),
        ("sqlite:///kbs.db", "got sqlite:"),
        ("mysql://u:sEcret@h/d", "got mysql:"),
        ("postgresql+psycopg2://u:sEcret@h/d", r"got postgresql\+psycopg2:"),
        ("postgresql://u:sEcret@h", "got no database"),
    ],
)
def test_another_url_is_refused_without_showing_it(url: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        parse_url(url)
    assert "sEcret" not in f"{caught.value} {caught.value.__cause__}"


def test_the_socket_works_as_well(
    postgresql_server: PostgresServer, postgresql_template: str, tmp_path: Path
) -> None:
    url = postgresql_server.socket_url(postgresql_template)
    with closing(connect(url, data_dir=tmp_path)) as database:
        check_schema(database.engine)
