"""Answers of the broker: signed, and what they release sealed to the bound recipient.

::

    {"format": "kbs.answer/1", "audience", "nonce", "decision", "time", "suite",
     "outcome": "granted" | "denied" | "checked",
     "keys": [{"id", "version"}], "denied": [{"key", "reasons": [id…]}],
     "sealed": b64u(enc ‖ ct)}            only with "granted"

One seal per answer, over JCS({"keys": [{id, version, value b64url}…]}). A denial is
signed the same way, so that nobody on the way can forge one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from kbs.channel.binding import MAX_KEYS, RuntimeData, parse_audience, release_info
from kbs.channel.hpke import seal
from kbs.channel.recipient import Suite, parse_suite
from kbs.core.clock import format_time, parse_time
from kbs.core.encode import (
    b64u,
    canonical_json,
    parse_b64u,
    require_integer,
    require_list,
    require_members,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.core.ids import KeyRef, parse_hex32, parse_key_id, parse_key_ref

FORMAT = "kbs.answer/1"
MAX_SEALED_BYTES = 8 * 1024 * 1024
MAX_VERSION = 999_999_999

_MAX_REASONS = 64
_MAX_NONCE = 128
_REASON = re.compile(r"[a-z0-9_.\[\]-]{1,128}", re.ASCII)


class Outcome(StrEnum):
    """How a request ended; `checked` is a dry run."""

    GRANTED = "granted"
    DENIED = "denied"
    CHECKED = "checked"


@dataclass(frozen=True, slots=True)
class ReleasedKey:
    """One key that leaves: its id with the version, and the secret bytes."""

    ref: KeyRef
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WithheldKey:
    """A key that was asked for and is not given, with the ids of the reasons."""

    ref: KeyRef
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"key": str(self.ref), "reasons": list(self.reasons)}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is signed: the decision, and what it covers in request order.

    Without slots, so that what is signed, sent and named by the log is written once.
    """

    audience: str
    nonce: str
    decision: str
    time: datetime
    outcome: Outcome
    suite: Suite
    keys: tuple[KeyRef, ...] = ()
    denied: tuple[WithheldKey, ...] = ()
    sealed: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse outcomes that contradict what stands beside them.

        Raises:
            MalformedError: a grant without keys or seal, keys in a denial, a seal in
                a dry run.
        """
        shape = (bool(self.keys), bool(self.denied), self.sealed is not None)
        is_sound = {
            Outcome.GRANTED: shape[0] and shape[2],
            Outcome.DENIED: shape == (False, True, False),
            Outcome.CHECKED: not shape[2] and (shape[0] or shape[1]),
        }[self.outcome]
        if not is_sound or any(key.version is None for key in self.keys):
            raise MalformedError(
                f"{self.outcome} answer",
                got=f"{len(self.keys)} keys, {len(self.denied)} denied, "
                + ("sealed" if shape[2] else "no seal"),
                expected="keys with versions and a seal where granted, reasons where "
                "denied",
            )

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return dict(self._document)

    @cached_property
    def canonical(self) -> bytes:
        """The bytes that are signed: JCS(answer)."""
        return canonical_json(self._document)

    @cached_property
    def _document(self) -> dict[str, object]:
        document: dict[str, object] = {
            "format": FORMAT,
            "audience": self.audience,
            "nonce": self.nonce,
            "decision": self.decision,
            "time": format_time(self.time),
            "outcome": self.outcome.value,
            "suite": self.suite.value,
            "keys": [_key_json(key) for key in self.keys],
            "denied": [one.to_json() for one in self.denied],
        }
        if self.sealed is not None:
            document["sealed"] = b64u(self.sealed)
        return document

    def digest(self) -> str:
        """Return hex SHA-256(JCS(answer)), by which the log names it."""
        return hashlib.sha256(self.canonical).hexdigest()


def seal_keys(
    released: Sequence[ReleasedKey],
    *,
    runtime_data: RuntimeData,
    primary: bytes,
    decision: str,
) -> bytes:
    """Return the sealed part of an answer; `primary` is the P that was verified."""
    info = release_info(
        primary,
        audience=runtime_data.audience,
        decision=decision,
        keys=[one.ref for one in released],
    )
    suite = runtime_data.request.suite
    return seal(suite, runtime_data.recipient, serialize_keys(released), info=info)


def serialize_keys(released: Sequence[ReleasedKey]) -> bytes:
    """Return what is sealed: JCS({"keys": [{id, version, value}…]})."""
    return canonical_json(
        {"keys": [{**_key_json(one.ref), "value": b64u(one.value)} for one in released]}
    )


def parse_answer(value: object) -> Answer:
    """Accept an answer from parsed JSON; its signature is not looked at here.

    Raises:
        MalformedError: anything else.
    """
    members = require_members(
        value,
        "answer",
        required={"format", "audience", "nonce", "decision", "time", "outcome"}
        | {"suite", "keys", "denied"},
        optional={"sealed"},
    )
    if members["format"] != FORMAT:
        raise MalformedError(
            "answer format", got=repr(members["format"])[:40], expected=FORMAT
        )
    sealed = None
    if "sealed" in members:
        sealed = parse_b64u(members["sealed"], "answer sealed", limit=MAX_SEALED_BYTES)
    return Answer(
        audience=parse_audience(members["audience"]),
        nonce=require_text(members["nonce"], "answer nonce", limit=_MAX_NONCE),
        decision=parse_hex32(members["decision"], "answer decision"),
        time=parse_time(members["time"], "answer time"),
        outcome=_parse_outcome(members["outcome"]),
        suite=parse_suite(members["suite"]),
        keys=tuple(
            _parse_key(element)
            for element in require_list(members["keys"], "answer keys", limit=MAX_KEYS)
        ),
        denied=tuple(
            _parse_withheld(element)
            for element in require_list(
                members["denied"], "answer denied", limit=MAX_KEYS
            )
        ),
        sealed=sealed,
    )


def _key_json(ref: KeyRef) -> dict[str, object]:
    return {"id": str(ref.key_id), "version": ref.version}


def _parse_key(value: object) -> KeyRef:
    members = require_members(value, "answer key", required={"id", "version"})
    version = require_integer(
        members["version"], "answer key version", least=1, most=MAX_VERSION
    )
    return KeyRef(parse_key_id(members["id"]), version)


def _parse_withheld(value: object) -> WithheldKey:
    members = require_members(value, "answer denied", required={"key", "reasons"})
    reasons = []
    for reason in require_list(members["reasons"], "reasons", limit=_MAX_REASONS):
        if not isinstance(reason, str) or not _REASON.fullmatch(reason):
            raise MalformedError(
                "reason", got=repr(reason)[:80], expected="an id like snp.measurement"
            )
        reasons.append(reason)
    if not reasons:
        raise MalformedError("reasons", got="none", expected="at least one")
    return WithheldKey(parse_key_ref(members["key"]), tuple(reasons))


def _parse_outcome(value: object) -> Outcome:
    if isinstance(value, str) and value in {outcome.value for outcome in Outcome}:
        return Outcome(value)
    raise MalformedError(
        "answer outcome",
        got=repr(value)[:40],
        expected=", ".join(outcome.value for outcome in Outcome),
    )
