"""One claim's value against one operand: true, false or unknown.

A test is built once, when a policy is read, and then called with values. A value of
another type than its claim's specification is unknown, never false: `not` would turn
false into true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue
from kbs.core.clock import format_time, parse_time
from kbs.core.errors import MalformedError
from kbs.policy.context import TenantView
from kbs.policy.logic import conjunction, negation
from kbs.policy.measure import Missing, expected_register
from kbs.policy.model import (
    Components,
    Leaf,
    Measured,
    Operand,
    Operator,
    Reference,
    Scalar,
    Values,
    operand_json,
)
from kbs.policy.operands import compile_pattern, is_decimals


class Surroundings(Protocol):
    """What a test may ask for besides the value."""

    @property
    def view(self) -> TenantView:
        """What names resolve to."""
        ...

    @property
    def now(self) -> datetime | None:
        """The time of the decision, if the request has one."""
        ...


class Finding(NamedTuple):
    """What a test found; `expected` is for administrators."""

    result: bool | None
    expected: object
    detail: str = ""


Test = Callable[[ClaimValue, Surroundings], Finding]
Normal = bool | int | str | tuple[int, ...] | frozenset[str] | datetime
Normalize = Callable[[object], Normal | None]

MISTYPED = "the value is not of the claim's type"


def build_test(leaf: Leaf, spec: ClaimSpec) -> Test:
    """Return the test of a leaf, for any operator but `present`."""
    if isinstance(leaf.operand, Measured):
        return _measures(spec, leaf.operand)
    if isinstance(leaf.operand, Reference):
        return _reference(leaf, leaf.operand, spec)
    if isinstance(leaf.operand, Components):
        return _components(leaf.op, leaf.operand, spec)
    if leaf.op is Operator.MATCHES:
        return _matches(str(leaf.operand))
    if isinstance(leaf.operand, Values):
        return _listed(leaf.op, leaf.operand, spec)
    return _compared(leaf.op, leaf.operand, spec)


def _compared(op: Operator, operand: Operand, spec: ClaimSpec) -> Test:
    normalize = _ordered(spec) if op is not Operator.EQUALS else _equatable(spec)
    expected = operand_json(operand)
    true, false = Finding(True, expected), Finding(False, expected)
    unknown = Finding(None, expected, MISTYPED)
    bound = normalize(operand)

    def test(value: ClaimValue, _: Surroundings) -> Finding:
        got = normalize(value)
        if got is None or bound is None:
            return unknown
        return true if _holds(op, got, bound) else false

    return test


def _holds(op: Operator, got: Normal, bound: Normal) -> bool:
    if op is Operator.EQUALS:
        return got == bound
    # Both come from the same normalizer, so they are of one ordered type.
    if op is Operator.AT_LEAST:
        return got >= bound  # type: ignore[operator]
    return got <= bound  # type: ignore[operator]


def _listed(op: Operator, operand: Values, spec: ClaimSpec) -> Test:
    if spec.type is ClaimType.TEXTS:
        return _texts(op, operand)
    normalize = _equatable(spec)
    known = frozenset(normalize(value) for value in operand.items)
    expected = operand_json(operand)
    found = Finding(op is Operator.IN, expected)
    absent = Finding(op is not Operator.IN, expected)
    unknown = Finding(None, expected, MISTYPED)

    def test(value: ClaimValue, _: Surroundings) -> Finding:
        got = normalize(value)
        if got is None:
            return unknown
        return found if got in known else absent

    return test


def _texts(op: Operator, operand: Values) -> Test:
    """For a list of strings: the same list, only listed ones (in), or none (not_in)."""
    expected = operand_json(operand)
    items = tuple(str(item) for item in operand.items)
    known = frozenset(items)

    def test(value: ClaimValue, _: Surroundings) -> Finding:
        if not isinstance(value, tuple):
            return Finding(None, expected, MISTYPED)
        if op is Operator.EQUALS:
            return Finding(value == items, expected)
        if op is Operator.IN:
            return Finding(known.issuperset(value), expected)
        return Finding(known.isdisjoint(value), expected)

    return test


def _reference(leaf: Leaf, reference: Reference, spec: ClaimSpec) -> Test:
    holds = _texts_within if spec.type is ClaimType.TEXTS else _within(spec)
    if leaf.op is Operator.NOT_IN:
        holds = _texts_outside if spec.type is ClaimType.TEXTS else _outside(spec)

    def test(value: ClaimValue, around: Surroundings) -> Finding:
        known = around.view.reference(reference.name)
        named: dict[str, object] = {"reference": reference.name}
        if known is None:
            return Finding(None, named, f"reference {reference.name} does not exist")
        named["values"] = known.values
        if known.expires is not None:
            if around.now is None:
                detail = "the request has no time to hold against the expiry"
                return Finding(None, named, f"reference {reference.name}: {detail}")
            if around.now >= known.expires:
                date = format_time(known.expires)
                detail = f"reference {reference.name} expired on {date}"
                return Finding(None, named, detail)
        if not known.values:
            return Finding(None, named, f"reference {reference.name} is empty")
        result = holds(value, known.values)
        return Finding(result, named, MISTYPED if result is None else "")

    return test


Among = Callable[[ClaimValue, tuple[Scalar, ...]], bool | None]


def _within(spec: ClaimSpec) -> Among:
    normalize = _equatable(spec)

    def holds(value: ClaimValue, values: tuple[Scalar, ...]) -> bool | None:
        got = normalize(value)
        if got is None:
            return None
        return any(normalize(each) == got for each in values)

    return holds


def _outside(spec: ClaimSpec) -> Among:
    within = _within(spec)
    return lambda value, values: negation(within(value, values))


def _texts_within(value: ClaimValue, values: tuple[Scalar, ...]) -> bool | None:
    return set(values).issuperset(value) if isinstance(value, tuple) else None


def _texts_outside(value: ClaimValue, values: tuple[Scalar, ...]) -> bool | None:
    return set(values).isdisjoint(value) if isinstance(value, tuple) else None


def _matches(pattern: str) -> Test:
    compiled = compile_pattern(pattern)
    true, false = Finding(True, pattern), Finding(False, pattern)

    def test(value: ClaimValue, _: Surroundings) -> Finding:
        if not isinstance(value, str):
            return Finding(None, pattern, MISTYPED)
        try:
            return true if compiled.fullmatch(value) else false
        except UnicodeError:
            return Finding(None, pattern, "the value is not Unicode text")

    return test


def _measures(spec: ClaimSpec, measured: Measured) -> Test:
    written = operand_json(measured)

    def test(value: ClaimValue, around: Surroundings) -> Finding:
        register = expected_register(spec, measured, around.view)
        if isinstance(register, Missing):
            return Finding(None, {"measures": written}, register.detail)
        expected = {"measures": written, "register": register}
        if not isinstance(value, str):
            return Finding(None, expected, MISTYPED)
        return Finding(value == register, expected)

    return test


def _components(op: Operator, operand: Components, spec: ClaimSpec) -> Test:
    expected = operand_json(operand)
    named = {name for name, _ in operand.svns}
    free = [name for name in spec.components if name not in named]
    note = "not constrained: " + ", ".join(free) if free else ""

    def test(value: ClaimValue, _: Surroundings) -> Finding:
        if not isinstance(value, Mapping):
            return Finding(None, expected, MISTYPED)
        lacking = [name for name in named if type(value.get(name)) is not int]
        results = [
            None if name in lacking else _holds(op, value[name], bound)
            for name, bound in operand.svns
        ]
        detail = note
        if lacking:
            detail = "the product lacks " + ", ".join(sorted(lacking))
        return Finding(conjunction(results), expected, detail)

    return test


def _equatable(spec: ClaimSpec) -> Normalize:
    if spec.type is ClaimType.BOOL:
        return _boolean
    if spec.type is ClaimType.INT:
        return _integer
    if spec.type is ClaimType.U64:
        return _hex_integer
    if spec.type is ClaimType.TIME:
        return _time
    return _string


def _ordered(spec: ClaimSpec) -> Normalize:
    if spec.type in {ClaimType.TEXT, ClaimType.VERSION}:
        return _decimals
    return _equatable(spec)


def _boolean(value: object) -> Normal | None:
    return value if isinstance(value, bool) else None


def _integer(value: object) -> Normal | None:
    return value if type(value) is int else None


def _string(value: object) -> Normal | None:
    return value if isinstance(value, str) else None


def _hex_integer(value: object) -> Normal | None:
    if not isinstance(value, str) or len(value) != 16:  # noqa: PLR2004 - 64 bits
        return None
    try:
        return int(value, 16)
    except ValueError:
        return None


def _time(value: object) -> Normal | None:
    try:
        return parse_time(value)
    except MalformedError:
        return None


def _decimals(value: object) -> Normal | None:
    """Components as integers; trailing zeros are dropped, so that 1.0 equals 1."""
    if not isinstance(value, str) or not is_decimals(value):
        return None
    components = [int(component) for component in value.split(".")]
    while components and components[-1] == 0:
        components.pop()
    return tuple(components)
