"""A policy's own tests: a policy, a context, and cases that it must decide rightly.

Contract, section 5: `policy.yaml`, `context.yaml`, `allow/*.json`, `deny/*.json`.
A case is `{"claims": {…}, "request": {"keys", "door", "freshness"}, "reasons": […]}`;
its request may also say `time`, `token_age` and `development`. `reasons` (deny only)
are ids that the denial has to name. A folder without a case of each kind fails: a
policy that grants everything, or nothing, would pass one kind alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kbs.core.claims import (
    Claims,
    ClaimSpec,
    ClaimType,
    ClaimValue,
    ItemClaims,
    Vocabulary,
)
from kbs.core.decision import Decision, Denied, Granted
from kbs.core.encode import (
    MAX_INTEGER,
    parse_json_object,
    require_integer,
    require_list,
    require_members,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.core.ids import KeyId, parse_key_id
from kbs.policy.context import Context, TenantView, missing_names
from kbs.policy.contextfile import load_context, read_file
from kbs.policy.decide import ActivePolicy, KeyAppraisal, appraise_key
from kbs.policy.names import REQUEST_FAMILY, suggestion
from kbs.policy.operands import expected_text
from kbs.policy.parse import ParsedPolicy, parse_release_policy
from kbs.policy.references import reference_faults
from kbs.policy.request import REQUEST_MEMBERS, request_claims
from kbs.policy.yaml import MAX_BYTES

MAX_CASE = 1024 * 1024
"""Largest case file."""

_MAX_KEYS = 64
_MAX_ITEMS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """Whether one case came out as its folder says; `detail` says how it did not."""

    name: str
    passed: bool
    detail: str = ""
    appraisals: tuple[KeyAppraisal, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderResult:
    """All cases of a policy folder."""

    policy: ParsedPolicy
    cases: tuple[CaseResult, ...]
    problems: tuple[str, ...]
    """What is wrong with the folder as a whole."""

    @property
    def passed(self) -> bool:
        """Whether every case passed and nothing else is wrong."""
        return not self.problems and all(case.passed for case in self.cases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case file, read."""

    claims: Claims
    keys: tuple[KeyId, ...]
    reasons: tuple[str, ...]
    development: bool


def run_folder(folder: Path, vocabulary: Vocabulary) -> FolderResult:
    """Run every case of a policy folder.

    Raises:
        MalformedError: the policy or the context cannot be read; a wrong case only
            fails by itself.
    """
    source = read_file(folder / "policy.yaml", "policy.yaml", limit=MAX_BYTES)
    parsed = parse_release_policy(source, vocabulary=vocabulary, what="policy.yaml")
    context = Context()
    if (folder / "context.yaml").is_file():
        context = load_context(folder / "context.yaml", tenant=parsed.policy.tenant)
    view = context.view(parsed.policy.tenant)
    problems = list(missing_names(parsed.dependencies, view))
    problems += reference_faults(parsed.policy, view, vocabulary)
    results: list[CaseResult] = []
    for kind in ("allow", "deny"):
        paths = sorted((folder / kind).glob("*.json"))
        if not paths:
            problems.append(f"no case in {kind}/")
        results += [_run(path, kind, parsed, view, vocabulary) for path in paths]
    return FolderResult(policy=parsed, cases=tuple(results), problems=tuple(problems))


def _run(
    path: Path,
    kind: str,
    parsed: ParsedPolicy,
    view: TenantView,
    vocabulary: Vocabulary,
) -> CaseResult:
    name = f"{kind}/{path.name}"
    try:
        source = read_file(path, name, limit=MAX_CASE)
        case = parse_case(source, vocabulary, name, deny=kind == "deny")
    except MalformedError as exc:
        return CaseResult(name=name, passed=False, detail=str(exc))
    appraisals = tuple(
        appraise_key(
            [ActivePolicy(parsed=parsed, version=0)],
            key,
            case.claims,
            view,
            development=case.development,
        )
        for key in case.keys
    )
    decisions = [each.decision for each in appraisals]
    detail = _unexpected(kind, case, decisions)
    return CaseResult(
        name=name, passed=not detail, detail=detail, appraisals=appraisals
    )


