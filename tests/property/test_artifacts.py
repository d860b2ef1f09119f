"""Streams and headers of every size; arbitrary bytes are a value or our error."""

from __future__ import annotations

import contextlib
import io

from hypothesis import given
from hypothesis import strategies as st

from kbs.artifacts.age import open_age
from kbs.artifacts.age_header import read_age_header
from kbs.artifacts.envelope import MAGIC, SealedHeader, read_header
from kbs.artifacts.formats import inspect, seal, unseal
from kbs.artifacts.reader import SealedReader
from kbs.artifacts.segments import Layout, parse_stream_header
from kbs.artifacts.stream import open_stream, seal_stream
from kbs.core.encode import canonical_json
from kbs.core.errors import KbsError, MalformedError
from kbs.core.ids import KeyId, KeyRef

KEY = bytes(range(32))
AAD = b"aad"

segment_sizes = st.integers(57, 200)
plaintexts = st.binary(max_size=700)
segment_names = st.from_regex(r"\A[a-z0-9](?:[a-z0-9_-]{0,8}[a-z0-9])?\Z")
key_refs = st.builds(
    KeyRef,
    st.builds(KeyId, segment_names, segment_names, segment_names),
    st.none() | st.integers(1, 999_999_999),
)
# Explicit alphabets: Hypothesis takes seconds to build its tables of all of Unicode.
file_names = st.text("aZ0 ._-+~üß漢✓🔑", min_size=1, max_size=50).filter(
    lambda name: name not in {".", ".."}
)
headers = st.builds(
    SealedHeader,
    key=st.none() | key_refs,
    name=st.none() | file_names,
    size=st.none() | st.integers(0, Layout().max_plaintext),
)


def sealed(plaintext: bytes, segment_size: int) -> bytes:
    sink = io.BytesIO()
    seal_stream(
        KEY,
        io.BytesIO(plaintext),
        sink,
        associated_data=AAD,
        segment_size=segment_size,
    )
    return sink.getvalue()


def opened(ciphertext: bytes, segment_size: int) -> bytes:
    sink = io.BytesIO()
    open_stream(
        KEY,
        io.BytesIO(ciphertext),
        sink,
        associated_data=AAD,
        segment_size=segment_size,
    )
    return sink.getvalue()


def reader(ciphertext: bytes, segment_size: int) -> SealedReader:
    return SealedReader(
        KEY, io.BytesIO(ciphertext), associated_data=AAD, segment_size=segment_size
    )


@given(plaintexts, segment_sizes)
def test_a_stream_opens_to_what_was_sealed(plaintext: bytes, size: int) -> None:
    ciphertext = sealed(plaintext, size)
    assert len(ciphertext) == Layout(size).ciphertext_size(len(plaintext))
    assert Layout(size).plaintext_size(len(ciphertext)) == len(plaintext)
    assert opened(ciphertext, size) == plaintext


@given(plaintexts, segment_sizes, st.data())
def test_every_slice_is_a_slice(
    plaintext: bytes, size: int, data: st.DataObject
) -> None:
    file = reader(sealed(plaintext, size), size)
    for _ in range(3):
        start = data.draw(st.integers(0, len(plaintext) + 5))
        length = data.draw(st.integers(0, len(plaintext) + 5))
        file.seek(start)
        assert file.read(length) == plaintext[start : start + length]


@given(plaintexts, segment_sizes, st.data())
def test_a_changed_stream_never_opens(
    plaintext: bytes, size: int, data: st.DataObject
) -> None:
    good = sealed(plaintext, size)
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, len(good)))
    bad = good[:start] + data.draw(st.binary(max_size=90)) + good[end:]
    if bad == good:
        return
    sink = io.BytesIO()
    try:
        open_stream(KEY, io.BytesIO(bad), sink, associated_data=AAD, segment_size=size)
    except KbsError:
        # Whole segments before the damage are genuine, and nothing else is written.
        assert plaintext.startswith(sink.getvalue())
    else:
        raise AssertionError(bad.hex())


@given(plaintexts, segment_sizes, st.data())
def test_a_changed_stream_gives_a_reader_nothing_false(
    plaintext: bytes, size: int, data: st.DataObject
) -> None:
    good = sealed(plaintext, size)
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    out = bytearray(len(plaintext))
    with contextlib.suppress(KbsError):
        file = reader(bytes(bad), size)
        assert file.readinto(out) == len(plaintext) == 0
    written = bytes(out).rstrip(b"\0")
    assert plaintext.startswith(written)


