"""Changes to inputs, made by a seeded generator: the same seed, the same inputs.

Used alone in `make test`, and beside libFuzzer's own changes in `make fuzz`, which
knows nothing of JSON, nor of base64 inside of it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from tests.fuzz.target import Shape, Target

_WORDS: Sequence[bytes] = (
    *(b"\x00", b"\x7f", b"\x80", b"\xff", b"\xff\xff\xff\xff", bytes(8)),
    *(b"\x00\x00\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff" * 8),
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u0000", b"\\ud800"),
    *(b"null", b"true", b"-0", b"1e999", b"NaN", b"9" * 20, b"-1", b"0.5"),
    *(b"\xed\xa0\x80", b"\xc0\x80", b"\xef\xbb\xbf", b"\r\n", b"\n", b"\t", b" "),
    *(b"=", b"==", b".", b"..", b"/", b"%00", b"&a", b"*a", b"!!x", b"<<: ", b"- "),
    *(b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"),
    *(b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x02\x01\xff", b"\x05\x00"),
)

_VALUES: Sequence[Any] = (
    *(None, True, False, 0, 1, -1, 255, 256, 2**31, 2**32, 2**53, 2**53 + 1, 2**64),
    *(-(2**63), 10**40, 0.5, 1e300, "", " ", "=", "A", "AA==", "AAAA", "0" * 64),
    *("\x00", "\ud800", "\U0001f600", "ä", "../..", "%", "\r\nX: y", "a" * 5000),
    *([], {}, [[]], {"": ""}, [None] * 100, {"kind": "snp"}, {"kty": "EC"}),
)

MAX_STEPS = 4


def mutated(chance: Random, data: bytes, target: Target, other: bytes) -> bytes:
    """Return `data` with one to four changes; `other` is another input, to splice."""
    for _ in range(chance.randint(1, MAX_STEPS)):
        if target.shape is Shape.JSON and chance.random() < 0.8:
            data = _change_value(chance, data)
        else:
            data = chance.choice(_BYTE_CHANGES)(chance, data, other)
    return data[: target.most_bytes]


def inflated(chance: Random, data: bytes, size: int) -> bytes:
    """Return `data` with one piece of it repeated up to `size` bytes."""
    start, end = _slice(chance, data, 64)
    piece = data[start:end] or chance.choice(_WORDS)
    times = max(0, size - len(data)) // len(piece)
    return (data[:start] + piece * times + data[start:])[:size]


# -- bytes -----------------------------------------------------------------------------

ByteChange = Callable[[Random, bytes, bytes], bytes]


def _slice(chance: Random, data: bytes, most: int) -> tuple[int, int]:
    start = chance.randint(0, len(data))
    return start, min(len(data), start + chance.randint(0, most))


def _flip(chance: Random, data: bytes, other: bytes) -> bytes:
    if not data:
        return other[:1]
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _overwrite(chance: Random, data: bytes, other: bytes) -> bytes:
    start, _ = _slice(chance, data, 0)
    word = chance.choice(_WORDS)
    return data[:start] + word + data[start + len(word) :]


def _insert(chance: Random, data: bytes, other: bytes) -> bytes:
    start, _ = _slice(chance, data, 0)
    return data[:start] + chance.choice(_WORDS) + data[start:]


def _cut(chance: Random, data: bytes, other: bytes) -> bytes:
    start, end = _slice(chance, data, 64)
    return data[:start] + data[end:]


def _truncate(chance: Random, data: bytes, other: bytes) -> bytes:
    return data[: chance.randint(0, len(data))]


def _double(chance: Random, data: bytes, other: bytes) -> bytes:
    start, end = _slice(chance, data, 64)
    return data[:end] + data[start:]


def _splice(chance: Random, data: bytes, other: bytes) -> bytes:
    start, end = _slice(chance, other, len(other))
    place, _ = _slice(chance, data, 0)
    return data[:place] + other[start:end] + data[place:]


def _move(chance: Random, data: bytes, other: bytes) -> bytes:
    first, end = _slice(chance, data, 16)
    rest = data[:first] + data[end:]
    place, _ = _slice(chance, rest, 0)
    return rest[:place] + data[first:end] + rest[place:]


_BYTE_CHANGES: Sequence[ByteChange] = (
    *(_flip, _flip, _overwrite, _insert, _cut),
    *(_truncate, _double, _splice, _move),
)


# -- JSON ------------------------------------------------------------------------------


def _change_value(chance: Random, data: bytes) -> bytes:
    # A target may take several documents, one a line.
    lines = data.split(b"\n")
    number = chance.randrange(len(lines))
    try:
        value = json.loads(lines[number])
    except (ValueError, RecursionError):
        return _flip(chance, data, b"{")
    holder = [value]
    places = list(_places(holder))
    parent, name = chance.choice(places)
    chance.choice(_VALUE_CHANGES)(chance, parent, name)
    value = holder[0] if holder else None
    lines[number] = json.dumps(value, separators=(",", ":")).encode()
    return b"\n".join(lines)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for name, member in list(members):
        yield value, name
        if isinstance(member, (dict, list)):
            yield from _places(member)


def _replace(chance: Random, parent: Any, name: Any) -> None:
    parent[name] = chance.choice(_VALUES)


def _remove(chance: Random, parent: Any, name: Any) -> None:
    del parent[name]


def _add(chance: Random, parent: Any, name: Any) -> None:
    if isinstance(parent, dict):
        parent[chance.choice(["extra", "", "kind", "\x00", str(name) * 2])] = parent[
            name
        ]
    else:
        parent.insert(chance.randint(0, len(parent)), parent[name])


def _nest(chance: Random, parent: Any, name: Any) -> None:
    inner = parent[name]
    for _ in range(chance.choice([1, 2, 40])):
        inner = [inner] if chance.random() < 0.5 else {"a": inner}
    parent[name] = inner


def _nudge(chance: Random, parent: Any, name: Any) -> None:
    value = parent[name]
    if isinstance(value, str):
        parent[name] = _other_text(chance, value)
    elif isinstance(value, (int, float)):
        parent[name] = value + chance.choice([1, -1, 128, -256, 2**32])
    else:
        parent[name] = chance.choice(_VALUES)


def _other_text(chance: Random, text: str) -> str:
    change = chance.choice(_BYTE_CHANGES)
    for decode, encode in _ENCODINGS:
        try:
            raw = decode(text)
        except (ValueError, binascii.Error):
            continue
        if raw and chance.random() < 0.8:
            return encode(change(chance, raw, raw))
    raw = text.encode("utf-8", "surrogatepass")
    return change(chance, raw, raw).decode("utf-8", "replace")


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def _padless(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


_ENCODINGS: Sequence[tuple[Callable[[str], bytes], Callable[[bytes], str]]] = (
    (bytes.fromhex, bytes.hex),
    (
        lambda text: base64.b64decode(text, validate=True),
        lambda data: base64.b64encode(data).decode(),
    ),
    (_unpadded, _padless),
)
_VALUE_CHANGES: Sequence[Callable[[Random, Any, Any], None]] = (
    *(_nudge, _nudge, _nudge, _nudge, _replace, _replace, _remove, _add, _nest),
)
