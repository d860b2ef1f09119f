"""Which verified items a rule says nothing about.

A genuine device beside those that a rule asks for does no harm by itself: a failed one
refuses the bundle, whatever the rule. But an author wants to know of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbs.core.claims import Claims
from kbs.policy.model import Count, Every, Leaf, Rule, parts_of


@dataclass(frozen=True, slots=True)
class Mentioned:
    """What a rule speaks of: whole families, and single items of others."""

    families: frozenset[str]
    items: frozenset[tuple[str, int]]

    def surplus(self, claims: Claims) -> tuple[str, ...]:
        """Return the items that are not spoken of, as `nvgpu[1]`."""
        seen: dict[str, int] = {}
        found = []
        for item in claims.items:
            place = seen.get(item.family, 0)
            seen[item.family] = place + 1
            if item.family in self.families or (item.family, place) in self.items:
                continue
            found.append(f"{item.family}[{place}]")
        return tuple(found)


def mentioned_by(rule: Rule) -> Mentioned:
    """Return what the conditions of a rule speak of."""
    families: set[str] = set()
    items: set[tuple[str, int]] = set()
    for part in parts_of(rule.tree):
        if isinstance(part, (Every, Count)):
            families.add(part.family)
        elif isinstance(part, Leaf):
            family, indexed, index = part.claim.partition(".")[0].partition("[")
            if indexed:
                items.add((family, int(index.removesuffix("]"))))
            else:
                families.add(family)
    return Mentioned(frozenset(families), frozenset(items))
