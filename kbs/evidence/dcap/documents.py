"""TCB info and QE identity: what Intel says of platforms and quoting enclaves.

Intel SGX and TDX Provisioning Certification Service, API version 4: `Get TCB Info`
(TCB info version 3) and `Get Quoting Enclave Identity` (identity version 2); and TCB
info version 2, which API version 3 gave for SGX. The body of an answer is
`{"tcbInfo": {…}, "signature": hex}` or `{"enclaveIdentity": …}`; the signature is over
the bytes of the value as they stand there. Nothing is believed here. Members that are
not named here may come with a later document of the same version, and are passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import TypedDict, TypeVar

from kbs.core.clock import parse_time
from kbs.core.encode import (
    parse_json_object,
    require_integer,
    require_list,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.levels import (
    Module,
    PlatformLevel,
    QeIdentity,
    SvnLevel,
    TcbInfo,
)
from kbs.evidence.dcap.pck import COMPONENTS
from kbs.evidence.dcap.status import TcbStatus
from kbs.evidence.model import VendorDocument

TCB_INFO = "intel.tcb_info"
QE_IDENTITY = "intel.qe_identity"
DOCUMENT_KINDS = frozenset({TCB_INFO, QE_IDENTITY})
MAX_DOCUMENT_BYTES = 256 * 1024
"""One answer of the service; the largest seen has 8 KiB."""

_TCB_INFO_VERSION = 3
# Of SGX alone, without an id, each component a member of its own.
_FIRST_TCB_INFO_VERSION = 2
_QE_IDENTITY_VERSION = 2
_TCB_TYPE = 0
_MAX_LEVELS = 256
_MAX_ADVISORIES = 256
_MAX_NUMBER = 2**31
_SIGNATURE_BYTES = 64
_WHITESPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_Read = TypeVar("_Read", SvnLevel, PlatformLevel)


class _SignedMembers(TypedDict):
    id: str
    issue_date: datetime
    next_update: datetime
    evaluation_number: int


class _LevelMembers(TypedDict):
    status: TcbStatus
    date: datetime
    advisories: tuple[str, ...]


def parse_document(data: bytes) -> VendorDocument:
    """Read the body of an answer of Intel's service.

    Raises:
        MalformedError: neither a TCB info nor a QE identity, or a version not known.
    """
    what = "Intel collateral"
    members = parse_json_object(data, what, limit=MAX_DOCUMENT_BYTES)
    for name, read in (("tcbInfo", _tcb_info), ("enclaveIdentity", _qe_identity)):
        if members.keys() == {name, "signature"}:
            body = _raw_member(data.decode("utf-8"), name).encode("utf-8")
            value = require_object(members[name], name)
            signature = hex_bytes(
                members["signature"], f"{name} signature", size=_SIGNATURE_BYTES
            )
            return _document(read(value, body, signature), data)
    raise MalformedError(
        what,
        got="members " + ", ".join(sorted(members))[:80],
        expected="tcbInfo or enclaveIdentity, and signature",
    )


def joined_document(name: str, body: str, signature: str) -> bytes:
    """Return an answer of the service from a value and a signature that came apart."""
    return f'{{"{name}":{body},"signature":"{signature}"}}'.encode()


def hex_bytes(value: object, what: str, *, size: int) -> bytes:
    """Return bytes in hex of either case, which Intel mixes.

    Raises:
        MalformedError: no hex, or another size.
    """
    text = require_text(value, what, limit=2 * size)
    try:
        # `fromhex` passes over spaces, which have no place here.
        data = bytes.fromhex(text) if text.isalnum() and text.isascii() else b""
    except ValueError:
        data = b""
    if len(data) != size:
        raise MalformedError(what, got=repr(text)[:40], expected=f"{size} bytes in hex")
    return data


def _document(content: TcbInfo | QeIdentity, data: bytes) -> VendorDocument:
    is_tcb_info = isinstance(content, TcbInfo)
    subject = f"{content.id}, evaluation {content.evaluation_number}"
    if isinstance(content, TcbInfo):
        subject = f"FMSPC {content.fmspc.hex()}, {subject}"
    return VendorDocument(
        kind=TCB_INFO if is_tcb_info else QE_IDENTITY,
        subject=subject,
        begins=content.issue_date,
        ends=content.next_update,
        data=data,
        content=content,
    )


def _raw_member(text: str, name: str) -> str:
    """Return the text of one member's value; `text` is a JSON object of two."""
    position = _skip(text, 0) + 1
    while True:
        key, position = _DECODER.raw_decode(text, _skip(text, position))
        begin = _skip(text, _skip(text, position) + 1)
        _, end = _DECODER.raw_decode(text, begin)
        if key == name:
            return text[begin:end]
        position = _skip(text, end) + 1


