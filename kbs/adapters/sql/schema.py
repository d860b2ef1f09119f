"""The one schema, for SQLite and PostgreSQL alike.

What is here is what the latest migration leaves behind (a test compares the two).
Nothing here is trusted for being here: statements are signed, states carry a MAC,
entries lie under the tree, secrets are sealed.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    UniqueConstraint,
)
from sqlalchemy.sql.schema import SchemaItem

from kbs.adapters.sql.columns import BYTES, INT64, TEXT, TIME

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# A subject of an entry: what kind of name it is. Stored, so never renumbered.
ROLE_TENANT, ROLE_KEY, ROLE_POLICY = 1, 2, 3


def _table(name: str, *items: SchemaItem, rowid: bool = True) -> Table:
    # Without a rowid the rows lie in the primary key's own tree: for small rows that
    # are always looked up by it (https://sqlite.org/withoutrowid.html).
    return Table(name, METADATA, *items, sqlite_strict=True, sqlite_with_rowid=rowid)


def _one_row() -> tuple[Column[int], CheckConstraint]:
    column = Column("id", Integer(), primary_key=True, autoincrement=False)
    return column, CheckConstraint("id = 1", name="one_row")


instance = _table(
    "instance",
    *_one_row(),
    Column("instance", TEXT, nullable=False),
    Column("origin", TEXT, nullable=False),
    Column("created", TIME, nullable=False),
    Column("mode", TEXT, nullable=False),
)

log_head = _table(
    "log_head",
    *_one_row(),
    Column("size", INT64, nullable=False),
    Column("time", TIME),
)

log_entries = _table(
    "log_entries",
    Column("leaf_index", INT64, primary_key=True, autoincrement=False),
    Column("id", TEXT, nullable=False),
    Column("time", TIME, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("decision", TEXT),
    Column("leaf", BYTES, nullable=False),
    Column("body", BYTES, nullable=False),
    Column("salt", BYTES, nullable=False),
    UniqueConstraint("id"),
    Index(None, "time"),
    Index(None, "kind", "leaf_index"),
    Index(None, "decision", "leaf_index"),
)

log_subjects = _table(
    "log_subjects",
    Column("role", SmallInteger().with_variant(Integer(), "sqlite"), primary_key=True),
    Column("name", TEXT, primary_key=True),
    Column("leaf_index", INT64, ForeignKey("log_entries.leaf_index"), primary_key=True),
    Column("place", Integer(), nullable=False),
    Index(None, "leaf_index"),
    rowid=False,
)

log_nodes = _table(
    "log_nodes",
    Column("level", Integer(), primary_key=True, autoincrement=False),
    Column("position", INT64, primary_key=True, autoincrement=False),
    Column("hash", BYTES, nullable=False),
    rowid=False,
)

log_checkpoints = _table(
    "log_checkpoints",
    Column("size", INT64, primary_key=True, autoincrement=False),
    Column("note", BYTES, nullable=False),
)

spent_challenges = _table(
    "spent_challenges",
    Column("challenge", BYTES, primary_key=True),
    Column("request_digest", BYTES, nullable=False),
    Column("decision", TEXT, nullable=False),
    Column("entry_index", INT64, nullable=False),
    Column("status", Integer(), nullable=False),
    Column("answer", BYTES, nullable=False),
    Column("expires", TIME, nullable=False),
    Index(None, "expires"),
)

sessions = _table(
    "sessions",
    Column("session", BYTES, primary_key=True),
    Column("decision", TEXT, nullable=False),
    Column("sealed", BYTES, nullable=False),
    Column("expires", TIME, nullable=False),
    Column("evidence", BYTES),
    UniqueConstraint("decision"),
    Index(None, "expires"),
)

used_tokens = _table(
    "used_tokens",
    Column("jti", TEXT, primary_key=True),
    Column("expires", TIME, nullable=False),
    Index(None, "expires"),
)

evidence = _table(
    "evidence",
    Column("digest", BYTES, primary_key=True),
    Column("sealed", BYTES, nullable=False),
    Column("decision", TEXT, nullable=False),
    Column("created", TIME, nullable=False),
    Column("expires", TIME, nullable=False),
    Index(None, "expires"),
)

enrolments = _table(
    "enrolments",
    Column("id", TEXT, primary_key=True),
    Column("tenant", TEXT, nullable=False),
    Column("ak_group", TEXT, nullable=False),
    Column("ak_public", BYTES, nullable=False),
    Column("ak_name", BYTES, nullable=False),
    Column("ek", BYTES, nullable=False),
    Column("ek_certificate", BYTES, nullable=False),
    Column("ca", TEXT, nullable=False),
    Column("created", TIME, nullable=False),
    Column("expires", TIME, nullable=False),
    Column("mac", BYTES, nullable=False),
    UniqueConstraint("tenant", "ak_group", "ak_name"),
    Index(None, "ek"),
    Index(None, "expires"),
)

collateral = _table(
    "collateral",
    Column("digest", BYTES, primary_key=True),
    Column("kind", TEXT, nullable=False),
    Column("subject", TEXT, nullable=False),
    Column("issuer", TEXT, nullable=False),
    Column("not_before", TIME, nullable=False),
    Column("not_after", TIME),
    Column("der", BYTES, nullable=False),
    Column("imported", TIME, nullable=False),
    Index(None, "imported"),
)

collateral_state = _table(
    "collateral_state",
    *_one_row(),
    Column("seq", INT64, nullable=False),
    Column("digest", BYTES, nullable=False),
    Column("mac", BYTES, nullable=False),
)

statements = _table(
    "statements",
    Column("seq", INT64, primary_key=True, autoincrement=False),
    Column("envelope", BYTES, nullable=False),
    Column("accepted", TIME, nullable=False),
)

governed_objects = _table(
    "governed_objects",
    Column("kind", TEXT, primary_key=True),
    Column("tenant", TEXT, primary_key=True),
    Column("name", TEXT, primary_key=True),
    Column("version", Integer(), primary_key=True, autoincrement=False),
    Column("digest", TEXT, nullable=False),
    Column("content", BYTES, nullable=False),
    Column("source", BYTES, nullable=False),
    Column("registered", TIME, nullable=False),
    Index(None, "digest"),
)

key_versions = _table(
    "key_versions",
    Column("repository", TEXT, primary_key=True),
    Column("type", TEXT, primary_key=True),
    Column("tag", TEXT, primary_key=True),
    Column("version", Integer(), primary_key=True, autoincrement=False),
    Column("kind", TEXT, nullable=False),
    Column("origin", TEXT, nullable=False),
    Column("state", TEXT, nullable=False),
    Column("created", TIME, nullable=False),
    Column("changed", TIME, nullable=False),
    Column("revision", INT64, nullable=False),
    Column("kek_id", TEXT, nullable=False),
    # Both are there, or neither: a tombstone.
    Column("wrapped", BYTES),
    Column("ciphertext", BYTES),
    Column("mac", BYTES, nullable=False),
)

key_state = _table(
    "key_state",
    *_one_row(),
    Column("seq", INT64, nullable=False),
    Column("digest", BYTES, nullable=False),
    Column("mac", BYTES, nullable=False),
)

broker_keys = _table(
    "broker_keys",
    Column("purpose", TEXT, primary_key=True),
    Column("version", Integer(), primary_key=True, autoincrement=False),
    Column("public", BYTES, nullable=False),
    Column("sealed", BYTES, nullable=False),
    Column("created", TIME, nullable=False),
)
