"""The README's tour, as typed; the demo, as told."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.enable_socket, pytest.mark.slow]

TOUR = re.compile(r"<!-- tour -->\n```sh\n(.*?)```", re.DOTALL)


def tour() -> str:
    """Every block of the tour, as one script that stops at the first failure."""
    blocks = TOUR.findall((ROOT / "README.md").read_text())
    assert len(blocks) >= 5
    return "set -eu\n" + "\n".join(blocks)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def toured(folder: Path, script: str, port: int) -> subprocess.CompletedProcess[str]:
    """Run in a copy with a port of its own; nothing else differs from the text."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    kbs = folder / ".venv" / "bin" / "kbs"
    kbs.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kbs "$@"\n')
    kbs.chmod(0o755)
    shutil.copytree(ROOT / "policies", folder / "policies")
    script = script.replace("8443", str(port))
    script = script.replace("kbs serve ", f"kbs serve --listen 127.0.0.1:{port} ")
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_five_minute_tour_works_as_typed(tmp_path: Path) -> None:
    done = toured(tmp_path, tour(), free_port())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused with exit 1" in done.stdout
    assert "sample.svn" in done.stdout
    assert "consistent" in done.stdout
    assert (tmp_path / ".demo/tour/keys/playground/model/toy").stat().st_size == 32
    # All that it leaves is in the folder that git ignores and `make clean` removes.
    assert {path.name for path in tmp_path.iterdir()} - {"kbs"} == {
        *(".demo", ".venv", "policies")
    }


def test_a_tour_whose_port_is_taken_ends_and_says_so(tmp_path: Path) -> None:
    first = TOUR.findall((ROOT / "README.md").read_text())[0]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = toured(tmp_path, first, taken.getsockname()[1])
    assert "Address already in use" in done.stdout


@pytest.mark.tpm
def test_the_demo_tells_the_whole_story() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("refused with 40") == 7
