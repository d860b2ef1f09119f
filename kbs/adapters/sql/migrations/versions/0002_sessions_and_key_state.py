"""Attested sessions, and the sealed state of the key table.

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
    """Make both tables, empty."""
    op.create_table(
        "key_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", INT64, nullable=False),
        sa.Column("digest", BYTES, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_key_state_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_state")),
        sqlite_strict=True,
    )
    op.create_table(
        "sessions",
        sa.Column("session", BYTES, nullable=False),
        sa.Column("request_digest", BYTES, nullable=False),
        sa.Column("decision", TEXT, nullable=False),
        sa.Column("sealed", BYTES, nullable=False),
        sa.Column("expires", TIME, nullable=False),
        sa.PrimaryKeyConstraint("session", name=op.f("pk_sessions")),
        sa.UniqueConstraint("decision", name=op.f("uq_sessions_decision")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_sessions_expires"), "sessions", ["expires"])


def downgrade() -> None:
    """Refuse: what the tables hold cannot be made again."""
    raise NotImplementedError("restore a backup instead")
