"""Reading the rules of a release policy: the tree of conditions and its excuses."""

from __future__ import annotations

import re

from kbs.core.claims import Vocabulary
from kbs.core.ids import SHARED_TENANT, is_segment
from kbs.policy.located import Located, Problems
from kbs.policy.model import (
    AllOf,
    AnyOf,
    Count,
    Every,
    Leaf,
    Measured,
    Node,
    Not,
    Operand,
    Operator,
    Reference,
    Rule,
    Safe,
    WorkloadStep,
)
from kbs.policy.names import (
    REQUEST_FAMILY,
    ClaimName,
    did_you_mean,
    resolve,
    suggestion,
)
from kbs.policy.operands import parse_operand

MAX_CHILDREN = 256
"""Most conditions side by side."""

_OPERATORS = {op.value: op for op in Operator}
_COUNTABLE = {Operator.EQUALS, Operator.AT_LEAST, Operator.AT_MOST}
_JOINS: dict[str, type[AllOf | AnyOf]] = {"all": AllOf, "any": AnyOf}
_HEADS = ("claim", "all", "any", "not", "every", "count", "safe")

# A reason has to be something that a reader can read.
_WORDS = re.compile(r"[^\W\d_]{2,}")


def parse_unsafe(
    located: Located, vocabulary: Vocabulary
) -> tuple[tuple[str, str], ...]:
    """Read `unsafe: {claim: reason}`, ordered by claim.

    Raises:
        MalformedError: an unknown claim, or a reason without words.
    """
    members = located.mapping("unsafe")
    for claim, member in members.items():
        name = resolve(claim, vocabulary)
        if name is None or name.index is not None:
            raise member.fault(
                "unsafe",
                got=f"unknown claim {claim[:80]!r}",
                expected="a claim's name without an index",
                hint=suggestion(claim, vocabulary),
                at_name=True,
            )
        reason = member.text(f"unsafe {claim}", limit=1024)
        if _WORDS.search(reason) is None:
            raise member.fault(
                f"unsafe {claim}", got=member.kind(), expected="a reason in words"
            )
    return tuple(
        sorted((claim, str(member.value)) for claim, member in members.items())
    )


