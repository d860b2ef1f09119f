"""Strict DER (X.690) for what no library reads: values inside vendors' extensions.

One accepted spelling: definite lengths in their shortest form, tags of one byte. The
values of the few universal types that occur have a function each.
"""

from __future__ import annotations

from kbs.core.errors import MalformedError
from kbs.core.reader import Reader

BOOLEAN = 0x01
INTEGER = 0x02
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
ENUMERATED = 0x0A
SEQUENCE = 0x30

_LONG_FORM = 0x80
_HIGH_TAG = 0x1F
_MAX_LENGTH_BYTES = 3


def elements(data: bytes, what: str) -> tuple[tuple[int, bytes], ...]:
    """Return (tag, content) of the values that follow each other in `data`.

    Raises:
        MalformedError: anything but whole values in their one spelling.
    """
    reader = Reader(data, what)
    found = []
    while reader.remaining:
        tag = reader.big(1, "tag")
        if tag & _HIGH_TAG == _HIGH_TAG:
            raise MalformedError(what, got="a tag of several bytes", expected="DER")
        found.append((tag, reader.take(_length(reader, what), "content")))
    return tuple(found)


def element(data: bytes, tag: int, what: str) -> bytes:
    """Return the content of the one value that `data` is.

    Raises:
        MalformedError: another tag, or not exactly one value.
    """
    found = elements(data, what)
    if len(found) != 1 or found[0][0] != tag:
        got = ", ".join(f"{each:#04x}" for each, _ in found[:4]) or "nothing"
        raise MalformedError(what, got=f"tags {got}", expected=f"one value {tag:#04x}")
    return found[0][1]


def unsigned(content: bytes, what: str, *, most: int) -> int:
    """Return a non-negative INTEGER or ENUMERATED in its shortest form.

    Raises:
        MalformedError: anything else, or more than `most`.
    """
    number = int.from_bytes(content, "big", signed=True)
    shortest = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    if not content or content != shortest or not 0 <= number <= most:
        raise MalformedError(
            what, got=content.hex()[:40], expected=f"a DER INTEGER from 0 to {most}"
        )
    return number


def boolean(content: bytes, what: str) -> bool:
    """Return a BOOLEAN (X.690, section 11.1: FFh is true).

    Raises:
        MalformedError: anything else.
    """
    if content not in {b"\x00", b"\xff"}:
        raise MalformedError(what, got=content.hex()[:40], expected="a DER BOOLEAN")
    return content == b"\xff"


def object_identifier(content: bytes, what: str) -> str:
    """Return an OBJECT IDENTIFIER as dotted decimals.

    Raises:
        MalformedError: a component is cut short or not in its shortest form.
    """
    parts: list[int] = []
    value, begun = 0, False
    for byte in content:
        if not begun and byte == _LONG_FORM:
            raise MalformedError(what, got=content.hex()[:40], expected="a DER OID")
        value, begun = value << 7 | byte & 0x7F, bool(byte & _LONG_FORM)
        if not begun:
            parts.append(value)
            value = 0
    if begun or not parts:
        raise MalformedError(what, got=content.hex()[:40], expected="a DER OID")
    first = min(parts[0] // 40, 2)
    return ".".join(str(part) for part in (first, parts[0] - 40 * first, *parts[1:]))


def _length(reader: Reader, what: str) -> int:
    first = reader.big(1, "length")
    if first < _LONG_FORM:
        return first
    size = first & 0x7F
    if not 0 < size <= _MAX_LENGTH_BYTES:
        raise MalformedError(what, got=f"a length of {size} bytes", expected="DER")
    length = reader.big(size, "length")
    if length < _LONG_FORM or length >> 8 * (size - 1) == 0:
        raise MalformedError(what, got="a length not in its shortest form")
    return length
