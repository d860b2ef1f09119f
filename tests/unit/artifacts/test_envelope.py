from __future__ import annotations

import hashlib
import io

import pytest

from kbs.artifacts.detect import Format, detect
from kbs.artifacts.envelope import MAGIC, SealedHeader, read_header
from kbs.artifacts.segments import Layout
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_key_ref

HEADER = SealedHeader(
    key=parse_key_ref("acme/model/chat@1"), name="chat.safetensors", size=123456789
)
HEADER_BYTES = (
    b"kbs.sealed/1\n\x00\x00\x00\x62"
    b'{"alg":"AES256_GCM_HKDF_1MB","key":"acme/model/chat@1",'
    b'"name":"chat.safetensors","size":123456789}'
)
JSON = HEADER_BYTES[17:]


def framed(document: bytes) -> bytes:
    return MAGIC + len(document).to_bytes(4, "big") + document


def test_the_header_has_the_documented_bytes_both_ways() -> None:
    assert HEADER.to_bytes() == HEADER_BYTES == framed(JSON)
    assert read_header(io.BytesIO(framed(JSON))) == HEADER
    assert HEADER.associated_data == hashlib.sha256(framed(JSON)).digest()


def test_reading_stops_at_the_first_byte_of_the_stream() -> None:
    source = io.BytesIO(framed(JSON) + b"stream")
    read_header(source)
    assert source.read() == b"stream"


@pytest.mark.parametrize(
    "header",
    [
        SealedHeader(),
        SealedHeader(size=0),
        SealedHeader(size=Layout().max_plaintext),
        SealedHeader(key=parse_key_ref("a/b/c")),
        SealedHeader(name="Gewichte für morgen.bin"),
        SealedHeader(name="ü" * 127),
    ],
)
def test_every_member_but_alg_may_be_null(header: SealedHeader) -> None:
    assert read_header(io.BytesIO(header.to_bytes())) == header


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "/etc/passwd",
        "a\0b",
        "a\nb",
        "\x1b[2J",
        "\u202efdp.exe",
        "\ud800",
        "x" * 256,
        "ü" * 128,
    ],
)
def test_a_name_that_is_a_path_or_moves_a_terminal_is_refused(name: str) -> None:
    with pytest.raises(MalformedError, match="sealed header name: got"):
        SealedHeader(name=name)


@pytest.mark.parametrize("size", [-1, Layout().max_plaintext + 1])
def test_a_size_that_no_stream_has_is_refused(size: int) -> None:
    with pytest.raises(MalformedError, match="sealed header size: got"):
        SealedHeader(size=size)


def changed(old: bytes, new: bytes) -> bytes:
    assert old in JSON
    return framed(JSON.replace(old, new))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        pytest.param(b"", "sealed file first line", id="empty"),
        pytest.param(b"kbs.sealed/1", "sealed file first line", id="cut line"),
        pytest.param(b"kbs.sealed/2\n", "sealed file first line", id="version 2"),
        pytest.param(b"kbs.sealed/1\r\n", "sealed file first line", id="CRLF"),
        pytest.param(MAGIC + b"\0\0\0", "sealed file header length", id="cut length"),
        pytest.param(
            MAGIC + b"\0\0\x10\x01" + b" " * 4097,
            "sealed file header length",
            id="too long",
        ),
        pytest.param(framed(JSON)[:-1], "sealed file header", id="cut header"),
        pytest.param(framed(b""), "sealed header", id="no JSON"),
        pytest.param(framed(b"[]"), "sealed header", id="a list"),
        pytest.param(framed(JSON + b" "), "sealed header", id="trailing space"),
        pytest.param(changed(b'":"', b'": "'), "sealed header", id="a space"),
        pytest.param(changed(b'"size":', b'"zize":'), "sealed header", id="unknown"),
        pytest.param(
            changed(b"}", b',"size":1}'), "sealed header: JSON object", id="twice"
        ),
        pytest.param(changed(b',"size":123456789', b""), "sealed header", id="missing"),
        pytest.param(changed(b"1MB", b"4KB"), "sealed header alg", id="another alg"),
        pytest.param(changed(b"123456789", b"-1"), "sealed header size", id="negative"),
        pytest.param(changed(b"123456789", b"1.5"), "sealed header", id="a float"),
        pytest.param(changed(b"123456789", b"true"), "sealed header size", id="a flag"),
        pytest.param(changed(b"@1", b"@0"), "key acme/model/chat version", id="@0"),
        pytest.param(changed(b"acme/", b"../"), "key id", id="not a key id"),
        pytest.param(
            changed(b'"acme/model/chat@1"', b"1"), "key", id="key is a number"
        ),
        pytest.param(changed(b"chat.s", b"../s"), "sealed header name", id="a path"),
        pytest.param(
            changed(b'"chat.safetensors"', b"[]"), "sealed header name", id="name list"
        ),
        pytest.param(
            changed(b"chat.s", b"\\u0063hat.s"), "sealed header", id="an escape"
        ),
        pytest.param(
            framed(b'{"key":null,"alg":"AES256_GCM_HKDF_1MB","name":null,"size":null}'),
            "sealed header",
            id="another order",
        ),
    ],
)
def test_a_header_that_is_not_exactly_one_of_ours_is_refused(
    data: bytes, what: str
) -> None:
    with pytest.raises(MalformedError) as caught:
        read_header(io.BytesIO(data))
    assert caught.value.what.startswith(what)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"kbs.sealed/1\n", Format.KBS),
        (b"kbs.sealed/9\n", Format.KBS),
        (b"age-encryption.org/v1\n-> X25519", Format.AGE),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n", Format.AGE_ARMOR),
        (b"", Format.UNKNOWN),
        (b"KBS.sealed/1\n", Format.UNKNOWN),
        (b" kbs.sealed/1\n", Format.UNKNOWN),
        (b"-----BEGIN PGP MESSAGE-----", Format.UNKNOWN),
    ],
)
def test_formats_are_told_by_their_first_bytes(head: bytes, expected: Format) -> None:
    assert detect(head) is expected
