"""What images and units start: `kbs serve` as they call it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from kbs.cli.context import EXIT_USAGE
from tests.conftest import ROOT
from tests.fakes.dockerfiles import parse_dockerfile
from tests.fakes.served import Folders, kbs, made, serving

_UNIT = ROOT / "docker" / "systemd" / "kbs.service"
_IMAGE = ROOT / "docker" / "Dockerfile"


def _of_unit() -> list[str]:
    lines = _UNIT.read_text("utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("ExecStart="))
    return shlex.split(line.partition("=")[2])[1:]


def _of_image() -> list[str]:
    return parse_dockerfile(_IMAGE)[-1].only("ENTRYPOINT").words()[1:]


STARTS = {"unit": _of_unit(), "image": _of_image()}
every_start = pytest.mark.parametrize("start", STARTS)


def _words(start: str, folders: Folders) -> list[str]:
    """Return the command line with our folders and any port of all addresses."""
    words = list(STARTS[start])
    places = {
        "--data": str(folders.data),
        "--trust": str(folders.trust),
        "--listen": "0.0.0.0:0",
    }
    for option, value in places.items():
        words[words.index(option) + 1] = value
    return [*words, "--profile", str(folders.profile)]


@every_start
@pytest.mark.parametrize(
    "added",
    [
        ["--dev"],
        ["--plain-http"],
        ["--accept-rollback", "disk lost"],
        ["--listen", "127.0.0.1:0", "--plain-http"],
        ["--listen", "127.0.0.1:0", "--dev"],
    ],
    ids=" ".join,
)
def test_an_option_that_fails_open_is_refused(
    tmp_path: Path, start: str, added: list[str]
) -> None:
    folders = Folders(tmp_path)
    made(folders)
    before = sorted(path.name for path in folders.data.iterdir())
    done = kbs(*_words(start, folders), *added)
    assert done.returncode == EXIT_USAGE
    (line,) = done.stderr.splitlines()
    assert next(word for word in reversed(added) if word.startswith("--")) in line
    assert "--production" in line
    assert done.stdout == ""
    assert sorted(path.name for path in folders.data.iterdir()) == before


@every_start
def test_an_empty_volume_is_no_new_broker(tmp_path: Path, start: str) -> None:
    """An engine mounts an empty volume in place of one that is lost."""
    folders = Folders(tmp_path)
    for folder in (folders.data, folders.trust):
        folder.mkdir(mode=0o700)
    done = kbs(*_words(start, folders))
    assert done.returncode == EXIT_USAGE
    assert "instance.json" in done.stderr
    assert list(folders.data.iterdir()) == []
    assert list(folders.trust.iterdir()) == []
    assert not folders.profile.exists()


@every_start
def test_a_trust_folder_that_is_lost_is_not_made_anew(
    tmp_path: Path, start: str
) -> None:
    folders = Folders(tmp_path)
    made(folders)
    folders.trust.rename(tmp_path / "elsewhere")
    folders.trust.mkdir(mode=0o700)
    done = kbs(*_words(start, folders))
    assert done.returncode == EXIT_USAGE
    assert list(folders.trust.iterdir()) == []


@every_start
def test_an_instance_that_exists_is_served_and_healthy(
    tmp_path: Path, start: str
) -> None:
    folders = Folders(tmp_path)
    made(folders)
    options = [word for word in _words(start, folders) if word == "--production"]
    # On loopback here: where it listens is the only thing that differs.
    with serving(folders, *options) as served:
        empty = {"KBS_PROFILE": os.fspath(tmp_path / "none")}
        done = kbs("health", environ={**empty, "KBS_SERVER": served.url})
        assert done.returncode == 0, done.stderr
        assert "is ready" in done.stdout
        gone = served.url
    done = kbs("health", environ={**empty, "KBS_SERVER": gone})
    assert done.returncode != 0
