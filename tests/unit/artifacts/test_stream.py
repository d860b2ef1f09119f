from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable

import pytest

from kbs.artifacts.segments import (
    HEADER_SIZE,
    MAX_SEGMENTS,
    TAG_SIZE,
    Layout,
    SegmentCipher,
    StreamHeader,
    parse_stream_header,
)
from kbs.artifacts.stream import _open, _seal, fill, open_stream, seal_stream, write_all
from kbs.core.errors import KbsError, MalformedError, UnavailableError

KEY = bytes(range(32))
AAD = b"header digest"
SIZE = 64
"""A small segment: 8 bytes of plaintext in the first, 48 in the others."""

HEADER = StreamHeader(salt=bytes(range(100, 132)), nonce_prefix=b"prefix7")

# HEADER and SIZE; streams of this form are opened by Tink in tests/conformance.
VECTOR_PLAINTEXT = (
    b"eight by" + b"forty-eight bytes fill the second segment whole." + b"!"
)
VECTOR_CIPHERTEXT = bytes.fromhex(
    "286465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80818283707265"
    "66697837b2d5449583e9f29d294988d243729198c310dcdc3f0ccc06e1a026901a0e4b8b"
    "41a2836ed14f204be0f440d976d457f82cea88c0303c94412da1938e4cfb7f07b8f74f5f"
    "bf32308e2c08e0830439fd99e5c77c35562feeb7d20e1ff16f73f51c41135cb82ddfd99e"
    "90"
)


def sealed(plaintext: bytes, *, key: bytes = KEY, aad: bytes = AAD) -> bytes:
    sink = io.BytesIO()
    size = seal_stream(
        key, io.BytesIO(plaintext), sink, associated_data=aad, segment_size=SIZE
    )
    assert size == len(plaintext)
    return sink.getvalue()


def opened(ciphertext: bytes, *, key: bytes = KEY, aad: bytes = AAD) -> bytes:
    sink = io.BytesIO()
    size = open_stream(
        key, io.BytesIO(ciphertext), sink, associated_data=aad, segment_size=SIZE
    )
    assert size == len(sink.getvalue())
    return sink.getvalue()


def segments(ciphertext: bytes) -> list[bytes]:
    return [
        ciphertext[max(start, HEADER_SIZE) : start + SIZE]
        for start in range(0, len(ciphertext), SIZE)
    ]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 55, 56, 57, 103, 104, 105, 1000])
def test_what_was_sealed_opens_at_every_boundary_of_a_segment(size: int) -> None:
    plaintext = os.urandom(size)
    ciphertext = sealed(plaintext)
    assert opened(ciphertext) == plaintext
    layout = Layout(SIZE)
    assert len(ciphertext) == layout.ciphertext_size(size)
    assert layout.plaintext_size(len(ciphertext)) == size
    assert len(segments(ciphertext)) == layout.segments(size)


def test_the_real_segment_size_is_one_mebibyte_of_ciphertext() -> None:
    plaintext = bytes(2 * (1 << 20))
    sink = io.BytesIO()
    seal_stream(KEY, io.BytesIO(plaintext), sink, associated_data=AAD)
    assert len(sink.getvalue()) == 40 + len(plaintext) + 3 * 16
    sink.seek(0)
    back = io.BytesIO()
    open_stream(KEY, sink, back, associated_data=AAD)
    assert back.getvalue() == plaintext


def test_fixed_vector_seals_to_the_same_bytes() -> None:
    sink = io.BytesIO(HEADER.to_bytes())
    sink.seek(0, io.SEEK_END)
    cipher = SegmentCipher(KEY, HEADER, associated_data=AAD)
    _seal(cipher, io.BytesIO(VECTOR_PLAINTEXT), sink, None, Layout(SIZE))
    assert sink.getvalue().hex() == VECTOR_CIPHERTEXT.hex()
    assert opened(VECTOR_CIPHERTEXT) == VECTOR_PLAINTEXT


def test_two_streams_of_one_plaintext_share_no_salt() -> None:
    assert sealed(b"same")[1:40] != sealed(b"same")[1:40]


