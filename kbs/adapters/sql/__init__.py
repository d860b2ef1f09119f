"""One schema on SQLite and PostgreSQL."""
