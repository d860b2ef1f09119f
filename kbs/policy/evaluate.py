"""Trees of conditions over the claims of one request, in three-valued logic.

A rule is compiled once into conditions; evaluating them visits every leaf and returns
the whole tree of outcomes, each with what was there and what would have to be.
Decisions, section 1: an absent claim is unknown, `not` unknown is unknown, `every`
over nothing is false, only true grants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from kbs.core.claims import Claims, ClaimValue, ItemClaims, Vocabulary
from kbs.core.clock import parse_time
from kbs.core.errors import MalformedError
from kbs.policy.analysis import name_of
from kbs.policy.compare import Finding, Test, build_test
from kbs.policy.context import TenantView
from kbs.policy.logic import conjunction, disjunction, negation
from kbs.policy.model import (
    AllOf,
    Count,
    Every,
    Leaf,
    Node,
    Not,
    Operator,
    Safe,
)
from kbs.policy.names import DEVELOPMENT_FAMILIES, REQUEST_FAMILY, ClaimName


class Outcome(NamedTuple):
    """What became of one node: `claim` is a family for `every` and `count`.

    A named tuple, since one is made for every node of every rule at every request.
    """

    op: str
    claim: str | None
    got: ClaimValue | None
    expected: object
    result: bool | None
    children: tuple[Outcome, ...] = ()
    detail: str = ""


class Scene:
    """The claims of one request, as conditions look at them."""

    __slots__ = ("_families", "_request", "development", "item", "view")

    def __init__(
        self, claims: Claims, view: TenantView, *, development: bool = False
    ) -> None:
        """Group the items by family; `claims` are those of the policy's tenant."""
        families: dict[str, list[ItemClaims]] = {}
        for item in claims.items:
            families.setdefault(item.family, []).append(item)
        self._families: Mapping[str, Sequence[ItemClaims]] = families
        self._request = claims.request
        self.view = view
        self.development = development
        self.item: ItemClaims | None = None
        """The item that an enclosing `every` stands at."""

    @property
    def now(self) -> datetime | None:
        """The time of the decision, if the request has one."""
        try:
            return parse_time(self._request.get("request.time"))
        except MalformedError:
            return None

    def counts(self, family: str) -> bool:
        """Whether evidence of this family may count at all."""
        return family not in DEVELOPMENT_FAMILIES or self.development

    def items(self, family: str) -> Sequence[ItemClaims]:
        """Return the verified items of a family."""
        return self._families.get(family, ())

    def values(self, name: ClaimName) -> Mapping[str, ClaimValue] | str:
        """Return the claims of the one item that a name is about, or why none is."""
        family = name.family
        if family == REQUEST_FAMILY:
            return self._request
        if family in DEVELOPMENT_FAMILIES and not self.development:
            return f"{family} evidence counts in development mode only"
        if self.item is not None:
            return _values_of(self.item)
        items = self._families.get(family, ())
        if name.index is not None:
            if name.index < len(items):
                return _values_of(items[name.index])
            return f"the evidence has {len(items)} {family} items"
        if len(items) == 1:
            return _values_of(items[0])
        if not items:
            return f"the evidence has no {family} item that was verified"
        return f"the evidence has {len(items)} {family} items: name one, or use every"

    def may_lack(self, name: ClaimName) -> bool:
        """Whether the one item that a name is about is known not to be there."""
        items = self._families.get(name.family, ())
        if name.index is None:
            return not items
        return name.index >= len(items)


def _values_of(item: ItemClaims) -> Mapping[str, ClaimValue] | str:
    if item.elsewhere:
        return f"what vouches for this {item.family} item counts in other tenants only"
    return item.values


Condition = Callable[[Scene], Outcome]


def build_condition(
    node: Node, vocabulary: Vocabulary, *, safe: tuple[Node, ...] = ()
) -> Condition:
    """Compile a tree; `safe` are the conditions that `safe: true` stands for."""
    if isinstance(node, Leaf):
        return _leaf(node, vocabulary)
    if isinstance(node, Not):
        return _not(build_condition(node.child, vocabulary))
    if isinstance(node, Every):
        return _every(node.family, build_condition(node.body, vocabulary))
    if isinstance(node, Count):
        return _count(node)
    if isinstance(node, Safe):
        children = tuple(build_condition(child, vocabulary) for child in safe)
        return _joined("safe", children, expected=True)
    children = tuple(
        build_condition(child, vocabulary, safe=safe) for child in node.children
    )
    return _joined("all" if isinstance(node, AllOf) else "any", children)


def _joined(
    op: str, conditions: tuple[Condition, ...], *, expected: object = None
) -> Condition:
    join = disjunction if op == "any" else conjunction

    def evaluate(scene: Scene) -> Outcome:
        children = tuple([condition(scene) for condition in conditions])
        result = join([child.result for child in children])
        return Outcome(op, None, None, expected, result, children)

    return evaluate


def _not(condition: Condition) -> Condition:
    def evaluate(scene: Scene) -> Outcome:
        child = condition(scene)
        return Outcome("not", None, None, None, negation(child.result), (child,))

    return evaluate


def _every(family: str, condition: Condition) -> Condition:
    def evaluate(scene: Scene) -> Outcome:
        items = scene.items(family)
        if not scene.counts(family):
            detail = f"{family} evidence counts in development mode only"
            return Outcome("every", family, len(items), None, None, (), detail)
        if not items:
            detail = f"the evidence has no {family} item that was verified"
            return Outcome("every", family, 0, None, False, (), detail)
        children = []
        for item in items:
            scene.item = item
            children.append(condition(scene))
        scene.item = None
        result = conjunction([child.result for child in children])
        return Outcome("every", family, len(items), None, result, tuple(children))

    return evaluate


def _count(node: Count) -> Condition:
    expected = {node.op.value: node.number}

    def evaluate(scene: Scene) -> Outcome:
        items = scene.items(node.family)
        number = sum(not one.elsewhere for one in items)
        if not scene.counts(node.family):
            detail = f"{node.family} evidence counts in development mode only"
            return Outcome("count", node.family, number, expected, None, (), detail)
        # It holds, or does not, whether or not the others count.
        fewest, most = _holds(node, number), _holds(node, len(items))
        between = node.op is Operator.EQUALS and number < node.number < len(items)
        if fewest is most and not between:
            return Outcome("count", node.family, number, expected, fewest)
        detail = f"{len(items) - number} more count in other tenants only"
        return Outcome("count", node.family, number, expected, None, (), detail)

    return evaluate


def _holds(node: Count, number: int) -> bool:
    if node.op is Operator.AT_LEAST:
        return number >= node.number
    if node.op is Operator.AT_MOST:
        return number <= node.number
    return number == node.number


def _leaf(leaf: Leaf, vocabulary: Vocabulary) -> Condition:
    name = name_of(leaf, vocabulary)
    if leaf.op is Operator.PRESENT:
        return _present(leaf, name)
    return _tested(leaf, name, build_test(leaf, name.spec))


def _present(leaf: Leaf, name: ClaimName) -> Condition:
    wanted = leaf.operand is True

    def evaluate(scene: Scene) -> Outcome:
        values = scene.values(name)
        detail = ""
        got = None
        if not isinstance(values, str):
            got = _value(values, name)
        elif scene.counts(name.family) and scene.may_lack(name):
            detail = values
        else:
            # Several items, none of them named, or one of which nothing may be known:
            # there is no one answer.
            return Outcome("present", leaf.claim, None, wanted, None, (), values)
        result = (got is not None) is wanted
        return Outcome("present", leaf.claim, got, wanted, result, (), detail)

    return evaluate


def _tested(leaf: Leaf, name: ClaimName, test: Test) -> Condition:
    op, claim = leaf.op.value, leaf.claim

    def evaluate(scene: Scene) -> Outcome:
        values = scene.values(name)
        if isinstance(values, str):
            return _unknown(op, claim, test, scene, values)
        got = _value(values, name)
        if got is None:
            return _unknown(op, claim, test, scene, "the evidence lacks this claim")
        found = test(got, scene)
        return Outcome(op, claim, got, found.expected, found.result, (), found.detail)

    return evaluate


def _unknown(op: str, claim: str, test: Test, scene: Scene, detail: str) -> Outcome:
    # The test is asked all the same, with a value of no claim's type, so that the
    # reader learns what was expected.
    found: Finding = test((), scene)
    return Outcome(op, claim, None, found.expected, None, (), detail)


def _value(values: Mapping[str, ClaimValue], name: ClaimName) -> ClaimValue | None:
    value = values.get(name.key)
    if name.component is None:
        return value
    return value.get(name.component) if isinstance(value, Mapping) else None