THREE = os.urandom(8 + 48 + 20)
GOOD = sealed(THREE)
HEAD, (S0, S1, S2) = GOOD[:HEADER_SIZE], segments(GOOD)
LONGER = sealed(THREE + bytes(100))


@pytest.mark.parametrize(
    ("bad", "code", "written"),
    [
        pytest.param(b"", "malformed", 0, id="empty file"),
        pytest.param(GOOD[:39], "malformed", 0, id="cut in the header"),
        pytest.param(b"\x18" + GOOD[1:], "malformed", 0, id="header of AES-128"),
        pytest.param(HEAD, "artifact.truncated", 0, id="header only"),
        pytest.param(HEAD + S0[:15], "artifact.truncated", 0, id="part of a tag"),
        pytest.param(HEAD + S0, "artifact.truncated", 0, id="first segment only"),
        pytest.param(HEAD + S0 + S1, "artifact.truncated", 8, id="last segment off"),
        pytest.param(GOOD[:-1], "artifact.segment", 56, id="last byte off"),
        pytest.param(
            HEAD + S0 + S1 + S2[:16], "artifact.truncated", 56, id="only a tag left"
        ),
        pytest.param(GOOD + b"\0", "artifact.segment", 56, id="one byte more"),
        pytest.param(HEAD + S0 + S2 + S1, "artifact.segment", 8, id="swapped"),
        pytest.param(HEAD + S0 + S1 + S1, "artifact.segment", 56, id="repeated"),
        pytest.param(HEAD + S0 + S2, "artifact.segment", 8, id="one left out"),
        pytest.param(
            HEAD + S0 + segments(LONGER)[1] + S2, "artifact.segment", 8, id="spliced"
        ),
    ],
)
def test_a_changed_stream_is_refused_and_nothing_of_the_segment_is_written(
    bad: bytes, code: str, written: int
) -> None:
    sink = io.BytesIO()
    with pytest.raises(KbsError) as caught:
        open_stream(KEY, io.BytesIO(bad), sink, associated_data=AAD, segment_size=SIZE)
    assert caught.value.code == code
    assert caught.value.got is not None
    assert sink.getvalue() == THREE[:written]


def test_a_stream_that_ends_with_a_full_segment_and_goes_on_was_extended() -> None:
    whole = sealed(bytes(56))
    with pytest.raises(KbsError) as caught:
        opened(whole + bytes(20))
    assert caught.value.code == "artifact.extended"


def test_an_empty_last_segment_is_refused_although_it_authenticates() -> None:
    """Tink's writers never make one, so one plaintext keeps one number of segments."""
    cipher = SegmentCipher(KEY, HEADER, associated_data=AAD)
    first, last = memoryview(bytearray(24)), memoryview(bytearray(16))
    cipher.seal(0, memoryview(bytes(8)), first, last=False)
    cipher.seal(1, memoryview(b""), last, last=True)
    with pytest.raises(MalformedError) as caught:
        opened(HEADER.to_bytes() + bytes(first) + bytes(last))
    assert caught.value.code == "artifact.truncated"


@pytest.mark.parametrize(
    ("key", "aad"), [(bytes(32), AAD), (KEY, b""), (KEY, AAD + b"\0")]
)
def test_another_key_or_other_associated_data_opens_nothing(
    key: bytes, aad: bytes
) -> None:
    with pytest.raises(KbsError) as caught:
        opened(GOOD, key=key, aad=aad)
    assert caught.value.code == "artifact.segment"


def test_every_flipped_bit_is_refused() -> None:
    for position in range(len(GOOD)):
        for bit in range(8):
            bad = bytearray(GOOD)
            bad[position] ^= 1 << bit
            with pytest.raises(KbsError):
                opened(bytes(bad))


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(MalformedError, match=f"got {size} bytes, expected 32 bytes"):
        sealed(b"", key=bytes(size))


def test_a_refused_segment_leaves_zeros_where_aes_gcm_left_plaintext() -> None:
    cipher = SegmentCipher(KEY, parse_stream_header(HEAD), associated_data=AAD)
    out = memoryview(bytearray(b"x" * 48))
    with pytest.raises(KbsError):
        cipher.open(1, memoryview(S1[:-1] + bytes([S1[-1] ^ 1])), out, last=False)
    assert bytes(out) == bytes(48)


