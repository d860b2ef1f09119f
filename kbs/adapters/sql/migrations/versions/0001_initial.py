"""The first schema.

Frozen: it says its types itself instead of importing the schema of the day.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INT16 = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")
INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
BYTES = sa.LargeBinary()
TIME = INT64  # microseconds since 1970, UTC


def upgrade() -> None:
    """Make every table, and the head of the empty log."""
    _broker_keys()
    _collateral()
    _enrolments()
    _evidence()
    _governed_objects()
    _instance()
    _key_versions()
    _log_checkpoints()
    _log_entries()
    _log_head()
    _log_nodes()
    _spent_challenges()
    _statements()
    _used_tokens()
    _log_subjects()


def downgrade() -> None:
    """Refuse: there is nothing before the first schema."""
    raise NotImplementedError("restore a backup instead")


def _broker_keys() -> None:
    op.create_table(
        "broker_keys",
        sa.Column("purpose", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("public", BYTES, nullable=False),
        sa.Column("sealed", BYTES, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.PrimaryKeyConstraint("purpose", "version", name=op.f("pk_broker_keys")),
        sqlite_strict=True,
    )


def _collateral() -> None:
    op.create_table(
        "collateral",
        sa.Column("digest", BYTES, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("issuer", TEXT, nullable=False),
        sa.Column("not_before", TIME, nullable=False),
        sa.Column("not_after", TIME, nullable=True),
        sa.Column("der", BYTES, nullable=False),
        sa.Column("imported", TIME, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_collateral")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_collateral_imported"), "collateral", ["imported"])


def _enrolments() -> None:
    op.create_table(
        "enrolments",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("ak_group", TEXT, nullable=False),
        sa.Column("ak_public", BYTES, nullable=False),
        sa.Column("ak_name", BYTES, nullable=False),
        sa.Column("ek_certificate", BYTES, nullable=False),
        sa.Column("ca", TEXT, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("expires", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolments")),
        sa.UniqueConstraint(
            "tenant",
            "ak_group",
            "ak_name",
            name=op.f("uq_enrolments_tenant_ak_group_ak_name"),
        ),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_enrolments_expires"), "enrolments", ["expires"])


def _evidence() -> None:
    op.create_table(
        "evidence",
        sa.Column("digest", BYTES, nullable=False),
        sa.Column("sealed", BYTES, nullable=False),
        sa.Column("decision", TEXT, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("expires", TIME, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_evidence")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_evidence_expires"), "evidence", ["expires"])


def _governed_objects() -> None:
    op.create_table(
        "governed_objects",
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("content", BYTES, nullable=False),
        sa.Column("source", BYTES, nullable=False),
        sa.Column("registered", TIME, nullable=False),
        sa.PrimaryKeyConstraint(
            "kind", "tenant", "name", "version", name=op.f("pk_governed_objects")
        ),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_governed_objects_digest"), "governed_objects", ["digest"])


def _instance() -> None:
    op.create_table(
        "instance",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("instance", TEXT, nullable=False),
        sa.Column("origin", TEXT, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("mode", TEXT, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_instance_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
        sqlite_strict=True,
    )


def _key_versions() -> None:
    op.create_table(
        "key_versions",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("origin", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("changed", TIME, nullable=False),
        sa.Column("revision", INT64, nullable=False),
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("wrapped", BYTES, nullable=True),
        sa.Column("ciphertext", BYTES, nullable=True),
        sa.Column("mac", BYTES, nullable=False),
        sa.PrimaryKeyConstraint(
            "repository", "type", "tag", "version", name=op.f("pk_key_versions")
        ),
        sqlite_strict=True,
    )


def _log_checkpoints() -> None:
    op.create_table(
        "log_checkpoints",
        sa.Column("size", INT64, autoincrement=False, nullable=False),
        sa.Column("note", BYTES, nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_log_checkpoints")),
        sqlite_strict=True,
    )


def _log_entries() -> None:
    op.create_table(
        "log_entries",
        sa.Column("leaf_index", INT64, autoincrement=False, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("time", TIME, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("decision", TEXT, nullable=True),
        sa.Column("leaf", BYTES, nullable=False),
        sa.Column("body", BYTES, nullable=False),
        sa.Column("salt", BYTES, nullable=False),
        sa.PrimaryKeyConstraint("leaf_index", name=op.f("pk_log_entries")),
        sa.UniqueConstraint("id", name=op.f("uq_log_entries_id")),
        sqlite_strict=True,
    )
    op.create_index(
        op.f("ix_log_entries_decision_leaf_index"),
        "log_entries",
        ["decision", "leaf_index"],
    )
    op.create_index(
        op.f("ix_log_entries_kind_leaf_index"), "log_entries", ["kind", "leaf_index"]
    )
    op.create_index(op.f("ix_log_entries_time"), "log_entries", ["time"])


def _log_head() -> None:
    op.create_table(
        "log_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", INT64, nullable=False),
        sa.Column("time", TIME, nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_log_head_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_head")),
        sqlite_strict=True,
    )
    op.execute("INSERT INTO log_head (id, size) VALUES (1, 0)")


def _log_nodes() -> None:
    op.create_table(
        "log_nodes",
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", INT64, autoincrement=False, nullable=False),
        sa.Column("hash", BYTES, nullable=False),
        sa.PrimaryKeyConstraint("level", "position", name=op.f("pk_log_nodes")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _spent_challenges() -> None:
    op.create_table(
        "spent_challenges",
        sa.Column("challenge", BYTES, nullable=False),
        sa.Column("request_digest", BYTES, nullable=False),
        sa.Column("decision", TEXT, nullable=False),
        sa.Column("entry_index", INT64, nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", BYTES, nullable=False),
        sa.Column("expires", TIME, nullable=False),
        sa.PrimaryKeyConstraint("challenge", name=op.f("pk_spent_challenges")),
        sqlite_strict=True,
    )
    op.create_index(
        op.f("ix_spent_challenges_expires"), "spent_challenges", ["expires"]
    )


def _statements() -> None:
    op.create_table(
        "statements",
        sa.Column("seq", INT64, autoincrement=False, nullable=False),
        sa.Column("envelope", BYTES, nullable=False),
        sa.Column("accepted", TIME, nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_statements")),
        sqlite_strict=True,
    )


def _used_tokens() -> None:
    op.create_table(
        "used_tokens",
        sa.Column("jti", TEXT, nullable=False),
        sa.Column("expires", TIME, nullable=False),
        sa.PrimaryKeyConstraint("jti", name=op.f("pk_used_tokens")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_used_tokens_expires"), "used_tokens", ["expires"])


def _log_subjects() -> None:
    op.create_table(
        "log_subjects",
        sa.Column("role", INT16, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("leaf_index", INT64, nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["leaf_index"],
            ["log_entries.leaf_index"],
            name=op.f("fk_log_subjects_leaf_index"),
        ),
        sa.PrimaryKeyConstraint(
            "role", "name", "leaf_index", name=op.f("pk_log_subjects")
        ),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_log_subjects_leaf_index"), "log_subjects", ["leaf_index"])
    # ### end Alembic commands ###
