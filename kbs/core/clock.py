"""Time comes in by the front door; no other module reads a clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Protocol

from kbs.core.errors import MalformedError

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d{1,6})?Z", re.ASCII
)


class Clock(Protocol):
    """Says what time it is, as an aware `datetime` in UTC."""

    def now(self) -> datetime:
        """Return the current time."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the current time."""
        return datetime.now(UTC)


def format_time(time: datetime) -> str:
    """Write RFC 3339 UTC with whole seconds, or microseconds where there are any."""
    utc = time.astimezone(UTC)
    spec = "microseconds" if utc.microsecond else "seconds"
    return utc.replace(tzinfo=None).isoformat(timespec=spec) + "Z"


def parse_time(text: object, what: str = "time") -> datetime:
    """Accept RFC 3339 in UTC with a `Z`, for example 2026-11-22T08:00:00Z.

    Raises:
        MalformedError: anything else, local offsets included.
    """
    match = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    expected = "RFC 3339 in UTC, like 2026-11-22T08:00:00Z"
    if match is None:
        raise MalformedError(what, got=repr(text)[:60], expected=expected)
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction = (match.group(7) or ".0")[1:].ljust(6, "0")
    try:
        return datetime(
            year, month, day, hour, minute, second, int(fraction), tzinfo=UTC
        )
    except ValueError as exc:
        raise MalformedError(what, got=repr(text)[:60], expected=expected) from exc
