"""Which operators a claim's type allows, and the strict reading of their operands.

Contract, sections 3 and 5: bytes are lower-case hex, 64-bit fields 16 hex digits;
`at_least` and `at_most` on strings compare dot-separated decimal components.
"""

from __future__ import annotations

import re

import re2

from kbs.core.claims import ClaimSpec, ClaimType
from kbs.core.clock import parse_time
from kbs.core.errors import MalformedError
from kbs.core.ids import is_segment
from kbs.policy.located import Located
from kbs.policy.model import (
    Components,
    DigestStep,
    Measured,
    Operand,
    Operator,
    Reference,
    Scalar,
    Values,
    WorkloadStep,
)
from kbs.policy.names import ClaimName, did_you_mean

MAX_VALUES = 1024
"""Most literal values in one list; longer lists belong into a reference set."""

MAX_STEPS = 64
"""Most extends of one register."""

MAX_PATTERN = 1024
"""Longest regular expression."""

# A pattern compiles into at most this many bytes, so that one policy cannot take the
# broker's memory.
_PATTERN_MEMORY = 1 << 20

DIGEST_BYTES = {"sha256": 32, "sha384": 48, "sha512": 64}
"""Digest sizes of the hashes that a register may use (FIPS 180-4)."""

_EQUALITY = {Operator.EQUALS, Operator.IN, Operator.NOT_IN, Operator.PRESENT}
_ORDER = {Operator.AT_LEAST, Operator.AT_MOST}
_ALLOWED: dict[ClaimType, set[Operator]] = {
    ClaimType.BYTES: _EQUALITY | {Operator.MATCHES},
    ClaimType.BOOL: _EQUALITY,
    ClaimType.INT: _EQUALITY | _ORDER,
    ClaimType.U64: _EQUALITY | _ORDER,
    ClaimType.TEXT: _EQUALITY | _ORDER | {Operator.MATCHES},
    ClaimType.VERSION: _EQUALITY | _ORDER | {Operator.MATCHES},
    ClaimType.TCB: _ORDER | {Operator.EQUALS, Operator.PRESENT},
    ClaimType.TIME: _ORDER | {Operator.EQUALS, Operator.PRESENT},
    ClaimType.TEXTS: _EQUALITY,
}

_HEX = re.compile(r"(?:[0-9a-f]{2})+", re.ASCII)
_U64 = re.compile(r"[0-9a-f]{16}", re.ASCII)
_DECIMALS = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18}){0,15}", re.ASCII)


def is_decimals(text: str) -> bool:
    """Whether a string is dot-separated decimals, like 550.90.07."""
    return _DECIMALS.fullmatch(text) is not None


def compile_pattern(pattern: str) -> re2._Regexp:
    """Compile RE2 syntax with bounded memory.

    Raises:
        re2.error: the pattern is wrong or too large.
    """
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_MEMORY
    return re2.compile(pattern, options)


def parse_operand(op: Operator, name: ClaimName, located: Located) -> Operand:
    """Read the operand of `op` for this claim.

    Raises:
        MalformedError: the type does not allow the operator, or the operand is wrong.
    """
    _require_operator(op, name.spec, located)
    if op is Operator.PRESENT:
        return located.flag(f"{name.text} present")
    if op is Operator.MEASURES:
        return _measured(name.spec, located)
    if op is Operator.MATCHES:
        return _pattern(name.text, located)
    if op in {Operator.IN, Operator.NOT_IN}:
        return _values_or_reference(name.spec, located)
    if name.spec.type is ClaimType.TCB:
        return _components(name.spec, located)
    if name.spec.type is ClaimType.TEXTS:
        return _values(name.spec, located, least=0)
    return _comparable(op, name.spec, located)


def _require_operator(op: Operator, spec: ClaimSpec, located: Located) -> None:
    if op is Operator.MEASURES:
        if spec.register is None:
            raise located.fault(
                f"{spec.name} measures",
                got="a claim that is no register",
                expected="a measurement register, like vtpm.pcr.sha256.15",
                at_name=True,
            )
        return
    allowed = _ALLOWED[spec.type]
    if op not in allowed:
        raise located.fault(
            f"{spec.name} is of type {spec.type.value}",
            got=f"operator {op.value}",
            expected=", ".join(sorted(each.value for each in allowed)),
            at_name=True,
        )


def _comparable(op: Operator, spec: ClaimSpec, located: Located) -> Scalar:
    value = parse_scalar(spec, located)
    if op in _ORDER and spec.type is ClaimType.TEXT and not is_decimals(str(value)):
        raise located.fault(
            f"{spec.name} {op.value}",
            got=located.kind(),
            expected="dot-separated decimals, like 550.90.07",
        )
    return value


def parse_scalar(spec: ClaimSpec, located: Located) -> Scalar:
    """Read one value of a claim's type.

    Raises:
        MalformedError: it is of another type or form.
    """
    if spec.type is ClaimType.BOOL:
        return located.flag(spec.name)
    if spec.type is ClaimType.INT:
        return located.integer(spec.name)
    text = located.text(spec.name, limit=4096)
    expected = expected_text(spec, text)
    if expected is not None:
        raise located.fault(spec.name, got=located.kind(), expected=expected)
    return text


