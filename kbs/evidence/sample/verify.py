"""A stand-in for a TEE: unsigned, unproven, accepted in development mode only.

::

    {"kind": "sample", "report_data": b64 of 48 bytes,
     "claims": {"measurement": "…", "svn": 1, "debug": false, "launch": "…"}}

`claims` and each of its members are optional. Anybody can write such an item, so
the check `sample.development` fails unless the broker itself runs in development
mode, which it says in every decision. A `sampledevice` is the same for a device beside
the primary, with a family of claims of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kbs.core.checks import CheckLog
from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue, ItemClaims, nest
from kbs.core.encode import (
    canonical_json,
    parse_b64,
    require_integer,
    require_members,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.evidence.model import ItemResult, ParsedItem, Trust

BINDING_BYTES = 48

_MAX_TEXT = 256
_MAX_SVN = 2**32 - 1
_SOURCE = "the item itself; nothing vouches for it"

DEVICE = "sampledevice"


def sample_claims(kind: str) -> tuple[ClaimSpec, ...]:
    """Return every claim that items of this kind can give."""
    return (
        ClaimSpec(
            name=f"{kind}.measurement",
            type=ClaimType.TEXT,
            description="What the workload says it is",
            source=_SOURCE,
        ),
        ClaimSpec(
            name=f"{kind}.svn",
            type=ClaimType.INT,
            description="A security version number",
            source=_SOURCE,
        ),
        ClaimSpec(
            name=f"{kind}.debug",
            type=ClaimType.BOOL,
            description="Whether it says that it can be debugged",
            source=_SOURCE,
        ),
        ClaimSpec(
            name=f"{kind}.launch",
            type=ClaimType.TEXT,
            boot=True,
            description="What it says booted",
            source=_SOURCE,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleItem:
    """The item as read: its binding and its claims by full name."""

    report_data: bytes
    claims: Mapping[str, ClaimValue]


class SampleVerifier:
    """Verifies items of one kind of sample, in development mode."""

    # The bundle takes a sample as its primary when it is the only candidate.
    primary = False

    def __init__(self, kind: str = "sample") -> None:
        """Verify items of this kind."""
        self._kind = kind
        self._vocabulary = sample_claims(kind)

    @property
    def kind(self) -> str:
        """The `kind` of its items, which is also the family of its claims."""
        return self._kind

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""
        return self._vocabulary

    def parse(self, item: Mapping[str, object], index: int) -> ParsedItem:
        """Read the JSON item.

        Raises:
            MalformedError: it lacks the promised shape.
        """
        members = require_members(
            dict(item),
            "sample item",
            required={"kind", "report_data"},
            optional={"claims"},
        )
        if members["kind"] != self.kind:
            got = repr(members["kind"])[:40]
            raise MalformedError("item kind", got=got, expected=self.kind)
        report_data = _parse_report_data(members["report_data"])
        body = SampleItem(
            report_data=report_data,
            claims=_parse_claims(self.kind, members.get("claims", {})),
        )
        return ParsedItem(
            kind=self.kind,
            index=index,
            core=canonical_json(members),
            bound=report_data,
            body=body,
        )

    def inspect(self, parsed: ParsedItem) -> Mapping[str, object]:
        """Return all parsed fields for people; nothing in it is proven."""
        body = _body(parsed)
        return {
            "report_data": body.report_data.hex(),
            "claims": nest(body.claims, self.kind),
        }

    def bound_matches(self, parsed: ParsedItem, binding: bytes) -> bool:
        """Whether `report_data` is exactly this 48-byte binding."""
        return len(binding) == BINDING_BYTES and parsed.bound == binding

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        """Accept the item in development mode, refuse it otherwise."""
        body = _body(parsed)
        log = CheckLog(parsed.index)
        check = "sample.development"
        if trust.development:
            log.passed(
                f"{self.kind}.development", "accepted in development mode, unproven"
            )
        else:
            log.failed(
                check,
                "sample evidence proves nothing and counts in development mode only",
            )
        claims = ItemClaims(
            family=self.kind, item=parsed.index, values=dict(body.claims)
        )
        return ItemResult(
            checks=log.checks,
            claims=claims if trust.development else None,
            authenticated=trust.development,
        )


def _body(parsed: ParsedItem) -> SampleItem:
    if not isinstance(parsed.body, SampleItem):
        message = f"an item of kind {parsed.kind} was given to the sample verifier"
        raise TypeError(message)
    return parsed.body


def _parse_report_data(value: object) -> bytes:
    data = parse_b64(value, "sample report_data", limit=BINDING_BYTES)
    if len(data) != BINDING_BYTES:
        raise MalformedError(
            "sample report_data", got=f"{len(data)} bytes", expected="48 bytes"
        )
    return data


def _parse_claims(kind: str, value: object) -> dict[str, ClaimValue]:
    members = require_members(
        value, "sample claims", required=set(), optional=set(_READERS)
    )
    return {
        f"{kind}.{name}": _READERS[name](given, f"sample claims {name}")
        for name, given in members.items()
    }


def _text(value: object, what: str) -> ClaimValue:
    return require_text(value, what, limit=_MAX_TEXT)


def _svn(value: object, what: str) -> ClaimValue:
    return require_integer(value, what, least=0, most=_MAX_SVN)


def _flag(value: object, what: str) -> ClaimValue:
    if not isinstance(value, bool):
        raise MalformedError(what, got=repr(value)[:40], expected="true or false")
    return value


_READERS: Mapping[str, Callable[[object, str], ClaimValue]] = {
    "measurement": _text,
    "svn": _svn,
    "debug": _flag,
    "launch": _text,
}
