"""Bytes in text, in whatever way tools write them: for files that people have.

Hex of either case, with `0x` before it or not; base64 of either alphabet, padded or
not; broken into lines. What comes over the wire has one spelling (`encode`).
"""

from __future__ import annotations

import base64
import binascii
import re

_HEX = re.compile(r"(?:0[xX])?([0-9a-fA-F]+)", re.ASCII)
_B64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}", re.ASCII)


def octets_in(text: bytes | str) -> bytes | None:
    """Return the bytes that a text stands for; None if it is neither hex nor base64."""
    try:
        told = text if isinstance(text, str) else text.decode("ascii")
    except UnicodeDecodeError:
        return None
    compact = "".join(told.split())
    digits = _HEX.fullmatch(compact)
    if digits is not None and len(digits[1]) % 2 == 0:
        return bytes.fromhex(digits[1])
    if not _B64.fullmatch(compact):
        return None
    plain = compact.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        return None