def expected_text(spec: ClaimSpec, text: str) -> str | None:
    """Return what a string of the claim's type looks like, if `text` does not."""
    if spec.type is ClaimType.BYTES:
        return _expected_hex(text, spec.size)
    if spec.type is ClaimType.U64:
        return None if _U64.fullmatch(text) else "16 lower-case hex digits"
    if spec.type is ClaimType.VERSION:
        return None if is_decimals(text) else "dot-separated decimals, like 550.90.07"
    if spec.type is ClaimType.TIME:
        return None if _is_time(text) else "RFC 3339 in UTC, like 2026-11-22T08:00:00Z"
    return None


def _expected_hex(text: str, size: int | None) -> str | None:
    if _HEX.fullmatch(text) and size in {None, len(text) // 2}:
        return None
    why = " (it has upper-case ones)" if _HEX.fullmatch(text.lower()) else ""
    if size is None:
        return "lower-case hex" + why
    if len(text) != 2 * size:
        why = f" (these are {len(text)})"
    return f"{size} bytes as {2 * size} lower-case hex digits{why}"


def _is_time(text: str) -> bool:
    try:
        parse_time(text)
    except MalformedError:
        return False
    return True


def _values(spec: ClaimSpec, located: Located, *, least: int = 1) -> Values:
    elements = located.elements(spec.name, least=least, most=MAX_VALUES)
    return Values(tuple(parse_scalar(spec, element) for element in elements))


def _values_or_reference(spec: ClaimSpec, located: Located) -> Operand:
    if isinstance(located.value, dict):
        members = located.members(spec.name, required=frozenset({"reference"}))
        return Reference(parse_resolvable(members["reference"], "reference"))
    return _values(spec, located)


def parse_resolvable(located: Located, subject: str) -> str:
    """Read `NAME` (of the policy's tenant) or `shared/NAME`.

    Raises:
        MalformedError: it is neither.
    """
    text = located.text(subject, limit=129)
    parts = text.split("/")
    if len(parts) > 2 or not all(is_segment(part) for part in parts):  # noqa: PLR2004
        raise located.fault(
            subject,
            got=located.kind(),
            expected="a name of a-z 0-9 . _ -, or TENANT/NAME",
        )
    return text


def _components(spec: ClaimSpec, located: Located) -> Components:
    members = located.mapping(spec.name)
    if not members:
        raise located.fault(spec.name, got="no component", expected="at least one")
    for name, member in members.items():
        if name not in spec.components:
            raise member.fault(
                spec.name,
                got=f"unknown component {name[:60]!r}",
                expected=", ".join(spec.components),
                hint=did_you_mean(name, list(spec.components)),
                at_name=True,
            )
    svns = {
        name: member.integer(f"{spec.name} {name}", least=0)
        for name, member in members.items()
    }
    return Components(tuple(sorted(svns.items())))


def _pattern(claim: str, located: Located) -> str:
    pattern = located.text(f"{claim} matches", limit=MAX_PATTERN)
    try:
        compile_pattern(pattern)
    except re2.error as exc:
        reason = exc.args[0] if exc.args else b"too large"
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else ""
        raise located.fault(
            f"{claim} matches",
            got=f"{located.kind()}, {text or 'which does not compile'}",
            expected="an RE2 pattern, which has to match the whole value",
        ) from exc
    return pattern


def _measured(spec: ClaimSpec, located: Located) -> Measured:
    subject = f"{spec.name} measures"
    members = located.mapping(subject)
    if "sequence" not in members:
        return Measured((_workload_step(located, subject),))
    members = located.members(subject, required=frozenset({"sequence"}))
    if spec.register_style != "extend":
        raise members["sequence"].fault(
            subject,
            got="a sequence",
            expected="one workload_policy: this register is set, not extended",
            at_name=True,
        )
    elements = members["sequence"].elements(subject, most=MAX_STEPS)
    steps = tuple(_step(spec, element, subject) for element in elements)
    return Measured(steps, listed=True)


def _step(spec: ClaimSpec, located: Located, subject: str) -> WorkloadStep | DigestStep:
    if "digest" not in located.mapping(subject):
        return _workload_step(located, subject)
    members = located.members(subject, required=frozenset({"digest"}))
    digest = members["digest"].text(f"{subject} digest")
    expected = _expected_hex(digest, DIGEST_BYTES[spec.register or "sha256"])
    if expected is not None:
        raise members["digest"].fault(
            f"{subject} digest", got=repr(digest)[:60], expected=expected
        )
    return DigestStep(digest)


def _workload_step(located: Located, subject: str) -> WorkloadStep:
    members = located.members(
        subject, required=frozenset({"workload_policy", "version"})
    )
    return WorkloadStep(
        parse_resolvable(members["workload_policy"], f"{subject} workload_policy"),
        members["version"].integer(f"{subject} version", least=1, most=999_999_999),
    )
