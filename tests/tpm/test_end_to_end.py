"""`docker/end-to-end/run.sh` with the compose file's own commands, and no engine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fakes.swtpm import free_port_pair

pytestmark = [pytest.mark.tpm, pytest.mark.slow]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder for volumes; what was started in it is ended."""
    folder = tmp_path / "stand-in"
    folder.mkdir()
    yield folder
    for pid in folder.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(pid.read_text()), signal.SIGTERM)


def test_the_story_of_the_compose_file(tmp_path: Path, place: Path) -> None:
    # The script makes folders beside itself.
    copy = tmp_path / "tree" / "docker"
    left = shutil.ignore_patterns("profile", "pinned", "secrets")
    shutil.copytree(ROOT / "docker", copy, ignore=left)
    broker, tpm = f":{free_port_pair()}", free_port_pair()
    ports = {
        "0.0.0.0:8443": broker,
        "127.0.0.1:8443": broker,
        "broker:8443": broker,
        "software-tpm,port=2321": f",port={tpm}",
        ":2321": f":{tpm}",
    }
    done = subprocess.run(
        ["sh", str(copy / "end-to-end" / "run.sh")],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "COMPOSE": f"{sys.executable} -m tests.fakes.compose",
            "KBS_STAND_IN": str(place),
            "KBS_STAND_IN_PORTS": json.dumps(ports),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    logs = "".join(path.read_text() for path in place.glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    said = done.stdout.partition("== measured")
    assert "released" not in said[0]
    assert "acme/model/chat@1 released" in said[2]
    assert "vtpm.pcr.sha256.15" in done.stderr
    assert "deny.all" in done.stderr
    key = place / "tmpfs" / "run" / "keys" / "acme" / "model" / "chat"
    assert len(key.read_bytes()) == 32
    assert (place / "volumes" / "trust" / "kek").is_file()
    assert not (place / "volumes" / "data" / "admin.key").exists()
