"""Keys appear whole, together, for their owner alone, and never on a screen."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kbs.channel.answer import ReleasedKey
from kbs.client import deliver
from kbs.client.deliver import (
    is_in_memory,
    require_descriptor,
    require_places,
    write_descriptor,
    write_keys,
)
from kbs.core.errors import ConfigurationError, MalformedError, UnavailableError
from kbs.core.ids import parse_key_ref


def key(text: str, value: bytes = b"value") -> ReleasedKey:
    return ReleasedKey(parse_key_ref(text), value)


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }


def test_each_key_is_a_file_named_by_its_id(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    paths = write_keys(out, [key("a/b/c@1", b"one"), key("a/b/d@2", b"two")])
    assert files(out) == {"a/b/c", "a/b/d"}
    assert [path.read_bytes() for path in paths] == [b"one", b"two"]


def test_only_the_owner_may_read_even_under_a_wide_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        (path,) = write_keys(tmp_path / "out", [key("a/b/c@1")])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (path.parent, path.parent.parent, tmp_path / "out"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_two_versions_of_a_key_do_not_fit_into_one_folder(tmp_path: Path) -> None:
    """One would take the place of the other, and nobody would miss it."""
    ids = [parse_key_ref(text).key_id for text in ("a/b/c@1", "a/b/d", "a/b/c@2")]
    with pytest.raises(MalformedError, match="two versions of a/b/c") as caught:
        require_places(tmp_path / "out", ids)
    assert caught.value.code == "usage"
    assert not files(tmp_path)


def test_a_newer_value_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    write_keys(tmp_path, [key("a/b/c@1", b"old")])
    (path,) = write_keys(tmp_path, [key("a/b/c@2", b"new")])
    assert path.read_bytes() == b"new"
    assert files(tmp_path) == {"a/b/c"}


def test_none_is_left_when_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"in the way of a folder")
    with pytest.raises((UnavailableError, ConfigurationError)):
        write_keys(tmp_path, [key("a/b/c@1"), key("x/b/c@1")])
    assert files(tmp_path) == {"x"}


def test_a_place_is_looked_at_and_left_as_it_is(tmp_path: Path) -> None:
    ids = [parse_key_ref(text).key_id for text in ("a/b/c", "a/b/d", "x/b/c")]
    require_places(tmp_path / "deep" / "out", ids)
    require_places(tmp_path / "missing" / ".." / "out", ids)
    assert list(tmp_path.iterdir()) == []
    write_keys(tmp_path, [key("a/b/c@1", b"old")])
    require_places(tmp_path, ids)
    assert files(tmp_path) == {"a/b/c"}


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENOSPC, UnavailableError, "room for it"),
        (errno.EROFS, MalformedError, "a folder that can be made"),
    ],
)
def test_no_room_passes_and_no_permission_does_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
    words: str,
) -> None:
    def failing(path: Path, value: bytes) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(deliver, "_write_file", failing)
    with pytest.raises(error, match=words):
        require_places(tmp_path, [parse_key_ref("a/b/c").key_id])
    with pytest.raises(UnavailableError, match=words):
        write_keys(tmp_path, [key("a/b/c@1")])
    assert files(tmp_path) == set()


def test_none_is_left_when_one_cannot_be_placed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "d" / "full").mkdir(parents=True)
    with pytest.raises(UnavailableError):
        write_keys(tmp_path, [key("a/b/c@1"), key("a/b/d@1")])
    assert files(tmp_path) == set()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handler: what runs in a shell's background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("moment", ["_write_file", "replace"])
def test_an_interruption_waits_until_the_set_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def interrupting(call: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            os.kill(os.getpid(), signal.SIGINT)
            return call(*arguments)

        return run

    owner = deliver if moment == "_write_file" else Path
    monkeypatch.setattr(owner, moment, interrupting(getattr(owner, moment)))
    with pytest.raises(KeyboardInterrupt):
        write_keys(tmp_path, [key("a/b/c@1", b"one"), key("a/b/d@1", b"two")])
    assert files(tmp_path) == {"a/b/c", "a/b/d"}


def test_handlers_are_put_back_and_a_thread_leaves_them_alone(tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    write_keys(tmp_path, [key("a/b/c@1")])
    thread = threading.Thread(target=write_keys, args=(tmp_path, [key("a/b/d@1")]))
    thread.start()
    thread.join()
    assert [signal.getsignal(number) for number in numbers] == before
    assert files(tmp_path) == {"a/b/c", "a/b/d"}


def test_none_is_left_by_an_interruption_that_could_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = deliver._write_file, []

    def interrupted(path: Path, value: bytes) -> None:
        write(path, value)
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(deliver, "_write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_keys(tmp_path, [key("a/b/c@1"), key("a/b/d@1"), key("a/b/e@1")])
    assert len(written) == 2
    assert files(tmp_path) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_told_to_stop_leaves_no_partial_file(
    tmp_path: Path, number: signal.Signals
) -> None:
    """In a process of its own: SIGTERM ends it without a chance to clean up."""
    program = f"""
