"""Device identities as keyed hashes, so that the log tells devices apart, not which.

A chip id, a PPID or an EK names one machine for ever. In entries stand HMACs of them
under a key of this instance (`decisions.md`, section 5): equal devices look equal, and
who has the key can test a guess. Auditors get the log, not the key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from kbs.core.checks import Check
from kbs.core.decision import Reason

_CONTEXT = b"kbs.pseudonym/1\x00"
_MIN_KEY = 32

_Said = TypeVar("_Said", Check, Reason)

# Claims, checks and denials by these last words have a device identity as got/expected.
_DEVICE_WORDS = frozenset(
    {"chip", "chip_id", "device_id", "ueid", "ppid", "piid", "ek"}
)

# The shortest identity is a PPID, 16 bytes (Intel SGX PCK certificate specification).
_IDENTITY = re.compile(r"\b[0-9a-f]{32,}\b", re.ASCII)


def pseudonym(key: bytes, value: bytes) -> str:
    """Return `hmac:` and the hex HMAC-SHA-256 of a device identity.

    Raises:
        ValueError: the key is shorter than 32 bytes.
    """
    if len(key) < _MIN_KEY:
        message = f"pseudonym key: got {len(key)} bytes, expected at least {_MIN_KEY}"
        raise ValueError(message)
    return "hmac:" + hmac.new(key, _CONTEXT + value, hashlib.sha256).hexdigest()


class Pseudonyms:
    """Rewrites checks and reasons so that no device identity reaches the log.

    Replaced are the identities that the evidence was found to have, wherever they
    appear, and every long hex string in `got` and `expected` of a check or claim that
    is about a device identity.
    """

    __slots__ = ("_key", "_known")

    def __init__(self, key: bytes, identities: Iterable[bytes] = ()) -> None:
        """Know the key of the instance and the identities in the evidence at hand."""
        self._key = key
        self._known = tuple(
            (identity.hex(), pseudonym(key, identity))
            for identity in identities
            if identity
        )

    def checks(self, checks: Iterable[Check]) -> tuple[Check, ...]:
        """Rewrite checks."""
        return tuple(self._rewritten(check) for check in checks)

    def reasons(self, reasons: Iterable[Reason]) -> tuple[Reason, ...]:
        """Rewrite reasons."""
        return tuple(self._rewritten(reason) for reason in reasons)

    def _rewritten(self, said: _Said) -> _Said:
        detail = self.text(said.detail)
        got = self._value(said.id, said.got)
        expected = self._value(said.id, said.expected)
        if (detail, got, expected) == (said.detail, said.got, said.expected):
            return said
        return replace(said, detail=detail, got=got, expected=expected)

    def text(self, text: str) -> str:
        """Replace the identities of the evidence in any text."""
        for identity, name in self._known:
            text = text.replace(identity, name)
        return text

    def _value(self, check_id: str, value: str | None) -> str | None:
        if value is None:
            return None
        if check_id.rpartition(".")[2] not in _DEVICE_WORDS:
            return self.text(value)
        return _IDENTITY.sub(self._replace, value)

    def _replace(self, match: re.Match[str]) -> str:
        text = match.group()
        if len(text) % 2:
            return pseudonym(self._key, text.encode())
        return pseudonym(self._key, bytes.fromhex(text))