def test_progress_adds_up_to_the_plaintext_both_ways() -> None:
    steps: list[int] = []
    sink = io.BytesIO()
    seal_stream(
        KEY,
        io.BytesIO(THREE),
        sink,
        associated_data=AAD,
        progress=steps.append,
        segment_size=SIZE,
    )
    assert steps == [8, 48, 20]
    steps.clear()
    open_stream(
        KEY,
        io.BytesIO(sink.getvalue()),
        io.BytesIO(),
        associated_data=AAD,
        progress=steps.append,
        segment_size=SIZE,
    )
    assert steps == [8, 48, 20]


class Trickle:
    """A pipe that gives and takes three bytes at a time."""

    def __init__(self, data: bytes = b"") -> None:
        self._source = io.BytesIO(data)
        self.taken = bytearray()

    def readinto(self, buffer: memoryview, /) -> int:
        return self._source.readinto(buffer[:3])

    def write(self, data: memoryview, /) -> int:
        self.taken += data[:3]
        return min(3, len(data))


def test_short_reads_and_writes_change_nothing() -> None:
    pipe = Trickle(GOOD)
    open_stream(KEY, pipe, pipe, associated_data=AAD, segment_size=SIZE)
    assert bytes(pipe.taken) == THREE
    pipe = Trickle(THREE)
    seal_stream(KEY, pipe, pipe, associated_data=AAD, segment_size=SIZE)
    assert opened(bytes(pipe.taken)) == THREE


class Broken:
    """Reads and writes by a function that fails."""

    def __init__(self, act: Callable[[], int | None]) -> None:
        self._act = act

    def readinto(self, buffer: memoryview, /) -> int | None:
        return self._act()

    def write(self, data: memoryview, /) -> int | None:
        return self._act()


def _raise() -> int:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("act", [lambda: None, _raise])
def test_a_broken_end_is_never_taken_for_the_end_of_the_data(
    act: Callable[[], int | None],
) -> None:
    with pytest.raises(UnavailableError, match=r"^input: got"):
        fill(Broken(act), memoryview(bytearray(1)))
    with pytest.raises(UnavailableError, match=r"^output: got"):
        write_all(Broken(act), memoryview(b"x"))


@pytest.mark.parametrize("work", [_seal, _open])
def test_a_stream_longer_than_its_counter_is_refused(
    work: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The counter has 32 bits; a smaller limit stands in for four pebibytes.
    monkeypatch.setattr("kbs.artifacts.stream.MAX_SEGMENTS", 2)
    cipher = SegmentCipher(KEY, parse_stream_header(HEAD), associated_data=AAD)
    source = io.BytesIO(THREE if work is _seal else GOOD[HEADER_SIZE:])
    with pytest.raises(MalformedError, match="got more segments"):
        work(cipher, source, io.BytesIO(), None, Layout(SIZE))


def test_the_layout_knows_its_own_limits() -> None:
    layout = Layout()
    assert layout.segments(layout.max_plaintext) == MAX_SEGMENTS
    assert layout.segments(layout.max_plaintext + 1) == MAX_SEGMENTS + 1
    assert Layout(HEADER_SIZE + TAG_SIZE + 1).first_plaintext == 1
    with pytest.raises(ValueError, match="cannot hold the header"):
        Layout(HEADER_SIZE + TAG_SIZE)


@pytest.mark.parametrize("size", [0, 39, 40, 55, SIZE + 1, SIZE + 16, 2 * SIZE + 5])
def test_no_stream_has_a_size_that_ends_inside_a_tag(size: int) -> None:
    with pytest.raises(MalformedError) as caught:
        Layout(SIZE).plaintext_size(size)
    assert caught.value.code == "artifact.truncated"


def test_a_header_parses_to_what_it_was_and_has_no_room_for_more() -> None:
    assert parse_stream_header(HEADER.to_bytes()) == HEADER
    with pytest.raises(MalformedError, match="1 bytes after its end"):
        parse_stream_header(HEADER.to_bytes() + b"\0")
