"""Strict base64, hex and JSON; canonical JSON (RFC 8785, JCS).

One accepted spelling per encoding: no padding in base64url, no whitespace, no
stray bits in the last character, lower-case hex, no duplicate JSON members, no
floats (every number of ours is an integer within ±2⁵³, the range that JSON
numbers carry exactly).
"""

from __future__ import annotations

import binascii
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NoReturn

from kbs.core.errors import MalformedError

MAX_INTEGER = 2**53
"""Largest magnitude of an integer in JSON (RFC 8785, section 3.2.2.3)."""

MAX_DEPTH = 32
"""Deepest nesting of JSON that we accept."""

# What the library says, by how it begins, in words that say what was got.
_JSON_FAULTS = {
    "Expecting value": "no value",
    "Extra data": "more text behind the value",
    "Expecting property name": "no member name in double quotes",
    "Expecting ':'": "a member name without a colon behind it",
    "Expecting ','": "neither a comma nor the end",
    "Illegal trailing comma": "a comma before the end",
    "Unterminated string": "a string without an end",
    "Invalid control character": "a control character in a string",
    "Invalid \\": "an escape that there is not",
}

# What they are given was walked through before, and holds nothing that holds itself.
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), check_circular=False
)
# Sorts by code points, which for names in ASCII is the order of RFC 8785.
_SORTING = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), check_circular=False, sort_keys=True
)
# Possessive, and a string without an end goes to the end of the text: each character is
# looked at once, whatever stands there.
_STRING_OR_BRACKET = re.compile(
    r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL
)
# The two characters that differ (RFC 4648, sections 4 and 5).
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")
_HEX = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)
_B64U = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_B64 = re.compile(r"[A-Za-z0-9+/]*={0,2}", re.ASCII)
# As many digits as an integer beyond 2^53 has at least: 10^15 is less.
_MANY_DIGITS = re.compile("[0-9]{16}")
# An escaped surrogate, perhaps half of a pair, or one that stands there itself.
_SURROGATE = re.compile("\\\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def b64u(data: bytes) -> str:
    """Return unpadded base64url."""
    return _unpadded(data).decode("ascii")


def _unpadded(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=")


def parse_b64u(text: object, what: str, *, limit: int) -> bytes:
    """Accept canonical unpadded base64url of at most `limit` bytes.

    Raises:
        MalformedError: padding, whitespace, stray bits, or too long.
    """
    if not isinstance(text, str) or not _B64U.fullmatch(text):
        raise MalformedError(what, got=_brief(text), expected="unpadded base64url")
    _check_size(len(text) * 3 // 4, limit, what)
    given = text.encode("ascii")
    try:
        # Padding beyond what is needed is ignored, and not taken from the caller.
        data = binascii.a2b_base64(given.translate(_FROM_URL) + b"==")
    except binascii.Error as exc:
        raise MalformedError(
            what, got=_brief(text), expected="unpadded base64url"
        ) from exc
    if _unpadded(data) != given:
        raise MalformedError(what, got=_brief(text), expected="canonical base64url")
    return data


def b64(data: bytes) -> str:
    """Return standard base64 with padding."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def parse_b64(text: object, what: str, *, limit: int) -> bytes:
    """Accept canonical standard base64, padded, of at most `limit` bytes.

    Raises:
        MalformedError: missing padding, whitespace, stray bits, or too long.
    """
    if not isinstance(text, str) or not _B64.fullmatch(text):
        raise MalformedError(what, got=_brief(text), expected="padded base64")
    _check_size(len(text) * 3 // 4 - text[-2:].count("="), limit, what)
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as exc:
        raise MalformedError(what, got=_brief(text), expected="padded base64") from exc
    if b64(data) != text:
        raise MalformedError(what, got=_brief(text), expected="canonical base64")
    return data


def parse_hex(text: object, what: str, *, size: int | None = None) -> bytes:
    """Accept lower-case hex, of exactly `size` bytes if given.

    Raises:
        MalformedError: upper case, an odd length, or another size.
    """
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise MalformedError(what, got=_brief(text), expected="lower-case hex")
    data = bytes.fromhex(text)
    if size is not None and len(data) != size:
        raise MalformedError(
            what, got=f"{len(data)} bytes", expected=f"{size} bytes as hex"
        )
    return data


def parse_json(data: bytes | str, what: str, *, limit: int) -> object:
    """Accept one JSON value: Unicode text, no duplicate members, no floats, shallow.

    Raises:
        MalformedError: anything else.
    """
    _check_size(len(data), limit, what)
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as exc:
        raise MalformedError(what, got="bytes that are not UTF-8") from exc
    _check_depth(text, what)
    try:
        value: object = (_BOUNDING if _may_exceed(text) else _DECODER).decode(text)
    except MalformedError as exc:
        raise MalformedError(f"{what}: {exc}") from exc
    except json.JSONDecodeError as exc:
        raise MalformedError(
            f"{what} line {exc.lineno} column {exc.colno}",
            got=_json_fault(text, exc.msg),
            expected="JSON",
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise MalformedError(what, got="not JSON", expected="JSON") from exc
    # ASCII holds none but as an escape.
    if not (text.isascii() and "\\u" not in text) and _SURROGATE.search(text):
        _check_unicode(value, what)
    return value


def parse_json_object(data: bytes | str, what: str, *, limit: int) -> dict[str, object]:
    """Accept one JSON object under the rules of `parse_json`.

    Raises:
        MalformedError: anything else.
    """
    return require_object(parse_json(data, what, limit=limit), what)


def require_object(value: object, what: str) -> dict[str, object]:
    """Return `value` if it is a JSON object.

    Raises:
        MalformedError: it is not.
    """
    if not isinstance(value, dict):
        raise MalformedError(what, got=_kind(value), expected="an object")
    return value


def require_members(
    value: object,
    what: str,
    *,
    required: frozenset[str] | set[str],
    optional: frozenset[str] | set[str] = frozenset(),
) -> dict[str, object]:
    """Return `value` if it is an object with all `required` and no unknown members.

    Raises:
        MalformedError: it is not; names the members at fault.
    """
    obj = require_object(value, what)
    names = obj.keys()
    if names == required:
        return obj
    missing = required - names
    if missing:
        raise MalformedError(
            what,
            got="no " + ", ".join(sorted(missing)),
            expected="all of " + ", ".join(sorted(required)),
        )
    unknown = sorted(names - required - optional)
    if unknown:
        raise MalformedError(
            what,
            got="unknown member " + ", ".join(_brief(name) for name in unknown[:5]),
            expected="only " + ", ".join(sorted(required | optional))
            if required or optional
            else "no members",
        )
    return obj


def require_text(value: object, what: str, *, limit: int = 4096) -> str:
    """Return `value` if it is a string of at most `limit` characters.

    Raises:
        MalformedError: it is not.
    """
    if not isinstance(value, str):
        raise MalformedError(what, got=_kind(value), expected="a string")
    if len(value) > limit:
        raise _too_long(len(value), limit, what)
    return value


def require_list(value: object, what: str, *, limit: int) -> list[object]:
    """Return `value` if it is a list of at most `limit` elements.

    Raises:
        MalformedError: it is not.
    """
    if not isinstance(value, list):
        raise MalformedError(what, got=_kind(value), expected="a list")
    if len(value) > limit:
        raise MalformedError(
            what, got=f"{len(value)} elements", expected=f"at most {limit}"
        )
    return value


def require_integer(value: object, what: str, *, least: int, most: int) -> int:
    """Return `value` if it is an integer (not a boolean) within the bounds.

    Raises:
        MalformedError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise MalformedError(what, got=_kind(value), expected="an integer")
    if not least <= value <= most:
        raise MalformedError(what, got=str(value), expected=f"{least} to {most}")
    return value


def canonical_json(value: object) -> bytes:
    """Serialize by RFC 8785 (JCS); only what `parse_json` accepts can be written.

    Raises:
        MalformedError: floats, integers beyond ±2⁵³, lone surrogates, other types.
    """
    if _is_plain(value):
        text = _SORTING.encode(value)
    else:
        text = _ENCODER.encode(_ordered(value, 0))
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise MalformedError("JSON string", got="a lone surrogate") from exc


def _is_plain(value: object) -> bool:
    """Whether the library alone writes the canonical form, as it does of nearly all.

    It writes whatever Python takes for JSON; here every type is the very one. Level by
    level without a call for each value, which would cost more than all of the rest.
    """
    names: list[str] = []
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for one in level:
            if type(one) is str or type(one) is bool or one is None:
                continue
            if type(one) is dict:
                names += one
                below += one.values()
            elif type(one) is list or type(one) is tuple:
                below += one
            elif type(one) is not int or not -MAX_INTEGER <= one <= MAX_INTEGER:
                return False
        if not below:
            return _are_ascii(names)
        level = below
    return False


def _are_ascii(names: Iterable[str]) -> bool:
    try:
        return "".join(names).isascii()
    except TypeError:
        return False  # a name that is no string


def _ordered(value: object, depth: int) -> object:
    """Return the same with its members in order.

    Raises:
        MalformedError: there is no canonical form of it.
    """
    if depth > MAX_DEPTH:
        raise MalformedError("JSON", got="too deep", expected=f"at most {MAX_DEPTH}")
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise MalformedError(
                "JSON integer", got=str(value), expected="within ±2^53"
            )
        return value
    if isinstance(value, dict):
        names = sorted(value, key=_utf16_order)
        return {name: _ordered(value[name], depth + 1) for name in names}
    if isinstance(value, (list, tuple)):
        return [_ordered(element, depth + 1) for element in value]
    raise MalformedError("JSON value", got=type(value).__name__)


def _utf16_order(key: object) -> bytes:
    # RFC 8785, section 3.2.3.
    if not isinstance(key, str):
        raise MalformedError("JSON member name", got=type(key).__name__)
    return key.encode("utf-16-be", "surrogatepass")


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise MalformedError("JSON object", got=f"member {_brief(twice)} twice")
    return members


def _decoder(parse_int: Callable[[str], int]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_unique_members,
        parse_float=_refuse_number,
        parse_constant=_refuse_number,
        parse_int=parse_int,
    )


def _json_fault(text: str, message: str) -> str:
    if text.startswith("\ufeff"):
        return "a byte order mark"
    for start, fault in _JSON_FAULTS.items():
        if message.startswith(start):
            return fault
    return "text that is not JSON"


def _refuse_number(text: str) -> NoReturn:
    raise MalformedError("JSON number", got=text[:40], expected="an integer")


def _may_exceed(text: str) -> bool:
    return "-0" in text or _MANY_DIGITS.search(text) is not None


def _bounded_integer(text: str) -> int:
    # "-0" is refused as well: canonical JSON would write it back as 0.
    if len(text) > len(str(MAX_INTEGER)) + 1 or text == "-0":
        raise MalformedError("JSON integer", got=text[:40], expected="within ±2^53")
    value = int(text)
    if abs(value) > MAX_INTEGER:
        raise MalformedError("JSON integer", got=text[:40], expected="within ±2^53")
    return value


# The parser's own integers will do for nearly all texts, without a call for each.
_DECODER = _decoder(int)
_BOUNDING = _decoder(_bounded_integer)


def _check_depth(text: str, what: str) -> None:
    # Counted before parsing, strings left out, so that the parser never recurses deep.
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        first = token.group()[0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedError(
                    what, got="deeper nesting", expected=f"at most {MAX_DEPTH} levels"
                )
        elif first in "]}":
            depth -= 1


def _check_unicode(value: object, what: str) -> None:
    # Written again, half of a pair stands alone, in strings as in members' names.
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as exc:
        raise MalformedError(
            what, got="a lone surrogate", expected="Unicode text"
        ) from exc


def _check_size(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise _too_long(size, limit, what)


def _too_long(size: int, limit: int, what: str) -> MalformedError:
    return MalformedError(what, got=f"{size} bytes", expected=f"at most {limit}")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"  # noqa: PLR2004


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")
