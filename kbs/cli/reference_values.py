"""Reference values from the command line and from files, one a line."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from kbs.cli.inputs import read_input
from kbs.core.clock import format_time, parse_time
from kbs.core.errors import MalformedError
from kbs.governance.objects import ReferenceSet, parse_reference_set

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,15})", re.ASCII)


def read(
    values: tuple[str, ...], file: Path | None, *, integers: bool
) -> tuple[str | int, ...]:
    """Return the values of arguments and file, each once, in order.

    Raises:
        MalformedError: there is none, or one is no integer where they have to be.
    """
    texts = list(values)
    if file is not None:
        data = read_input(file, "--file")
        try:
            lines = data.decode("utf-8").splitlines()
        except UnicodeDecodeError as exc:
            raise MalformedError(
                f"--file {file}", got="bytes that are not UTF-8"
            ) from exc
        texts += [line.strip() for line in lines if line.strip()]
    if not texts:
        raise MalformedError("reference values", got="none", expected="at least one")
    distinct = dict.fromkeys(texts)
    return tuple(_integer(text) for text in distinct) if integers else tuple(distinct)


def joined(
    current: ReferenceSet | None, given: tuple[str | int, ...], expires: str | None
) -> ReferenceSet:
    """Return a set with the values in force and the given ones.

    Without `expires` the set ends when the one in force does.

    Raises:
        MalformedError: a value has no form that a claim has.
    """
    known = () if current is None else current.values
    ends = None if current is None else current.expires
    if expires is not None:
        ends = parse_time(expires, "expiry")
    made = ReferenceSet(tuple(dict.fromkeys((*known, *given))), ends)
    # The same strictness as the broker's, before anything is sent.
    return parse_reference_set(made.to_json())


def notes(made: ReferenceSet, now: datetime) -> tuple[str, ...]:
    """Return what is odd about a set that is well-formed."""
    if made.expires is None or made.expires > now:
        return ()
    ended = format_time(made.expires)
    return (f"the values ended at {ended}: no policy accepts any of them",)


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text) or text == "-0":
        raise MalformedError(
            "reference value", got=repr(text)[:40], expected="an integer"
        )
    return int(text)
