"""Evidence that waits in a session for an entry that names it.

Frozen: it says its types itself instead of importing the schema of the day.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column; sessions of before have nothing that waits."""
    op.add_column("sessions", sa.Column("evidence", sa.LargeBinary()))


def downgrade() -> None:
    """Refuse: what waits could not be told any more."""
    raise NotImplementedError("restore a backup instead")
