"""An evidence bundle: items of any family, and the binding that joins them.

`{"format": "kbs.evidence/1", "runtime_data"?: {…}, "items": [{"kind": …}, …]}`

Runtime data is kept here as it came; what it must contain, and the bytes that prove
it, belong to the channel, which gives them as a `BundleBinding`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kbs.core.checks import Check, Status, Verdict, verdict
from kbs.core.claims import Claims, ClaimValue
from kbs.core.encode import parse_json, require_list, require_members, require_object
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_name
from kbs.evidence.joining import AppraisedItem, BundleBinding, Joined, join_items
from kbs.evidence.model import Trust, Verifier

FORMAT = "kbs.evidence/1"
MAX_BUNDLE_BYTES = 1024 * 1024
MAX_ITEMS = 16


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle with its shape checked; items and runtime data are not parsed yet."""

    items: tuple[Mapping[str, object], ...]
    runtime_data: Mapping[str, object] | None = None

    def kind(self, index: int) -> str:
        """Return the kind of one item."""
        return str(self.items[index]["kind"])

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        document: dict[str, object] = {
            "format": FORMAT,
            "items": [dict(item) for item in self.items],
        }
        if self.runtime_data is not None:
            document["runtime_data"] = dict(self.runtime_data)
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleResult:
    """Every check of a bundle, and its claims when the verdict is `verified`.

    `authenticated`: the primary's signature chains to a root or a trusted key and its
    binding holds, whatever else failed. `primary` is its index, `devices` is M, and
    `binding` the P that the primary carries when it does.
    """

    checks: tuple[Check, ...]
    verdict: Verdict
    claims: Claims | None
    authenticated: bool
    identities: tuple[str, ...] = ()
    primary: int | None = None
    devices: tuple[tuple[str, str], ...] = ()
    binding: bytes | None = None
    parsed: bool = True
    """False when an item lacks the promised shape (`<kind>.parse` failed)."""

    def failed(self) -> tuple[Check, ...]:
        """Return the checks that failed."""
        return tuple(check for check in self.checks if check.status is Status.FAIL)

    def joined_by(self, *more: Check) -> BundleResult:
        """Return the result with checks of the door; a failed one takes the claims."""
        checks = (*self.checks, *more)
        outcome = verdict(checks)
        claims = self.claims if outcome is Verdict.VERIFIED else None
        return replace(self, checks=checks, verdict=outcome, claims=claims)


def parse_bundle(data: bytes) -> Bundle:
    """Accept the JSON of a bundle: known members, 1 to 16 items, at most 1 MiB.

    Raises:
        MalformedError: anything else; items themselves are parsed when verified.
    """
    return bundle_of(parse_json(data, "bundle", limit=MAX_BUNDLE_BYTES))


def bundle_of(value: object) -> Bundle:
    """Accept a bundle from parsed JSON.

    Raises:
        MalformedError: anything else.
    """
    members = require_members(
        value, "bundle", required={"format", "items"}, optional={"runtime_data"}
    )
    if members["format"] != FORMAT:
        raise MalformedError(
            "bundle format", got=repr(members["format"])[:40], expected=FORMAT
        )
    listed = require_list(members["items"], "bundle items", limit=MAX_ITEMS)
    if not listed:
        raise MalformedError("bundle items", got="none", expected=f"1 to {MAX_ITEMS}")
    items = []
    for index, element in enumerate(listed):
        item = require_object(element, f"item {index}")
        parse_name(item.get("kind"), f"item {index} kind")
        items.append(item)
    if "runtime_data" not in members:
        return Bundle(tuple(items))
    runtime_data = require_object(members["runtime_data"], "runtime_data")
    return Bundle(tuple(items), runtime_data)


def verify_bundle(
    bundle: Bundle,
    *,
    trust: Trust,
    verifiers: Mapping[str, Verifier],
    binding: BundleBinding | None,
    request: Mapping[str, ClaimValue] | None = None,
    recorded: bool = False,
) -> BundleResult:
    """Run every check of every item, then those that join them.

    `binding` is None only for recorded evidence (`recorded`), whose binding checks
    are `skipped`; the release path always gives one.

    Raises:
        ValueError: no binding for evidence that is not recorded: a mistake in the
            program, not in the evidence.
    """
    if binding is None and not recorded:
        raise ValueError("evidence that is not recorded is verified with its binding")
    checks: list[Check] = []
    appraised: list[AppraisedItem] = []
    for index, item in enumerate(bundle.items):
        kind = bundle.kind(index)
        found = _appraise(kind, item, index, trust=trust, verifiers=verifiers)
        if isinstance(found, Check):
            checks.append(found)
        else:
            checks.extend(_item_checks(found))
            appraised.append(found)
    parsed = len(appraised) == len(bundle.items)
    # The set is judged only when all of it is known: M needs every core.
    joined = join_items(appraised, binding) if parsed else Joined()
    checks.extend(joined.checks)
    return _result(
        tuple(checks), appraised, joined, request=request or {}, parsed=parsed
    )


def _appraise(
    kind: str,
    item: Mapping[str, object],
    index: int,
    *,
    trust: Trust,
    verifiers: Mapping[str, Verifier],
) -> AppraisedItem | Check:
    verifier = verifiers.get(kind)
    if verifier is None:
        return _parse_fault(
            kind, index, "unknown kind", expected=", ".join(sorted(verifiers))
        )
    try:
        parsed = verifier.parse(item, index)
    except MalformedError as exc:
        return _parse_fault(kind, index, str(exc), expected=exc.expected)
    result = verifier.verify(parsed, trust)
    return AppraisedItem(verifier=verifier, parsed=parsed, result=result)


def _parse_fault(kind: str, index: int, detail: str, *, expected: str | None) -> Check:
    return Check(
        id=f"{kind}.parse",
        status=Status.FAIL,
        detail=detail,
        item=index,
        expected=expected,
    )


def _item_checks(one: AppraisedItem) -> tuple[Check, ...]:
    index = one.parsed.index
    parse_id = f"{one.parsed.kind}.parse"
    checks = one.result.checks
    # Named here whatever a verifier forgets; most name it as they make the check.
    if {check.item for check in checks} - {index}:
        checks = tuple(check.at(index) for check in checks)
    if parse_id in [check.id for check in checks]:
        return checks
    return (Check(id=parse_id, status=Status.PASS, item=index), *checks)


def _result(
    checks: tuple[Check, ...],
    items: Sequence[AppraisedItem],
    joined: Joined,
    *,
    request: Mapping[str, ClaimValue],
    parsed: bool,
) -> BundleResult:
    outcome = verdict(checks)
    given = tuple(one.result.claims for one in items if one.result.claims is not None)
    # A verifier without claims left something open: nothing of the bundle counts then.
    is_complete = outcome is Verdict.VERIFIED and len(given) == len(items)
    further = tuple(more for one in items for more in one.result.further_claims)
    return BundleResult(
        checks=checks,
        verdict=outcome,
        claims=Claims(items=given + further, request=request) if is_complete else None,
        authenticated=joined.bound is not None
        and joined.primary is not None
        and items[joined.primary].result.authenticated,
        identities=tuple(
            name for one in items for name in dict.fromkeys(one.result.identities)
        ),
        primary=joined.primary,
        devices=joined.devices,
        binding=joined.bound,
        parsed=parsed,
    )
