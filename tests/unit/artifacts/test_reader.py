from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest

from kbs.artifacts.reader import SealedReader
from kbs.artifacts.segments import HEADER_SIZE
from kbs.artifacts.stream import seal_stream
from kbs.core.errors import KbsError

KEY = bytes(range(32))
SIZE = 64
PLAINTEXT = os.urandom(8 + 48 * 3 + 5)


def sealed(plaintext: bytes = PLAINTEXT) -> bytes:
    sink = io.BytesIO()
    seal_stream(
        KEY, io.BytesIO(plaintext), sink, associated_data=b"", segment_size=SIZE
    )
    return sink.getvalue()


GOOD = sealed()


def reader(data: bytes = GOOD, *, key: bytes = KEY, start: int = 0) -> SealedReader:
    return SealedReader(
        key, io.BytesIO(data), associated_data=b"", start=start, segment_size=SIZE
    )


def test_it_reads_like_a_file() -> None:
    file = reader()
    assert file.readable()
    assert file.seekable()
    assert not file.writable()
    assert file.size == len(PLAINTEXT)
    assert file.read() == PLAINTEXT
    assert file.read(1) == b""
    assert file.tell() == len(PLAINTEXT)


@pytest.mark.parametrize("start", [0, 7, 8, 9, 55, 56, 57, 104, 152, 156, 157, 400])
@pytest.mark.parametrize("length", [0, 1, 48, 49, 500])
def test_any_slice_is_the_slice_of_the_plaintext(start: int, length: int) -> None:
    file = reader()
    assert file.seek(start) == start
    assert file.read(length) == PLAINTEXT[start : start + length]


def test_it_seeks_from_all_three_origins() -> None:
    file = reader()
    assert file.seek(-5, io.SEEK_END) == len(PLAINTEXT) - 5
    assert file.seek(-10, io.SEEK_CUR) == len(PLAINTEXT) - 15
    assert file.read() == PLAINTEXT[-15:]


@pytest.mark.parametrize(("offset", "whence"), [(-1, 0), (-1000, 2), (0, 7)])
def test_a_wrong_seek_is_a_value_error_and_moves_nothing(
    offset: int, whence: int
) -> None:
    file = reader()
    file.seek(3)
    with pytest.raises(ValueError, match=r"whence|negative"):
        file.seek(offset, whence)
    assert file.tell() == 3


def test_it_fills_buffers_of_other_items_than_bytes() -> None:
    file = reader()
    buffer = memoryview(bytearray(40)).cast("I")
    assert file.readinto(buffer) == 40
    assert bytes(buffer) == PLAINTEXT[:40]


def test_it_works_under_a_buffered_reader_and_behind_a_prefix() -> None:
    file = reader(b"prefix" + GOOD, start=6)
    with io.BufferedReader(file) as buffered:
        buffered.seek(50)
        assert buffered.read(60) == PLAINTEXT[50:110]


@pytest.mark.parametrize("plaintext", [b"", b"x", bytes(8), bytes(56)])
def test_small_files_work(plaintext: bytes) -> None:
    assert reader(sealed(plaintext)).read() == plaintext


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: b"", "malformed"),
        (lambda data: data[:20], "malformed"),
        (lambda data: data[: HEADER_SIZE + 3], "artifact.truncated"),
        (lambda data: data[:-1], "artifact.segment"),
        (lambda data: data[:-5], "artifact.truncated"),
        (lambda data: data[: 4 * SIZE], "artifact.truncated"),
        (lambda data: data[:SIZE], "artifact.truncated"),
        (lambda data: data + b"\0", "artifact.segment"),
        (lambda data: data + bytes(SIZE), "artifact.segment"),
    ],
)
def test_a_cut_or_extended_file_is_refused_at_the_start(
    change: Callable[[bytes], bytes], code: str
) -> None:
    with pytest.raises(KbsError) as caught:
        reader(change(GOOD))
    assert caught.value.code == code


def test_another_key_is_refused_at_the_start() -> None:
    with pytest.raises(KbsError) as caught:
        reader(key=bytes(32))
    assert caught.value.code == "artifact.segment"


def test_damage_is_found_where_it_is_touched_and_only_there() -> None:
    bad = bytearray(GOOD)
    bad[2 * SIZE + 3] ^= 1
    file = reader(bytes(bad))
    buffer = bytearray(200)
    with pytest.raises(KbsError) as caught:
        file.readinto(buffer)
    assert caught.value.what == "sealed segment 2"
    assert bytes(buffer) == PLAINTEXT[:56] + bytes(144)
    # The good segments stay readable, the bad one stays refused.
    file.seek(104)
    assert file.read() == PLAINTEXT[104:]
    file.seek(60)
    with pytest.raises(KbsError):
        file.read(1)


def test_a_file_that_shrinks_while_it_is_open_is_refused() -> None:
    source = io.BytesIO(GOOD)
    file = SealedReader(KEY, source, associated_data=b"", segment_size=SIZE)
    source.truncate(SIZE + 10)
    file.seek(60)
    with pytest.raises(KbsError) as caught:
        file.read(1)
    assert caught.value.code == "artifact.truncated"


def test_closing_closes_the_file_and_wipes_the_plaintext() -> None:
    source = io.BytesIO(GOOD)
    file = SealedReader(KEY, source, associated_data=b"", segment_size=SIZE)
    file.read(10)
    held = file._opened
    assert any(held)
    file.close()
    file.close()
    assert source.closed
    assert not any(held)
    for use in (file.tell, file.read, lambda: file.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_refused_file_stays_open_for_its_owner() -> None:
    source = io.BytesIO(GOOD[:-1])
    with pytest.raises(KbsError):
        SealedReader(KEY, source, associated_data=b"", segment_size=SIZE)
    assert not source.closed
