"""What a rule leaves dangerously open: decisions, section 1, "Safe by default".

Every evidence family says which of its claims are dangerous to leave open
(`ClaimSpec.safety`), which constrain what boots and which registers reset. A rule
fixes them, lets `safe: true` fix them, or excuses them under `unsafe:`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbs.core.claims import ClaimSpec, ClaimType, Safety, Vocabulary
from kbs.policy.analysis import (
    Part,
    constrains,
    families_of,
    fixes,
    name_of,
    permitted,
)
from kbs.policy.model import (
    AllOf,
    Count,
    Every,
    Leaf,
    Node,
    Operator,
    Reference,
    Rule,
    Safe,
    Scalar,
    Values,
    leaves_of,
    parts_of,
)
from kbs.policy.names import REQUEST_FAMILY


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Something that a rule leaves open and neither `safe` nor `unsafe` covers."""

    claim: str
    got: str
    expected: str
    hint: str
    excuses: tuple[str, ...]
    """Claims under which `unsafe:` may excuse it."""


def expansion(rule: Rule, vocabulary: Vocabulary) -> tuple[Node, ...]:
    """Return the conditions that `safe: true` stands for in this rule.

    Each has a default value, is not fixed by the rule itself, and is not excused.
    """
    conditions: list[Node] = []
    excused = {claim for claim, _ in rule.unsafe}
    for family in families_of(rule, vocabulary):
        leaves = tuple(
            _default_leaf(spec.name, spec.safety)
            for spec in vocabulary.safety(family)
            if spec.safety is not None
            and spec.safety.default
            and _applies(spec.safety, rule, vocabulary)
            and spec.name not in excused
            and permitted(rule.tree, spec) is None
        )
        if leaves and _has_many(rule, family, vocabulary):
            conditions.append(Every(family, AllOf(leaves)))
        else:
            conditions.extend(leaves)
    return tuple(conditions)


def _default_leaf(claim: str, safety: Safety) -> Leaf:
    if len(safety.default) == 1:
        return Leaf(Operator.EQUALS, claim, safety.default[0])
    return Leaf(Operator.IN, claim, Values(safety.default))


def _has_many(rule: Rule, family: str, vocabulary: Vocabulary) -> bool:
    # A rule that counts, indexes or quantifies expects several items of the family.
    for part in parts_of(rule.tree):
        if isinstance(part, (Every, Count)) and part.family == family:
            return True
        if isinstance(part, Leaf):
            name = name_of(part, vocabulary)
            if name.family == family and name.index is not None:
                return True
    return False


def open_points(rule: Rule, vocabulary: Vocabulary) -> tuple[Open, ...]:
    """Return everything dangerous that the rule neither fixes nor excuses."""
    excused = {claim for claim, _ in rule.unsafe}
    found = all_points(rule, vocabulary)
    return tuple(point for point in found if not excused.intersection(point.excuses))


def all_points(rule: Rule, vocabulary: Vocabulary) -> tuple[Open, ...]:
    """Return everything dangerous that the rule does not fix, excused or not."""
    found = [
        point
        for family in families_of(rule, vocabulary)
        for spec in vocabulary.safety(family)
        if spec.safety is not None
        and _applies(spec.safety, rule, vocabulary)
        and (point := _open_claim(rule, spec, spec.safety, vocabulary)) is not None
    ]
    return (*found, *_open_registers(rule, vocabulary))


def _applies(safety: Safety, rule: Rule, vocabulary: Vocabulary) -> bool:
    return safety.beside is None or any(
        name_of(leaf, vocabulary).spec.name == safety.beside
        for leaf in leaves_of(rule.tree)
    )


def _open_claim(
    rule: Rule, spec: ClaimSpec, safety: Safety, vocabulary: Vocabulary
) -> Open | None:
    if safety.default:
        return _open_values(rule, spec, safety)
    names = (spec.name, *safety.alternatives)

    def names_one(part: Part, positive: bool) -> bool:  # noqa: FBT001
        if not isinstance(part, Leaf):
            return False
        if safety.floor and positive and part.op is Operator.AT_LEAST:
            return part.claim == spec.name and _is_floor(part)
        if part.claim not in names or not fixes(part, positive):
            return False
        is_bytes = name_of(part, vocabulary).spec.type is ClaimType.BYTES
        return not (is_bytes and _has_zero(part))

    if constrains(rule.tree, names_one):
        return None
    return Open(
        claim=spec.name,
        got="left open",
        expected="equals or in, "
        + ("not all zero, " if spec.type is ClaimType.BYTES else "")
        + "for "
        + _some(names)
        + (f"; or at_least 1 or more, for {spec.name}" if safety.floor else ""),
        hint=f"{safety.reason}; safe: true cannot know the value",
        excuses=names,
    )


