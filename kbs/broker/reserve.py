"""The last of the disk is kept for grants and revocations (decisions, section 5)."""

from __future__ import annotations

from collections.abc import Callable

from kbs.broker.health import DISK_RESERVE_BYTES
from kbs.broker.pace import Pace
from kbs.core.errors import UnavailableError

ASK_SECONDS = 1.0
"""How old the answer to "how much is free" may get."""


class DiskReserve:
    """Knows whether only the reserve is left; cheap to ask at every decision."""

    def __init__(
        self, free_bytes: Callable[[], int], monotonic: Callable[[], float]
    ) -> None:
        """Ask `free_bytes` at most once a second, by `monotonic` in seconds."""
        self._free_bytes = free_bytes
        self._pace = Pace(monotonic, ASK_SECONDS)
        self._is_low = False

    def is_low(self) -> bool:
        """Whether less than the reserve is free."""
        if self._pace.is_due():
            self._is_low = self._free_bytes() < DISK_RESERVE_BYTES
        return self._is_low

    def require(self) -> None:
        """Return if there is room for more than grants and revocations.

        Raises:
            UnavailableError: `disk.reserve`.
        """
        if self.is_low():
            raise UnavailableError(
                "disk",
                got="a decision other than a grant, with only the reserve left",
                expected=f"{DISK_RESERVE_BYTES} bytes free",
                hint="free disk space; nothing was recorded, the challenge is good",
                code="disk.reserve",
            )
