"""What a broker loads until its first answer: all that decides, and little else."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from kbs.evidence.nvgpu import rim_xml
from kbs.evidence.registry import VERIFIERS
from kbs.initialising import initialise
from kbs.settings import Settings
from tests.conftest import ROOT

SELDOM = frozenset(
    (
        *("alembic", "mako"),  # a database of an older schema
        *("lxml", "signxml"),  # a manifest of NVIDIA's
        *("requests", "urllib3"),  # collateral is fetched
        "awscrt",  # a report of an SEV-SNP guest
        "psycopg",  # PostgreSQL
        "pyrage",  # model files, which a broker has nothing to do with
        *("kbs.client", "tpm2_pytss"),  # guests
        *("rich", "kbs.cli.policy"),  # other commands
        "sqlalchemy.orm",
    )
)
"""Slow to import or large, and wanted by few brokers or late: each with by what."""

DOMAINS = (
    *("artifacts", "audit", "broker", "channel", "core", "evidence", "governance"),
    *("keys", "pki", "policy", "wire"),
)

PROGRAM = """
import sys
from pathlib import Path

import kbs.cli.main
import kbs.cli.serve
import kbs.serving
from kbs.app import check_start, create_app_with, open_parts
from kbs.settings import Settings

settings = Settings(data=Path(sys.argv[1]), trust=Path(sys.argv[2]))
parts = open_parts(settings)
check_start(parts, settings)
answer = create_app_with(parts, settings).test_client().get("/v1/broker")
parts.close()
print(answer.status_code, *sys.modules)
"""


def test_a_start_loads_nothing_that_is_seldom_needed(tmp_path: Path) -> None:
    data, trust = tmp_path / "data", tmp_path / "trust"
    initialise(Settings(data=data, trust=trust), profile=tmp_path / "profile")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(data), str(trust)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, *loaded = done.stdout.split()
    assert status == "200"
    assert SELDOM & set(loaded) == set()
    assert {type(one).__module__ for one in VERIFIERS.values()} <= set(loaded)


@pytest.mark.parametrize("domain", DOMAINS)
def test_what_verifies_and_decides_is_of_one_version(domain: str) -> None:
    """Nothing of ours comes late there: a newer one could have been installed since."""
    late = [
        f"{path}:{inner.lineno}"
        for path in (ROOT / "kbs" / domain).rglob("*.py")
        for outer in ast.walk(ast.parse(path.read_text()))
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
        if isinstance(inner, ast.Import | ast.ImportFrom) and "kbs" in _names(inner)
    ]
    assert late == []


def _names(statement: ast.Import | ast.ImportFrom) -> set[str]:
    """The packages that a statement imports from."""
    if isinstance(statement, ast.Import):
        return {alias.name.partition(".")[0] for alias in statement.names}
    return {"kbs" if statement.level else str(statement.module).partition(".")[0]}


@pytest.mark.parametrize("library", ["lxml", "signxml"])
def test_a_library_that_is_missing_is_noticed_before_it_is_needed(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=library):
        runpy.run_path(rim_xml.__file__)
