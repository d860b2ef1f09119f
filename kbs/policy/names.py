"""What a claim's name in a policy refers to.

A name is `family.rest`, with `family[i].rest` for one of several items, and
`claim.component` for one component of a TCB.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace

from kbs.core.claims import ClaimSpec, ClaimType, Vocabulary

REQUEST_FAMILY = "request"
"""Claims about the request; they are no evidence."""

DEVELOPMENT_FAMILIES = frozenset({"sample", "sampledevice"})
"""Evidence without any hardware behind it; it counts in development mode only."""

_NAME = re.compile(
    r"([a-z][a-z0-9_]*)(?:\[(0|[1-9][0-9]{0,2})\])?\.([a-z0-9_]+(?:\.[a-z0-9_]+)*)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimName:
    """A resolved name.

    `key` is the name under which an item carries the value; `component` picks one
    SVN out of a TCB; `index` picks one of several items.
    """

    text: str
    family: str
    spec: ClaimSpec
    key: str
    index: int | None = None
    component: str | None = None


def resolve(text: str, vocabulary: Vocabulary) -> ClaimName | None:
    """Return what the name refers to, or None if no verifier gives such a claim."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    family, index, rest = match.groups()
    plain = f"{family}.{rest}"
    position = int(index) if index is not None else None
    spec = vocabulary.find(plain)
    if spec is not None:
        return ClaimName(text=text, family=family, spec=spec, key=plain, index=position)
    return _component(text, plain, position, vocabulary)


def _component(
    text: str, plain: str, index: int | None, vocabulary: Vocabulary
) -> ClaimName | None:
    parent, _, component = plain.rpartition(".")
    spec = vocabulary.find(parent)
    if spec is None or spec.type is not ClaimType.TCB:
        return None
    if component not in spec.components:
        return None
    single = replace(
        spec, name=plain, type=ClaimType.INT, components=(), safety=None, register=None
    )
    return ClaimName(
        text=text,
        family=spec.family,
        spec=single,
        key=parent,
        index=index,
        component=component,
    )


def suggestion(text: str, vocabulary: Vocabulary) -> str | None:
    """Return `did you mean …?` for a name that is nearly one of the vocabulary's."""
    return did_you_mean(re.sub(r"\[[^\]]*\]", "", text), _all_names(vocabulary))


def did_you_mean(text: str, candidates: list[str]) -> str | None:
    """Return `did you mean …?` with the nearest candidate, if one is near."""
    near = difflib.get_close_matches(text[:200], candidates, n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else None


def _all_names(vocabulary: Vocabulary) -> list[str]:
    names = []
    for spec in vocabulary:
        names.append(spec.name)
        names.extend(f"{spec.name}.{component}" for component in spec.components)
    return names
