"""Quotes in JSON files, as guests and their tools write them.

An object with the quote as text (hex or base64) under `quote`. Beside it may stand the
event log of a TD: the area of the CCEL table in base64 (`cc_eventlog`, as RCAR guests
send it, or `event_log`), or the list that dstack's guests make of it (`event_log`)::

    [{"imr": 0…3, "event_type": number, "digest": hex, "event_payload": hex, …}, …]

which is written back as a log of the UEFI form, so that it is replayed like any other.
The object may itself be the member `evidence` of another, as RCAR's messages have it.
Members that mean nothing here are ignored.
"""

from __future__ import annotations

from kbs.core.encode import (
    b64,
    parse_json,
    parse_json_object,
    require_integer,
    require_list,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.core.loose import octets_in
from kbs.evidence.dcap.quote import (
    MAX_QUOTE_BYTES,
    TEE_TDX,
    looks_like_quote,
    tee_type_of,
)

MAX_FILE_BYTES = 4 * 1024 * 1024

Item = dict[str, object]

_LOGS = ("cc_eventlog", "event_log")
_MAX_LOG_TEXT = 2 * 1024 * 1024
_MAX_EVENTS = 8192
_MAX_PAYLOAD_TEXT = 512 * 1024
_LAST_RTMR = 3
_MAX_UINT32 = 2**32 - 1

# TCG PC Client Platform Firmware Profile 1.06, section 10.4.5.1: EV_NO_ACTION of
# register 0 with a Spec ID event that names one algorithm, SHA-384 of 48 bytes.
_EV_NO_ACTION = 3
_SHA384, _DIGEST_BYTES = 0x000C, 48
_SHA1_BYTES = 20
_SPEC_ID = b"".join(
    (
        b"Spec ID Event03\0",
        bytes(4),  # platform class: client
        bytes((0, 2, 0, 2)),  # version 2.0, errata 0, UINTN of 64 bits
        (1).to_bytes(4, "little"),
        _SHA384.to_bytes(2, "little") + _DIGEST_BYTES.to_bytes(2, "little"),
        bytes(1),  # no vendor information
    )
)


def kind_of_document(data: bytes) -> str | None:
    """Return `tdx` or `sgx` for JSON around a quote of either; None for all else."""
    try:
        members = _members(data, "quote")
    except MalformedError:
        return None
    text = members.get("quote")
    quote = octets_in(text) if isinstance(text, str) else None
    if "format" in members or quote is None or not looks_like_quote(quote):
        return None
    return "tdx" if tee_type_of(quote) == TEE_TDX else "sgx"


def item_of_document(data: bytes, kind: str) -> Item:
    """Return the item that JSON around a quote holds.

    Raises:
        MalformedError: there is no quote in it, or a log that cannot be read.
    """
    members = _members(data, f"{kind} document")
    text = require_text(members.get("quote"), "quote", limit=4 * MAX_QUOTE_BYTES)
    quote = octets_in(text)
    if quote is None:
        raise MalformedError("quote", got="another text", expected="hex or base64")
    item: Item = {"kind": kind, "quote": b64(quote)}
    told = [_log(members[name]) for name in _LOGS if members.get(name)]
    log = next((one for one in told if one), None)
    if log is not None and kind == "tdx":
        item["event_log"] = b64(log)
    return item


def _members(data: bytes, what: str) -> dict[str, object]:
    members = parse_json_object(data, what, limit=MAX_FILE_BYTES)
    inner = members.get("evidence")
    return inner if "quote" not in members and isinstance(inner, dict) else members


def _log(value: object) -> bytes:
    if isinstance(value, list):
        return _written(value)
    text = require_text(value, "event log", limit=_MAX_LOG_TEXT)
    if text.lstrip()[:1] == "[":
        return _written(parse_json(text, "event log", limit=_MAX_LOG_TEXT))
    log = octets_in(text)
    if log is None:
        raise MalformedError(
            "event log", got="another text", expected="base64 or a list of events"
        )
    return log


def _written(events: object) -> bytes:
    """Return a list of events as a log of the UEFI form; no bytes for no events."""
    listed = require_list(events, "event log", limit=_MAX_EVENTS)
    if not listed:
        return b""
    head = bytes(4) + _uint32(_EV_NO_ACTION) + bytes(_SHA1_BYTES)
    return b"".join(
        (
            head + _uint32(len(_SPEC_ID)) + _SPEC_ID,
            *(_event(one, f"event {place}") for place, one in enumerate(listed)),
        )
    )


def _event(value: object, what: str) -> bytes:
    members = require_object(value, what)
    register = require_integer(
        members.get("imr"), f"{what} imr", least=0, most=_LAST_RTMR
    )
    kind = require_integer(
        members.get("event_type"), f"{what} event_type", least=0, most=_MAX_UINT32
    )
    digest = _hex(members.get("digest"), f"{what} digest")
    if len(digest) > _DIGEST_BYTES:
        raise MalformedError(
            f"{what} digest", got=f"{len(digest)} bytes", expected="at most 48"
        )
    payload = _hex(members.get("event_payload", ""), f"{what} event_payload")
    return b"".join(
        (
            # Indices of that form begin with MRTD (UEFI 2.10, section 38.4.1).
            _uint32(register + 1) + _uint32(kind) + _uint32(1),
            _SHA384.to_bytes(2, "little"),
            # The TDX module extends by 48 bytes, whatever the digest has.
            digest.ljust(_DIGEST_BYTES, b"\0"),
            _uint32(len(payload)) + payload,
        )
    )


def _hex(value: object, what: str) -> bytes:
    text = require_text(value, what, limit=_MAX_PAYLOAD_TEXT)
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        raise MalformedError(what, got="another text", expected="hex") from exc


def _uint32(number: int) -> bytes:
    return number.to_bytes(4, "little")