def _unexpected(kind: str, case: Case, decisions: list[Decision]) -> str:
    ids = [
        reason.id
        for decision in decisions
        if isinstance(decision, Denied)
        for reason in decision.reasons
    ]
    if kind == "allow":
        return "denied: " + ", ".join(dict.fromkeys(ids)) if ids else ""
    if any(isinstance(decision, Granted) for decision in decisions):
        return "granted"
    missing = [each for each in case.reasons if each not in ids]
    if missing:
        named = ", ".join(dict.fromkeys(ids))
        return f"denied, but not for {', '.join(missing)}: {named}"
    return ""


def parse_case(source: bytes, vocabulary: Vocabulary, what: str, *, deny: bool) -> Case:
    """Read one case file.

    Raises:
        MalformedError: unknown members or claims, or values of another type.
    """
    document = require_members(
        parse_json_object(source, what, limit=MAX_CASE),
        what,
        required={"claims", "request"},
        optional={"reasons"} if deny else set(),
    )
    request = require_members(
        document["request"],
        f"{what} request",
        required={"keys"},
        optional={*REQUEST_MEMBERS, "development"},
    )
    keys = require_list(request["keys"], f"{what} keys", limit=_MAX_KEYS)
    if not keys:
        raise MalformedError(f"{what} keys", got="none", expected="at least one")
    items = parse_claims(document["claims"], vocabulary, f"{what} claims")
    reasons = require_list(document.get("reasons", []), f"{what} reasons", limit=64)
    return Case(
        claims=Claims(items=items, request=request_claims(request, what)),
        keys=tuple(parse_key_id(key) for key in keys),
        reasons=tuple(require_text(each, f"{what} reason") for each in reasons),
        development=_flag(request.get("development", False), f"{what} development"),
    )


def parse_claims(
    document: object, vocabulary: Vocabulary, what: str
) -> tuple[ItemClaims, ...]:
    """Read nested claims as `evidence verify` writes them, typed by the vocabulary.

    Raises:
        MalformedError: a name that no verifier gives, or a value of another type.
    """
    items: list[ItemClaims] = []
    for family, value in require_object(document, what).items():
        if family == REQUEST_FAMILY:
            raise MalformedError(
                f"{what} {family}", expected="the request's claims under request"
            )
        members = value if isinstance(value, list) else [value]
        for member in require_list(members, f"{what} {family}", limit=_MAX_ITEMS):
            values: dict[str, ClaimValue] = {}
            _flatten(member, family, vocabulary, what, values)
            items.append(ItemClaims(family=family, item=len(items), values=values))
    return tuple(items)


def _flatten(
    value: object,
    name: str,
    vocabulary: Vocabulary,
    what: str,
    values: dict[str, ClaimValue],
) -> None:
    spec = vocabulary.find(name)
    if spec is not None:
        values[name] = _claim_value(value, spec, f"{what} {name}")
        return
    if not isinstance(value, dict):
        raise MalformedError(
            f"{what} {name}",
            got="a claim that no verifier gives",
            hint=suggestion(name, vocabulary),
        )
    for member, child in value.items():
        _flatten(child, f"{name}.{member}", vocabulary, what, values)


def _claim_value(value: object, spec: ClaimSpec, what: str) -> ClaimValue:
    if spec.type is ClaimType.BOOL:
        return _flag(value, what)
    if spec.type is ClaimType.INT:
        # Trustworthiness vectors (EAR) have values below zero.
        return require_integer(value, what, least=-MAX_INTEGER, most=MAX_INTEGER)
    if spec.type is ClaimType.TCB:
        return _svns(value, spec, what)
    if spec.type is ClaimType.TEXTS:
        texts = require_list(value, what, limit=1024)
        return tuple(require_text(text, what) for text in texts)
    text = require_text(value, what)
    expected = expected_text(spec, text) if text else None
    if expected is not None:
        raise MalformedError(what, got=repr(text)[:80], expected=expected)
    return text


def _svns(value: object, spec: ClaimSpec, what: str) -> dict[str, int]:
    svns = require_members(value, what, required=set(), optional=set(spec.components))
    return {
        name: require_integer(svn, f"{what} {name}", least=0, most=MAX_INTEGER)
        for name, svn in svns.items()
    }


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise MalformedError(what, got=repr(value)[:40], expected="true or false")
    return value
