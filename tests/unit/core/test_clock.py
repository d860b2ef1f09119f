"""Times in their one spelling: what is written is read, and no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from kbs.core.clock import format_time, parse_time
from kbs.core.errors import MalformedError

WHOLE = datetime(2026, 11, 22, 8, 0, 0, tzinfo=UTC)
EXACT = WHOLE.replace(microsecond=120)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-22T08:00:00Z", WHOLE),
        ("2026-11-22T08:00:00.000120Z", EXACT),
        ("0001-01-01T23:59:59Z", datetime(1, 1, 1, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_time_reads_as_it_was_written(text: str, time: datetime) -> None:
    assert format_time(time) == text
    assert parse_time(text) == time
    assert parse_time(text).tzinfo is UTC


def test_a_time_elsewhere_is_written_in_utc() -> None:
    elsewhere = WHOLE.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert format_time(elsewhere) == "2026-11-22T08:00:00Z"


@pytest.mark.parametrize("digits", ["1", "12", "123", "1234", "12345"])
def test_fewer_digits_of_a_second_are_read(digits: str) -> None:
    expected = int(digits.ljust(6, "0"))
    assert parse_time(f"2026-11-22T08:00:00.{digits}Z").microsecond == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T08:00:00",
        "2026-11-22T08:00:00+00:00",
        "2026-11-22T08:00:00z",
        "2026-11-22 08:00:00Z",
        "2026-11-22T08:00Z",
        "2026-11-22T08:00:00.Z",
        "2026-11-22T08:00:00,5Z",
        "2026-11-22T08:00:00.1234567Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T08:60:00Z",
        "2026-11-22T08:00:60Z",
        "2026-02-30T08:00:00Z",
        "0000-01-01T08:00:00Z",
        "2026-W47-7T08:00:00Z",
        "20261122T080000Z",
        "٢٠٢٦-11-22T08:00:00Z",
        "2026-11-22T08:00:00Z\n",
        1795334400,
        None,
    ],
)
def test_another_spelling_is_none(text: object) -> None:
    with pytest.raises(MalformedError, match=r"^when: got "):
        parse_time(text, "when")
