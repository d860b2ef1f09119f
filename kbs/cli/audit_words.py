"""Entries of the log in words: one row each, or the whole story of one decision."""

from __future__ import annotations

from collections.abc import Mapping

from kbs.cli.evidence import field_lines, plain
from kbs.cli.render import escaped
from kbs.client.words import words_for

COLUMNS = ("index", "time", "kind", "id", "about")

_RELEASES = frozenset({"release.granted", "release.denied", "release.probe"})


def row_of(entry: Mapping[str, object]) -> tuple[object, ...]:
    """Return the cells of one entry."""
    body = _mapping(entry.get("body"))
    return (
        entry.get("index"),
        body.get("time"),
        entry.get("kind"),
        entry.get("decision") or entry.get("id"),
        about(str(entry.get("kind")), body),
    )


def about(kind: str, body: Mapping[str, object]) -> str:
    """Return what an entry is about, on one line."""
    if kind in _RELEASES:
        named = [
            f"{_key_of(one)} {one.get('decision')}" for one in _mappings(body, "keys")
        ]
        if body.get("withheld"):
            # The body tells of another tenant too (`kbs.broker.auditing`).
            named.append("the rest is for auditors of all its tenants")
        return ", ".join(named) or str(body.get("outcome"))
    if kind == "statement":
        said = _mapping(body.get("statement"))
        return (
            f"{said.get('seq')}: {said.get('action')} {said.get('kind')} "
            f"{said.get('tenant')}/{said.get('name')} version {said.get('version')}"
        )
    if kind.startswith("key."):
        return f"{body.get('key')} version {body.get('version')}"
    if kind == "refusals":
        return f"{body.get('count')} × {body.get('reason')}"
    words = [body.get(name) for name in ("action", "target", "subject", "reason")]
    return " ".join(str(word) for word in words if word)


def explained(entry: Mapping[str, object]) -> dict[str, object]:
    """Return the story of one entry: what was asked, what was decided, and why."""
    body = _mapping(entry.get("body"))
    kind = str(entry.get("kind"))
    document: dict[str, object] = {
        "id": entry.get("decision") or entry.get("id"),
        "entry": entry.get("id"),
        "index": entry.get("index"),
        "kind": kind,
        "time": body.get("time"),
        "summary": about(kind, body),
    }
    sample = _mapping(entry.get("sample"))
    if sample:
        document["id"] = sample.get("decision")
        document["time"] = sample.get("time")
        document["outcome"] = "refused"
        document["checks"] = [_sampled_check(sample)]
        document["summary"] = "refused before the evidence authenticated"
    elif kind in _RELEASES:
        keys = _mappings(body, "keys")
        document["outcome"] = body.get("outcome")
        document["asked"] = {
            "mode": body.get("mode"),
            "door": body.get("door"),
            "freshness": body.get("freshness"),
            "keys": [_key_of(one) for one in keys],
        }
        document["checks"] = _mappings(_mapping(body.get("checks")), "failed")
        document["reasons"] = body.get("reasons", [])
        document["keys"] = keys
        document["nearest"] = _nearest(keys)
    else:
        document["body"] = dict(body)
    return document


def lines_of(document: Mapping[str, object]) -> list[str]:
    """Return the story as lines for people."""
    lines = [f"{document.get('kind')} {document.get('id')} at {document.get('time')}"]
    asked = _mapping(document.get("asked"))
    if asked:
        listed = asked.get("keys")
        keys = listed if isinstance(listed, list) else []
        lines.append(
            f"asked: {asked.get('mode')} of {', '.join(map(str, keys)) or 'no key'} "
            f"by door {asked.get('door')}, freshness {asked.get('freshness')}"
        )
    outcome = document.get("outcome")
    lines.append(
        f"{document.get('summary')}" if outcome is None else f"outcome: {outcome}"
    )
    for check in _mappings(document, "checks"):
        lines += _finding(check, "check")
    for reason in _mappings(document, "reasons"):
        lines += _finding(reason, "reason")
    for key in _mappings(document, "keys"):
        lines += _key_lines(key)
    nearest = _mapping(document.get("nearest"))
    if nearest:
        lines.append(
            f"nearest rule: {nearest.get('rule')} of policy {nearest.get('policy')}"
        )
    body = _mapping(document.get("body"))
    lines += field_lines(body, "  ")
    return [_kept(line) for line in lines]


def _kept(line: str) -> str:
    # The indent is ours; everything after it came from the log.
    indent = line[: len(line) - len(line.lstrip(" "))]
    return indent + escaped(line.lstrip(" "))


def _key_lines(key: Mapping[str, object]) -> list[str]:
    lines = [f"key {_key_of(key)}: {key.get('decision')}"]
    for policy in _mappings(key, "policies"):
        rule = f", rule {policy['rule']}" if policy.get("rule") else ""
        lines.append(
            f"  policy {policy.get('name')} version {policy.get('version')}{rule}"
        )
    for reason in _mappings(key, "reasons"):
        lines += [f"  {line}" for line in _finding(reason, "reason")]
    return lines


def _finding(finding: Mapping[str, object], word: str) -> list[str]:
    found = str(finding.get("id"))
    where = f" [rule {finding['rule']}]" if finding.get("rule") else ""
    status = f" {finding['status']}" if finding.get("status") else ""
    lines = [f"{word}{status}: {words_for(found)}{where}"]
    lines += [
        f"    {name:<8} {plain(finding[name])}"
        for name in ("detail", "got", "expected")
        if finding.get(name)
    ]
    return lines


def _sampled_check(sample: Mapping[str, object]) -> dict[str, object]:
    members = {
        "id": sample.get("check"),
        "status": "fail",
        "detail": sample.get("detail"),
        "got": sample.get("got"),
        "expected": sample.get("expected"),
    }
    return {name: value for name, value in members.items() if value is not None}


def _nearest(keys: list[dict[str, object]]) -> dict[str, object] | None:
    # Reasons are in order of distance: the first one's rule is the nearest.
    for key in keys:
        for reason in _mappings(key, "reasons"):
            if reason.get("rule"):
                return {"rule": reason["rule"], "policy": reason.get("policy")}
    return None


def _key_of(key: Mapping[str, object]) -> str:
    version = key.get("version")
    return f"{key.get('id')}" + ("" if version is None else f"@{version}")


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _mappings(document: Mapping[str, object], name: str) -> list[dict[str, object]]:
    value = document.get(name)
    if not isinstance(value, list):
        return []
    return [one for one in value if isinstance(one, dict)]
