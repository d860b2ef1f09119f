"""A cursor over bytes of a fixed layout, for strict parsers."""

from __future__ import annotations

from kbs.core.errors import MalformedError


class Reader:
    """Reads fields in order; a short input is a `MalformedError` naming the field."""

    __slots__ = ("_data", "_offset", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        """Start at the first byte of `data`, which is called `what` in messages."""
        self._data = data
        self._offset = 0
        self._what = what

    @property
    def offset(self) -> int:
        """Bytes consumed so far."""
        return self._offset

    @property
    def remaining(self) -> int:
        """Bytes not consumed yet."""
        return len(self._data) - self._offset

    def take(self, size: int, field: str) -> bytes:
        """Consume exactly `size` bytes.

        Raises:
            MalformedError: fewer bytes are left.
        """
        start = self._offset
        end = start + size
        if size < 0 or end > len(self._data):
            raise MalformedError(
                f"{self._what} {field} at offset {start}",
                got=f"{self.remaining} bytes left",
                expected=f"{size} bytes",
            )
        self._offset = end
        return self._data[start:end]

    def peek(self) -> int | None:
        """Return the next byte without consuming it; None at the end."""
        return self._data[self._offset] if self.remaining else None

    def big(self, size: int, field: str) -> int:
        """Consume an unsigned big-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size, field), "big")

    def little(self, size: int, field: str) -> int:
        """Consume an unsigned little-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size, field), "little")

    def zeros(self, size: int, field: str) -> None:
        """Consume reserved bytes that the specification says are zero.

        Raises:
            MalformedError: one of them is not.
        """
        data = self.take(size, field)
        if any(data):
            raise MalformedError(
                f"{self._what} {field}", got=data.hex()[:64], expected="all zero"
            )

    def sized(self, width: int, field: str, *, limit: int) -> bytes:
        """Consume a big-endian length of `width` bytes and that many bytes (TPM2B).

        Raises:
            MalformedError: the length exceeds `limit` or what is left.
        """
        size = self.big(width, f"{field} size")
        if size > limit:
            raise MalformedError(
                f"{self._what} {field} size", got=str(size), expected=f"at most {limit}"
            )
        return self.take(size, field)

    def end(self) -> None:
        """Require that every byte was consumed.

        Raises:
            MalformedError: bytes are left over.
        """
        if self.remaining:
            raise MalformedError(
                self._what,
                got=f"{self.remaining} bytes after its end",
                expected="none",
            )
