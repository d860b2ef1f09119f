"""The administrators' door: signed tokens in, every call under a role and a scope.

Each view is `parse, call, render`. The hook before every request authenticates; the
use case it calls checks the role. Nothing here grants by where a request comes from.
"""

from __future__ import annotations

import logging

from flask import Blueprint, Response, g, request

from kbs.api.problems import answer, refusal
from kbs.api.requests import (
    argument,
    body_object,
    broker,
    integer_argument,
    known_arguments,
    no_members,
    strangers,
)
from kbs.broker.actors import Actor
from kbs.broker.auditing import Auditing
from kbs.core.errors import ForbiddenError
from kbs.core.ids import parse_hex32, parse_key_id
from kbs.wire.problem import problem_of

log = logging.getLogger("kbs.admin")

blueprint = Blueprint("admin", __name__, url_prefix="/admin/v1")

MAX_PAGE = 1000
"""Most entries in one page of a query."""

_ARGUMENTS = {
    "admin.statements": {"after"},
    "admin.objects": {"kind", "tenant", "name"},
    "admin.audit_entries": {*Auditing.QUERY_ARGUMENTS, "limit"},
    "admin.audit_consistency": {"first", "second"},
}
"""What a query may have; a misspelt filter would answer with everything."""


@blueprint.before_request
def authenticate() -> None:
    """Find out who calls, from the token alone."""
    query = request.query_string.decode("ascii", "replace")
    path = request.path + (f"?{query}" if query else "")
    g.administrator = broker().actors.authenticate(
        request.headers.get("Authorization"),
        method=request.method,
        path=path,
        body=request.get_data(cache=True),
    )
    known_arguments(_ARGUMENTS.get(request.endpoint or "", set()))


@blueprint.after_request
def note(response: Response) -> Response:
    """Write a log line of every call, read or write; bodies stay out of it.

    Of strangers' calls only some are at INFO, so that a flood does not fill the log.
    """
    administrator = getattr(g, "administrator", None)
    name, level = "nobody", logging.INFO
    if isinstance(administrator, Actor):
        name = administrator.name
    elif not strangers().is_due():
        level = logging.DEBUG
    # What a stranger may spell freely is escaped: one call is one line.
    path, status = request.path[:200], response.status_code
    log.log(level, "%s: %s %a: %d", name, request.method, path, status)
    return response


@blueprint.errorhandler(ForbiddenError)
def forbidden(error: ForbiddenError) -> Response:
    """Record what a known administrator was refused, and refuse."""
    administrator = getattr(g, "administrator", None)
    if isinstance(administrator, Actor):
        rule = request.url_rule.rule if request.url_rule else request.path[:200]
        broker().actors.forbid(administrator, f"{request.method} {rule}", error)
    return refusal(problem_of(error, reveal=True))


def _actor() -> Actor:
    actor = g.administrator
    if not isinstance(actor, Actor):
        raise TypeError("a view ran without authentication")
    return actor


@blueprint.get("/governance/head")
def governance_head() -> Response:
    """Answer with what the next statement must follow."""
    return answer(broker().governing.head(_actor()))


@blueprint.get("/governance/statements")
def statements() -> Response:
    """Answer with the signed statements after a number."""
    after = integer_argument("after", 0, most=2**53)
    return answer(broker().governing.statements(_actor(), after=after))


@blueprint.post("/governance/statements")
def accept_statement() -> Response:
    """Accept one signed statement; it takes effect when this answers."""
    return answer(broker().governing.accept(_actor(), body_object()), 201)


@blueprint.get("/objects")
def objects() -> Response:
    """List governed objects and which of them are in force."""
    return answer(
        broker().governing.objects(
            _actor(), argument("kind"), argument("tenant"), argument("name")
        )
    )


@blueprint.post("/objects")
def store_object() -> Response:
    """Validate a governed object and store it as its next version, not in force."""
    return answer(broker().governing.store(_actor(), body_object()), 201)


@blueprint.get("/objects/<kind>/<tenant>/<name>/<int:version>")
def show_object(kind: str, tenant: str, name: str, version: int) -> Response:
    """Answer with one version, its source and its content."""
    return answer(broker().governing.show(_actor(), kind, tenant, name, version))


@blueprint.post("/explain")
def explain() -> Response:
    """Appraise evidence or claims under a policy; releases nothing."""
    return answer(broker().explaining.explain(_actor(), body_object()))


@blueprint.get("/keys")
def keys() -> Response:
    """List keys; never a secret."""
    return answer(broker().keeping.list(_actor()))


