"""Time comes in by the front door; no other module reads a clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Protocol

from kbs.core.errors import MalformedError

# The hour is bounded here: some versions of Python take 24:00 for the next day.
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII
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
    utc = time if time.tzinfo is UTC else time.astimezone(UTC)
    return utc.isoformat().removesuffix("+00:00") + "Z"


def parse_time(text: object, what: str = "time") -> datetime:
    """Accept RFC 3339 in UTC with a `Z`, for example 2026-11-22T08:00:00Z.

    Raises:
        MalformedError: anything else, local offsets included.
    """
    expected = "RFC 3339 in UTC, like 2026-11-22T08:00:00Z"
    if not isinstance(text, str) or not _RFC3339.fullmatch(text):
        raise MalformedError(what, got=repr(text)[:60], expected=expected)
    try:
        return datetime.fromisoformat(text)
    except ValueError as exc:
        raise MalformedError(what, got=repr(text)[:60], expected=expected) from exc
