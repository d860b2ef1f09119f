"""From nothing to the schema of the code, and no further."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from kbs.adapters.sql.database import SqlDatabase
from kbs.adapters.sql.migrate import MIGRATIONS, REVISIONS, check_schema, upgrade
from kbs.adapters.sql.schema import METADATA
from kbs.audit.log import LogHead
from kbs.core.errors import ConfigurationError, UnavailableError
from tests.fakes.databases import Place

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def empty(empty_place: Place) -> Iterator[SqlDatabase]:
    database = empty_place.connect()
    yield database
    database.close()


def test_the_code_knows_every_revision_in_order() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    found = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in reversed(list(found))) == REVISIONS


def test_an_empty_database_is_brought_up_to_date(empty: SqlDatabase) -> None:
    with pytest.raises(ConfigurationError, match="got none"):
        check_schema(empty.engine)
    upgrade(empty.engine)
    check_schema(empty.engine)
    upgrade(empty.engine)
    with empty.read() as transaction:
        assert transaction.log.head() == LogHead(0, None)


def test_an_empty_database_cannot_be_used(empty: SqlDatabase) -> None:
    with pytest.raises(UnavailableError), empty.write():
        pytest.fail("wrote into a database without tables")


def test_the_migrations_lead_to_the_schema_of_the_code(empty: SqlDatabase) -> None:
    upgrade(empty.engine)
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, METADATA) == []


def test_migrated_and_made_at_once_are_the_same(empty: SqlDatabase) -> None:
    """What Alembic does not compare is compared here: names, checks, table options."""
    upgrade(empty.engine)
    with empty.engine.begin() as connection:
        migrated = _describe(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
        METADATA.drop_all(connection)
        METADATA.create_all(connection)
        assert migrated == _describe(connection)


def _describe(connection: Connection) -> dict[str, Any]:
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master")
        return {
            name: " ".join((statement or "").split())
            for name, statement in rows
            if "alembic" not in name
        }
    inspector = inspect(connection)
    return {
        table: {
            "columns": [
                {**column, "type": repr(column["type"])}
                for column in inspector.get_columns(table)
            ],
            "primary key": inspector.get_pk_constraint(table),
            "unique": inspector.get_unique_constraints(table),
            "foreign keys": inspector.get_foreign_keys(table),
            "indexes": inspector.get_indexes(table),
            "checks": inspector.get_check_constraints(table),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


@pytest.mark.parametrize("action", [check_schema, upgrade])
def test_a_newer_schema_is_refused(empty: SqlDatabase, action: Any) -> None:
    upgrade(empty.engine)
    with empty.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError) as caught:
        action(empty.engine)
    assert caught.value.code == "database.schema_new"
    assert "'9999'" in str(caught.value)


def test_an_older_schema_is_not_served(empty: SqlDatabase) -> None:
    upgrade(empty.engine)
    with empty.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
    with pytest.raises(ConfigurationError) as caught:
        check_schema(empty.engine)
    assert caught.value.code == "database.schema_old"


def test_a_migration_that_fails_leaves_nothing(empty: SqlDatabase) -> None:
    with empty.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE used_tokens (something TEXT)")
    with pytest.raises(UnavailableError):
        upgrade(empty.engine)
    with empty.engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["used_tokens"]


def test_an_older_schema_is_brought_up_with_what_is_in_it(empty: SqlDatabase) -> None:
    """Keys stay; enrolments of before, which carry no MAC, do not."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with empty.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for table, values in (
            ("instance", "1, 'i', 'o', 0, 'production'"),
            ("collateral", "'00', 'crl', 's', 'i', 0, NULL, '00', 0"),
            ("enrolments", "'e', 't', 'g', '00', '00', '00', 'ca', 0, 0"),
        ):
            connection.exec_driver_sql(
                f"INSERT INTO {table} VALUES ({_bytes(connection, values)})"
            )
    with pytest.raises(ConfigurationError) as caught:
        check_schema(empty.engine)
    assert caught.value.code == "database.schema_old"
    upgrade(empty.engine)
    check_schema(empty.engine)
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, METADATA) == []
        counts = [
            connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
            for table in ("instance", "collateral", "enrolments", "key_state")
        ]
    assert counts == [1, 1, 0, 0]


def _bytes(connection: Connection, values: str) -> str:
    blob = "x'00'" if connection.dialect.name == "sqlite" else "'\\x00'::bytea"
    return values.replace("'00'", blob)


def test_going_back_is_refused(empty: SqlDatabase) -> None:
    upgrade(empty.engine)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with empty.engine.begin() as connection:
        config.attributes["connection"] = connection
        with pytest.raises(NotImplementedError, match="restore a backup"):
            command.downgrade(config, "base")
    check_schema(empty.engine)


def test_two_processes_may_start_at_once(empty_place: Place) -> None:
    def start() -> None:
        with closing(empty_place.connect()) as database:
            upgrade(database.engine)
            check_schema(database.engine)

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(start) for _ in range(3)]:
            done.result()


def test_a_start_without_a_migration_imports_no_alembic(sqlite_place: Place) -> None:
    script = (
        "import sys, pathlib\n"
        "from kbs.adapters.sql.database import connect\n"
        "from kbs.adapters.sql.migrate import check_schema, upgrade\n"
        "database = connect(None, data_dir=pathlib.Path(sys.argv[1]))\n"
        "upgrade(database.engine); check_schema(database.engine)\n"
        "assert not {'alembic', 'psycopg', 'mako'} & sys.modules.keys()\n"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", script, os.fspath(sqlite_place.folder)],
        cwd=ROOT,
        check=True,
    )
