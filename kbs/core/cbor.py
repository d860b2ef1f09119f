"""Strict CBOR (RFC 8949): one complete item, and nothing that a reader could miss.

`cbor2` decodes; before it sees the bytes, every head is walked and held to rules that
its options do not cover: only the tags that the caller expects (its own decoders for
dates, expressions or shared references never run), integers, strings and lengths in
their shortest form (RFC 8949, section 4.2.1), no floats, no simple values but false,
true and null, map keys that are integers or strings, a bounded depth, nothing after
the end. Keys twice are refused by `cbor2`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import cbor2

from kbs.core.errors import MalformedError
from kbs.core.reader import Reader

MAX_DEPTH = 16
"""Containers and tags inside one another; attestation tokens have under 8."""

# RFC 8949, section 3.1: major types.
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_STRINGS = frozenset({_BYTES, _TEXT})
_KEYS = frozenset({_UNSIGNED, _NEGATIVE, _BYTES, _TEXT})
# Section 3: additional information 24 to 27 says how many bytes the argument has.
_ARGUMENT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}
# The least argument that needs so many bytes.
_LEAST = {1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}
_INDEFINITE = 31
_BREAK = 0xFF
# Section 3.3: false, true, null.
_SIMPLE_VALUES = frozenset({20, 21, 22})


@dataclass(frozen=True, slots=True)
class Tagged:
    """An item with a tag that the caller expects."""

    tag: int
    value: object


def parse_cbor(
    data: bytes,
    what: str,
    *,
    limit: int,
    tags: Collection[int] = (),
    indefinite: bool = False,
) -> object:
    """Read exactly one item: int, bytes, str, bool, None, list, dict or `Tagged`.

    `tags` may hold only tags that `cbor2` itself knows nothing of (18, 61, 399, …).
    `indefinite` allows lengths that a break ends, which some signers write.

    Raises:
        MalformedError: too large, not well-formed, or none of the accepted forms.
    """
    if len(data) > limit:
        raise MalformedError(
            what, got=f"{len(data)} bytes", expected=f"at most {limit}"
        )
    walk = _Walk(Reader(data, what), what, frozenset(tags), indefinite=indefinite)
    walk.item(1)
    walk.reader.end()
    try:
        return cbor2.loads(
            data,
            tag_hook=lambda one, _immutable: Tagged(one.tag, _plain(one.value)),
            max_depth=2 * MAX_DEPTH,
            allow_indefinite=indefinite,
            allow_duplicate_keys=False,
        )
    except (cbor2.CBORError, ValueError) as exc:
        raise MalformedError(what, got=str(exc)[:80], expected="strict CBOR") from exc


def write_cbor(value: object) -> bytes:
    """Return the deterministic encoding (RFC 8949, section 4.2.1)."""
    return cbor2.dumps(value, canonical=True)


def _plain(value: object) -> object:
    # Below a tag cbor2 makes tuples and frozen maps, since a tag might be a map's key.
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    return value


@dataclass(frozen=True, slots=True)
class _Walk:
    """Walks the heads of one item and everything in it."""

    reader: Reader
    what: str
    tags: frozenset[int]
    indefinite: bool

    def item(self, depth: int, *, allowed: frozenset[int] | None = None) -> None:
        if depth > MAX_DEPTH:
            raise self._refuse("containers", f"at most {MAX_DEPTH} deep")
        major, argument = self._head()
        if allowed is not None and major not in allowed:
            raise self._refuse(f"major type {major}", "an integer or a string here")
        if major in _STRINGS:
            self._string(major, argument)
        elif major in {_ARRAY, _MAP}:
            self._container(major, argument, depth)
        elif major == _TAG:
            if argument not in self.tags:
                raise self._refuse(f"tag {argument}", "no such tag")
            self.item(depth + 1)
        elif major == _SIMPLE and argument not in _SIMPLE_VALUES:
            raise self._refuse("a float or simple value", "false, true or null")

    def _head(self) -> tuple[int, int | None]:
        """Return major type and argument; None stands for an indefinite length."""
        first = self.reader.big(1, "head")
        major, info = first >> 5, first & 0x1F
        if info < min(_ARGUMENT_BYTES):
            return major, info
        if info == _INDEFINITE and self.indefinite and _BYTES <= major <= _MAP:
            return major, None
        size = _ARGUMENT_BYTES.get(info)
        if size is None or major == _SIMPLE:
            raise self._refuse(f"head {first:02x}", "a definite length, no float")
        argument = self.reader.big(size, "argument")
        if argument < _LEAST[size]:
            raise self._refuse("a longer form than needed", "the shortest form")
        return major, argument

    def _string(self, major: int, argument: int | None) -> None:
        if argument is not None:
            self.reader.take(argument, "string")
            return
        while not self._at_break():
            # Section 3.2.3: chunks are definite strings of the same kind.
            kind, size = self._head()
            if kind != major or size is None:
                raise self._refuse("a chunk of another kind", "strings of one kind")
            self.reader.take(size, "chunk")

    def _container(self, major: int, argument: int | None, depth: int) -> None:
        # Every member takes a byte or more, so a false count ends with the input.
        count = 0
        while not self._at_break() if argument is None else count < argument:
            if major == _MAP:
                self.item(depth + 1, allowed=_KEYS)
            self.item(depth + 1)
            count += 1

    def _at_break(self) -> bool:
        if self.reader.peek() != _BREAK:
            return False
        self.reader.take(1, "break")
        return True

    def _refuse(self, got: str, expected: str) -> MalformedError:
        where = f"{self.what} at offset {self.reader.offset}"
        return MalformedError(where, got=got, expected=expected)
