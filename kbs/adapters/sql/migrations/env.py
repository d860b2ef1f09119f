"""Alembic's entry point: migrate on the connection that the caller opened.

The caller's transaction is the only one, so a migration that fails leaves nothing.
"""

from __future__ import annotations

from alembic import context

from kbs.adapters.sql.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
