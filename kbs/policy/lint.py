"""What is worth a warning when a policy is registered, but no error."""

from __future__ import annotations

from collections.abc import Collection

from kbs.core.claims import Vocabulary
from kbs.policy.analysis import families_of, name_of
from kbs.policy.model import Freshness, Leaf, ReleasePolicy, Rule, parts_of
from kbs.policy.names import DEVELOPMENT_FAMILIES
from kbs.policy.safety import all_points, fixes_boot


def warnings_of(policy: ReleasePolicy, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return one sentence for each thing that an author should look at again."""
    found: list[str] = []
    # What the whole policy leaves open is excused beside `accept`, or in every rule.
    accepts_any = policy.accept.freshness is Freshness.NONE
    accepted = frozenset({"request.freshness"} if accepts_any else ())
    in_rules = accepted - dict(policy.unsafe).keys()
    for rule in policy.allow:
        found += _of_rule(rule, vocabulary, in_rules)
    found += [
        f"unsafe {claim} of the policy excuses nothing: what a rule leaves open is "
        "excused in the rule"
        for claim, _ in policy.unsafe
        if claim not in accepted
    ]
    if policy.tolerate_missing_revocation:
        found.append(
            "revocation.tolerate_missing: keys leave without a current revocation "
            "list; every such decision is recorded"
        )
    return tuple(found)


def _of_rule(
    rule: Rule, vocabulary: Vocabulary, accepted: Collection[str]
) -> list[str]:
    found: list[str] = []
    unproven = sorted(DEVELOPMENT_FAMILIES.intersection(families_of(rule, vocabulary)))
    if unproven:
        found.append(
            f"rule {rule.name}: {', '.join(unproven)}.* claims prove nothing; "
            "the rule grants in development mode only"
        )
    elif not fixes_boot(rule, vocabulary):
        found.append(
            f"rule {rule.name}: nothing fixes what boots; any guest on such hardware "
            "is granted"
        )
    found += [f"rule {rule.name}: {text}" for text in _open_boot(rule, vocabulary)]
    found += [f"rule {rule.name}: {text}" for text in _idle(rule, vocabulary, accepted)]
    return found


def _open_boot(rule: Rule, vocabulary: Vocabulary) -> list[str]:
    # Boot registers come as a set: whoever controls one that is left open chooses a
    # part of what runs.
    named = {
        name_of(part, vocabulary).spec.name
        for part in parts_of(rule.tree)
        if isinstance(part, Leaf)
    }
    banks = {
        name.rpartition(".")[0]
        for name in named
        if (spec := vocabulary.find(name)) and spec.boot and spec.register
    }
    found = []
    for bank in sorted(banks):
        missing = [
            spec.name.rpartition(".")[2]
            for spec in vocabulary
            if spec.boot and spec.name.rpartition(".")[0] == bank
            if spec.name not in named
        ]
        if missing:
            found.append(f"boot registers of {bank} left open: {', '.join(missing)}")
    return found


def _idle(rule: Rule, vocabulary: Vocabulary, accepted: Collection[str]) -> list[str]:
    needed = {
        *accepted,
        *(claim for point in all_points(rule, vocabulary) for claim in point.excuses),
    }
    return [
        f"unsafe {claim} excuses nothing: the rule does not leave it open"
        for claim, _ in rule.unsafe
        if claim not in needed
    ]
