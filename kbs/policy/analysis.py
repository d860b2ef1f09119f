"""What a rule's tree implies, answered conservatively.

* `permitted`: with which values of a claim can the tree still be true?
* `constrains`: does every way through the tree pass a condition of some kind?

Both follow `all`, `any` and `not`; what holds inside `every` holds for each item of
the family, and at least one. A condition on one item by index says nothing of others.
"""

from __future__ import annotations

from collections.abc import Callable

from kbs.core.claims import ClaimSpec, ClaimType, Vocabulary
from kbs.policy.model import (
    AllOf,
    AnyOf,
    Count,
    Every,
    Leaf,
    Node,
    Not,
    Operator,
    Rule,
    Scalar,
    Values,
    parts_of,
)
from kbs.policy.names import REQUEST_FAMILY, ClaimName, resolve

Permitted = frozenset[Scalar] | None
"""Values with which a tree may still be true; None is any value."""

Part = Leaf | Every | Count
"""What a test of `constrains` sees, with whether it stands un-negated."""

# `at_most` on a small integer is a finite set; above this it fixes nothing.
_SMALL = 64

_BOOLEANS: frozenset[Scalar] = frozenset({True, False})


def permitted(node: Node, spec: ClaimSpec, *, positive: bool = True) -> Permitted:
    """Return the values of a claim with which `node` (or its negation) may hold."""
    if isinstance(node, Leaf):
        return _leaf_permits(node, spec, positive=positive)
    if isinstance(node, Not):
        return permitted(node.child, spec, positive=not positive)
    if isinstance(node, Every):
        return permitted(node.body, spec) if positive else None
    if isinstance(node, (AllOf, AnyOf)):
        sets = [permitted(child, spec, positive=positive) for child in node.children]
        together = isinstance(node, AllOf) is positive
        return _intersection(sets) if together else _union(sets)
    return None


def _intersection(sets: list[Permitted]) -> Permitted:
    finite = [each for each in sets if each is not None]
    return frozenset.intersection(*finite) if finite else None


def _union(sets: list[Permitted]) -> Permitted:
    finite = [each for each in sets if each is not None]
    return frozenset().union(*finite) if len(finite) == len(sets) else None


def _leaf_permits(leaf: Leaf, spec: ClaimSpec, *, positive: bool) -> Permitted:
    if leaf.claim != spec.name:
        return None
    if leaf.op is Operator.EQUALS and isinstance(leaf.operand, (bool, int, str)):
        return _listed(frozenset({leaf.operand}), spec, positive=positive)
    if leaf.op is Operator.IN and isinstance(leaf.operand, Values):
        return _listed(frozenset(leaf.operand.items), spec, positive=positive)
    if leaf.op is Operator.NOT_IN and isinstance(leaf.operand, Values):
        return _listed(frozenset(leaf.operand.items), spec, positive=not positive)
    return _below(leaf, positive=positive)


def _listed(values: frozenset[Scalar], spec: ClaimSpec, *, positive: bool) -> Permitted:
    if positive:
        return values
    return _BOOLEANS - values if spec.type is ClaimType.BOOL else None


def _below(leaf: Leaf, *, positive: bool) -> Permitted:
    if not isinstance(leaf.operand, int) or isinstance(leaf.operand, bool):
        return None
    if positive and leaf.op is Operator.AT_MOST:
        bound = leaf.operand
    elif not positive and leaf.op is Operator.AT_LEAST:
        bound = leaf.operand - 1
    else:
        return None
    return frozenset(range(bound + 1)) if bound <= _SMALL else None


def constrains(
    node: Node, test: Callable[[Part, bool], bool], *, positive: bool = True
) -> bool:
    """Whether `node` (or its negation) can only hold by a condition that `test` likes.

    A negated `every` or `count` can hold without any item, so it never counts.
    """
    if isinstance(node, Leaf):
        return test(node, positive)
    if isinstance(node, Not):
        return constrains(node.child, test, positive=not positive)
    if isinstance(node, Every):
        return positive and (test(node, True) or constrains(node.body, test))
    if isinstance(node, Count):
        return positive and test(node, True)
    if isinstance(node, (AllOf, AnyOf)):
        results = [
            constrains(child, test, positive=positive) for child in node.children
        ]
        return any(results) if isinstance(node, AllOf) is positive else all(results)
    return False


def families_of(rule: Rule, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the evidence families that a rule mentions, in document order."""
    found: dict[str, None] = {}
    for part in parts_of(rule.tree):
        family = None
        if isinstance(part, (Every, Count)):
            family = part.family
        elif isinstance(part, Leaf):
            family = name_of(part, vocabulary).family
        if family is not None and family != REQUEST_FAMILY:
            found[family] = None
    return tuple(found)


def fixes(leaf: Leaf, positive: bool) -> bool:  # noqa: FBT001 - as `constrains` asks
    """Whether a leaf ties its claim to listed values: equals, in, or not not_in."""
    if positive:
        return leaf.op in {Operator.EQUALS, Operator.IN}
    return leaf.op is Operator.NOT_IN


def name_of(leaf: Leaf, vocabulary: Vocabulary) -> ClaimName:
    """Return what a leaf's claim refers to; parsing made sure that it does."""
    name = resolve(leaf.claim, vocabulary)
    if name is None:
        message = f"claim {leaf.claim} is not in the vocabulary"
        raise ValueError(message)
    return name
