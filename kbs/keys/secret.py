"""The one class that holds secret bytes; nothing but `reveal` shows them."""

from __future__ import annotations

import hmac
from typing import NoReturn, SupportsIndex, final

_SHOWN = "Secret(hidden)"


@final
class Secret:
    """Secret bytes that no repr, log line, pickle or copy shows."""

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: bytes) -> None:
        """Keep `value`; Python cannot wipe it afterwards, so make few of these."""
        if not isinstance(value, bytes):
            raise TypeError("a Secret is made of bytes")
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes; every call is a place to look at in a review."""
        return self._value

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time with another Secret only."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __repr__(self) -> str:
        """Show nothing."""
        return _SHOWN

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        """Show nothing, whatever the format."""
        return _SHOWN

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a Secret is neither pickled nor copied")

    def __copy__(self) -> NoReturn:
        """Refuse to be copied."""
        raise TypeError("a Secret is neither pickled nor copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        """Refuse to be copied."""
        raise TypeError("a Secret is neither pickled nor copied")

    def __getstate__(self) -> NoReturn:
        """Refuse to give its state away."""
        raise TypeError("a Secret is neither pickled nor copied")
