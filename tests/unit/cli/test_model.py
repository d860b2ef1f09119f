"""`kbs model`: sealing offline and with a new key, opening, inspecting."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import click
import pytest

from kbs.cli.context import CliContext, main_with
from kbs.cli.model import model
from kbs.core.errors import UnavailableError

ROOT = click.Group("kbs", commands={"model": model})
KEY = bytes(range(32))
CONTENT = b"weights" * 5000


@dataclass
class Bench:
    """A folder with a model and a key, and what the commands printed."""

    folder: Path
    capture: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def run(self, *arguments: str) -> int:
        code = main_with(ROOT, ["model", *arguments])
        captured = self.capture.readouterr()
        self.out, self.err = captured.out, captured.err
        return code


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    (tmp_path / "model.bin").write_bytes(CONTENT)
    (tmp_path / "key").write_bytes(KEY)
    return Bench(tmp_path, capsys)


@dataclass
class FakeAdmin:
    """The administrators' API as far as `seal --new` uses it."""

    imported: list[tuple[str, str, bytes]] = field(default_factory=list)
    away: bool = False

    def from_context(self, context: CliContext) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def import_key(self, key_id: str, kind: str, value: bytes) -> dict[str, Any]:
        if self.away:
            raise UnavailableError("server", got="nothing")
        self.imported.append((key_id, kind, value))
        return {"id": key_id, "version": len(self.imported)}


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> FakeAdmin:
    from kbs.cli import admin_client

    fake = FakeAdmin()
    monkeypatch.setattr(admin_client, "AdminClient", fake)
    return fake


def seal(bench: Bench, *options: str) -> int:
    return bench.run(
        *("seal", bench.path("model.bin"), bench.path("sealed")),
        *("--key", "acme/model/chat", *options),
    )


def test_a_model_is_sealed_and_opened_offline(bench: Bench) -> None:
    key = bench.path("key")
    assert seal(bench, "--key-file", key, "--json") == 0
    assert json.loads(bench.out) == {
        "out": bench.path("sealed"),
        "alg": "AES256_GCM_HKDF_1MB",
        "key": "acme/model/chat",
        "name": "model.bin",
        "size": len(CONTENT),
    }
    assert CONTENT[:64] not in Path(bench.path("sealed")).read_bytes()
    arguments = ("open", bench.path("sealed"), bench.path("opened"), "--key-file", key)
    assert bench.run(*arguments, "--json") == 0
    assert json.loads(bench.out) == {
        "out": bench.path("opened"),
        "size": len(CONTENT),
    }
    opened = Path(bench.path("opened"))
    assert opened.read_bytes() == CONTENT
    assert opened.stat().st_mode & 0o777 == 0o600


def test_people_get_words(bench: Bench) -> None:
    assert seal(bench, "--key-file", bench.path("key")) == 0
    assert f"{len(CONTENT)} bytes sealed under acme/model/chat" in bench.out
    assert bench.run("inspect", bench.path("sealed")) == 0
    assert "key: acme/model/chat" in bench.out
    arguments = (bench.path("sealed"), bench.path("opened"))
    assert bench.run("open", *arguments, "--key-file", bench.path("key")) == 0
    assert f"{len(CONTENT)} bytes" in bench.out


def test_inspect_needs_no_key(bench: Bench) -> None:
    seal(bench, "--key-file", bench.path("key"))
    assert bench.run("inspect", bench.path("sealed"), "--json") == 0
    document = json.loads(bench.out)
    assert document["format"] == "kbs"
    assert document["key"] == "acme/model/chat"
    assert document["complete"] is True


