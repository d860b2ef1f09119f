"""`kbs policy explain`: here with a context file, else by the broker with its store.

Here, the context's AK groups and CAs and the keys of token issuers in the files of
`--collateral` are what evidence may rest on. Evidence that does not hold is explained
too: its failed checks come first among the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kbs.cli.appraisal import Result, malformed, verify_recorded
from kbs.cli.context import EXIT_DONE, EXIT_REFUSED, CliContext, one_line
from kbs.cli.evidence import time_of
from kbs.cli.evidence_files import Unparsed
from kbs.cli.given_files import GivenFiles
from kbs.cli.inputs import read_input
from kbs.cli.x509_files import certificates_in
from kbs.core.checks import Status, Verdict
from kbs.core.claims import Claims, ClaimValue
from kbs.core.clock import format_time
from kbs.core.encode import (
    b64,
    parse_json_object,
    require_list,
    require_members,
)
from kbs.core.errors import MalformedError, NotFoundError
from kbs.core.ids import KeyId, ScopedName, parse_key_ref
from kbs.evidence.bundle import MAX_BUNDLE_BYTES, parse_bundle
from kbs.evidence.model import EnrolledKey, Trust, TrustedCA
from kbs.governance.attestation_key import tpm_name
from kbs.policy.appraise import appraise
from kbs.policy.context import Context
from kbs.policy.contextfile import load_context
from kbs.policy.explain import explain_json, not_covered
from kbs.policy.parse import ParsedPolicy
from kbs.policy.request import REQUEST_MEMBERS, request_claims
from kbs.policy.yaml import MAX_BYTES

if TYPE_CHECKING:
    from kbs.cli.admin_client import AdminClient

# A path is no name; a name is nobody's.
_NO_POLICY = frozenset({MalformedError.code, "object.none"})
_STOPPING = frozenset({Status.FAIL, Status.UNCHECKED})
_MAX_REQUEST = 64 * 1024
_ASSUMED = "no --request: door v1 and freshness challenge are assumed"
_OWN_MODE = "development in --request counts with --context; the broker says its mode"


@dataclass(frozen=True, slots=True)
class Explained:
    """The document of the contract, notes for people, and the exit code."""

    document: dict[str, object]
    notes: tuple[str, ...]
    exit_code: int

    def check_lines(self) -> list[str]:
        """Return a line for every check of the evidence that does not hold."""
        lines = [
            one_line(f"check {check.get('status')}: {check.get('id')}: {detail}")
            for check in _listed(self.document.get("checks"))
            if isinstance(check, dict) and check.get("status") in _STOPPING
            for detail in [check.get("detail")]
        ]
        if lines and self.document.get("decision") == "granted":
            lines.append("until that can be checked, a release is answered 503")
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What to explain: evidence, a time, and the request's own claims."""

    evidence: bytes
    at: datetime
    given: Mapping[str, object] | None
    claims: Mapping[str, ClaimValue]
    keys: tuple[KeyId, ...]
    development: bool
    files: GivenFiles = field(default_factory=GivenFiles)

    @staticmethod
    def read(
        *,
        evidence: Path,
        at: str | None,
        request: Path | None,
        collateral: tuple[Path, ...] = (),
    ) -> Explanation:
        """Read the files that the options name; collateral is read when it is used.

        Raises:
            MalformedError: one cannot be read, or the request lacks its shape.
        """
        members: dict[str, object] = {}
        if request is not None:
            data = read_input(request, "--request", limit=_MAX_REQUEST)
            members = parse_json_object(data, "--request", limit=_MAX_REQUEST)
        require_members(
            members,
            "--request",
            required=set(),
            optional={*REQUEST_MEMBERS, "development"},
        )
        development = members.get("development", False)
        if not isinstance(development, bool):
            raise MalformedError("--request development", expected="true or false")
        time = time_of(at)
        keys = require_list(members.get("keys", []), "--request keys", limit=64)
        return Explanation(
            evidence=read_input(evidence, "--evidence", limit=MAX_BUNDLE_BYTES),
            at=time,
            given=members if request is not None else None,
            claims=request_claims(members, "--request", at=time),
            keys=tuple(parse_key_ref(key).key_id for key in keys),
            development=development,
            files=GivenFiles(collateral=collateral),
        )

    def notes(self, document: Mapping[str, object]) -> tuple[str, ...]:
        """Return what people should know beside the document."""
        found = [] if self.given is not None else [_ASSUMED]
        found += [
            f"the policy does not cover key {key}"
            for key in _listed(document.get("not_covered"))
        ]
        return tuple(found)


