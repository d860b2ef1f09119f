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
from kbs.core.clock import format_time
from kbs.policy.context import ReferenceSet, TenantView
from kbs.policy.logic import conjunction
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
from kbs.policy.normal import Normal, equatable, ordered
from kbs.policy.operands import compile_pattern
from kbs.policy.references import reference_fault


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

MISTYPED = "the value is not of the claim's type"
EMPTY = "the list is empty, so that nothing in it can be one of these"


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
    normalize = ordered(spec) if op is not Operator.EQUALS else equatable(spec)
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
    normalize = equatable(spec)
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
    among = _texts_among(frozenset(items))

    def test(value: ClaimValue, _: Surroundings) -> Finding:
        if not isinstance(value, tuple):
            return Finding(None, expected, MISTYPED)
        if op is Operator.EQUALS:
            return Finding(value == items, expected)
        result = among(op, value)
        return Finding(result, expected, _undecided(result, value))

    return test


def _reference(leaf: Leaf, reference: Reference, spec: ClaimSpec) -> Test:
    known_values = _Known(spec)

    def test(value: ClaimValue, around: Surroundings) -> Finding:
        known = around.view.reference(reference.name)
        named: dict[str, object] = {"reference": reference.name}
        if known is None:
            return Finding(None, named, f"reference {reference.name} does not exist")
        named["values"] = known.values
        obstacle = _expiry(known, around.now)
        if obstacle is None and not known.values:
            obstacle = "is empty"
        if obstacle is not None:
            return Finding(None, named, f"reference {reference.name} {obstacle}")
        fault, among = known_values.of(known.values)
        if fault is not None:
            return Finding(None, named, f"reference {reference.name}: {fault}")
        result = among(leaf.op, value)
        return Finding(result, named, _undecided(result, value))

    return test


def _expiry(known: ReferenceSet, now: datetime | None) -> str | None:
    if known.expires is None:
        return None
    if now is None:
        return "expires, and the request has no time to hold against that"
    if now >= known.expires:
        return f"expired on {format_time(known.expires)}"
    return None


Among = Callable[[Operator, ClaimValue], bool | None]


class _Known:
    """The values of a reference set as one claim's test wants them.

    The last set is kept: thousands of values would else be read for every request.
    """

    def __init__(self, spec: ClaimSpec) -> None:
        self._spec = spec
        self._last: tuple[tuple[Scalar, ...], str | None, Among] | None = None

    def of(self, values: tuple[Scalar, ...]) -> tuple[str | None, Among]:
        last = self._last
        # One assignment, so that threads that race only do the work twice.
        if last is None or last[0] is not values:
            fault = reference_fault(self._spec, values)
            last = self._last = (values, fault, self._among(values))
        return last[1], last[2]

    def _among(self, values: tuple[Scalar, ...]) -> Among:
        if self._spec.type is ClaimType.TEXTS:
            return _texts_among(frozenset(values))
        normalize = equatable(self._spec)
        known = frozenset(normalize(value) for value in values)

        def among(op: Operator, value: ClaimValue) -> bool | None:
            got = normalize(value)
            return None if got is None else (got in known) is (op is Operator.IN)

        return among


def _texts_among(known: frozenset[Scalar]) -> Among:
    def among(op: Operator, value: ClaimValue) -> bool | None:
        if not isinstance(value, tuple):
            return None
        if op is Operator.IN:
            # As `every` over nothing does not hold: a list without accounts has none
            # of those that are asked for.
            return known.issuperset(value) if value else None
        return known.isdisjoint(value)

    return among


def _undecided(result: bool | None, value: ClaimValue) -> str:  # noqa: FBT001
    if result is not None:
        return ""
    return EMPTY if value == () else MISTYPED


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
