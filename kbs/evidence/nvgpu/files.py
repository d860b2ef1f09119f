"""Reports of devices in files, as NVIDIA's tools and their users write them.

* binary, or the same in hex text: one report, without certificates;
* the JSON of NVIDIA's SDKs: a list of `{"arch", "certificate", "evidence", "nonce"}`,
  certificate and evidence in base64 (the former also as the PEM that it is);
* the same in an object under `device_evidence_list`, which RCAR guests send (evidence
  there in hex or base64), or under `evidence_list`, as NVIDIA's service is asked: nonce
  and arch beside the list are those of every device that has none of its own;
* one such entry without a list;
* a conceptual message wrapper of NVIDIA (`__cmwc_t`): one member for each device, what
  it holds in base64url.

A file's kind is told by its content. Members that mean nothing here are ignored.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from types import MappingProxyType

from kbs.core.encode import (
    b64,
    parse_json,
    parse_json_object,
    require_list,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.evidence.nvgpu.abi import MAX_REPORT_BYTES, is_report
from kbs.evidence.nvgpu.item import KIND

MAX_DEVICES = 16
MAX_FILE_BYTES = 1024 * 1024

Item = dict[str, object]
_NONE: Mapping[str, object] = MappingProxyType({})

_HEX = re.compile(rb"\s*11[eE]0[0-9a-fA-F\s]*\Z")
_ENTRY = frozenset({"evidence", "certificate"})
_LISTS = ("device_evidence_list", "evidence_list")
_SHARED = ("nonce", "arch")
_CMW_TYPE = "__cmwc_t"
_CMW_EVIDENCE = "application/vnd.nvidia.spdm-measurement-transcript"
_MAX_TEXT = 128 * 1024
_MAX_NONCE_TEXT = 128


def is_device_file(data: bytes) -> bool:
    """Whether a file holds reports of devices in one of the known forms."""
    if is_report(data) or _HEX.match(data):
        return True
    start = data.lstrip(b" \t\r\n")[:1]
    if start == b"[":
        return b'"evidence"' in data and b'"certificate"' in data
    return start == b"{" and (
        any(f'"{name}"'.encode() in data for name in _LISTS)
        or _CMW_TYPE.encode() in data[:256]
        or _is_entry(data)
    )


def _is_entry(data: bytes) -> bool:
    if not all(f'"{name}"'.encode() in data for name in _ENTRY):
        return False
    try:
        members = parse_json_object(data, "device evidence", limit=MAX_FILE_BYTES)
    except MalformedError:
        return False
    return members.keys() >= _ENTRY


def items_of_file(data: bytes) -> list[Item]:
    """Return an item for each report in a file.

    Raises:
        MalformedError: it has none of the known forms.
    """
    if is_report(data):
        return [{"kind": KIND, "report": b64(data)}]
    if _HEX.match(data):
        return [{"kind": KIND, "report": b64(_unhex(data))}]
    value = parse_json(data, "device evidence", limit=MAX_FILE_BYTES)
    if isinstance(value, list):
        return items_of_list(value)
    members = require_object(value, "device evidence")
    if _CMW_TYPE in members:
        return _wrapped_items(members)
    if members.keys() >= _ENTRY:
        return items_of_list([members])
    shared = {name: members[name] for name in _SHARED if members.get(name) is not None}
    listed = next((members[name] for name in _LISTS if name in members), None)
    return items_of_list(listed, shared)


def items_of_list(value: object, shared: Mapping[str, object] = _NONE) -> list[Item]:
    """Return an item for each entry of the list that NVIDIA's SDKs write.

    `shared` has what entries without it have in common.

    Raises:
        MalformedError: an entry lacks its shape, or there is none.
    """
    entries = require_list(value, "device evidence list", limit=MAX_DEVICES)
    if not entries:
        raise MalformedError("device evidence list", got="none", expected="a device")
    return [
        _item({**shared, **require_object(one, "device evidence")}) for one in entries
    ]


def _item(entry: Mapping[str, object]) -> Item:
    item: Item = {"kind": KIND, "report": b64(_evidence(entry.get("evidence")))}
    item["certificates"] = _chain(entry.get("certificate"))
    nonce, arch = entry.get("nonce"), entry.get("arch")
    if nonce is not None:
        text = require_text(nonce, "device nonce", limit=_MAX_NONCE_TEXT)
        item["nonce"] = text.lower()
    if arch is not None:
        item["arch"] = arch
    return item


def _chain(value: object) -> str:
    text = require_text(value, "device certificate", limit=_MAX_TEXT)
    if text.lstrip().startswith("-----BEGIN"):
        return text
    return _decoded(text, "device certificate").decode("ascii", errors="replace")


def _evidence(value: object) -> bytes:
    text = require_text(value, "device evidence", limit=_MAX_TEXT)
    if _HEX.match(text.encode("utf-8", errors="replace")):
        return _unhex(text.encode("ascii"))
    return _decoded(text, "device evidence")


def _wrapped_items(members: Mapping[str, object]) -> list[Item]:
    entries = [
        require_object(member, name[:40])
        for name, member in members.items()
        if isinstance(member, dict)
    ]
    if not 0 < len(entries) <= MAX_DEVICES:
        raise MalformedError(
            "device evidence", got=f"{len(entries)} members", expected="1 to 16"
        )
    return [_wrapped_item(one) for one in entries]


def _wrapped_item(entry: Mapping[str, object]) -> Item:
    chain = _wrapped(entry, "certificate")
    if not chain.startswith(b"-----BEGIN"):
        chain = _decoded(chain.decode("ascii", errors="replace"), "device certificate")
    item: Item = {
        "kind": KIND,
        "report": b64(_wrapped(entry, "evidence", _CMW_EVIDENCE)),
        "certificates": chain.decode("ascii", errors="replace"),
    }
    if "nonce" in entry:
        item["nonce"] = _wrapped(entry, "nonce").hex()
    return item


def _wrapped(entry: Mapping[str, object], name: str, kind: str | None = None) -> bytes:
    """Return the content of a member `[media type, base64url]`."""
    pair = require_list(entry.get(name), f"device {name}", limit=2)
    if len(pair) != 2 or kind not in {None, pair[0]}:  # noqa: PLR2004 - a pair
        raise MalformedError(
            f"device {name}", got=repr(pair[:1])[:80], expected=kind or "a pair"
        )
    text = require_text(pair[1], f"device {name}", limit=_MAX_TEXT)
    return _decoded(text.replace("-", "+").replace("_", "/"), f"device {name}")


def _decoded(value: object, what: str) -> bytes:
    # NVIDIA's tools and their users pad or do not; the bytes are what counts here.
    text = "".join(require_text(value, what, limit=_MAX_TEXT).split())
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedError(what, got="no base64", expected="base64") from exc


def _unhex(data: bytes) -> bytes:
    text = b"".join(data.split())
    if len(text) % 2 or len(text) > 2 * MAX_REPORT_BYTES:
        raise MalformedError(
            "device evidence",
            got=f"{len(text)} hex digits",
            expected=f"pairs, for at most {MAX_REPORT_BYTES} bytes",
        )
    return bytes.fromhex(text.decode("ascii"))
