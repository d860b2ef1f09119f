"""An appraisal for people and programs: the tree with got and expected.

The JSON form is fixed by contract, section 5; `reasons`, `nearest` and a leaf's
`detail` go beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.decision import Denied
from kbs.policy.appraise import Appraisal, RuleResult, text
from kbs.policy.evaluate import Outcome

_MARKS = {True: "✓", False: "✗", None: "?"}

# More of a long list or digest than this helps nobody on a terminal.
_WIDEST = 160


def explain_json(appraisal: Appraisal) -> dict[str, object]:
    """Return the document of `kbs policy explain --json`."""
    document: dict[str, object] = {
        "decision": "granted" if appraisal.granted else "denied",
        "policy": appraisal.policy.name,
        "digest": appraisal.policy.digest,
        "rules": [
            {"rule": each.rule, "result": each.result, "tree": tree_json(each.tree)}
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


def explain_text(appraisal: Appraisal) -> str:
    """Return the same for a terminal: ✓ holds, ✗ does not, ? is unknown."""
    word = "granted" if appraisal.granted else "denied"
    ref = appraisal.policy
    version = f" version {ref.version}" if ref.version else ""
    lines = [f"{word} by policy {ref.name}{version} ({ref.digest[:16]}…)"]
    lines += _request_lines(appraisal)
    for result in appraisal.rules:
        lines += _rule_lines(result)
    if not appraisal.granted and appraisal.nearest.distance:
        nearest = appraisal.nearest
        plural = "" if nearest.distance == 1 else "s"
        lines.append(
            f"nearest: rule {nearest.rule}, {nearest.distance} condition{plural} away"
        )
    return "\n".join(lines) + "\n"


def _request_lines(appraisal: Appraisal) -> list[str]:
    if not isinstance(appraisal.decision, Denied):
        return []
    return [
        f"✗ {each.id}: got {each.got}, accepts {each.expected}"
        for each in appraisal.decision.reasons
        if each.rule is None
    ]


def _rule_lines(result: RuleResult) -> list[str]:
    head = f"{_MARKS[result.result]} rule {result.rule}"
    return [head, *_tree_lines(result.tree, 1)]


def _tree_lines(outcome: Outcome, depth: int) -> list[str]:
    indent = "  " * depth
    words = [_MARKS[outcome.result], outcome.op]
    if outcome.claim is not None:
        words = [_MARKS[outcome.result], outcome.claim, outcome.op]
    is_leaf = not outcome.children
    if is_leaf and outcome.expected is not None and outcome.result is True:
        words.append(_short(outcome.expected))
    lines = [indent + " ".join(words)]
    if is_leaf and outcome.claim is not None and outcome.result is not True:
        got = "absent" if outcome.got is None else _short(outcome.got)
        lines.append(f"{indent}    got      {got}")
        if outcome.expected is not None:
            lines.append(f"{indent}    expected {_short(outcome.expected)}")
    if outcome.detail:
        lines.append(f"{indent}    {text(outcome.detail)}")
    for child in outcome.children:
        lines += _tree_lines(child, depth + 1)
    return lines


def _short(value: object) -> str:
    line = text(value)
    return line if len(line) <= _WIDEST else line[: _WIDEST - 1] + "…"