class RuleReader:
    """Reads rules of one policy, whose names resolve inside `tenant`."""

    def __init__(self, vocabulary: Vocabulary, tenant: str | None) -> None:
        """Take the words that conditions may use."""
        self._vocabulary = vocabulary
        self._families = sorted(vocabulary.families() - {REQUEST_FAMILY})
        self._tenant = tenant

    def rule(self, located: Located) -> Rule:
        """Read one rule.

        Raises:
            PolicyError: some of its conditions are wrong; all of them are named.
            MalformedError: it is no rule at all.
        """
        members = located.members(
            "rule",
            required=frozenset({"rule"}),
            optional=frozenset({"all", "any", "unsafe"}),
        )
        name = members["rule"].text("rule name", limit=64)
        if not is_segment(name):
            raise members["rule"].fault(
                "rule name",
                got=members["rule"].kind(),
                expected="1 to 64 of a-z 0-9 . _ - that start and end alphanumeric",
            )
        problems = Problems()
        tree: AllOf | AnyOf = AllOf(())
        unsafe: tuple[tuple[str, str], ...] = ()
        with problems.collected():
            tree = self._join(located, members, f"rule {name}", safe=True)
        if "unsafe" in members:
            with problems.collected():
                unsafe = parse_unsafe(members["unsafe"], self._vocabulary)
        problems.finish()
        return Rule(name=name, tree=tree, unsafe=unsafe)

    def _join(
        self,
        located: Located,
        members: dict[str, Located],
        subject: str,
        *,
        safe: bool = False,
        family: str | None = None,
    ) -> AllOf | AnyOf:
        words = [word for word in _JOINS if word in members]
        if len(words) != 1:
            raise located.fault(
                subject, got=" and ".join(words) or "neither", expected="all or any"
            )
        word = words[0]
        allow_safe = safe and word == "all"
        problems = Problems()
        children: list[Node] = []
        for child in members[word].elements(word, most=MAX_CHILDREN):
            with problems.collected():
                children.append(self._node(child, safe=allow_safe, family=family))
        problems.finish()
        return _JOINS[word](tuple(children))

    def _node(self, located: Located, *, safe: bool, family: str | None) -> Node:
        """Read one condition; `family` is that of an enclosing `every`."""
        members = located.mapping("condition")
        head = next((word for word in _HEADS if word in members), None)
        # `every: F, all: […]` has two heads; the quantifier leads.
        head = "every" if "every" in members else head
        if head is None:
            raise located.fault(
                "condition",
                got=", ".join(name[:40] for name in members) or "an empty mapping",
                expected="one of " + ", ".join(_HEADS),
            )
        if head == "claim":
            return self._leaf(located, members, family)
        if head in {"every", "count"}:
            return self._quantified(located, members, head, family)
        located.members("condition", required=frozenset({head}))
        if head == "not":
            return Not(self._node(members["not"], safe=False, family=family))
        if head == "safe":
            return _safe(members["safe"], allowed=safe)
        return self._join(located, members, "condition", family=family)

    def _quantified(
        self,
        located: Located,
        members: dict[str, Located],
        head: str,
        outer: str | None,
    ) -> Node:
        if outer is not None:
            raise located.fault(
                f"{head} inside every {outer}",
                expected=f"conditions on claims of {outer}",
            )
        family = members[head].text(head, limit=64)
        if family not in self._families:
            raise members[head].fault(
                head,
                got=f"unknown family {family!r}",
                expected=", ".join(self._families),
                hint=did_you_mean(family, self._families),
            )
        if head == "count":
            return self._count(located, family)
        members = located.members(
            "every",
            required=frozenset({"every"}),
            optional=frozenset({"all", "any"}),
        )
        return Every(family, self._join(located, members, "every", family=family))

    def _count(self, located: Located, family: str) -> Node:
        words = frozenset(op.value for op in _COUNTABLE)
        members = located.members(
            "count", required=frozenset({"count"}), optional=words
        )
        op = _only_operator(located, members, "count")
        number = members[op.value].integer(f"count {family}", least=0, most=10_000)
        return Count(family, op, number)

    def _leaf(
        self, located: Located, members: dict[str, Located], family: str | None
    ) -> Leaf:
        name = self._claim(members["claim"], family)
        for word, member in members.items():
            if word != "claim" and word not in _OPERATORS:
                raise member.fault(
                    f"claim {name.text}",
                    got=f"unknown operator {word[:60]!r}",
                    expected="one of " + ", ".join(_OPERATORS),
                    hint=did_you_mean(word, list(_OPERATORS)),
                    at_name=True,
                )
        op = _only_operator(located, members, f"claim {name.text}")
        operand = parse_operand(op, name, members[op.value])
        self._require_own(operand, members[op.value])
        return Leaf(op, name.text, operand)

    def _claim(self, located: Located, family: str | None) -> ClaimName:
        text = located.text("claim", limit=256)
        name = resolve(text, self._vocabulary)
        if name is None:
            raise located.fault(
                "claim",
                got=f"unknown name {text[:80]!r}",
                expected="a name that some verifier gives",
                hint=suggestion(text, self._vocabulary),
            )
        if name.index is not None and (
            family is not None or name.family == REQUEST_FAMILY
        ):
            raise located.fault(
                "claim", got=text, expected=f"{name.spec.name}, without an index"
            )
        if family is not None and name.family != family:
            raise located.fault(
                f"claim inside every {family}",
                got=text,
                expected=f"a claim of {family}",
            )
        return name

    def _require_own(self, operand: Operand, located: Located) -> None:
        """A policy uses names of its own tenant, or shared ones."""
        names: list[str] = []
        if isinstance(operand, Reference):
            names = [operand.name]
        elif isinstance(operand, Measured):
            names = [
                step.name for step in operand.steps if isinstance(step, WorkloadStep)
            ]
        for name in names:
            owner, slash, _ = name.partition("/")
            if slash and owner not in {self._tenant, SHARED_TENANT}:
                raise located.fault(
                    "name of another tenant",
                    got=name,
                    expected=f"a name of {self._tenant} or {SHARED_TENANT}",
                )


def _only_operator(
    located: Located, members: dict[str, Located], subject: str
) -> Operator:
    words = [word for word in members if word in _OPERATORS]
    if len(words) != 1:
        raise located.fault(
            subject,
            got=" and ".join(words) or "no operator",
            expected="exactly one operator",
        )
    return _OPERATORS[words[0]]


def _safe(located: Located, *, allowed: bool) -> Safe:
    if not allowed:
        raise located.fault(
            "safe",
            got="safe deep inside a rule",
            expected="safe: true directly in the rule's own all",
            at_name=True,
        )
    if located.value is not True:
        raise located.fault("safe", got=located.kind(), expected="true")
    return Safe()
