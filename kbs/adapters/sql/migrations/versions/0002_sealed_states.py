"""Attested sessions; sealed states of two tables; pending enrolments with a MAC.

Pending enrolments of before carry none, so that nobody could tell them from what a
writer to the database put there: they go, and their guests enrol again.

Frozen: it says its types itself instead of importing the schema of the day.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
BYTES = sa.LargeBinary()
TIME = INT64  # microseconds since 1970, UTC


def upgrade() -> None:
    """Make the new tables, and the one of enrolments anew; all of them empty."""
    _state("collateral_state")
    _state("key_state")
    _sessions()
    op.drop_table("enrolments")
    _enrolments()


def _state(table: str) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", INT64, nullable=False),
        sa.Column("digest", BYTES, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f(f"ck_{table}_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        sqlite_strict=True,
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("session", BYTES, nullable=False),
        sa.Column("decision", TEXT, nullable=False),
        sa.Column("sealed", BYTES, nullable=False),
        sa.Column("expires", TIME, nullable=False),
        sa.PrimaryKeyConstraint("session", name=op.f("pk_sessions")),
        sa.UniqueConstraint("decision", name=op.f("uq_sessions_decision")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_sessions_expires"), "sessions", ["expires"])


def _enrolments() -> None:
    op.create_table(
        "enrolments",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("ak_group", TEXT, nullable=False),
        sa.Column("ak_public", BYTES, nullable=False),
        sa.Column("ak_name", BYTES, nullable=False),
        sa.Column("ek", BYTES, nullable=False),
        sa.Column("ek_certificate", BYTES, nullable=False),
        sa.Column("ca", TEXT, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("expires", TIME, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolments")),
        sa.UniqueConstraint(
            "tenant",
            "ak_group",
            "ak_name",
            name=op.f("uq_enrolments_tenant_ak_group_ak_name"),
        ),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_enrolments_ek"), "enrolments", ["ek"])
    op.create_index(op.f("ix_enrolments_expires"), "enrolments", ["expires"])


def downgrade() -> None:
    """Refuse: what the tables hold could not be made again."""
    raise NotImplementedError("restore a backup instead")
