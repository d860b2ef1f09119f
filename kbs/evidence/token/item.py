"""One `token` item of a bundle, and the same from a file.

::

    {"kind": "token", "jwt": "header.claims.signature"}
    {"kind": "token", "jwt": …, "submodules": {"GPU-0": "header.claims.signature", …}}

`submodules` are the detached tokens of a set by NVIDIA's service, which writes it as
`[["JWT", overall], {"GPU-0": token, …}]` (RFC 9711, section 4.2.18.2). The core is the
overall token's text alone: it names the others by digest. A file may also hold an
answer of a service as it came, `{"token": …}` (Azure Attestation, Trust Authority).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kbs.core.clock import format_time
from kbs.core.encode import (
    parse_json,
    require_list,
    require_members,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.evidence.token.jws import MAX_TOKEN, Jws, parse_jws
from kbs.evidence.token.service import Token
from kbs.evidence.token.services import profile_of
from kbs.pki.issuers import Profile

KIND = "token"

MAX_SUBMODULES = 32
"""Devices of one set; the largest machines have 8 GPUs and 4 to 10 switches."""

_PAIR = 2
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_ANSWER = "token"
_COMPACT = re.compile(
    rb"\s*[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\s*", re.ASCII
)


def parse_item(item: Mapping[str, object]) -> Token:
    """Read the JSON item.

    Raises:
        MalformedError: a member or a token lacks the promised shape.
    """
    members = require_members(
        dict(item), "token item", required={"kind", "jwt"}, optional={"submodules"}
    )
    if members["kind"] != KIND:
        raise MalformedError("item kind", got=repr(members["kind"])[:40], expected=KIND)
    jws = parse_jws(members["jwt"], "token")
    profile = profile_of(jws.claims)
    submodules = _submodules(members.get("submodules", {}))
    if submodules and profile is not Profile.NRAS:
        raise MalformedError(
            "token submodules",
            got=f"{len(submodules)} beside a token of profile {profile}",
            expected="none: only NVIDIA's tokens come in sets",
        )
    return Token(jws=jws, profile=profile, submodules=submodules)


def is_token_file(data: bytes) -> bool:
    """Whether a file is a token, or a set of them, by its bytes."""
    if _COMPACT.fullmatch(data):
        return True
    text = data.lstrip(b" \t\r\n")
    if text.startswith(b"["):
        return b'"JWT"' in text[:64]
    return text.startswith(b"{") and _answered(data) is not None


def item_from_file(data: bytes) -> dict[str, object]:
    """Make a bundle's item from a file: one token, or a detached set of them.

    Raises:
        MalformedError: it is neither.
    """
    text = _answered(data) or _ascii(data)
    if not text.startswith("["):
        return {"kind": KIND, "jwt": text}
    listed = require_list(
        parse_json(text, "token set", limit=MAX_SUBMODULES * MAX_TOKEN),
        "token set",
        limit=_PAIR,
    )
    if len(listed) != _PAIR:
        raise MalformedError(
            "token set",
            got=f"{len(listed)} elements",
            expected="the overall and others",
        )
    overall = require_list(listed[0], "token set overall", limit=_PAIR)
    if len(overall) != _PAIR or overall[0] != "JWT":
        raise MalformedError("token set overall", expected='["JWT", token]')
    return {
        "kind": KIND,
        "jwt": overall[1],
        "submodules": require_object(listed[1], "token set others"),
    }


def inspect_item(token: Token) -> dict[str, object]:
    """Return all fields for people; nothing in it is proven."""
    document: dict[str, object] = {
        "profile": token.profile.value,
        **_inspect_jws(token.jws),
    }
    if token.submodules:
        document["submodules"] = {
            name: _inspect_jws(jws) for name, jws in token.submodules.items()
        }
    return document


def _inspect_jws(jws: Jws) -> dict[str, object]:
    document: dict[str, object] = {
        "header": {name: value for name, value in jws.header.items() if name != "x5c"},
        "claims": dict(jws.claims),
        "valid": {
            name: None if time is None else format_time(time)
            for name in ("nbf", "iat", "exp")
            for time in (jws.time(name),)
        },
    }
    if jws.ignored:
        document["not_believed"] = list(jws.ignored)
    if jws.chain:
        document["certificates"] = [
            {
                "subject": one.subject.rfc4514_string(),
                "issuer": one.issuer.rfc4514_string(),
                "not_before": format_time(one.not_valid_before_utc),
                "not_after": format_time(one.not_valid_after_utc),
            }
            for one in jws.chain
        ]
    return document


def _submodules(value: object) -> dict[str, Jws]:
    members = require_object(value, "token submodules")
    if len(members) > MAX_SUBMODULES:
        raise MalformedError(
            "token submodules", got=str(len(members)), expected=f"≤ {MAX_SUBMODULES}"
        )
    found = {}
    for name, text in members.items():
        if not _NAME.fullmatch(name):
            raise MalformedError(
                "token submodule name", got=repr(name)[:80], expected="such as GPU-0"
            )
        found[name] = parse_jws(require_text(text, name, limit=MAX_TOKEN), name)
    return found


def _answered(data: bytes) -> str | None:
    """Return the token in the answer of a service, if that is what the file is."""
    try:
        document = parse_json(data, "answer", limit=MAX_SUBMODULES * MAX_TOKEN)
    except MalformedError:
        return None
    # What calls itself something else is not taken for an answer.
    if not isinstance(document, dict) or "format" in document:
        return None
    token = document.get(_ANSWER)
    if not isinstance(token, str) or not token.isascii():
        return None
    return token if _COMPACT.fullmatch(token.encode("ascii")) else None


def _ascii(data: bytes) -> str:
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError as exc:
        raise MalformedError("token", got="bytes that are not ASCII") from exc
