"""The history of the schema, which `kbs.adapters.sql.migrate` runs through Alembic."""