@blueprint.post("/keys")
def create_key() -> Response:
    """Create a key from generated or given bytes."""
    return answer(broker().keeping.create(_actor(), body_object()), 201)


@blueprint.get("/keys/<repository>/<kind>/<tag>")
def show_key(repository: str, kind: str, tag: str) -> Response:
    """Answer with the versions of one key; never the secret."""
    key_id = parse_key_id(f"{repository}/{kind}/{tag}")
    return answer(broker().keeping.show(_actor(), key_id))


@blueprint.get("/keys/<repository>/<kind>/<tag>/explain")
def explain_key(repository: str, kind: str, tag: str) -> Response:
    """Say which policies govern a key and what they ask."""
    key_id = parse_key_id(f"{repository}/{kind}/{tag}")
    return answer(broker().explaining.explain_key(_actor(), key_id))


@blueprint.post("/keys/<repository>/<kind>/<tag>/<any(rotate,retire,destroy):action>")
def change_key(repository: str, kind: str, tag: str, action: str) -> Response:
    """Rotate a key, or retire or destroy one of its versions."""
    key_id = parse_key_id(f"{repository}/{kind}/{tag}")
    keeping = broker().keeping
    change = {
        "rotate": keeping.rotate,
        "retire": keeping.retire,
        "destroy": keeping.destroy,
    }[action]
    return answer(change(_actor(), key_id, body_object()))


@blueprint.get("/enrolments")
def enrolments() -> Response:
    """List pending enrolments."""
    return answer(broker().enrolment.list(_actor()))


@blueprint.get("/enrolments/<enrolment_id>")
def show_enrolment(enrolment_id: str) -> Response:
    """Answer with one pending enrolment, ready to be signed."""
    wanted = parse_hex32(enrolment_id, "enrolment id")
    return answer(broker().enrolment.show(_actor(), wanted))


@blueprint.post("/enrolments/<enrolment_id>/forget")
def forget_enrolment(enrolment_id: str) -> Response:
    """Forget one pending enrolment."""
    wanted = parse_hex32(enrolment_id, "enrolment id")
    no_members("forget request")
    return answer(broker().enrolment.forget(_actor(), wanted))


@blueprint.get("/collateral")
def collateral() -> Response:
    """List vendor certificates and revocation lists."""
    return answer(broker().collateral.list(_actor()))


@blueprint.get("/collateral/<digest>")
def collateral_item(digest: str) -> Response:
    """Answer with one item of collateral and its bytes."""
    return answer(broker().collateral.item(_actor(), digest))


@blueprint.post("/collateral")
def import_collateral() -> Response:
    """Import certificates and revocation lists; they bring no trust."""
    return answer(broker().collateral.import_items(_actor(), body_object()), 201)


@blueprint.get("/audit/entries")
def audit_entries() -> Response:
    """Query the log, as far as the auditor's tenants reach."""
    wanted = {name: argument(name) for name in broker().audit.QUERY_ARGUMENTS}
    limit = integer_argument("limit", 100, most=MAX_PAGE)
    return answer(broker().audit.query(_actor(), wanted, limit=limit))


@blueprint.get("/audit/entries/<entry_id>")
def audit_entry(entry_id: str) -> Response:
    """Answer with one entry, or with the sample that has this decision id."""
    wanted = parse_hex32(entry_id, "entry id")
    return answer(broker().audit.show(_actor(), wanted))


@blueprint.get("/audit/entries/<entry_id>/proof")
def audit_proof(entry_id: str) -> Response:
    """Answer with a receipt of one entry under the latest checkpoint."""
    wanted = parse_hex32(entry_id, "entry id")
    return answer(broker().audit.prove(_actor(), wanted))


@blueprint.get("/audit/export")
def audit_export() -> Response:
    """Stream the log as JSON lines; bodies of other tenants are withheld."""
    lines = broker().audit.export(_actor())
    response = Response(lines, mimetype="application/jsonl")
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/audit/consistency")
def audit_consistency() -> Response:
    """Answer with the proof that one tree extends another."""
    first = integer_argument("first", 0, most=2**53)
    second = integer_argument("second", 0, most=2**53)
    return answer(broker().audit.consistency(_actor(), first, second))


@blueprint.get("/audit/evidence/<digest>")
def audit_evidence(digest: str) -> Response:
    """Answer with recorded evidence, decrypted, for recomputing a decision."""
    return answer(broker().audit.evidence(_actor(), digest))


@blueprint.post("/integrity")
def integrity() -> Response:
    """Read and verify governance and log anew, and say what was found."""
    no_members("integrity request")
    return answer(broker().audit.integrity(_actor()))
