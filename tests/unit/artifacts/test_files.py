from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

import pyrage
import pytest

from kbs.artifacts.envelope import SealedHeader
from kbs.artifacts.files import (
    inspect_file,
    open_file,
    open_reader,
    reading,
    replacing,
    seal_file,
)
from kbs.artifacts.formats import inspect, seal, unseal
from kbs.artifacts.segments import Layout
from kbs.core.errors import (
    ConflictError,
    KbsError,
    MalformedError,
    VerificationError,
)
from kbs.core.ids import parse_key_ref

KEY = bytes(range(32))
KEY_REF = parse_key_ref("acme/model/chat@1")
PLAINTEXT = os.urandom(2_500_000)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "chat.safetensors"
    path.write_bytes(PLAINTEXT)
    return path


@pytest.fixture
def sealed(tmp_path: Path, plain: Path) -> Path:
    path = tmp_path / "chat.sealed"
    seal_file(plain, path, KEY, key_ref=KEY_REF, name=plain.name)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_sealed_inspected_and_opened(tmp_path: Path, sealed: Path) -> None:
    assert inspect_file(sealed) == {
        "format": "kbs",
        "alg": "AES256_GCM_HKDF_1MB",
        "key": "acme/model/chat@1",
        "name": "chat.safetensors",
        "size": len(PLAINTEXT),
        "complete": True,
    }
    target = tmp_path / "opened"
    steps: list[int] = []
    assert open_file(sealed, target, KEY, progress=steps.append) == len(PLAINTEXT)
    assert target.read_bytes() == PLAINTEXT
    assert sum(steps) == len(PLAINTEXT)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert names(tmp_path) == {"chat.safetensors", "chat.sealed", "opened"}


def test_a_sealed_file_is_as_public_as_the_umask_says(
    tmp_path: Path, plain: Path
) -> None:
    before = os.umask(0o027)
    try:
        seal_file(plain, tmp_path / "out", KEY)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_an_existing_file_is_replaced_only_by_a_complete_one(
    tmp_path: Path, sealed: Path
) -> None:
    target = tmp_path / "opened"
    target.write_bytes(b"yesterday's")
    damaged = bytearray(sealed.read_bytes())
    damaged[-1] ^= 1
    sealed.write_bytes(damaged)
    with pytest.raises(VerificationError):
        open_file(sealed, target, KEY)
    assert target.read_bytes() == b"yesterday's"
    damaged[-1] ^= 1
    sealed.write_bytes(damaged)
    open_file(sealed, target, KEY)
    assert target.read_bytes() == PLAINTEXT


@pytest.mark.parametrize(
    ("start", "end", "code"),
    [
        (0, 5, "artifact.unknown"),
        (0, 12, "malformed"),
        (0, 50, "malformed"),
        (0, -1, "artifact.truncated"),
        (0, -(1 << 20), "artifact.truncated"),
        (1, None, "artifact.unknown"),
    ],
)
def test_a_cut_file_leaves_nothing_behind(
    tmp_path: Path, sealed: Path, start: int, end: int | None, code: str
) -> None:
    sealed.write_bytes(sealed.read_bytes()[start:end])
    with pytest.raises(KbsError) as caught:
        open_file(sealed, tmp_path / "opened", KEY)
    assert caught.value.code == code
    assert names(tmp_path) == {"chat.safetensors", "chat.sealed"}


def test_an_extended_file_leaves_nothing_behind(tmp_path: Path, sealed: Path) -> None:
    sealed.write_bytes(sealed.read_bytes() + b"\0")
    with pytest.raises(KbsError) as caught:
        open_file(sealed, tmp_path / "opened", KEY)
    assert caught.value.code == "artifact.extended"
    assert names(tmp_path) == {"chat.safetensors", "chat.sealed"}


def test_another_key_is_refused_and_the_message_names_the_right_one(
    tmp_path: Path, sealed: Path, plain: Path
) -> None:
    with pytest.raises(VerificationError, match="header names key acme/model/chat@1"):
        open_file(sealed, tmp_path / "opened", bytes(32))
    seal_file(plain, sealed, KEY)
    with pytest.raises(VerificationError, match="the header names no key"):
        open_file(sealed, tmp_path / "opened", bytes(32))
    with pytest.raises(MalformedError, match="data key: got 5 bytes"):
        open_file(sealed, tmp_path / "opened", b"short")


@pytest.mark.parametrize("old", [b"acme/model/chat@1", b"chat.safetensors"])
def test_the_header_is_authenticated_with_the_stream(
    tmp_path: Path, sealed: Path, old: bytes
) -> None:
    data = sealed.read_bytes()
    assert old in data
    sealed.write_bytes(data.replace(old, b"b" + old[1:]))
    with pytest.raises(VerificationError) as caught:
        open_file(sealed, tmp_path / "opened", KEY)
    assert caught.value.code == "artifact.segment"