def _skip(text: str, position: int) -> int:
    match = _WHITESPACE.match(text, position)
    return match.end() if match else position


def _tcb_info(value: dict[str, object], body: bytes, signature: bytes) -> TcbInfo:
    version = _number(
        value,
        "version",
        "tcbInfo",
        least=_FIRST_TCB_INFO_VERSION,
        most=_TCB_INFO_VERSION,
    )
    is_first = version == _FIRST_TCB_INFO_VERSION
    kind = "SGX" if is_first else _one_of(value, "tcbInfo", ("SGX", "TDX"))
    _number(value, "tcbType", "tcbInfo", least=_TCB_TYPE, most=_TCB_TYPE)
    modules = value.get("tdxModuleIdentities", [])
    named = [
        _identified_module(one, f"tdxModuleIdentities[{place}]")
        for place, one in enumerate(
            require_list(modules, "tdxModuleIdentities", limit=_MAX_LEVELS)
        )
    ]
    table = dict(named)
    if len(table) != len(named):
        raise MalformedError("tdxModuleIdentities", got="one id twice", expected="once")
    return TcbInfo(
        **_signed(value, "tcbInfo", kind),
        body=body,
        signature=signature,
        fmspc=hex_bytes(value.get("fmspc"), "tcbInfo fmspc", size=6),
        pce_id=hex_bytes(value.get("pceId"), "tcbInfo pceId", size=2),
        levels=_levels(
            value,
            "tcbInfo",
            _first_level
            if is_first
            else lambda one, what: _platform_level(one, what, is_tdx=kind == "TDX"),
        ),
        module=_module(value["tdxModule"], "tdxModule")
        if "tdxModule" in value
        else None,
        modules=table,
    )


def _qe_identity(value: dict[str, object], body: bytes, signature: bytes) -> QeIdentity:
    what = "enclaveIdentity"
    _number(
        value, "version", what, least=_QE_IDENTITY_VERSION, most=_QE_IDENTITY_VERSION
    )
    kind = _one_of(value, what, ("QE", "TD_QE"))

    def octets(name: str, size: int) -> bytes:
        return hex_bytes(value.get(name), f"{what} {name}", size=size)

    return QeIdentity(
        **_signed(value, what, kind),
        body=body,
        signature=signature,
        misc_select=octets("miscselect", 4),
        misc_select_mask=octets("miscselectMask", 4),
        attributes=octets("attributes", 16),
        attributes_mask=octets("attributesMask", 16),
        mr_signer=octets("mrsigner", 32),
        isv_prod_id=_number(value, "isvprodid", what, most=0xFFFF),
        levels=_levels(value, what, _svn_level),
    )


def _signed(value: dict[str, object], what: str, kind: str) -> _SignedMembers:
    issued = parse_time(value.get("issueDate"), f"{what} issueDate")
    until = parse_time(value.get("nextUpdate"), f"{what} nextUpdate")
    number = _number(value, "tcbEvaluationDataNumber", what, most=_MAX_NUMBER)
    return {
        "id": kind,
        "issue_date": issued,
        "next_update": until,
        "evaluation_number": number,
    }


def _identified_module(value: object, what: str) -> tuple[str, Module]:
    members = require_object(value, what)
    # Intel's library compares it without regard to case.
    name = require_text(members.get("id"), f"{what} id", limit=32).upper()
    return name, _module(value, what, levels=_levels(members, what, _svn_level))


