"""From the bytes of a release policy to a checked, compiled policy.

Everything that can be wrong is found when a policy is registered, not when a workload
boots: names, operators, types, what is dangerously open. Each complaint has a line and
a column, and one run shows all of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from kbs.core.claims import Vocabulary
from kbs.core.encode import canonical_json
from kbs.core.errors import MalformedError
from kbs.core.ids import is_segment
from kbs.policy.claimed import misnamed
from kbs.policy.evaluate import Condition, build_condition
from kbs.policy.lint import warnings_of
from kbs.policy.located import Located, PolicyError, Problems
from kbs.policy.match import KeyGlob, parse_releases
from kbs.policy.model import (
    KIND,
    Accept,
    Dependencies,
    Door,
    Freshness,
    ReleasePolicy,
    Rule,
)
from kbs.policy.rules import RuleReader, parse_unsafe
from kbs.policy.safety import Open, expansion, open_points, requires_evidence
from kbs.policy.surplus import Mentioned, mentioned_by
from kbs.policy.yaml import MAX_BYTES, parse_yaml

__all__ = ["ParsedPolicy", "PolicyError", "parse_release_policy"]

MAX_RULES = 256
"""Most rules in one policy."""

MAX_AGE = 86_400
"""Oldest token, in seconds, that a policy can accept: a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRule:
    """A rule and its condition, with `safe: true` expanded."""

    rule: Rule
    condition: Condition = field(repr=False, compare=False)
    mentioned: Mentioned = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedPolicy:
    """A release policy that may be registered.

    `digest` is hex SHA-256 of `canonical`, the RFC 8785 form of the model; `warnings`
    are sentences for the author.
    """

    policy: ReleasePolicy
    canonical: bytes
    digest: str
    warnings: tuple[str, ...]
    globs: tuple[KeyGlob, ...]
    rules: tuple[CompiledRule, ...] = field(repr=False)
    dependencies: Dependencies


def parse_release_policy(
    source: bytes,
    *,
    vocabulary: Vocabulary,
    what: str = "policy",
    registered: bool = False,
) -> ParsedPolicy:
    """Read a release policy in YAML or JSON and check it against the vocabulary.

    `registered`: it was accepted earlier; what newer verifiers call dangerous to leave
    open is then a warning, because refusing would take its keys from everybody.

    Raises:
        PolicyError: anything is wrong with it; every problem with line and column.
        MalformedError: it is neither YAML nor JSON of the accepted kind.
    """
    document = parse_yaml(source, what, registered=registered)
    reader = _PolicyReader(Located(document, document.value), vocabulary, registered)
    policy = reader.policy()
    canonical = canonical_json(policy.to_json())
    if len(canonical) > MAX_BYTES:
        # It is read again from this form, whenever it is activated and loaded.
        raise MalformedError(
            f"{what} in canonical JSON",
            got=f"{len(canonical)} bytes",
            expected=f"at most {MAX_BYTES}",
        )
    return ParsedPolicy(
        policy=policy,
        canonical=canonical,
        digest=hashlib.sha256(canonical).hexdigest(),
        warnings=(*warnings_of(policy, vocabulary), *reader.warnings),
        globs=tuple(KeyGlob.parse(text) for text in policy.releases),
        rules=tuple(_compiled(rule, vocabulary) for rule in policy.allow),
        dependencies=policy.dependencies(),
    )


def _compiled(rule: Rule, vocabulary: Vocabulary) -> CompiledRule:
    safe = expansion(rule, vocabulary)
    condition = build_condition(rule.tree, vocabulary, safe=safe)
    return CompiledRule(rule=rule, condition=condition, mentioned=mentioned_by(rule))


