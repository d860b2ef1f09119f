"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

MAX_ID = 40
ROOT = Path(__file__).resolve().parent.parent


def vectors_folder() -> Path:
    """Where recorded evidence lies: KBS_VECTORS, else beside the checkout."""
    named = os.environ.get("KBS_VECTORS")
    return Path(named) if named else ROOT.parent / "shared" / "vectors"


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of recorded evidence; tests that need it are skipped without it."""
    folder = vectors_folder()
    if not (folder / "README.md").is_file():
        pytest.skip(f"recorded evidence is not at {folder}; set KBS_VECTORS")
    return folder


def pytest_make_parametrize_id(
    config: pytest.Config,
    val: object,
    argname: str,
) -> str | None:
    """Name bytes and long texts by their argument: keys made at random have no name.

    Workers that run tests side by side have to collect the same names.
    """
    if isinstance(val, bytes) or (isinstance(val, str) and len(val) > MAX_ID):
        return argname
    return None
