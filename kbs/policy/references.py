"""Reference values held against the type of the claim that a policy compares them with.

A reference set is registered without knowing which claims it will be used for. A value
that is not written as the claim's values are (`ABCD…` for lower-case hex, `"3"` for an
integer) would never be equal to any: `in` would refuse everything, and `not_in` let
everything pass. So one such value makes the whole comparison undecidable, and
registration can ask for them beforehand.
"""

from __future__ import annotations

from kbs.core.claims import ClaimSpec, ClaimType, Vocabulary
from kbs.policy.analysis import name_of
from kbs.policy.claimed import expected_name
from kbs.policy.context import TenantView
from kbs.policy.model import Leaf, Reference, ReleasePolicy, Scalar, parts_of
from kbs.policy.operands import expected_text

_WORDS = {ClaimType.BOOL: "true or false", ClaimType.INT: "an integer"}


def mistyped_references(
    policy: ReleasePolicy, view: TenantView, vocabulary: Vocabulary
) -> tuple[str, ...]:
    """Return a sentence for every reference with a value that its claim cannot have.

    Names that resolve to nothing are `missing_names`' business.
    """
    found: dict[str, None] = {}
    for leaf in _leaves(policy):
        if not isinstance(leaf.operand, Reference):
            continue
        known = view.reference(leaf.operand.name)
        fault = None
        if known is not None:
            fault = reference_fault(name_of(leaf, vocabulary).spec, known.values)
        if fault is not None:
            found[f"reference {leaf.operand.name}: {fault}"] = None
    return tuple(found)


def reference_fault(spec: ClaimSpec, values: tuple[Scalar, ...]) -> str | None:
    """Name the first value that is not written as the claim's values are."""
    for value in values:
        expected = _expected(spec, value)
        if expected is not None:
            return f"the value {_brief(value)} is not of {spec.name}'s type: {expected}"
    return None


def _expected(spec: ClaimSpec, value: Scalar) -> str | None:
    named = expected_name(spec, value)
    if named is not None:
        return named
    if spec.type is ClaimType.BOOL:
        return None if isinstance(value, bool) else _WORDS[spec.type]
    if spec.type is ClaimType.INT:
        return None if type(value) is int else _WORDS[spec.type]
    if not isinstance(value, str):
        return expected_text(spec, "") or "a string"
    return expected_text(spec, value)


def _brief(value: Scalar) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"  # noqa: PLR2004 - one line


def _leaves(policy: ReleasePolicy) -> list[Leaf]:
    return [
        part
        for rule in policy.allow
        for part in parts_of(rule.tree)
        if isinstance(part, Leaf)
    ]