def _module(value: object, what: str, levels: tuple[SvnLevel, ...] = ()) -> Module:
    members = require_object(value, what)
    return Module(
        mr_signer=hex_bytes(members.get("mrsigner"), f"{what} mrsigner", size=48),
        attributes=hex_bytes(members.get("attributes"), f"{what} attributes", size=8),
        attributes_mask=hex_bytes(
            members.get("attributesMask"), f"{what} attributesMask", size=8
        ),
        levels=levels,
    )


def _levels(
    value: dict[str, object], what: str, read: Callable[[dict[str, object], str], _Read]
) -> tuple[_Read, ...]:
    listed = require_list(
        value.get("tcbLevels"), f"{what} tcbLevels", limit=_MAX_LEVELS
    )
    if not listed:
        raise MalformedError(f"{what} tcbLevels", got="none", expected="at least one")
    levels = [
        read(
            require_object(one, f"{what} tcbLevels[{place}]"),
            f"{what} tcbLevels[{place}]",
        )
        for place, one in enumerate(listed)
    ]
    # Intel writes the best first, and its own library sorts them all the same.
    return tuple(sorted(levels, key=lambda level: level.rank, reverse=True))


def _svn_level(value: dict[str, object], what: str) -> SvnLevel:
    tcb = require_object(value.get("tcb"), f"{what} tcb")
    return SvnLevel(
        **_level(value, what), isv_svn=_number(tcb, "isvsvn", what, most=0xFFFF)
    )


def _platform_level(
    value: dict[str, object], what: str, *, is_tdx: bool
) -> PlatformLevel:
    tcb = require_object(value.get("tcb"), f"{what} tcb")
    return PlatformLevel(
        **_level(value, what),
        sgx=_components(tcb, "sgxtcbcomponents", what),
        tdx=_components(tcb, "tdxtcbcomponents", what) if is_tdx else (),
        pce_svn=_number(tcb, "pcesvn", what, most=0xFFFF),
    )


def _first_level(value: dict[str, object], what: str) -> PlatformLevel:
    tcb = require_object(value.get("tcb"), f"{what} tcb")
    return PlatformLevel(
        **_level(value, what),
        sgx=tuple(
            _number(tcb, f"sgxtcbcomp{place:02}svn", what, most=0xFF)
            for place in range(1, COMPONENTS + 1)
        ),
        tdx=(),
        pce_svn=_number(tcb, "pcesvn", what, most=0xFFFF),
    )


def _components(tcb: dict[str, object], name: str, what: str) -> tuple[int, ...]:
    listed = require_list(tcb.get(name), f"{what} {name}", limit=COMPONENTS)
    if len(listed) != COMPONENTS:
        raise MalformedError(
            f"{what} {name}", got=f"{len(listed)}", expected=f"{COMPONENTS} components"
        )
    return tuple(
        _number(require_object(one, f"{what} {name}"), "svn", what, most=0xFF)
        for one in listed
    )


def _level(value: dict[str, object], what: str) -> _LevelMembers:
    text = require_text(value.get("tcbStatus"), f"{what} tcbStatus", limit=64)
    listed = value.get("advisoryIDs", [])
    advisories = require_list(listed, f"{what} advisoryIDs", limit=_MAX_ADVISORIES)
    return {
        "status": TcbStatus.of_document(text, f"{what} tcbStatus"),
        "date": parse_time(value.get("tcbDate"), f"{what} tcbDate"),
        "advisories": tuple(
            require_text(one, f"{what} advisoryIDs", limit=64) for one in advisories
        ),
    }


def _number(
    value: dict[str, object], name: str, what: str, *, most: int, least: int = 0
) -> int:
    return require_integer(value.get(name), f"{what} {name}", least=least, most=most)


def _one_of(value: dict[str, object], what: str, known: tuple[str, ...]) -> str:
    found = value.get("id")
    for name in known:
        if found == name:
            return name
    raise MalformedError(
        f"{what} id", got=repr(found)[:40], expected=" or ".join(known)
    )
