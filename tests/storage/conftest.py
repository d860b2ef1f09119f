"""Every storage test runs on both databases."""

from __future__ import annotations

from tests.fakes.databases import (
    database,
    empty_place,
    place,
    postgresql_place,
    postgresql_server,
    postgresql_template,
    sqlite_place,
    sqlite_template,
)

__all__ = [
    "database",
    "empty_place",
    "place",
    "postgresql_place",
    "postgresql_server",
    "postgresql_template",
    "sqlite_place",
    "sqlite_template",
]
