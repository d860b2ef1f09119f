"""Messages of the RCAR protocol, version 0.4.0, as Trustee and its guests speak it.

Read from `confidential-containers/trustee` at 78962cd4 and `kbs-types` 0.18.0: what
their code accepts, not what their prose says. Unknown members are ignored, as there.

::

    POST /auth    {"version", "tee", "extra-params"}        -> {"nonce", "extra-params"}
    POST /attest  {"init-data"?, "runtime-data", "tee-evidence"}        -> {"token"}
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from kbs.core.encode import (
    parse_json,
    parse_json_object,
    require_object,
    require_text,
)
from kbs.core.errors import AuthenticationError, MalformedError

VERSION = "0.4.0"

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""Largest body; the original's default."""

MAX_DEVICES = 15
"""Entries in `additional_evidence`: with the primary, what a bundle takes."""

# The first message comes from anybody: three short members.
_MAX_REQUEST = 16 * 1024
_MAX_NONCE = 256
_MAX_INIT_DATA = 512 * 1024
_INIT_DATA_VERSION = "0.1.0"
_SEMVER = re.compile(r"[0-9A-Za-z.+-]{1,64}", re.ASCII)
_ERROR_TYPE = "https://github.com/confidential-containers/kbs/errors/"
# SM3 is in the protocol; it is no hash that TEEs of this broker's families use.
_HASHES = ("sha256", "sha384", "sha512")
# `name = "value"` on a line of its own, above the first table.
_SETTING = {
    name: re.compile(
        rf"""^[ \t]*{name}[ \t]*=[ \t]*["']([0-9a-z.]{{1,16}})["']""", re.MULTILINE
    )
    for name in ("version", "algorithm")
}


class ErrorName(StrEnum):
    """The last part of an error's `type`; the original's names, where one fits."""

    ADMIN = "AdminAuthAccess"
    ATTESTATION = "AttestationError"
    PATH = "InvalidRequestPath"
    NO_PLUGIN = "PluginNotFound"
    PLUGIN = "PluginInternalError"
    DENIED = "PolicyDeny"
    NO_TOKEN = "TokenNotFound"  # noqa: S105 - the name of an error
    TOKEN = "TokenVerifierError"  # noqa: S105 - the name of an error


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """What a guest says of itself before it attests."""

    tee: str


@dataclass(frozen=True, slots=True)
class InitData:
    """The init-data text that the guest was started with; nothing of it is proven."""

    algorithm: str
    body: bytes

    def digest(self) -> bytes:
        """Return the digest over the text as it is."""
        return hashlib.new(self.algorithm, self.body).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """The message of `/attest`; evidence and key are parsed no further.

    `additional` is the text of `additional_evidence`, which the primary evidence
    covers byte for byte; `devices` is what it holds, by TEE name, in its order.
    """

    nonce: str
    tee_pubkey: Mapping[str, object]
    primary: Mapping[str, object]
    additional: str
    devices: Mapping[str, Mapping[str, object]]
    init_data: InitData | None


def error_document(name: ErrorName, detail: str) -> dict[str, object]:
    """Return an error as the protocol writes it."""
    return {"type": _ERROR_TYPE + name.value, "detail": detail}


def challenge_document(nonce: str) -> dict[str, object]:
    """Return the answer of `/auth`; no hash is selected, so that it is SHA-384."""
    return {"nonce": nonce, "extra-params": ""}


def parse_auth_request(data: bytes) -> AuthRequest:
    """Read the message of `/auth`.

    Raises:
        AuthenticationError: another version of the protocol (`rcar.version`).
        MalformedError: it lacks the promised shape.
    """
    required = {"version", "tee", "extra-params"}
    members = _members(data, "request", required, limit=_MAX_REQUEST)
    version = require_text(members["version"], "request version", limit=64)
    if version != VERSION:
        shown = version if _SEMVER.fullmatch(version) else "malformed"
        # Test suites of guests look for these words.
        raise AuthenticationError(
            "KBS Client Protocol Version Mismatch: expect "
            f"={VERSION} while the request is {shown}",
            code="rcar.version",
        )
    return AuthRequest(require_text(members["tee"], "request tee", limit=64))


def parse_attestation(data: bytes) -> Attestation:
    """Read the message of `/attest`.

    Raises:
        MalformedError: it lacks the promised shape.
    """
    members = _members(data, "attestation", {"runtime-data", "tee-evidence"})
    runtime = _require(members["runtime-data"], "runtime-data", {"nonce", "tee-pubkey"})
    evidence = _require(
        members["tee-evidence"],
        "tee-evidence",
        {"primary_evidence", "additional_evidence"},
    )
    additional = require_text(
        evidence["additional_evidence"], "additional_evidence", limit=MAX_MESSAGE_BYTES
    )
    return Attestation(
        nonce=require_text(runtime["nonce"], "runtime-data nonce", limit=_MAX_NONCE),
        tee_pubkey=require_object(runtime["tee-pubkey"], "tee-pubkey"),
        primary=require_object(evidence["primary_evidence"], "primary_evidence"),
        additional=additional,
        devices=_parse_devices(additional),
        init_data=_parse_init_data(members.get("init-data")),
    )


def _members(
    data: bytes, what: str, required: set[str], *, limit: int = MAX_MESSAGE_BYTES
) -> dict[str, object]:
    return _require(parse_json_object(data, what, limit=limit), what, required)


def _require(value: object, what: str, required: set[str]) -> dict[str, object]:
    members = require_object(value, what)
    missing = sorted(required - members.keys())
    if missing:
        raise MalformedError(
            what, got=f"no {', '.join(missing)}", expected=", ".join(sorted(required))
        )
    return members


def _parse_devices(text: str) -> Mapping[str, Mapping[str, object]]:
    if not text:
        return {}
    value = parse_json(text, "additional_evidence", limit=MAX_MESSAGE_BYTES)
    devices = require_object(value, "additional_evidence")
    if len(devices) > MAX_DEVICES:
        raise MalformedError(
            "additional_evidence",
            got=f"{len(devices)} entries",
            expected=f"at most {MAX_DEVICES}",
        )
    return {
        name: require_object(evidence, f"additional_evidence {name[:40]}")
        for name, evidence in devices.items()
    }


def _parse_init_data(value: object) -> InitData | None:
    if value is None:
        return None
    members = _require(value, "init-data", {"format", "body"})
    if members["format"] != "toml":
        raise MalformedError(
            "init-data format", got=repr(members["format"])[:40], expected="toml"
        )
    text = require_text(members["body"], "init-data body", limit=_MAX_INIT_DATA)
    # Only these two are needed. A parser of the whole text could be kept busy by it,
    # and what it means is the guest's business: the hardware vouches for its bytes.
    head = text.partition("\n[")[0]
    found = {name: _SETTING[name].findall(head) for name in _SETTING}
    if found["version"] != [_INIT_DATA_VERSION] or len(found["algorithm"]) != 1:
        raise MalformedError(
            "init-data body",
            got="another version, or not one algorithm",
            expected=f'version = "{_INIT_DATA_VERSION}", algorithm = one of '
            + ", ".join(_HASHES),
        )
    (algorithm,) = found["algorithm"]
    if algorithm not in _HASHES:
        raise MalformedError(
            "init-data algorithm", got=repr(algorithm), expected=", ".join(_HASHES)
        )
    return InitData(algorithm, text.encode())
