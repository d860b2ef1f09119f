"""Times as the log and the contract write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from kbs.core.clock import format_time, parse_time
from kbs.core.errors import MalformedError


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-22T08:00:00Z", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        ("2024-02-29T23:59:59Z", datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)),
        ("0001-01-01T00:00:00.000001Z", datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        (
            "9999-12-31T23:59:59.120000Z",
            datetime(9999, 12, 31, 23, 59, 59, 120000, tzinfo=UTC),
        ),
    ],
)
def test_a_time_is_written_as_it_is_read(text: str, time: datetime) -> None:
    assert parse_time(text) == time
    assert format_time(time) == text


def test_a_fraction_of_fewer_digits_is_read() -> None:
    assert parse_time("2026-11-22T08:00:00.12Z").microsecond == 120_000


def test_another_offset_is_written_in_utc() -> None:
    time = datetime(2026, 11, 22, 8, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(time) == "2026-11-22T06:00:00Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T08:00:00",
        "2026-11-22T08:00:00+00:00",
        "2026-11-22t08:00:00Z",
        "2026-11-22 08:00:00Z",
        "2026-11-22T08:00Z",
        "2026-11-22T08:00:00.Z",
        "2026-11-22T08:00:00.1234567Z",
        "2026-11-22T08:00:00,5Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T23:59:60Z",
        "2026-02-29T08:00:00Z",
        "0000-01-01T00:00:00Z",
        "20261122T080000Z",
        "2026-W47-7T08:00:00Z",
        "\u0662026-11-22T08:00:00Z",
        "2026-11-22T08:00:00Z\n",
        1,
        None,
    ],
)
def test_what_is_no_such_time_is_refused(text: object) -> None:
    with pytest.raises(MalformedError):
        parse_time(text)