class _PolicyReader:
    """Reads one document; collects problems instead of stopping at the first."""

    def __init__(
        self,
        root: Located,
        vocabulary: Vocabulary,
        registered: bool,  # noqa: FBT001 - private
    ) -> None:
        self._root = root
        self._vocabulary = vocabulary
        self._registered = registered
        self._problems = Problems()
        self.warnings: list[str] = []

    def policy(self) -> ReleasePolicy:
        members = self._members()
        collected = self._problems.collected
        name, accept, tolerate = "", Accept(), False
        releases: tuple[str, ...] = ()
        rules: tuple[Rule, ...] = ()
        unsafe: tuple[tuple[str, str], ...] = ()
        description: str | None = None
        with collected():
            _require_kind(members["kind"])
        with collected():
            name = _name(members["name"])
        with collected():
            releases = parse_releases(members["releases"])
        tenant = releases[0].partition("/")[0] if releases else None
        with collected():
            rules = self._rules(members["allow"], tenant)
        if "unsafe" in members:
            with collected():
                unsafe = parse_unsafe(members["unsafe"], self._vocabulary)
        if "accept" in members:
            with collected():
                accept = _accept(members["accept"])
                _require_excuse(members["accept"], accept, unsafe, rules)
        if "revocation" in members:
            with collected():
                tolerate = _revocation(members["revocation"])
        if "description" in members:
            with collected():
                description = members["description"].text("description", limit=4096)
        self._problems.finish()
        return ReleasePolicy(
            name=name,
            releases=releases,
            allow=rules,
            accept=accept,
            tolerate_missing_revocation=tolerate,
            unsafe=unsafe,
            description=description,
        )

    def _members(self) -> dict[str, Located]:
        # Another kind of document has other members: said beside what misses here.
        kind = self._root.mapping("ReleasePolicy").get("kind")
        try:
            return self._root.members(
                "ReleasePolicy",
                required=frozenset({"kind", "name", "releases", "allow"}),
                optional=frozenset({"accept", "revocation", "unsafe", "description"}),
            )
        except MalformedError as exc:
            if kind is None or kind.value == KIND:
                raise
            raise PolicyError((_wrong_kind(kind), exc)) from exc

    def _rules(self, located: Located, tenant: str | None) -> tuple[Rule, ...]:
        reader = RuleReader(self._vocabulary, tenant)
        rules: dict[str, Rule] = {}
        for element in located.elements("allow", most=MAX_RULES):
            with self._problems.collected():
                rule = reader.rule(element)
                if rule.name in rules:
                    raise element.fault(
                        "rule name", got=f"{rule.name} twice", expected="another name"
                    )
                rules[rule.name] = rule
                self._check_rule(rule, element)
        return tuple(rules.values())

    def _check_rule(self, rule: Rule, located: Located) -> None:
        if not requires_evidence(rule, self._vocabulary):
            raise located.fault(
                f"rule {rule.name}",
                got="a way through it without any evidence",
                expected="a condition on evidence in every way through the rule",
            )
        for point in (*open_points(rule, self._vocabulary), *misnamed(rule)):
            problem = _open_fault(rule, located, point)
            if self._registered:
                self.warnings.append(str(problem))
            else:
                self._problems.add(problem)


def _open_fault(rule: Rule, located: Located, point: Open) -> MalformedError:
    return located.fault(
        f"rule {rule.name} {point.claim}",
        got=point.got,
        expected=point.expected,
        hint=point.hint,
    )


def _require_kind(located: Located) -> None:
    if located.value != KIND:
        raise _wrong_kind(located)


def _wrong_kind(located: Located) -> MalformedError:
    return located.fault("kind", got=located.kind(), expected=KIND)


def _name(located: Located) -> str:
    name = located.text("name", limit=64)
    if not is_segment(name):
        raise located.fault(
            "name",
            got=located.kind(),
            expected="1 to 64 of a-z 0-9 . _ - that start and end alphanumeric",
        )
    return name


def _accept(located: Located) -> Accept:
    members = located.members(
        "accept", optional=frozenset({"doors", "freshness", "max_age"})
    )
    doors = Accept().doors
    if "doors" in members:
        doors = _doors(members["doors"])
    freshness = Freshness.CHALLENGE
    if "freshness" in members:
        freshness = _freshness(members["freshness"])
    max_age = None
    if "max_age" in members:
        max_age = members["max_age"].integer("max_age", least=1, most=MAX_AGE)
    if (freshness is Freshness.TOKEN_AGE) is not (max_age is not None):
        raise located.fault(
            "accept",
            got=f"freshness {freshness.value} and max_age {max_age}".lower(),
            expected="max_age (seconds) with freshness token_age, and only there",
        )
    return Accept(doors=doors, freshness=freshness, max_age=max_age)


def _doors(located: Located) -> tuple[Door, ...]:
    known = {door.value: door for door in Door}
    doors: dict[Door, None] = {}
    for element in located.elements("doors", most=len(known)):
        door = known.get(element.text("doors"))
        if door is None or door in doors:
            raise element.fault(
                "doors", got=element.kind(), expected="each once: " + ", ".join(known)
            )
        doors[door] = None
    return tuple(doors)


def _freshness(located: Located) -> Freshness:
    known = {freshness.value: freshness for freshness in Freshness}
    freshness = known.get(located.text("freshness"))
    if freshness is None:
        raise located.fault("freshness", got=located.kind(), expected=", ".join(known))
    return freshness


def _require_excuse(
    located: Located,
    accept: Accept,
    unsafe: tuple[tuple[str, str], ...],
    rules: tuple[Rule, ...],
) -> None:
    if accept.freshness is not Freshness.NONE or "request.freshness" in dict(unsafe):
        return
    # The excuse may also stand in the rules, if it stands in each of them.
    if rules and all("request.freshness" in dict(rule.unsafe) for rule in rules):
        return
    raise located.fault(
        "accept freshness none",
        got="no excuse",
        expected="unsafe: {request.freshness: reason} beside it",
        hint="evidence of unknown age may be a replay",
    )


def _revocation(located: Located) -> bool:
    members = located.members("revocation", required=frozenset({"tolerate_missing"}))
    return members["tolerate_missing"].flag("tolerate_missing")
