"""Reference values held against the type of the claim that a policy compares them with.

A reference set is registered without knowing which claims it will be used for. A value
that is not written as the claim's values are (`ABCD…` for lower-case hex, `"3"` for an
integer) would never be equal to any: `in` would refuse everything, and `not_in` let
everything pass. So one such value makes the whole comparison undecidable, and
registration can ask for them beforehand. It asks for zeros as well where a rule relies
on a set to say what boots: a literal list with zeros would not do there either.
"""

from __future__ import annotations

from kbs.core.claims import ClaimSpec, ClaimType, Vocabulary
from kbs.policy.analysis import name_of
from kbs.policy.claimed import expected_name
from kbs.policy.context import TenantView
from kbs.policy.model import (
    AllOf,
    AnyOf,
    Every,
    Leaf,
    Node,
    Not,
    Reference,
    ReleasePolicy,
    Rule,
    Scalar,
    Values,
    leaves_of,
)
from kbs.policy.operands import expected_text
from kbs.policy.safety import Open, open_points

_WORDS = {ClaimType.BOOL: "true or false", ClaimType.INT: "an integer"}


def reference_faults(
    policy: ReleasePolicy, view: TenantView, vocabulary: Vocabulary
) -> tuple[str, ...]:
    """Return a sentence for everything that is wrong with the sets that a policy names.

    Names that resolve to nothing are `missing_names`' business.
    """
    zeros = dict.fromkeys(
        fault for rule in policy.allow for fault in _zero_faults(rule, view, vocabulary)
    )
    return (*mistyped_references(policy, view, vocabulary), *zeros)


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


def _zero_faults(rule: Rule, view: TenantView, vocabulary: Vocabulary) -> list[str]:
    """Say what a rule leaves open because of the zeros in reference sets."""
    zeros = _Zeros(view, vocabulary)
    tree = zeros.shown(rule.tree)
    if not zeros.names or not isinstance(tree, (AllOf, AnyOf)):
        return []
    known = _claims(open_points(rule, vocabulary))
    shown = Rule(name=rule.name, tree=tree, unsafe=rule.unsafe)
    names = ", ".join(sorted(zeros.names))
    return [
        f"reference {names}: a value of zeros, which is in a register that nothing "
        f"was measured into; so rule {rule.name} leaves {claim} open"
        for claim in _claims(open_points(shown, vocabulary))
        if claim not in known
    ]


def _claims(points: tuple[Open, ...]) -> dict[str, None]:
    return dict.fromkeys(point.claim for point in points)


class _Zeros:
    """Shows the zeros in reference sets as a literal list would."""

    def __init__(self, view: TenantView, vocabulary: Vocabulary) -> None:
        self._view = view
        self._vocabulary = vocabulary
        self.names: set[str] = set()

    def shown(self, node: Node) -> Node:
        if isinstance(node, (AllOf, AnyOf)):
            return self._joined(node)
        if isinstance(node, Not):
            return Not(self.shown(node.child))
        if isinstance(node, Every):
            return Every(node.family, self._joined(node.body))
        return self._leaf(node) if isinstance(node, Leaf) else node

    def _joined(self, node: AllOf | AnyOf) -> AllOf | AnyOf:
        return type(node)(tuple(self.shown(child) for child in node.children))

    def _leaf(self, leaf: Leaf) -> Leaf:
        spec = name_of(leaf, self._vocabulary).spec
        # Where zeros are the safe value, `safe: true` asks for them anyway.
        has_default = spec.safety is not None and bool(spec.safety.default)
        if not isinstance(leaf.operand, Reference) or has_default:
            return leaf
        known = self._view.reference(leaf.operand.name)
        if spec.type is not ClaimType.BYTES or known is None:
            return leaf
        zeros = tuple(value for value in known.values if not str(value).strip("0"))
        if not zeros:
            return leaf
        self.names.add(leaf.operand.name)
        return Leaf(leaf.op, leaf.claim, Values(zeros))


def _brief(value: Scalar) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"  # noqa: PLR2004 - one line


def _leaves(policy: ReleasePolicy) -> list[Leaf]:
    return [leaf for rule in policy.allow for leaf in leaves_of(rule.tree)]