def test_a_new_key_is_imported_before_anything_is_sealed(
    bench: Bench, admin: FakeAdmin
) -> None:
    for version in (1, 2):
        assert seal(bench, "--new", "--json") == 0
        assert json.loads(bench.out)["key"] == f"acme/model/chat@{version}"
    (first, second) = admin.imported
    assert first[:2] == ("acme/model/chat", "aes256")
    assert first[2] != second[2]
    (bench.folder / "key").write_bytes(second[2])
    arguments = (bench.path("sealed"), bench.path("opened"))
    assert bench.run("open", *arguments, "--key-file", bench.path("key")) == 0
    assert Path(bench.path("opened")).read_bytes() == CONTENT


def test_nothing_is_sealed_under_a_key_that_the_broker_has_not(
    bench: Bench, admin: FakeAdmin
) -> None:
    admin.away = True
    assert seal(bench, "--new") == 3
    assert not Path(bench.path("sealed")).exists()


def test_no_key_is_made_for_a_file_that_cannot_be_read(
    bench: Bench, admin: FakeAdmin
) -> None:
    (bench.folder / "model.bin").unlink()
    assert seal(bench, "--new") == 2
    assert admin.imported == []


@pytest.mark.parametrize("out", ["none/sealed", "model.bin", "folder", "link"])
def test_no_key_is_made_for_a_file_that_cannot_be_written(
    bench: Bench, admin: FakeAdmin, out: str
) -> None:
    """A missing folder, the input itself, a folder, a link to nowhere."""
    (bench.folder / "folder").mkdir()
    (bench.folder / "link").symlink_to("nowhere")
    before = {path.name for path in bench.folder.iterdir()}
    code = bench.run(
        *("seal", bench.path("model.bin"), bench.path(out)),
        *("--key", "acme/model/chat", "--new"),
    )
    assert code in {1, 2}
    assert f"output {bench.path(out)}" in bench.err or "is a directory" in bench.err
    assert admin.imported == []
    assert {path.name for path in bench.folder.iterdir()} == before
    assert Path(bench.path("model.bin")).read_bytes() == CONTENT


def test_a_new_key_has_no_version_yet(bench: Bench, admin: FakeAdmin) -> None:
    code = bench.run(
        *("seal", bench.path("model.bin"), bench.path("sealed")),
        *("--key", "acme/model/chat@1", "--new"),
    )
    assert code == 2
    assert "gets its version from the broker" in bench.err
    assert admin.imported == []


def test_exactly_one_source_of_the_key(bench: Bench) -> None:
    assert seal(bench) == 2
    assert "neither" in bench.err
    assert seal(bench, "--new", "--key-file", bench.path("key")) == 2
    assert "both" in bench.err


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_of_another_size_is_refused(bench: Bench, size: int) -> None:
    (bench.folder / "key").write_bytes(bytes(size))
    assert seal(bench, "--key-file", bench.path("key")) == 2
    assert not Path(bench.path("sealed")).exists()


def test_another_key_opens_nothing(bench: Bench) -> None:
    seal(bench, "--key-file", bench.path("key"))
    (bench.folder / "key").write_bytes(bytes(32))
    arguments = (bench.path("sealed"), bench.path("opened"))
    assert bench.run("open", *arguments, "--key-file", bench.path("key")) == 1
    assert not Path(bench.path("opened")).exists()


def test_what_is_no_sealed_file_is_2(bench: Bench) -> None:
    assert bench.run("inspect", bench.path("model.bin")) == 2
    assert bench.run("inspect", bench.path("none")) == 2
    assert len(bench.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [("inspect", "key"), ("open", "key", "out", "--key-file", "key")],
)
def test_a_key_that_was_named_by_mistake_is_not_shown(
    bench: Bench, arguments: tuple[str, ...]
) -> None:
    """What a command prints ends in the journal of a boot, or of a build."""
    secret = b"correct-horse-battery-staple-123"
    (bench.folder / "key").write_bytes(secret)
    places = [bench.path(one) if one in ("key", "out") else one for one in arguments]
    assert bench.run(*places, "--json") == 2
    for size in range(4, len(secret)):
        assert secret[:size].decode() not in bench.out + bench.err
