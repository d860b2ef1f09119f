"""Files that commands read: small, whole, and refused in one line when they are not."""

from __future__ import annotations

from pathlib import Path

from kbs.artifacts.files import reading
from kbs.core.errors import MalformedError

MAX_INPUT = 1024 * 1024

_PEM = b"-----BEGIN"
# `kbs.artifacts.files`: what its errors about files are called.
_UNREADABLE = "artifact.unreadable"


def read_input(path: Path, what: str, *, limit: int = MAX_INPUT) -> bytes:
    """Return a file of at most `limit` bytes.

    Raises:
        MalformedError: it cannot be read, is no regular file, or is larger.
    """
    with reading(path) as file:
        try:
            data = file.read(limit + 1) or b""
        except OSError as exc:
            raise MalformedError(
                f"{what} {path}",
                got=exc.strerror,
                expected="a readable file",
                code=_UNREADABLE,
            ) from exc
    if len(data) > limit:
        raise MalformedError(
            f"{what} {path}",
            got="a larger file",
            expected=f"at most {limit} bytes",
            code=_UNREADABLE,
        )
    return data


def is_pem(data: bytes) -> bool:
    """Whether a file's bytes are PEM, and not DER."""
    return _PEM in data


def read_key(path: Path, *, size: int = 32) -> bytes:
    """Return the raw bytes of a data key.

    Raises:
        MalformedError: it cannot be read or has another size.
    """
    key = read_input(path, "key file", limit=size)
    if len(key) != size:
        raise MalformedError(
            f"key file {path}",
            got=f"{len(key)} bytes",
            expected=f"{size} raw bytes",
            hint="a key of kind aes256, neither hex nor base64",
        )
    return key
