r"""The header in front of a sealed stream: what it is and which key opens it.

Format (docs/formats/sealed.md)::

    "kbs.sealed/1\n" ‖ u32be(length of the JSON) ‖ JSON, canonical (RFC 8785) ‖ stream

The JSON has exactly the members `alg`, `key`, `name` and `size`; all but `alg` may be
null. The stream's associated data is the SHA-256 of every byte before it, so a header
that was changed opens nothing. Until then the header is only what the file says.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from kbs.artifacts.segments import Layout
from kbs.artifacts.stream import Source, fill
from kbs.core.encode import (
    canonical_json,
    parse_json_object,
    require_integer,
    require_members,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.core.ids import KeyRef, parse_key_ref

# docs/formats/sealed.md
MAGIC = b"kbs.sealed/1\n"
ALGORITHM = "AES256_GCM_HKDF_1MB"
MAX_JSON = 4096

# POSIX NAME_MAX on the file systems in use, in bytes.
MAX_NAME = 255

_MEMBERS = frozenset({"alg", "key", "name", "size"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedHeader:
    """What a sealed file says of itself; authentic once its stream opened."""

    key: KeyRef | None = None
    name: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        """Refuse what a reader would refuse."""
        if self.name is not None:
            parse_file_name(self.name)
        if self.size is not None:
            require_integer(
                self.size, "sealed header size", least=0, most=Layout().max_plaintext
            )

    def to_json(self) -> dict[str, object]:
        """Return the members as they are written."""
        return {
            "alg": ALGORITHM,
            "key": None if self.key is None else str(self.key),
            "name": self.name,
            "size": self.size,
        }

    def to_bytes(self) -> bytes:
        """Return everything in front of the stream."""
        document = canonical_json(self.to_json())
        return MAGIC + len(document).to_bytes(4, "big") + document

    @property
    def associated_data(self) -> bytes:
        """What binds the stream to this header."""
        return hashlib.sha256(self.to_bytes()).digest()


def parse_file_name(text: object) -> str:
    """Accept a plain file name: no path, nothing that a terminal obeys.

    Raises:
        MalformedError: anything else.
    """
    what = "sealed header name"
    name = require_text(text, what, limit=MAX_NAME)
    # Lone surrogates are not printable, so the name can be encoded here.
    plain = name.isprintable() and not {"/", "\\"}.intersection(name)
    if not plain or name in {"", ".", ".."} or len(name.encode()) > MAX_NAME:
        raise MalformedError(
            what,
            got=ascii(name)[:80],
            expected=f"a printable name without a path, {MAX_NAME} bytes at most",
        )
    return name


def parse_header_json(data: bytes) -> SealedHeader:
    """Parse the JSON of a header.

    Raises:
        MalformedError: not canonical, other members, or values out of range.
    """
    what = "sealed header"
    value = parse_json_object(data, what, limit=MAX_JSON)
    members = require_members(value, what, required=_MEMBERS)
    if members["alg"] != ALGORITHM:
        raise MalformedError(
            f"{what} alg", got=ascii(members["alg"])[:80], expected=ALGORITHM
        )
    key, name, size = members["key"], members["name"], members["size"]
    header = SealedHeader(
        key=None if key is None else parse_key_ref(key),
        name=None if name is None else parse_file_name(name),
        size=None
        if size is None
        else require_integer(
            size, f"{what} size", least=0, most=Layout().max_plaintext
        ),
    )
    if canonical_json(header.to_json()) != data:
        raise MalformedError(what, got="another spelling", expected="RFC 8785 JSON")
    return header


def read_header(source: Source) -> SealedHeader:
    """Read a header and leave the source at the first byte of the stream.

    Raises:
        MalformedError: not a sealed file, or a header that is cut or not canonical.
    """
    magic = _take(source, len(MAGIC), "first line")
    if magic != MAGIC:
        raise MalformedError(
            "sealed file first line", got=ascii(magic), expected=ascii(MAGIC)
        )
    length = int.from_bytes(_take(source, 4, "header length"), "big")
    if length > MAX_JSON:
        raise MalformedError(
            "sealed file header length", got=str(length), expected=f"at most {MAX_JSON}"
        )
    return parse_header_json(_take(source, length, "header"))


def _take(source: Source, size: int, field: str) -> bytes:
    data = bytearray(size)
    got = fill(source, memoryview(data))
    if got != size:
        raise MalformedError(
            f"sealed file {field}",
            got=f"{got} bytes",
            expected=f"{size} bytes",
            hint="the file is cut short or is not a sealed file",
        )
    return bytes(data)