def _open_values(rule: Rule, spec: ClaimSpec, safety: Safety) -> Open | None:
    allowed: frozenset[Scalar] = frozenset((*safety.default, *safety.acceptable))
    values = permitted(rule.tree, spec)
    has_safe = any(isinstance(part, Safe) for part in parts_of(rule.tree))
    if values is None and has_safe and spec.name not in dict(rule.unsafe):
        return None
    if values is not None and _within(values, allowed):
        return None
    return Open(
        claim=spec.name,
        got="left open" if values is None else _written(values),
        expected=_written(allowed),
        hint=f"{safety.reason}; say so, or safe: true, or unsafe: with a reason",
        excuses=(spec.name,),
    )


def _is_floor(leaf: Leaf) -> bool:
    # Every version is at least 0, the oldest too.
    return isinstance(leaf.operand, int) and leaf.operand > 0


def _some(names: tuple[str, ...]) -> str:
    return " or ".join(names[:4]) + (" …" if len(names) > 4 else "")  # noqa: PLR2004


def _within(values: frozenset[Scalar], allowed: frozenset[Scalar]) -> bool:
    # True == 1 in Python, so types are compared as well.
    typed = {(type(value), value) for value in allowed}
    return all((type(value), value) in typed for value in values)


def _written(values: frozenset[Scalar]) -> str:
    texts = sorted(
        str(value).lower() if isinstance(value, bool) else str(value)
        for value in values
    )
    return " or ".join(texts[:6]) + (" …" if len(texts) > 6 else "")  # noqa: PLR2004


def _open_registers(rule: Rule, vocabulary: Vocabulary) -> list[Open]:
    found: dict[tuple[str, str], Open] = {}
    for leaf in leaves_of(rule.tree):
        name = name_of(leaf, vocabulary)
        if name.spec.resettable:
            found[name.spec.name, "reset"] = Open(
                claim=name.spec.name,
                got="a register that software in the guest can reset",
                expected="one that only a reboot resets",
                hint="or unsafe: with a reason",
                excuses=(name.spec.name,),
            )
        if leaf.op is Operator.MEASURES and not fixes_boot(
            rule, vocabulary, name.index
        ):
            found[name.spec.name, "boot"] = _unbooted(name.spec, vocabulary)
    return list(found.values())


def _unbooted(spec: ClaimSpec, vocabulary: Vocabulary) -> Open:
    boot = [each.name for each in vocabulary if each.boot]
    return Open(
        claim=spec.name,
        got="measures, but not every way through the rule fixes what boots",
        expected="equals or in, not all zero, for one of " + ", ".join(boot[:4]) + " …",
        hint="a value that was set is not yet enforced; or unsafe: with a reason",
        excuses=(spec.name,),
    )


def fixes_boot(rule: Rule, vocabulary: Vocabulary, index: int | None = None) -> bool:
    """Whether every way through the rule fixes some claim about what boots.

    `index` is the item that a register stands in, when the rule names one.
    """

    def boots(part: Part, positive: bool) -> bool:  # noqa: FBT001
        if not isinstance(part, Leaf) or not fixes(part, positive):
            return False
        name = name_of(part, vocabulary)
        return name.spec.boot and name.index in {None, index} and not _has_zero(part)

    return constrains(rule.tree, boots)


def _has_zero(leaf: Leaf) -> bool:
    # A register that nothing was measured into is zero on every machine.
    if isinstance(leaf.operand, Reference):
        return False
    items = leaf.operand.items if isinstance(leaf.operand, Values) else (leaf.operand,)
    return any(not str(item).strip("0") for item in items)


def requires_evidence(rule: Rule, vocabulary: Vocabulary) -> bool:
    """Whether every way through the rule needs a claim of some evidence."""

    def asks(part: Part, positive: bool) -> bool:  # noqa: FBT001
        if isinstance(part, Every):
            return True
        if isinstance(part, Count):
            return part.number > 0 and part.op is not Operator.AT_MOST
        if name_of(part, vocabulary).family == REQUEST_FAMILY:
            return False
        return part.op is not Operator.PRESENT or part.operand is positive

    return constrains(rule.tree, asks)