def test_an_empty_file_can_be_sealed(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    seal_file(tmp_path / "empty", tmp_path / "sealed", KEY)
    assert inspect_file(tmp_path / "sealed")["size"] == 0
    assert open_file(tmp_path / "sealed", tmp_path / "opened", KEY) == 0
    assert (tmp_path / "opened").read_bytes() == b""


def test_a_sealed_file_is_read_at_random_places(sealed: Path) -> None:
    with open_reader(sealed, KEY) as reader:
        reader.seek(1_500_000)
        assert reader.read(700_000) == PLAINTEXT[1_500_000:2_200_000]
    with pytest.raises(VerificationError):
        open_reader(sealed, bytes(32))


def test_age_files_open_by_the_same_call(tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    for armored, kind in ((False, "age"), (True, "age-armor")):
        path = tmp_path / kind
        path.write_bytes(
            pyrage.encrypt(b"weights", [identity.to_public()], armored=armored)
        )
        document = inspect_file(path)
        assert document["format"] == kind
        recipients = document["recipients"]
        assert isinstance(recipients, list)
        assert recipients[0] == "X25519"
        open_file(path, tmp_path / "opened", str(identity).encode())
        assert (tmp_path / "opened").read_bytes() == b"weights"
        assert stat.S_IMODE((tmp_path / "opened").stat().st_mode) == 0o600


def test_an_age_file_cut_after_its_first_chunks_leaves_nothing(tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    path = tmp_path / "cut.age"
    path.write_bytes(pyrage.encrypt(bytes(200_000), [identity.to_public()])[:-1])
    with pytest.raises(VerificationError):
        open_file(path, tmp_path / "opened", str(identity).encode())
    assert names(tmp_path) == {"cut.age"}


def test_a_pipe_is_sealed_without_a_size() -> None:
    sink = io.BytesIO()
    assert seal(KEY, io.BytesIO(b"piped"), sink, header=SealedHeader()) == 5
    document = inspect(sink)
    # A cut between segments would show only with the key.
    assert (document["size"], document["complete"]) == (5, None)
    back = io.BytesIO()
    assert unseal(KEY, sink, back) == 5
    assert back.getvalue() == b"piped"


def test_inspect_tells_a_cut_file_without_the_key(sealed: Path) -> None:
    data = sealed.read_bytes()
    for size in (len(data) - 1, len(data) - 600_000, len(data) + 1):
        sealed.write_bytes((data + b"\0")[:size])
        document = inspect_file(sealed)
        assert document["complete"] is False
        assert document["size"] == len(PLAINTEXT)


def test_a_file_that_grows_while_it_is_sealed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConflictError) as caught:
        seal(KEY, io.BytesIO(b"12345"), io.BytesIO(), header=SealedHeader(size=4))
    assert caught.value.code == "artifact.changed"


class Growing(io.BytesIO):
    """Says it is shorter than what it gives, as a file that grows would."""

    shown = 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence == io.SEEK_END:
            return self.shown
        return super().seek(offset, whence)


def test_the_size_in_the_header_counts_after_opening_too() -> None:
    """An owner's tool that wrote another size than it sealed is found out."""
    header = SealedHeader(size=4)
    sink = io.BytesIO()
    with pytest.raises(ConflictError):
        seal(KEY, io.BytesIO(b"12345"), sink, header=header)
    source = Growing(sink.getvalue())
    source.shown = len(header.to_bytes()) + Layout().ciphertext_size(4)
    with pytest.raises(VerificationError) as caught:
        unseal(KEY, source, io.BytesIO())
    assert caught.value.code == "artifact.extended"


def test_a_file_is_not_sealed_onto_itself(plain: Path) -> None:
    with pytest.raises(ConflictError) as caught:
        seal_file(plain, plain, KEY)
    assert caught.value.code == "artifact.same_file"
    assert plain.read_bytes() == PLAINTEXT
    assert names(plain.parent) == {plain.name}


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "below a file"])
def test_an_input_that_is_no_readable_file_is_one_clear_error(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "input"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "below a file":
        path.touch()
        path /= "x"
    with pytest.raises(MalformedError) as caught:
        seal_file(path, tmp_path / "out", KEY)
    assert caught.value.code == "artifact.unreadable"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind", ["folder", "link", "pipe", "missing folder", "file folder"]
)
def test_an_output_that_is_no_file_is_never_replaced(
    tmp_path: Path, plain: Path, kind: str
) -> None:
    target = tmp_path / "out"
    if kind == "folder":
        target.mkdir()
    elif kind == "link":
        target.symlink_to("elsewhere")
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "missing folder":
        target /= "x"
    else:
        target = plain / "x"
    before = names(tmp_path)
    with pytest.raises(MalformedError) as caught:
        seal_file(plain, target, KEY)
    assert caught.value.code == "artifact.unwritable"
    assert names(tmp_path) == before


@pytest.mark.parametrize("failing", ["os.fsync", "Path.replace"])
@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "artifact.io"), (errno.EACCES, "artifact.unwritable")],
)
def test_a_disk_that_fails_at_the_end_leaves_the_old_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    number: int,
    code: str,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    target = tmp_path / "out"
    target.write_bytes(b"old")
    monkeypatch.setattr(f"kbs.artifacts.files.{failing}", fail)
    with pytest.raises(KbsError) as caught, replacing(target, mode=0o600) as out:
        out.write(b"new")
    monkeypatch.undo()
    assert caught.value.code == code
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == {"out"}


def test_nothing_is_under_the_final_name_before_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replacing(target, mode=0o600) as out:
        out.write(b"half")
        out.flush()
        assert not target.exists()
        (partial,) = tmp_path.iterdir()
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600
    assert names(tmp_path) == {"out"}


def test_an_interrupt_leaves_nothing(tmp_path: Path, sealed: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_file(sealed, tmp_path / "opened", KEY, progress=interrupt)
    assert names(tmp_path) == {"chat.safetensors", "chat.sealed"}


def test_no_descriptor_is_left_open(tmp_path: Path, sealed: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(KbsError):
        open_file(sealed, tmp_path / "opened", bytes(32))
    with pytest.raises(KbsError):
        open_reader(sealed, bytes(32))
    with pytest.raises(KbsError), reading(tmp_path):
        pass
    open_reader(sealed, KEY).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
