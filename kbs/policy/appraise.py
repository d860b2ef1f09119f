"""One policy held against the claims of one request: pure, complete, three-valued.

Every leaf of every rule is evaluated. A rule that is true grants; false and unknown do
not (decisions, section 1). Before any rule counts, the request has to come by a door
and with a freshness that the policy accepts (section 2.5).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from kbs.core.claims import Claims, ClaimValue
from kbs.core.decision import Decision, Denied, Granted, PolicyRef, Reason
from kbs.policy.context import TenantView
from kbs.policy.evaluate import Outcome, Scene
from kbs.policy.model import Accept, Freshness
from kbs.policy.parse import CompiledRule, ParsedPolicy

UNREGISTERED = 0
"""The version of a policy that no store has numbered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult:
    """What became of one rule; `distance` counts the leaves that stand against it.

    `surplus` are verified items that the rule says nothing about (`nvgpu[1]`).
    """

    rule: str
    result: bool | None
    tree: Outcome = field(repr=False)
    distance: int
    surplus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """What one policy says, with the whole reasoning."""

    policy: PolicyRef
    decision: Decision
    rules: tuple[RuleResult, ...]

    @property
    def granted(self) -> bool:
        """Whether this policy grants."""
        return isinstance(self.decision, Granted)

    @property
    def nearest(self) -> RuleResult:
        """The rule with the fewest conditions to mend; the first one of equals."""
        return min(self.rules, key=lambda result: result.distance)


def appraise(
    parsed: ParsedPolicy,
    claims: Claims,
    view: TenantView,
    *,
    version: int = UNREGISTERED,
    development: bool = False,
) -> Appraisal:
    """Evaluate every rule over claims that are scoped to the policy's tenant already.

    Door, freshness, age and time of the request are its claims (`request.*`).
    """
    ref = PolicyRef(name=parsed.policy.name, version=version, digest=parsed.digest)
    scene = Scene(claims, view, development=development)
    results = tuple(_rule_result(compiled, scene, claims) for compiled in parsed.rules)
    obstacles = _unacceptable(parsed.policy.accept, claims.request, ref.name)
    by = next((each.rule for each in results if each.result is True), None)
    decision: Decision
    if by is not None and not obstacles:
        decision = Granted(by=((ref, by),))
    else:
        reasons = obstacles + _rule_reasons(results, ref.name)
        decision = Denied(reasons=tuple(reasons), policies=(ref,))
    return Appraisal(policy=ref, decision=decision, rules=results)


def _rule_result(compiled: CompiledRule, scene: Scene, claims: Claims) -> RuleResult:
    tree = compiled.condition(scene)
    return RuleResult(
        rule=compiled.rule.name,
        result=tree.result,
        tree=tree,
        distance=distance(tree, wanted=True),
        surplus=compiled.mentioned.surplus(claims),
    )


def distance(outcome: Outcome, *, wanted: bool) -> int:
    """Return how many leaves would have to change for `outcome` to be `wanted`."""
    if outcome.result is wanted:
        return 0
    if outcome.op == "not":
        return distance(outcome.children[0], wanted=not wanted)
    if not outcome.children:
        return 1
    each = [distance(child, wanted=wanted) for child in outcome.children]
    return min(each) if (outcome.op == "any") is wanted else sum(each)


def failing(outcome: Outcome, *, wanted: bool) -> list[tuple[Outcome, bool]]:
    """Return the leaves that keep `outcome` from `wanted`, and what each has to be.

    Where one of several would do, the nearest comes first.
    """
    if outcome.result is wanted:
        return []
    if outcome.op == "not":
        return failing(outcome.children[0], wanted=not wanted)
    if not outcome.children:
        return [(outcome, wanted)]
    children = list(outcome.children)
    if (outcome.op == "any") is wanted:
        children.sort(key=lambda child: distance(child, wanted=wanted))
    return [leaf for child in children for leaf in failing(child, wanted=wanted)]


def _rule_reasons(results: tuple[RuleResult, ...], policy: str) -> list[Reason]:
    reasons: dict[Reason, None] = {}
    for result in sorted(results, key=lambda each: each.distance):
        for leaf, wanted in failing(result.tree, wanted=True):
            reasons[_reason(leaf, wanted, policy, result.rule)] = None
    return list(reasons)


def _reason(
    leaf: Outcome,
    wanted: bool,  # noqa: FBT001 - private
    policy: str,
    rule: str,
) -> Reason:
    quantified = leaf.op in {"every", "count"}
    claim = leaf.claim or leaf.op
    expected = leaf.op if leaf.expected is None else f"{leaf.op} {text(leaf.expected)}"
    if leaf.result is None:
        detail = f"{claim} could not be decided"
    else:
        detail = f"{claim} does not satisfy the rule"
    return Reason(
        id=f"{claim}.count" if quantified else claim,
        detail=f"{detail}: {leaf.detail}" if leaf.detail else detail,
        policy=policy,
        rule=rule,
        got="absent" if leaf.got is None else text(leaf.got),
        expected=expected if wanted else f"not {expected}",
    )


def text(value: object) -> str:
    """Return a claim's value or an operand on one line, without control characters."""
    if not isinstance(value, str):
        plain = dict(value) if isinstance(value, Mapping) else value
        value = json.dumps(plain, ensure_ascii=False)
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in value
    )


def _unacceptable(
    accept: Accept, request: Mapping[str, ClaimValue], policy: str
) -> list[Reason]:
    found = []
    door = request.get("request.door")
    if door not in {each.value for each in accept.doors}:
        found.append(
            Reason(
                id="request.door",
                detail="the policy does not accept requests by this door",
                policy=policy,
                got="absent" if door is None else text(door),
                expected=" or ".join(accept.doors),
            )
        )
    freshness = request.get("request.freshness")
    if not _is_fresh_enough(freshness, accept.freshness):
        found.append(
            Reason(
                id="request.freshness",
                detail="the policy asks for a stronger proof that the evidence is new",
                policy=policy,
                got="absent" if freshness is None else text(freshness),
                expected=accept.freshness.value,
            )
        )
    elif freshness == Freshness.TOKEN_AGE and accept.max_age is not None:
        found += _too_old(request.get("request.token_age"), accept.max_age, policy)
    return found


def _is_fresh_enough(got: ClaimValue | None, least: Freshness) -> bool:
    # From strong to weak; a policy that accepts one accepts every stronger one.
    order = (Freshness.CHALLENGE, Freshness.TOKEN_AGE, Freshness.NONE)
    return got in {each.value for each in order[: order.index(least) + 1]}


def _too_old(age: ClaimValue | None, most: int, policy: str) -> list[Reason]:
    if type(age) is int and 0 <= age <= most:
        return []
    return [
        Reason(
            id="request.token_age",
            detail="the token is older than the policy accepts, or of unknown age",
            policy=policy,
            got="absent" if age is None else text(age),
            expected=f"at most {most} seconds",
        )
    ]
