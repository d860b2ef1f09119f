"""Two versions of a policy, compared: text, and which ways to a key came and went."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass

from kbs.core.encode import parse_json
from kbs.core.errors import MalformedError
from kbs.governance.objects import MAX_OBJECT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A unified diff of the canonical forms, and what it does to rules and globs."""

    before: str
    after: str
    lines: tuple[str, ...]
    changes: dict[str, dict[str, list[str]]]

    def notes(self) -> tuple[str, ...]:
        """Return one sentence for each sort of change."""
        words = {
            ("rules", "added"): "rules added (each is one more way to be granted)",
            ("rules", "removed"): "rules removed",
            ("rules", "changed"): "rules changed",
            ("releases", "added"): "keys governed in addition (restricts those that "
            "another policy governs, and is a way to those that none did)",
            ("releases", "removed"): "keys not governed any more (may widen access)",
            ("doors", "added"): "doors accepted in addition (may widen access)",
            ("doors", "removed"): "doors not accepted any more",
            ("freshness", "changed"): "freshness changed",
            ("revocation", "changed"): "revocation changed",
        }
        return tuple(
            f"{text}: {', '.join(names)}"
            for (part, change), text in words.items()
            if (names := self.changes.get(part, {}).get(change))
        )

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "from": self.before,
            "to": self.after,
            "diff": list(self.lines),
            **self.changes,
        }


def compare(old: bytes, new: bytes, *, before: str, after: str) -> Difference:
    """Compare the contents of two versions.

    Workload policies are compared as the text that they are.
    """
    changes: dict[str, dict[str, list[str]]] = {}
    first, second = _document(old), _document(new)
    if first is not None and second is not None:
        changes = {
            "rules": _changes(_rules(first), _rules(second)),
            "releases": _changes(_releases(first), _releases(second)),
            "doors": _changes(_doors(first), _doors(second)),
            "freshness": _changes_of(_freshness(first), _freshness(second)),
            "revocation": _changes_of(_revocation(first), _revocation(second)),
        }
    lines = difflib.unified_diff(
        _pretty(old, first), _pretty(new, second), before, after, lineterm=""
    )
    return Difference(before=before, after=after, lines=tuple(lines), changes=changes)


def _document(content: bytes) -> dict[str, object] | None:
    try:
        document = parse_json(content, "policy", limit=MAX_OBJECT_BYTES)
    except MalformedError:
        return None
    if isinstance(document, dict) and document.get("kind") == "ReleasePolicy":
        return document
    return None


def _pretty(content: bytes, document: dict[str, object] | None) -> list[str]:
    if document is None:
        return content.decode("utf-8", "replace").splitlines()
    return json.dumps(
        document, indent=2, sort_keys=True, ensure_ascii=False
    ).splitlines()


def _rules(document: dict[str, object]) -> dict[str, object]:
    rules = document.get("allow")
    return {
        str(rule.get("rule")): rule
        for rule in (rules if isinstance(rules, list) else [])
        if isinstance(rule, dict)
    }


def _releases(document: dict[str, object]) -> dict[str, object]:
    releases = document.get("releases")
    return dict.fromkeys(map(str, releases if isinstance(releases, list) else []))


def _accept(document: dict[str, object]) -> dict[str, object]:
    accept = document.get("accept")
    return accept if isinstance(accept, dict) else {}


def _doors(document: dict[str, object]) -> dict[str, object]:
    doors = _accept(document).get("doors")
    return dict.fromkeys(map(str, doors if isinstance(doors, list) else []))


def _freshness(document: dict[str, object]) -> str:
    accept = _accept(document)
    most = accept.get("max_age")
    return f"{accept.get('freshness')}" + (f" up to {most} s" if most else "")


def _revocation(document: dict[str, object]) -> str:
    revocation = document.get("revocation")
    members = revocation if isinstance(revocation, dict) else {}
    if members.get("tolerate_missing") is True:
        return "a missing list is tolerated"
    return "a current list is needed"


def _changes_of(old: str, new: str) -> dict[str, list[str]]:
    changed = [] if old == new else [f"{old} → {new}"]
    return {"added": [], "removed": [], "changed": changed}


def _changes(old: dict[str, object], new: dict[str, object]) -> dict[str, list[str]]:
    return {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }
