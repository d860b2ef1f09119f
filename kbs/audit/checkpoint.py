"""Signed checkpoints: C2SP tlog-checkpoint inside C2SP signed-note.

https://c2sp.org/tlog-checkpoint and https://c2sp.org/signed-note, Ed25519 signatures::

    kbs.example.org/4f0c          origin
    3                             tree size, decimal
    <base64 of the root hash>
                                  an empty line ends the text, which is what is signed
    — kbs.example.org/4f0c <base64 of key hash and signature>

One spelling is accepted: canonical base64, no leading zeros, no extension lines. Lines
of other signers (witnesses) are kept and not judged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kbs.audit.logkey import (
    HASH_SIZE,
    SIGNATURE_SIZE,
    LogKey,
    LogSigner,
    find_key,
    parse_origin,
)
from kbs.audit.proof import HASH_SIZE as ROOT_SIZE
from kbs.audit.proof import MAX_SIZE
from kbs.core.encode import b64, parse_b64
from kbs.core.errors import MalformedError, VerificationError

MAX_NOTE = 16 * 1024
MAX_SIGNATURES = 16

# C2SP signed-note allows other types than Ed25519; their signatures may be longer
# (ML-DSA-44 is 2,420 bytes), and we only carry them along.
_MAX_SIGNATURE = 4096

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log's key commits to: this root over the first `size` leaves."""

    origin: str
    size: int
    root: bytes

    def text(self) -> bytes:
        """Return the bytes that are signed."""
        return f"{self.origin}\n{self.size}\n{b64(self.root)}\n".encode()


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: who says to have signed, and what follows the key hash."""

    name: str
    key_hash: bytes
    signature: bytes

    def line(self) -> bytes:
        """Return the line as it stands in the note."""
        return f"— {self.name} {b64(self.key_hash + self.signature)}\n".encode()


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A parsed note; nothing about it is proven before `verify_checkpoint`."""

    checkpoint: Checkpoint
    signatures: tuple[NoteSignature, ...]

    def note(self) -> bytes:
        """Return the note, byte for byte what was parsed."""
        lines = b"".join(signature.line() for signature in self.signatures)
        return self.checkpoint.text() + b"\n" + lines


def sign_checkpoint(checkpoint: Checkpoint, signer: LogSigner) -> bytes:
    """Return the note of a checkpoint of the signer's own log.

    Raises:
        MalformedError: the checkpoint is another log's, or out of bounds.
    """
    if checkpoint.origin != signer.key.origin:
        raise MalformedError(
            "checkpoint origin", got=checkpoint.origin, expected=signer.key.origin
        )
    _require_size(checkpoint.size)
    _require_root(checkpoint.root)
    text = checkpoint.text()
    signature = NoteSignature(checkpoint.origin, signer.key_hash, signer.sign(text))
    return text + b"\n" + signature.line()


def parse_checkpoint(note: bytes) -> SignedCheckpoint:
    """Read a signed note whose text is a checkpoint; no signature is checked.

    Raises:
        MalformedError: anything that would not be written back byte for byte.
    """
    if len(note) > MAX_NOTE:
        raise MalformedError(
            "checkpoint", got=f"{len(note)} bytes", expected=f"at most {MAX_NOTE}"
        )
    try:
        decoded = note.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedError("checkpoint", got="bytes that are not UTF-8") from exc
    text, blank, lines = decoded.partition("\n\n")
    if not blank:
        raise MalformedError(
            "checkpoint", got="no empty line", expected="one before the signatures"
        )
    return SignedCheckpoint(_parse_text(text + "\n"), _parse_signatures(lines))


def verify_checkpoint(
    note: bytes, *, origin: str, keys: Sequence[LogKey], only_known: bool = False
) -> tuple[Checkpoint, LogKey]:
    """Check that one of `keys` signed this note, a checkpoint of the log `origin`.

    Every signature that names one of `keys` must hold. With `only_known` a line of any
    other signer is refused, so that no byte of the note is left unchecked. Returns the
    checkpoint and the key of its first known signature.

    Raises:
        MalformedError: no note, or none of a checkpoint.
        VerificationError: another log's, no known signer, or a signature is wrong.
    """
    parsed = parse_checkpoint(note)
    if parsed.checkpoint.origin != origin:
        raise VerificationError(
            "checkpoint origin",
            got=parsed.checkpoint.origin,
            expected=origin,
            code="audit.checkpoint.origin",
        )
    text = parsed.checkpoint.text()
    signers = []
    for line in parsed.signatures:
        key = find_key(keys, line.name, line.key_hash)
        if key is not None:
            _check_signature(key, line, text)
            signers.append(key)
    if not signers or (only_known and len(signers) < len(parsed.signatures)):
        raise VerificationError(
            "checkpoint signer",
            got=_names(parsed.signatures),
            expected=" or ".join(f"{key.origin}+{key.key_hash.hex()}" for key in keys)
            or "a known log key, and none is known",
            code="audit.checkpoint.signer",
        )
    return parsed.checkpoint, signers[0]


def _check_signature(key: LogKey, line: NoteSignature, text: bytes) -> None:
    if not key.is_signature(line.signature, text):
        raise VerificationError(
            f"checkpoint signature of {key.origin}+{key.key_hash.hex()}",
            got="one that does not verify",
            expected="an Ed25519 signature over the text",
            code="audit.checkpoint.signature",
        )


def _names(signatures: Sequence[NoteSignature]) -> str:
    return ", ".join(f"{line.name}+{line.key_hash.hex()}" for line in signatures)


def _parse_text(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) != 4:  # noqa: PLR2004 - origin, size, root, and what follows them
        raise MalformedError(
            "checkpoint text",
            got=f"{len(lines) - 1} lines",
            expected="3: origin, size, root",
        )
    if not _SIZE.fullmatch(lines[1]):
        raise MalformedError(
            "checkpoint size", got=repr(lines[1])[:40], expected="a decimal number"
        )
    size = int(lines[1])
    _require_size(size)
    root = parse_b64(lines[2], "checkpoint root", limit=ROOT_SIZE)
    _require_root(root)
    return Checkpoint(parse_origin(lines[0], "checkpoint origin"), size, root)


def _require_size(size: int) -> None:
    if not 0 <= size <= MAX_SIZE:
        raise MalformedError(
            "checkpoint size", got=str(size), expected=f"0 to {MAX_SIZE}"
        )


def _require_root(root: bytes) -> None:
    if len(root) != ROOT_SIZE:
        raise MalformedError(
            "checkpoint root", got=f"{len(root)} bytes", expected=f"{ROOT_SIZE} bytes"
        )


def _parse_signatures(text: str) -> tuple[NoteSignature, ...]:
    if not text.endswith("\n"):
        raise MalformedError(
            "checkpoint signatures", got=repr(text[-20:]), expected="a final newline"
        )
    lines = text[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedError(
            "checkpoint signatures",
            got=str(len(lines)),
            expected=f"at most {MAX_SIGNATURES}",
        )
    signatures = tuple(_parse_line(line) for line in lines)
    signers = {(line.name, line.key_hash) for line in signatures}
    if len(signers) != len(signatures):
        raise MalformedError("checkpoint signatures", got="one signer twice")
    return signatures


def _parse_line(line: str) -> NoteSignature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "—":
        raise MalformedError(
            "checkpoint signature", got=repr(line[:40]), expected="— NAME BASE64"
        )
    data = parse_b64(encoded, "checkpoint signature", limit=_MAX_SIGNATURE)
    if len(data) < HASH_SIZE + SIGNATURE_SIZE:
        raise MalformedError(
            "checkpoint signature",
            got=f"{len(data)} bytes",
            expected=f"at least {HASH_SIZE + SIGNATURE_SIZE}",
        )
    name = parse_origin(name, "checkpoint signer")
    return NoteSignature(name, data[:HASH_SIZE], data[HASH_SIZE:])
