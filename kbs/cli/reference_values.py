"""Reference values from the command line and from files, and changes of their sets."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kbs.cli.admin_client import AdminClient, Head
from kbs.cli.governed import (
    Listed,
    list_objects,
    read_object,
    register,
    see_accepted,
)
from kbs.cli.inputs import read_input
from kbs.core.clock import format_time, parse_time
from kbs.core.errors import MalformedError
from kbs.core.ids import ScopedName
from kbs.governance.contents import digest_of, read_reference_set
from kbs.governance.objects import ReferenceSet, parse_reference_set
from kbs.governance.statement import Action, Kind

Edit = Callable[[ReferenceSet | None], ReferenceSet]

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


@dataclass(frozen=True, slots=True)
class Changed:
    """A set of values as it is in force now, and what came of it."""

    made: ReferenceSet
    stored: Listed
    warnings: list[str]
    statement: dict[str, object]


def change_values(client: AdminClient, subject: ScopedName, edit: Edit) -> Changed:
    """Put in force what `edit` makes of the set in force; see the log grow.

    Whoever was slower makes his change again from the newer set, so that two
    administrators never drop each other's values: a ban that is lost is a grant.

    Raises:
        ConflictError: it does not fit what is in force.
        KbsError: as `edit`, or the broker refuses, or does not answer.
    """

    def once(head: Head) -> Changed:
        made = edit(_in_force(client, subject))
        content = made.canonical()
        digest = digest_of(content)
        stored, warnings = register(
            client, Kind.REFERENCE_SET, subject, source=content, digest=digest
        )
        statement = client.submit_after(
            head,
            Action.ADD,
            Kind.REFERENCE_SET,
            subject,
            version=stored.version,
            digest=stored.digest,
        )
        return Changed(made, stored, warnings, statement)

    changed = client.at_head(once)
    see_accepted(client)
    return changed


def _in_force(client: AdminClient, subject: ScopedName) -> ReferenceSet | None:
    found = list_objects(client, Kind.REFERENCE_SET, subject)
    active = [one for one in found if one.active]
    if not active:
        return None
    return read_reference_set(read_object(client, active[0])[1])


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
