"""An appraisal as a document: the tree with got and expected.

The JSON form is fixed by contract, section 5; `reasons`, `nearest`, a rule's `surplus`
(items that it says nothing about) and a leaf's `detail` go beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kbs.core.decision import Denied
from kbs.core.ids import KeyId
from kbs.policy.appraise import Appraisal
from kbs.policy.evaluate import Outcome
from kbs.policy.parse import ParsedPolicy


def explain_json(appraisal: Appraisal) -> dict[str, object]:
    """Return the document of `kbs policy explain --json`."""
    document: dict[str, object] = {
        "decision": "granted" if appraisal.granted else "denied",
        "policy": appraisal.policy.name,
        "digest": appraisal.policy.digest,
        "rules": [
            {
                "rule": each.rule,
                "result": each.result,
                "tree": tree_json(each.tree),
                "surplus": list(each.surplus),
            }
            for each in appraisal.rules
        ],
        "reasons": [],
        "nearest": None,
    }
    if isinstance(appraisal.decision, Denied):
        document["reasons"] = [each.to_json() for each in appraisal.decision.reasons]
        nearest = appraisal.nearest
        document["nearest"] = {"rule": nearest.rule, "changes": nearest.distance}
    return document


def not_covered(parsed: ParsedPolicy, keys: Sequence[KeyId]) -> list[str]:
    """Return the keys that are none of a policy's: it says nothing about them."""
    return [
        str(key) for key in keys if not any(glob.matches(key) for glob in parsed.globs)
    ]


def tree_json(outcome: Outcome) -> dict[str, object]:
    """Return one node and everything below it."""
    node: dict[str, object] = {
        "op": outcome.op,
        "claim": outcome.claim,
        "got": _plain(outcome.got),
        "expected": outcome.expected,
        "result": outcome.result,
        "children": [tree_json(child) for child in outcome.children],
    }
    if outcome.detail:
        node["detail"] = outcome.detail
    return node


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