@given(st.integers(0, 1 << 54), segment_sizes)
def test_sizes_are_a_bijection(ciphertext_size: int, segment_size: int) -> None:
    layout = Layout(segment_size)
    try:
        size = layout.plaintext_size(ciphertext_size)
    except MalformedError:
        return
    assert layout.ciphertext_size(size) == ciphertext_size


@given(st.integers(0, 5000), segment_sizes)
def test_every_position_lies_in_one_segment(position: int, segment_size: int) -> None:
    layout = Layout(segment_size)
    number, offset = layout.locate(position)
    start = number * layout.plaintext_segment - 40 if number else 0
    assert start + offset == position
    room = layout.plaintext_segment if number else layout.first_plaintext
    assert 0 <= offset < room
    assert number == layout.segments(position + 1) - 1


@given(headers)
def test_a_header_parses_to_what_it_was(header: SealedHeader) -> None:
    assert read_header(io.BytesIO(header.to_bytes())) == header


def framed(document: bytes) -> bytes:
    return MAGIC + len(document).to_bytes(4, "big") + document


members = st.fixed_dictionaries(
    {
        "alg": st.sampled_from(["AES256_GCM_HKDF_1MB", "AES256_GCM_HKDF_4KB"]),
        "key": st.none() | key_refs.map(str) | st.text("a/@1.\\\n\u202eé", max_size=9),
        "name": st.none() | st.text("a/@1.\\\n\u202eé", max_size=9),
        "size": st.none() | st.integers(-2, 9) | st.booleans(),
    }
)


@given(
    st.binary(max_size=200)
    | members.map(lambda value: framed(canonical_json(value)))
    | st.binary(max_size=99).map(framed)
)
def test_any_bytes_are_a_header_of_the_same_bytes_or_malformed(data: bytes) -> None:
    try:
        header = read_header(io.BytesIO(data))
    except MalformedError:
        return
    assert data.startswith(header.to_bytes())


@given(st.binary(max_size=60) | st.binary(min_size=39, max_size=39))
def test_any_bytes_are_a_stream_header_or_malformed(data: bytes) -> None:
    for candidate in (data, b"\x28" + data):
        with contextlib.suppress(MalformedError):
            assert parse_stream_header(candidate).to_bytes() == candidate


@given(headers, st.binary(max_size=200))
def test_only_a_file_sealed_by_the_key_opens(header: SealedHeader, junk: bytes) -> None:
    plain = SealedHeader(key=header.key, name=header.name)
    sink = io.BytesIO()
    seal(KEY, io.BytesIO(junk), sink, header=plain)
    back = io.BytesIO()
    assert unseal(KEY, sink, back) == len(junk)
    assert back.getvalue() == junk
    forged = io.BytesIO(header.to_bytes() + junk)
    assert inspect(forged)["format"] == "kbs"
    try:
        unseal(KEY, forged, io.BytesIO())
    except KbsError:
        return
    raise AssertionError(forged.getvalue().hex())


starts = st.sampled_from(
    [
        b"",
        b"kbs.sealed/1\n",
        b"age-encryption.org/v1\n",
        b"age-encryption.org/v1\n-> X25519 AAAA\n",
        b"age-encryption.org/v1\n-> scrypt AAAA 10\n",
        b"-----BEGIN AGE ENCRYPTED FILE-----\n",
        b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5cHRpb24ub3JnL3YxCg==\n",
    ]
)
bodies = st.binary(max_size=120) | st.text("->X25519 scrypt\nA=", max_size=99).map(
    str.encode
)
secrets = st.sampled_from(
    [
        b"passphrase",
        b"AGE-SECRET-KEY-1JJSDGNDWVZ2P3SX276P7HHXN4A09D93PJD80PWE78H8P4DFZ04FQVSLTP4",
    ]
) | st.binary(max_size=40)


@given(starts, bodies, secrets)
def test_arbitrary_files_and_secrets_open_nothing(
    start: bytes, body: bytes, secret: bytes
) -> None:
    source = io.BytesIO(start + body)
    for use in (read_age_header, inspect):
        with contextlib.suppress(MalformedError):
            use(source)
    sink = io.BytesIO()
    for attempt in (open_age, lambda f, s, k: unseal(k, f, s)):
        try:
            attempt(source, sink, secret)
        except KbsError:
            assert sink.getvalue() == b""
        else:
            raise AssertionError(source.getvalue().hex())
