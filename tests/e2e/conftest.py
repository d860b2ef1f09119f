"""Brokers as processes of their own, on both databases where it matters."""

from __future__ import annotations

from tests.fakes.databases import empty_place, postgresql_server

__all__ = ["empty_place", "postgresql_server"]
