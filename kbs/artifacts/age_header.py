"""What the header of an age file tells without a key: its kinds of recipient.

Specification: C2SP `age` (https://c2sp.org/age), "Header" and "ASCII armor". Only the
stanzas are read; `pyrage` judges the rest when the file is opened.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from kbs.artifacts.detect import Format, detect
from kbs.artifacts.reader import SeekableSource
from kbs.artifacts.stream import fill
from kbs.core.errors import MalformedError

# Ours: a header for some hundred recipients; stock tools write a few hundred bytes.
MAX_HEADER = 1 << 16

_VERSION_LINE = b"age-encryption.org/v1"


@dataclass(frozen=True, slots=True)
class AgeHeader:
    """What the header of an age file tells without a key."""

    armored: bool
    stanzas: tuple[tuple[str, ...], ...]

    @property
    def types(self) -> tuple[str, ...]:
        """The kinds of recipient, in order, such as X25519 or scrypt."""
        return tuple(stanza[0] for stanza in self.stanzas)


def read_age_header(source: SeekableSource) -> AgeHeader:
    """Read the stanzas and leave the source where it was at: its start.

    Raises:
        MalformedError: not an age file, or a header beyond the caps.
    """
    source.seek(0)
    head = bytearray(MAX_HEADER)
    data = bytes(head[: fill(source, memoryview(head))])
    source.seek(0)
    armored = detect(data) is Format.AGE_ARMOR
    return AgeHeader(armored, _stanzas(_dearmor(data) if armored else data))


def _stanzas(data: bytes) -> tuple[tuple[str, ...], ...]:
    first, _, rest = data.partition(b"\n")
    if first != _VERSION_LINE:
        raise MalformedError(
            "age file first line", got=ascii(first[:40]), expected=ascii(_VERSION_LINE)
        )
    stanzas = []
    for line in rest.split(b"\n"):
        if line.startswith(b"---"):
            break
        if line.startswith(b"-> "):
            stanzas.append(_stanza(line))
    else:
        raise MalformedError(
            "age file header",
            got=f"no end in {len(data)} bytes",
            expected=f"an end within {MAX_HEADER}",
        )
    if not stanzas:
        raise MalformedError("age file header", got="no recipient", expected="one")
    return tuple(stanzas)


def _stanza(line: bytes) -> tuple[str, ...]:
    # Specification, "Recipient stanza": arguments of printable ASCII (VCHAR).
    words = line[3:].split(b" ")
    if not all(word and all(0x21 <= byte <= 0x7E for byte in word) for word in words):  # noqa: PLR2004
        raise MalformedError(
            "age file recipient stanza",
            got=ascii(line[:60]),
            expected="-> and words of printable ASCII",
        )
    return tuple(word.decode("ascii") for word in words)


def _dearmor(data: bytes) -> bytes:
    lines = data.replace(b"\r\n", b"\n").split(b"\n")[1:]
    # Whole lines of 64 characters decode one by one; the header ends in an early one.
    out = bytearray()
    for line in lines:
        if line.startswith(b"-----END"):
            break
        try:
            out += base64.b64decode(line, validate=True)
        except binascii.Error:
            # The last line of the window may be cut; pyrage judges the others.
            break
    return bytes(out)
