"""Which format a file is in, told from its first bytes."""

from __future__ import annotations

from enum import StrEnum

# Enough for the longest of the marks below.
HEAD_SIZE = 64

# The mark carries no version, so that a file of a later one is named as ours.
_SEALED = b"kbs.sealed/"

# C2SP age specification, "Header", and "ASCII armor".
_AGE = b"age-encryption.org/"
_ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"


class Format(StrEnum):
    """The formats that can be opened."""

    KBS = "kbs"
    AGE = "age"
    AGE_ARMOR = "age-armor"
    UNKNOWN = "unknown"


def detect(head: bytes) -> Format:
    """Return the format that these first bytes (64 are enough) announce."""
    if head.startswith(_SEALED):
        return Format.KBS
    if head.startswith(_AGE):
        return Format.AGE
    if head.startswith(_ARMOR):
        return Format.AGE_ARMOR
    return Format.UNKNOWN
