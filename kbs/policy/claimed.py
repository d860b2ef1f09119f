"""How claims write the names of AK groups and CAs, and where a rule writes another way.

A claim has the bare name of what is the tenant's own and `shared/NAME` of what is in
`shared/` (`Claims.scoped_to`), or the name of a pinned root. Anything else is equal to
no claim ever: `equals` would refuse everything, and `not_in` exclude nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from kbs.core.claims import ClaimSpec, names_object
from kbs.core.ids import SHARED_TENANT, is_segment
from kbs.policy.model import (
    PINNED,
    Leaf,
    Operator,
    Rule,
    Scalar,
    Values,
    leaves_of,
)
from kbs.policy.safety import Open

_EXPECTED = "NAME of the tenant's own, or shared/NAME"


def misnamed(rule: Rule) -> Iterator[Open]:
    """Yield every literal that no claim about a group or a CA can have."""
    for leaf in leaves_of(rule.tree):
        if not names_object(leaf.claim):
            continue
        for value in _literals(leaf):
            if not is_claimed(value):
                yield Open(
                    claim=leaf.claim,
                    got=repr(value)[:80],
                    expected=_EXPECTED,
                    hint="no claim is written so: this would be equal to none",
                    excuses=(),
                )


def expected_name(spec: ClaimSpec, value: Scalar) -> str | None:
    """Return how a name of a group or a CA is written, if `value` is not."""
    if not names_object(spec.name) or is_claimed(value):
        return None
    return _EXPECTED


def is_claimed(value: Scalar) -> bool:
    """Whether a claim can name a group or a CA like this."""
    if value in PINNED:
        return True
    owner, slash, name = str(value).rpartition("/")
    return is_segment(name) and (not slash or owner == SHARED_TENANT)


def _literals(leaf: Leaf) -> tuple[Scalar, ...]:
    if isinstance(leaf.operand, Values):
        return leaf.operand.items
    is_name = leaf.op is Operator.EQUALS and isinstance(leaf.operand, str)
    return (str(leaf.operand),) if is_name else ()