import os, signal, sys
from pathlib import Path
from kbs.channel.answer import ReleasedKey
from kbs.client import deliver
from kbs.core.ids import parse_key_ref
signal.signal({int(number)}, signal.SIG_DFL)  # whatever the tests' own parent ignores
write = deliver._write_file
def stopped(path, value):
    write(path, value)
    os.kill(os.getpid(), {int(number)})
deliver._write_file = stopped
keys = [ReleasedKey(parse_key_ref(f"a/b/{{one}}@1"), b"value") for one in "cd"]
deliver.write_keys(Path(sys.argv[1]), keys)
print("not reached")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "out")],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -number, done.stderr
    assert done.stdout == b""
    assert files(tmp_path / "out") == {"a/b/c", "a/b/d"}


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "a").symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="--out"):
        write_keys(tmp_path, [key("a/b/c@1")])
    assert files(elsewhere) == set()


def test_a_link_under_a_keys_name_is_replaced_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"before")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").symlink_to(target)
    write_keys(tmp_path, [key("a/b/c@1")])
    assert target.read_bytes() == b"before"


def test_a_descriptor_gets_the_bytes_and_nothing_else() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file:
        write_descriptor(writer, key("a/b/c@1", b"\x00secret\n"))
        os.close(writer)
        assert file.read() == b"\x00secret\n"


def test_a_reader_that_went_away_is_reported() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(UnavailableError, match="reader"):
        write_descriptor(writer, key("a/b/c@1"))
    os.close(writer)


def test_a_terminal_is_refused() -> None:
    leader, follower = os.openpty()
    try:
        with pytest.raises(MalformedError, match="people"):
            write_descriptor(follower, key("a/b/c@1"))
    finally:
        os.close(leader)
        os.close(follower)


def test_a_descriptor_that_is_only_read_from_is_refused_before_anything_is_asked() -> (
    None
):
    reader, writer = os.pipe()
    try:
        with pytest.raises(MalformedError, match="for reading only"):
            require_descriptor(reader)
        require_descriptor(writer)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("descriptor", [0, 2, 987654, -1, 2**40])
def test_what_is_closed_or_goes_to_the_log_is_refused(descriptor: int) -> None:
    with pytest.raises(MalformedError):
        write_descriptor(descriptor, key("a/b/c@1"))


MOUNTS = """\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 0:20 / /run rw shared:5 - tmpfs tmpfs rw
23 22 8:2 / /run/disk rw - ext4 /dev/sdb1 rw
24 21 0:30 / /with\\040space rw - ramfs none rw
broken
25 21 0:31 / - tmpfs
"""


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/run", True),
        ("/run/keys/deep", True),
        ("/run/disk/keys", False),
        ("/with space/x", True),
        ("/srv", False),
        ("/runner", False),
    ],
)
def test_the_innermost_mount_says_whether_it_is_memory(
    tmp_path: Path,
    folder: str,
    expected: bool,  # noqa: FBT001
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert is_in_memory(Path(folder), mounts) is expected


def test_without_a_list_of_mounts_nothing_is_known_to_be_memory() -> None:
    assert not is_in_memory(Path("/run"), Path("/nowhere"))
