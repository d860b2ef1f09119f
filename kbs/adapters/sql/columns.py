"""Column types that read the same from SQLite and PostgreSQL.

SQLite tables are STRICT (https://sqlite.org/stricttables.html), which knows INTEGER,
TEXT and BLOB only. Times are whole microseconds since 1970 in UTC. Text compares by
code points on both, whatever the locale of the PostgreSQL database.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import TEXT as COLLATED
from sqlalchemy import BigInteger, Dialect, Integer, LargeBinary, Text
from sqlalchemy.types import TypeDecorator

from kbs.core.errors import IntegrityError, MalformedError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

INT64 = BigInteger().with_variant(Integer(), "sqlite")
TEXT = Text().with_variant(COLLATED(collation="C"), "postgresql")
BYTES = LargeBinary()


def microseconds_of(time: datetime | None) -> int | None:
    """Return a time as it is stored.

    Raises:
        MalformedError: it does not say its offset.
    """
    if time is None:
        return None
    if time.tzinfo is None:
        raise MalformedError("time", got="no offset", expected="an aware datetime")
    return (time - _EPOCH) // _MICROSECOND


def time_of(microseconds: int | None) -> datetime | None:
    """Return a time that was stored.

    Raises:
        IntegrityError: no calendar has it.
    """
    if microseconds is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError as exc:
        raise IntegrityError(
            "stored time",
            got=f"{microseconds} microseconds since 1970",
            expected="a year from 1 to 9999",
        ) from exc


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as microseconds since 1970."""

    impl = INT64
    cache_ok = True

    def process_bind_param(
        self, value: datetime | None, dialect: Dialect
    ) -> int | None:
        """Write a time."""
        del dialect
        return microseconds_of(value)

    def process_result_value(
        self, value: int | None, dialect: Dialect
    ) -> datetime | None:
        """Read a time."""
        del dialect
        return time_of(value)


TIME = UtcTime()
