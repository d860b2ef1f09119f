"""Which members the body of each kind has, and what each may hold.

The members come from the dataclasses of `kbs.audit.events`; a member of one name has
one shape in every kind. Both ways use it: what is logged passes it before it is
appended, what is read passes it before anything believes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from functools import cache

from kbs.audit import events
from kbs.audit.events import Event
from kbs.audit.kinds import KeyOrigin, Kind, Mode, Outcome, Purpose
from kbs.core.clock import parse_time
from kbs.core.encode import (
    MAX_INTEGER,
    parse_b64u,
    parse_hex,
    require_integer,
    require_list,
    require_members,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_hex32, parse_key_id

# What the kind says already, so that leaf and body cannot tell different stories.
_IMPLIED: Mapping[Kind, Mapping[str, tuple[str, ...]]] = {
    Kind.RELEASE_GRANTED: {"mode": (Mode.RELEASE,), "outcome": (Outcome.GRANTED,)},
    Kind.RELEASE_DENIED: {"mode": (Mode.RELEASE,), "outcome": (Outcome.DENIED,)},
    Kind.RELEASE_PROBE: {"mode": (Mode.CHECK,)},
    Kind.LOG_KEY: {"purpose": (Purpose.LOG,)},
    Kind.BROKER_KEY: {"purpose": (Purpose.RESPONSE, Purpose.TOKEN, Purpose.TLS)},
}

Shape = Callable[[object, str], object]

MAX_TEXT = 8192
"""Characters of one got, expected, detail or reason."""

MAX_LIST = 4096

_SHA256 = re.compile("[0-9a-f]{64}")

_TYPES: Mapping[Kind, type[Event]] = {
    Kind.INSTANCE_INIT: events.InstanceInit,
    Kind.RELEASE_GRANTED: events.Release,
    Kind.RELEASE_DENIED: events.Release,
    Kind.RELEASE_PROBE: events.Release,
    Kind.REFUSALS: events.Refusals,
    Kind.STATEMENT: events.GovernanceChange,
    Kind.KEY_CREATED: events.KeyChange,
    Kind.KEY_IMPORTED: events.KeyChange,
    Kind.KEY_ROTATED: events.KeyChange,
    Kind.KEY_RETIRED: events.KeyChange,
    Kind.KEY_DESTROYED: events.KeyChange,
    Kind.ENROLMENT_PENDING: events.EnrolmentPending,
    Kind.ADMIN_ACTION: events.AdminAction,
    Kind.ADMIN_REFUSED: events.AdminRefused,
    Kind.LOG_KEY: events.KeyAnnouncement,
    Kind.BROKER_KEY: events.KeyAnnouncement,
    Kind.ROLLBACK_ACCEPTED: events.RollbackAccepted,
    Kind.EVIDENCE_EXPIRED: events.EvidenceExpired,
    Kind.COLLATERAL_FETCHED: events.CollateralFetched,
    Kind.COLLATERAL_PRUNED: events.CollateralPruned,
    Kind.INTEGRITY_REPORTED: events.IntegrityReported,
}


def members_of(event: Event) -> dict[str, object]:
    """Return the members that an event adds to the common ones, as plain JSON.

    Raises:
        MalformedError: its kind is not one of its type, or a member has another shape.
    """
    kind = event.kind
    if not isinstance(event, _TYPES[kind]):
        raise MalformedError("log entry", got=f"{type(event).__name__} as {kind}")
    members = events.plain_members(event)
    check_members(kind, members)
    return members


def check_members(kind: Kind, members: Mapping[str, object]) -> None:
    """Check the members of a body besides the common ones.

    Raises:
        MalformedError: one is missing, unknown or of another shape.
    """
    what = f"log entry {kind}"
    _shape_of(kind)(members, what)
    for name, allowed in _IMPLIED.get(kind, {}).items():
        if members[name] not in allowed:
            raise MalformedError(
                f"{what} {name}",
                got=repr(members[name])[:40],
                expected=" or ".join(allowed),
            )


@cache
def _shape_of(kind: Kind) -> Shape:
    """Return the shape of the members of a kind; one with a default may be absent."""
    known = [field for field in fields(_TYPES[kind]) if field.name != "kind"]
    return _object(
        {one.name: _SHAPES[one.name] for one in known if one.default is MISSING},
        {one.name: _SHAPES[one.name] for one in known if one.default is not MISSING},
    )


def _text(value: object, what: str) -> str:
    if type(value) is str and len(value) <= MAX_TEXT:
        return value
    return require_text(value, what, limit=MAX_TEXT)


def _digest(value: object, what: str) -> object:
    if type(value) is str and _SHA256.fullmatch(value):
        return value
    return parse_hex(value, what, size=32)


def _hex(value: object, what: str) -> bytes:
    return parse_hex(require_text(value, what, limit=256), what)


def _bytes(value: object, what: str) -> bytes:
    return parse_b64u(value, what, limit=2048)


def _natural(value: object, what: str) -> int:
    if type(value) is int and 0 <= value <= MAX_INTEGER:
        return value
    return require_integer(value, what, least=0, most=MAX_INTEGER)


def _positive(value: object, what: str) -> int:
    return require_integer(value, what, least=1, most=MAX_INTEGER)


def _true(value: object, what: str) -> None:
    if value is not True:
        raise MalformedError(what, got=repr(value)[:40], expected="true, or no member")


def _key(value: object, _what: str) -> object:
    return parse_key_id(value)


def _word(words: type[StrEnum]) -> Shape:
    allowed = [str(word) for word in words]

    def check(value: object, what: str) -> None:
        if value not in allowed:
            raise MalformedError(
                what, got=repr(value)[:40], expected=" or ".join(allowed)
            )

    return check


def _each(shape: Shape) -> Shape:
    def check(value: object, what: str) -> None:
        for place, element in enumerate(require_list(value, what, limit=MAX_LIST)):
            try:
                shape(element, what)
            except MalformedError:
                shape(element, f"{what}[{place}]")
                raise

    return check


def _object(
    required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None
) -> Shape:
    optional = optional or {}
    shapes = {**required, **optional}
    names, others = frozenset(required), frozenset(optional)
    known = names | others
    texts = frozenset(name for name, shape in shapes.items() if shape is _text)

    def check(value: object, what: str) -> None:
        if type(value) is dict and names <= value.keys() <= known:
            members = value
        else:
            members = require_members(value, what, required=names, optional=others)
        # Parts are named for those that fail only: every release passes here, and most
        # members of it are texts.
        for name, member in members.items():
            if name in texts and type(member) is str and len(member) <= MAX_TEXT:
                continue
            try:
                shapes[name](member, what)
            except MalformedError:
                shapes[name](member, f"{what} {name}")
                raise

    return check


def _or_null(shape: Shape) -> Shape:
    def check(value: object, what: str) -> None:
        if value is not None:
            shape(value, what)

    return check


def _public_keys(value: object, what: str) -> None:
    purpose = _word(Purpose)
    for name, key in require_object(value, what).items():
        purpose(name, what)
        _bytes(key, f"{what} {name}")


_REASON = _object(
    {"id": _text, "detail": _text},
    {"policy": _text, "rule": _text, "got": _text, "expected": _text},
)
_ITEM = _or_null(_natural)
_CHECKS = _object(
    {
        "all": _each(_object({"id": _text, "item": _ITEM, "status": _text})),
        "failed": _each(
            _object(
                {"id": _text, "item": _ITEM, "status": _text, "detail": _text},
                {"got": _text, "expected": _text},
            )
        ),
    }
)
_POLICY = _object(
    {"name": _text, "version": _positive, "digest": _digest}, {"rule": _text}
)
_KEY_DECISION = _object(
    {
        "id": _key,
        "version": _or_null(_positive),
        "decision": _word(Outcome),
        "policies": _each(_POLICY),
        "reasons": _each(_REASON),
    }
)
_SAMPLE = _object(
    {
        "decision": parse_hex32,
        "time": parse_time,
        "check": _text,
        "detail": _text,
    },
    {"got": _text, "expected": _text},
)
_STATE = _object({"seq": _natural, "size": _natural, "root": _digest})

_SHAPES: Mapping[str, Shape] = {
    "action": _text,
    "actor": _text,
    "ak_name": _hex,
    "answer": _digest,
    "appraised": parse_time,
    "authority": _digest,
    "before": parse_time,
    "ca": _text,
    "checks": _CHECKS,
    "count": _positive,
    "decision": parse_hex32,
    "detail": _text,
    "development": _true,
    "digests": _each(_digest),
    "door": _text,
    "ek": _text,
    "enrolment": parse_hex32,
    "evidence": _digest,
    "expected": _text,
    "found": _STATE,
    "freshness": _text,
    "got": _text,
    "governance": _natural,
    "group": _text,
    "instance": parse_hex32,
    "key": _key,
    "key_kind": _text,
    "keys": _each(_KEY_DECISION),
    "log": _text,
    "mark": _STATE,
    "mode": _word(Mode),
    "origin": _word(KeyOrigin),
    "outcome": _word(Outcome),
    "previous": _bytes,
    "primary": _text,
    "public_key": _bytes,
    "public_keys": _public_keys,
    "purpose": _word(Purpose),
    "reason": _text,
    "reasons": _each(_REASON),
    "recipient": _digest,
    "request": _digest,
    "samples": _each(_SAMPLE),
    "signature": _bytes,
    "signatures": _each(require_object),
    "since": parse_time,
    "source": _text,
    "statement": require_object,
    "subject": _text,
    "target": _text,
    "tenant": _text,
    "tolerated": _each(_text),
    "until": parse_time,
    "version": _positive,
}
