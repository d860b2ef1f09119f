"""Opening age files, so that an owner who has only stock tools can seal.

Specification: C2SP `age` (https://c2sp.org/age). The cryptography is `pyrage` (the Rust
implementation); this module reads the header's stanza types before, to choose between
identity and passphrase, to cap the work of scrypt, and to say what is wrong.
Supported: X25519 recipients, streamed, and a passphrase (scrypt), in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pyrage

from kbs.artifacts.age_header import AgeHeader, read_age_header
from kbs.artifacts.reader import SeekableSource
from kbs.artifacts.stream import Progress, Sink, fill, write_all
from kbs.core.errors import KbsError, MalformedError, VerificationError

# Ours: a work factor of 2^20 takes 1 GiB of memory (128 * 8 * 2^20); age writes 18.
MAX_SCRYPT_LOG_N = 20

# Ours: pyrage holds file and plaintext in memory when there is a passphrase.
MAX_PASSPHRASE_FILE = 1 << 30

# Ours: an identity file with comments, as age-keygen writes it, or a passphrase.
MAX_SECRET = 1 << 16
MAX_IDENTITIES = 64

_IDENTITY = "AGE-SECRET-KEY-"
_PLUGIN = "AGE-PLUGIN-"
_SCRYPT_LOG_N = re.compile(rb"[1-9][0-9]?")


def open_age(
    source: SeekableSource,
    sink: Sink,
    secret: bytes,
    *,
    progress: Progress | None = None,
) -> int:
    """Write what an age file holds; return its size.

    `secret` is an identity file (one or more AGE-SECRET-KEY-1 lines) or a passphrase.
    What was written before an error is genuine but not complete.

    Raises:
        MalformedError: not an age file, a secret of the wrong kind, or beyond a cap.
        VerificationError: the secret does not open it, or it was changed or cut.
    """
    header = read_age_header(source)
    text = _secret_text(secret)
    identities = _identities(text)
    output = _Output(sink, progress)
    if header.types == ("scrypt",):
        _require_passphrase(header, identities)
        _open_with_passphrase(source, output, text)
    else:
        _require_identities(header, identities)
        _open_with_identities(source, output, identities)
    return output.total


class _Input:
    """Gives pyrage a reader and remembers what went wrong in it."""

    __slots__ = ("_source", "failure")

    def __init__(self, source: SeekableSource) -> None:
        self._source = source
        self.failure: BaseException | None = None

    def read(self, size: int, /) -> bytes:
        data = bytearray(size)
        try:
            return bytes(data[: fill(self._source, memoryview(data))])
        except BaseException as exc:
            self.failure = exc
            raise


class _Output:
    """Gives pyrage a writer, counts, and remembers what went wrong in it."""

    __slots__ = ("_progress", "_sink", "failure", "total")

    def __init__(self, sink: Sink, progress: Progress | None) -> None:
        self._sink = sink
        self._progress = progress
        self.failure: BaseException | None = None
        self.total = 0

    def write(self, data: bytes, /) -> int:
        try:
            write_all(self._sink, memoryview(data))
            self.total += len(data)
            if self._progress is not None:
                self._progress(len(data))
        except BaseException as exc:
            self.failure = exc
            raise
        return len(data)

    def flush(self) -> None:
        """Do nothing: whoever owns the sink flushes it."""


def _open_with_identities(
    source: SeekableSource, output: _Output, identities: list[pyrage.x25519.Identity]
) -> None:
    reader = _Input(source)
    _translated(lambda: pyrage.decrypt_io(reader, output, identities), reader, output)


def _open_with_passphrase(
    source: SeekableSource, output: _Output, passphrase: str
) -> None:
    size = source.seek(0, 2)
    source.seek(0)
    if size > MAX_PASSPHRASE_FILE:
        raise MalformedError(
            "age file with a passphrase",
            got=f"{size} bytes",
            expected=f"at most {MAX_PASSPHRASE_FILE}",
            hint="seal large files to a recipient: age -r",
        )
    reader = _Input(source)
    data = reader.read(size)
    plaintext: list[bytes] = []
    _translated(
        lambda: plaintext.append(pyrage.passphrase.decrypt(data, passphrase)),
        reader,
        output,
    )
    output.write(plaintext[0])


def _translated(work: Callable[[], None], reader: _Input, output: _Output) -> None:
    try:
        work()
    except (pyrage.DecryptError, OSError) as exc:
        # pyrage wraps an error of our reader or writer into one of its own.
        for end in (reader, output):
            if end.failure is not None:
                raise end.failure from exc
        raise VerificationError(
            "age file",
            # The library's words for a file that is sealed to other recipients.
            got="a file for other keys"
            if "No matching keys" in str(exc)
            else "a file that does not open",
            expected="a file that this identity or passphrase opens to its end",
            hint="another key, or the file was changed or cut short",
            code="artifact.age",
        ) from exc


def _secret_text(secret: bytes) -> str:
    if len(secret) > MAX_SECRET:
        raise MalformedError(
            "age identity or passphrase",
            got=f"{len(secret)} bytes",
            expected=f"at most {MAX_SECRET}",
        )
    try:
        text = secret.decode("utf-8")
    except UnicodeDecodeError:
        # The codec's error holds the secret itself: nothing is raised in here.
        text = ""
    # Nobody can type a line end into a passphrase; files end with one.
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise MalformedError(
            "age identity or passphrase",
            got="nothing, or bytes that are not UTF-8",
            expected="AGE-SECRET-KEY-1… or a passphrase",
        )
    return text


def _identities(text: str) -> list[pyrage.x25519.Identity]:
    lines = [line.strip() for line in text.splitlines()]
    named = [line for line in lines if line.startswith((_IDENTITY, _PLUGIN))]
    if len(named) > MAX_IDENTITIES:
        raise MalformedError(
            "age identities", got=str(len(named)), expected=f"at most {MAX_IDENTITIES}"
        )
    if not named:
        return []
    stray = [line for line in lines if line not in named and line[:1] not in {"", "#"}]
    if stray:
        raise MalformedError(
            "age identity file",
            got=f"{len(stray)} lines that are neither identity nor comment",
            expected="AGE-SECRET-KEY-1… lines and # comments",
        )
    return [_identity(line) for line in named]


def _identity(line: str) -> pyrage.x25519.Identity:
    try:
        return pyrage.x25519.Identity.from_str(line)
    except pyrage.IdentityError:
        raise MalformedError(
            "age identity",
            # Its text is secret: only the public kind of it is said.
            got=f"{line.partition('1')[0][:24]}… of {len(line)} characters",
            expected="AGE-SECRET-KEY-1 and a valid Bech32 string (X25519)",
        ) from None


def _require_passphrase(
    header: AgeHeader, identities: list[pyrage.x25519.Identity]
) -> None:
    if identities:
        raise _wrong_kind(header, "an identity", "the passphrase")
    work = header.stanzas[0][-1].encode()
    # The Rust side has a limit of time; this one is of memory, and says so.
    if not _SCRYPT_LOG_N.fullmatch(work) or int(work) > MAX_SCRYPT_LOG_N:
        raise MalformedError(
            "age file scrypt work factor",
            got=ascii(work.decode())[:40],
            expected=f"1 to {MAX_SCRYPT_LOG_N}",
        )


def _require_identities(
    header: AgeHeader, identities: list[pyrage.x25519.Identity]
) -> None:
    if "X25519" not in header.types:
        raise MalformedError(
            "age file recipients",
            got=", ".join(ascii(kind)[:40] for kind in header.types[:5]),
            expected="X25519, or scrypt alone",
            hint="seal again with: age -r age1…, or age -p",
        )
    if not identities:
        raise _wrong_kind(header, "a passphrase", "an AGE-SECRET-KEY-1… identity")


def _wrong_kind(header: AgeHeader, got: str, expected: str) -> KbsError:
    return MalformedError(
        f"secret for an age file with {', '.join(sorted(set(header.types)))[:80]}",
        got=got,
        expected=expected,
        hint="use the key that this file was sealed for",
    )