def explain_here(asked: Explanation, parsed: ParsedPolicy, names: Path) -> Explained:
    """Verify and appraise with what a context file says.

    Raises:
        MalformedError: the context or a file of collateral cannot be read.
    """
    tenant = parsed.policy.tenant
    context = load_context(names, tenant=tenant)
    trust = _trust(asked, context)
    try:
        bundle = parse_bundle(asked.evidence)
        result = verify_recorded(bundle, trust, asked.claims)
    except Unparsed as exc:
        result = malformed(exc.kind, exc.error)
    except MalformedError as exc:
        result = malformed("bundle", exc)
    claims = result.claims or Claims(items=(), request=asked.claims)
    appraisal = appraise(
        parsed,
        claims.scoped_to(tenant, shared=context.shared),
        context.view(tenant),
        development=asked.development,
    )
    document = explain_json(appraisal)
    verified = result.claims is not None
    if not verified:
        document["decision"] = "denied"
        document["reasons"] = [*_check_reasons(result), *_listed(document["reasons"])]
    document |= _extras(asked, [check.to_json() for check in result.checks])
    document["not_covered"] = not_covered(parsed, asked.keys)
    code = EXIT_DONE if appraisal.granted else EXIT_REFUSED
    if not verified:
        code = EXIT_REFUSED if result.verdict is Verdict.VERIFIED else result.exit_code
    return Explained(document, asked.notes(document), code)


def explain_by_server(
    context: CliContext, asked: Explanation, target: str
) -> Explained:
    """Ask the broker, whose store says what names refer to.

    Raises:
        KbsError: the broker refuses, or does not answer.
    """
    from kbs.cli.admin_client import AdminClient

    if asked.files.collateral:
        raise MalformedError(
            "--collateral",
            got="no --context",
            expected="--context: the broker has issuers and collateral of its own",
            code="usage",
        )
    body: dict[str, object] = {
        "bundle": parse_json_object(
            asked.evidence, "--evidence", limit=MAX_BUNDLE_BYTES
        ),
        "at": format_time(asked.at),
    }
    if asked.given is not None:
        # In which mode the broker runs it knows best.
        body["request"] = {
            name: asked.given[name] for name in REQUEST_MEMBERS & asked.given.keys()
        }
    path = Path(target)
    policy = read_input(path, "policy", limit=MAX_BYTES) if path.is_file() else None
    with AdminClient.from_context(context) as client:
        if policy is not None:
            body["policy"] = b64(policy)
        else:
            body["name"] = str(_stored(client, target))
        document = client.post("/admin/v1/explain", body)
    granted = document.get("decision") == "granted"
    notes = asked.notes(document)
    if asked.development:
        notes = (*notes, _OWN_MODE)
    return Explained(document, notes, EXIT_DONE if granted else EXIT_REFUSED)


def _stored(client: AdminClient, target: str) -> ScopedName:
    """Return which stored policy is meant by what is the name of no file."""
    from kbs.cli.policy_names import find_policy

    try:
        subject, found = find_policy(client, target, workload=False)
    except (MalformedError, NotFoundError) as exc:
        if exc.code not in _NO_POLICY:
            raise
        subject, found = None, []
    if subject is None or not found:
        raise NotFoundError(
            f"policy {target}",
            got="no such file, and no tenant has a policy of this name",
            expected="a file, or NAME or TENANT/NAME of a stored policy",
            hint="see kbs policy list",
            code="object.none",
        )
    return subject


def _trust(asked: Explanation, context: Context) -> Trust:
    enrolled: dict[bytes, tuple[EnrolledKey, ...]] = {}
    for group, publics in context.ak_groups.items():
        for public in publics:
            name = tpm_name(public)
            key = EnrolledKey(
                tenant=group.tenant, group=group.name, name=name, public=public
            )
            enrolled[name] = (*enrolled.get(name, ()), key)
    return Trust(
        now=asked.at,
        enrolled_keys=enrolled,
        cas=tuple(
            TrustedCA(
                tenant=ca.tenant, name=ca.name, purpose="ak", certificate=certificate
            )
            for ca, data in context.cas.items()
            for certificate in certificates_in(data, f"CA {ca}")
        ),
        collateral=asked.files.given_collateral(),
        issuers=asked.files.given_issuers(),
        require_revocation=False,
        recorded=True,
        development=asked.development,
    )


def _check_reasons(result: Result) -> list[dict[str, object]]:
    return [
        {
            name: value
            for name, value in check.to_json().items()
            if value is not None and name != "status"
        }
        for check in result.checks
        if check.status in _STOPPING
    ]


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _extras(asked: Explanation, checks: list[dict[str, object]]) -> dict[str, object]:
    return {
        "request": dict(asked.claims),
        "assumed_request": asked.given is None,
        "checks": checks,
    }
