"""Looking for a secret in every form that anything would print, send or store it in."""

from __future__ import annotations

import base64
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PIECE = 1 << 16
_PAGE = resource.getpagesize()
_BITS = 6
"""What a character of base64 holds."""


@dataclass(frozen=True)
class Hunted:
    """A secret by name; raw, hex in both cases, base64 and base64url at any offset."""

    name: str
    secret: bytes

    def forms(self) -> dict[str, bytes]:
        found = {"raw": self.secret, "hex": self.secret.hex().encode()}
        found["HEX"] = found["hex"].upper()
        for shift in range(3):
            padded = bytes(shift) + self.secret
            # Characters that hold bits of the neighbours say nothing of the secret.
            start, end = -(-8 * shift // _BITS), 8 * len(padded) // _BITS
            found[f"base64+{shift}"] = base64.b64encode(padded)[start:end]
            found[f"base64url+{shift}"] = base64.urlsafe_b64encode(padded)[start:end]
        return found

    def count(self, data: bytes) -> dict[str, int]:
        """How often each form is in some bytes; nothing for a form that is not."""
        return {
            form: number
            for form, pattern in self.forms().items()
            if (number := data.count(pattern))
        }


def files(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below some folders."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


def processes(pid: int) -> list[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [pid, *(one for child in children for one in processes(int(child)))]


def memory(pid: int) -> Iterator[bytes]:
    """Everything that a process may write to: what a dump of it would hold."""
    maps = Path(f"/proc/{pid}/maps").read_text("utf-8").splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as mem:
        for line in maps:
            span, mode, *_ = line.split()
            if mode.startswith("rw"):
                start, end = (int(part, 16) for part in span.split("-"))
                yield b"".join(_pieces(mem.fileno(), start, end))


def _pieces(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    # A reading ends early where something cannot be read, such as a device's pages.
    while start < end:
        try:
            found = os.pread(descriptor, min(_PIECE, end - start), start)
        except OSError:
            found = b""
        # Most of it is stacks and arenas that nobody used yet.
        yield found if found.count(0) < len(found) else b""
        start += len(found) or _PAGE
