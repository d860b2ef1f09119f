"""Which bytes prove which request: runtime data, and the digests B, D, M and P of v1.

::

    B(o)    = SHA-384("kbs.binding/1" 0x00 JCS(o))
    D(kind) = B({"typ": "device", "kind": kind, "runtime_data": RD})
    M       = [{"kind": k, "sha384": hex(SHA-384(core))}, …]   non-primary, bundle order
    P(kind) = B({"typ": "primary", "kind": kind, "runtime_data": RD, "devices": M})

Where in an item the 48 bytes stand is its verifier's business (`bound_matches`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kbs.channel.recipient import (
    Recipient,
    Suite,
    parse_recipient,
    parse_suite,
    spki_der,
)
from kbs.core.binding import binding
from kbs.core.encode import (
    canonical_json,
    parse_b64u,
    require_list,
    require_members,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.core.ids import KeyRef, parse_key_ref

RELEASE_CONTEXT = b"kbs.release/1\x00"

MAX_KEYS = 64
"""Most keys in one request."""

_AUDIENCE = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_NONCE = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


class Mode(StrEnum):
    """Whether keys are released, or only the answer is asked for (a dry run)."""

    RELEASE = "release"
    CHECK = "check"


_MODES: Mapping[str, Mode] = {mode.value: mode for mode in Mode}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """What is asked: keys in request order, unique; all of them unless `partial`."""

    keys: tuple[KeyRef, ...]
    mode: Mode
    partial: bool
    suite: Suite

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, exactly as it was parsed."""
        return {
            "keys": [str(key) for key in self.keys],
            "mode": self.mode.value,
            "partial": self.partial,
            "suite": self.suite.value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeData:
    """What all evidence of a bundle is bound to.

    `audience` is the broker's log origin, `nonce` the challenge, verbatim.
    """

    audience: str
    nonce: str
    recipient: Recipient
    request: ReleaseRequest

    def to_json(self) -> dict[str, object]:
        """Return the JSON form; its JCS is the same as that of what was parsed."""
        return {
            "audience": self.audience,
            "nonce": self.nonce,
            "recipient": self.recipient.to_json(),
            "request": self.request.to_json(),
        }


@dataclass(frozen=True, slots=True)
class DeviceDigest:
    """One element of M: the kind and SHA-384 (hex) of a non-primary item's core."""

    kind: str
    sha384: str

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"kind": self.kind, "sha384": self.sha384}


def parse_runtime_data(value: object) -> RuntimeData:
    """Accept the runtime data of a bundle: all members, no others, ASCII only.

    Raises:
        MalformedError: anything else, or a suite that does not fit the recipient.
    """
    members = require_members(
        value, "runtime_data", required={"audience", "nonce", "recipient", "request"}
    )
    recipient = parse_recipient(members["recipient"])
    request = parse_request(members["request"])
    if request.suite is not recipient.suite:
        raise MalformedError(
            "request suite",
            got=request.suite.value,
            expected=f"{recipient.suite.value}, the suite of the recipient's key",
        )
    return RuntimeData(
        audience=parse_audience(members["audience"]),
        nonce=_matching(_NONCE, members["nonce"], "nonce", "base64url"),
        recipient=recipient,
        request=request,
    )


def parse_request(value: object) -> ReleaseRequest:
    """Accept the `request` member of the runtime data.

    Raises:
        MalformedError: anything else.
    """
    members = require_members(
        value, "request", required={"keys", "mode", "partial", "suite"}
    )
    partial = members["partial"]
    if not isinstance(partial, bool):
        raise MalformedError(
            "request partial", got=repr(partial)[:40], expected="true or false"
        )
    return ReleaseRequest(
        keys=_parse_keys(members["keys"]),
        mode=_parse_mode(members["mode"]),
        partial=partial,
        suite=parse_suite(members["suite"]),
    )


def parse_audience(value: object) -> str:
    """Accept a log origin: 1 to 255 visible ASCII characters.

    Raises:
        MalformedError: anything else.
    """
    return _matching(_AUDIENCE, value, "audience", "visible ASCII")


def device_binding(kind: str, runtime_data: RuntimeData) -> bytes:
    """Return D(kind), the same for all devices of a kind."""
    return binding(
        {"typ": "device", "kind": kind, "runtime_data": runtime_data.to_json()}
    )


def primary_binding(
    kind: str, runtime_data: RuntimeData, devices: Sequence[DeviceDigest]
) -> bytes:
    """Return P(kind), which covers every other item through its digest in M."""
    return binding(
        {
            "typ": "primary",
            "kind": kind,
            "runtime_data": runtime_data.to_json(),
            "devices": [device.to_json() for device in devices],
        }
    )


def device_digest(kind: str, core: bytes) -> DeviceDigest:
    """Return the element of M for one non-primary item."""
    return DeviceDigest(kind, hashlib.sha384(core).hexdigest())


@dataclass(frozen=True, slots=True)
class RuntimeBinding:
    """The bindings of one request, in the shape that bundle verification asks for."""

    runtime_data: RuntimeData

    def primary(self, kind: str, devices: Sequence[tuple[str, str]]) -> bytes:
        """Return P(kind) over (kind, hex SHA-384 of core) pairs in bundle order."""
        return primary_binding(
            kind, self.runtime_data, [DeviceDigest(*device) for device in devices]
        )

    def device(self, kind: str) -> bytes:
        """Return D(kind)."""
        return device_binding(kind, self.runtime_data)

    def carried(self, kind: str, digest: bytes) -> bytes | None:
        """Return None: each kind has the form of its row in the binding's table."""
        del kind, digest
        return None

    def beside(self) -> Mapping[str, bytes]:
        """Return the recipient's key (SPKI DER) and the challenge's bytes.

        A nonce that is no base64url is no challenge of ours, and fits nothing.
        """
        fitting = {"recipient": spki_der(self.runtime_data.recipient)}
        try:
            nonce = self.runtime_data.nonce
            fitting["challenge"] = parse_b64u(nonce, "nonce", limit=len(nonce))
        except MalformedError:
            pass
        return fitting


def release_info(
    primary: bytes, *, audience: str, decision: str, keys: Sequence[KeyRef]
) -> bytes:
    """Return the HPKE `info` that ties a sealed answer to evidence and decision.

    Raises:
        MalformedError: a key without its version.
    """
    if any(key.version is None for key in keys):
        raise MalformedError("release keys", expected="every key with its version")
    named = canonical_json(
        {
            "audience": audience,
            "decision": decision,
            "keys": [str(key) for key in keys],
        }
    )
    return RELEASE_CONTEXT + hashlib.sha384(primary + named).digest()


def _parse_keys(value: object) -> tuple[KeyRef, ...]:
    keys = tuple(
        parse_key_ref(require_text(text, "request key", limit=256))
        for text in require_list(value, "request keys", limit=MAX_KEYS)
    )
    if not keys:
        raise MalformedError("request keys", got="none", expected="at least one key")
    if len(set(keys)) != len(keys):
        raise MalformedError(
            "request keys", got="a key twice", expected="every key once"
        )
    return keys


def _parse_mode(value: object) -> Mode:
    mode = _MODES.get(value) if isinstance(value, str) else None
    if mode is None:
        raise MalformedError(
            "request mode", got=repr(value)[:40], expected="release or check"
        )
    return mode


def _matching(pattern: re.Pattern[str], value: object, what: str, expected: str) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise MalformedError(what, got=repr(value)[:80], expected=expected)
