"""Brings a database to the schema of this code, and refuses one that is newer.

Alembic is imported only when there is something to do: a start on a database that is
up to date reads one row.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    inspect,
    select,
    text,
)

from kbs.adapters.sql.engine import begun
from kbs.adapters.sql.faults import translated
from kbs.core.errors import ConfigurationError

REVISIONS = ("0001", "0002", "0003")
"""Every migration in order, oldest first; the last one is the schema of this code."""

MIGRATIONS = Path(__file__).parent / "migrations"

# Any number that nobody else takes locks under: "kbs" in ASCII.
_ADVISORY_LOCK = 0x6B6273

# Alembic's own table, as it creates it.
_VERSION = Table(
    "alembic_version", MetaData(), Column("version_num", String(32), primary_key=True)
)


def upgrade(engine: Engine) -> None:
    """Run every migration that is missing, in one transaction; one process at a time.

    Raises:
        ConfigurationError: the schema is newer than this code.
        UnavailableError: the database is away or cannot be written.
    """
    if current_revision(engine) == REVISIONS[-1]:
        return
    with begun(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK}
            )
        # Another process may have done it while this one waited.
        _require_known(_revision(connection))
        _run_migrations(connection)


def check_schema(engine: Engine) -> None:
    """Return if the database has exactly the schema of this code.

    Raises:
        ConfigurationError: it is empty, older or newer.
        UnavailableError: the database is away.
    """
    revision = current_revision(engine)
    if revision == REVISIONS[-1]:
        return
    raise ConfigurationError(
        "database schema",
        got="none" if revision is None else f"revision {revision}",
        expected=f"revision {REVISIONS[-1]}",
        hint="kbs serve and kbs init bring it up to date",
        code="database.schema_old",
    )


def current_revision(engine: Engine) -> str | None:
    """Return the revision of the schema, None for an empty database.

    Raises:
        ConfigurationError: it is one that this code does not know, or the server is
            not set up as commits need it.
        UnavailableError: the database is away.
    """
    with translated(), engine.begin() as connection:
        revision = _revision(connection)
    _require_known(revision)
    return revision


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar()


def _require_known(revision: str | None) -> None:
    if revision is None or revision in REVISIONS:
        return
    raise ConfigurationError(
        "database schema",
        got=f"revision {revision[:40]!r}",
        expected=f"at most revision {REVISIONS[-1]}",
        hint="a newer kbs wrote it; run that version or restore a backup",
        code="database.schema_new",
    )


def _run_migrations(connection: Connection) -> None:
    # Late: a third of a second that an ordinary start does not have to spend.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    # A percent sign would be an interpolation.
    folder = str(MIGRATIONS).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
