"""A strict reader of protocol buffers: named fields, each in one spelling.

Protocol Buffers documentation, "Encoding". What the format allows and no writer does is
refused: longer varints than needed, groups and fixed-size numbers, a singular field
twice (of which other readers take the last), unless the caller says so fields that it
does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kbs.core.errors import MalformedError
from kbs.core.reader import Reader

_VARINT, _LENGTH = 0, 2
_MAX_FIELD = 2**29 - 1
_MAX_NUMBER = 2**64 - 1
_MAX_FIELDS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The fields of a message: number to name, by kind.

    `numbers` are varints, `octets` bytes, strings and messages; `repeated` names those
    of them that may occur more than once. With `open`, other fields are kept apart.
    """

    numbers: Mapping[int, str] = field(default_factory=dict)
    octets: Mapping[int, str] = field(default_factory=dict)
    repeated: frozenset[str] = frozenset()
    open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message as it was read; absent fields have their default (0, no bytes)."""

    what: str
    numbers: Mapping[str, int]
    octets: Mapping[str, tuple[bytes, ...]]
    unknown: tuple[int, ...]

    def number(self, name: str, *, most: int) -> int:
        """Return a number from 0 to `most`.

        Raises:
            MalformedError: a greater one.
        """
        value = self.numbers.get(name, 0)
        if value > most:
            raise MalformedError(
                f"{self.what} {name}", got=str(value), expected=f"at most {most}"
            )
        return value

    def one(self, name: str) -> bytes:
        """Return a field of bytes; none at all if it is absent."""
        return next(iter(self.octets.get(name, ())), b"")

    def all(self, name: str) -> tuple[bytes, ...]:
        """Return every occurrence of a repeated field, in order."""
        return self.octets.get(name, ())

    def sized(self, name: str, size: int) -> bytes:
        """Return a field of exactly `size` bytes.

        Raises:
            MalformedError: another length.
        """
        value = self.one(name)
        if len(value) != size:
            raise MalformedError(
                f"{self.what} {name}",
                got=f"{len(value)} bytes",
                expected=f"{size} bytes",
            )
        return value


def read_message(data: bytes, schema: Schema, what: str) -> Message:
    """Read one message to its end.

    Raises:
        MalformedError: a field that is unknown, doubled or in another form.
    """
    reader = Reader(data, what)
    numbers: dict[str, int] = {}
    octets: dict[str, list[bytes]] = {}
    unknown: list[int] = []
    count = 0
    while reader.remaining:
        count += 1
        if count > _MAX_FIELDS:
            raise MalformedError(what, got="more fields", expected=f"{_MAX_FIELDS}")
        number, value = _field(reader, what)
        name = _name(number, value, schema)
        if name is None:
            if not schema.open:
                raise MalformedError(
                    what, got=f"field {number}", expected="the fields of the message"
                )
            unknown.append(number)
        elif name in numbers or (name in octets and name not in schema.repeated):
            raise MalformedError(f"{what} {name}", got="it twice", expected="once")
        elif isinstance(value, bytes):
            octets.setdefault(name, []).append(value)
        else:
            numbers[name] = value
    return Message(
        what=what,
        numbers=numbers,
        octets={name: tuple(values) for name, values in octets.items()},
        unknown=tuple(unknown),
    )


def _field(reader: Reader, what: str) -> tuple[int, int | bytes]:
    tag = _varint(reader, what)
    number, kind = tag >> 3, tag & 7
    if not 0 < number <= _MAX_FIELD:
        raise MalformedError(f"{what} field", got=str(number), expected="1 or more")
    if kind == _VARINT:
        return number, _varint(reader, what)
    if kind == _LENGTH:
        return number, reader.take(_varint(reader, what), f"field {number}")
    raise MalformedError(
        f"{what} field {number}", got=f"wire type {kind}", expected="varint or length"
    )


def _name(number: int, value: int | bytes, schema: Schema) -> str | None:
    table = schema.octets if isinstance(value, bytes) else schema.numbers
    return table.get(number)


def _varint(reader: Reader, what: str) -> int:
    value = shift = 0
    while True:
        byte = reader.big(1, "varint")
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follow
            if (byte == 0 and shift) or value > _MAX_NUMBER:
                raise MalformedError(f"{what} varint", got="a longer form than needed")
            return value
        shift += 7
        if value > _MAX_NUMBER:
            raise MalformedError(f"{what} varint", got="more than 64 bits")
