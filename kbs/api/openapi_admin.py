"""The OpenAPI 3.1 document of the administrators' door, `/admin/v1`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from kbs.api.openapi_admin_schemas import COUNT, FLAG, KIND, admin_schemas
from kbs.api.schemas import (
    B64,
    HEX32,
    HEX64,
    NAME,
    TIME,
    Schema,
    closed,
    document,
    in_path,
    in_query,
    listed,
    operation,
    problem_response,
    ref,
)

_EMPTY: Schema = {"type": "object", "additionalProperties": False}
_REFUSALS = (400, 401, 403)
_KEY_PATH = tuple(in_path(name, NAME) for name in ("repository", "kind", "tag"))
_QUERY = (
    *(in_query(name) for name in ("key", "decision", "kind", "policy")),
    *(in_query(name, TIME) for name in ("since", "until")),
    *(in_query(name, COUNT) for name in ("after", "limit")),
    in_query("newest", FLAG),
)


@cache
def admin_document() -> dict[str, object]:
    """Return the document; it depends on nothing."""
    return document(
        "kbs: attestation-gated key broker, administrators' door",
        "Signed statements put things in force; keys are made, changed and destroyed; "
        "the log is read. Every request carries a token of its own, a JWT over its "
        "method, path, query and body, good for 60 seconds and once for changes.",
        paths=_paths(),
        schemas=admin_schemas(),
        responses={"Problem": problem_response()},
        security={
            "request": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        },
    )


def _get(
    name: str,
    summary: str,
    ok: str | None,
    *,
    parameters: Sequence[Schema] = (),
    media_type: str = "application/json",
) -> dict[str, object]:
    return operation(
        name,
        summary,
        ok=ok,
        errors=(*_REFUSALS, 404) if parameters else _REFUSALS,
        parameters=parameters,
        media_type=media_type,
    )


def _post(
    name: str,
    summary: str,
    ok: str,
    body: Schema,
    *,
    status: int = 200,
    parameters: Sequence[Schema] = (),
) -> dict[str, object]:
    return operation(
        name,
        summary,
        ok=ok,
        body=body,
        optional=body is _EMPTY,
        status=status,
        errors=(*_REFUSALS, 404, 409),
        parameters=parameters,
    )


def _paths() -> dict[str, object]:
    found = {**_governance(), **_keys(), **_intake(), **_audit()}
    return {f"/admin/v1{path}": operations for path, operations in found.items()}


def _governance() -> dict[str, object]:
    place = (in_path("kind", KIND), in_path("tenant"), in_path("name"))
    return {
        "/governance/head": {
            "get": _get("head", "What the next statement must follow.", "Head")
        },
        "/governance/statements": {
            "get": _get(
                "statements",
                "The signed statements after a number.",
                "Statements",
                parameters=(in_query("after", COUNT),),
            ),
            "post": _post(
                "acceptStatement",
                "Accept a signed statement; it is in force when this answers.",
                "Accepted",
                ref("SignedStatement"),
                status=201,
            ),
        },
        "/objects": {
            "get": _get(
                "objects",
                "Governed objects, and which of them are in force.",
                "Objects",
                parameters=tuple(in_query(name) for name in ("kind", "tenant", "name")),
            ),
            "post": _post(
                "storeObject",
                "Validate an object and store it as its next version, not in force.",
                "Stored",
                ref("NewObject"),
                status=201,
            ),
        },
        "/objects/{kind}/{tenant}/{name}/{version}": {
            "get": _get(
                "showObject",
                "One version, its source and its content.",
                "Object",
                parameters=(*place, in_path("version", COUNT)),
            )
        },
        "/explain": {
            "post": _post(
                "explain",
                "Appraise evidence or claims under a policy; releases nothing.",
                "Explanation",
                ref("Question"),
            )
        },
    }


def _keys() -> dict[str, object]:
    path = "/keys/{repository}/{kind}/{tag}"
    changes = {
        "rotate": ("Make the next version.", ref("NewVersion")),
        "retire": ("Retire a version: it opens what is sealed.", ref("WhichVersion")),
        "destroy": ("Destroy a version: its secret is gone.", ref("WhichVersion")),
    }
    return {
        "/keys": {
            "get": _get("keys", "Keys; never a secret.", "Keys"),
            "post": _post(
                "createKey",
                "Make a key from generated or given bytes.",
                "ChangedKey",
                ref("NewKey"),
                status=201,
            ),
        },
        path: {
            "get": _get(
                "showKey",
                "The versions of a key; never the secret.",
                "Key",
                parameters=_KEY_PATH,
            )
        },
        f"{path}/explain": {
            "get": _get(
                "explainKey",
                "Which policies govern a key, and what they ask.",
                "KeyExplanation",
                parameters=_KEY_PATH,
            )
        },
        **{
            f"{path}/{name}": {
                "post": _post(
                    f"{name}Key", summary, "ChangedKey", body, parameters=_KEY_PATH
                )
            }
            for name, (summary, body) in changes.items()
        },
    }


def _intake() -> dict[str, object]:
    which = (in_path("enrolment", HEX32),)
    return {
        "/enrolments": {"get": _get("enrolments", "What is pending.", "Enrolments")},
        "/enrolments/{enrolment}": {
            "get": _get(
                "showEnrolment",
                "One that is pending, ready to be signed.",
                "Enrolment",
                parameters=which,
            )
        },
        "/enrolments/{enrolment}/forget": {
            "post": _post(
                "forgetEnrolment", "Forget it.", "Forgotten", _EMPTY, parameters=which
            )
        },
        "/collateral": {
            "get": _get("collateral", "What vendors publish.", "CollateralList"),
            "post": _post(
                "importCollateral",
                "Import what vendors publish; it brings no trust.",
                "Imported",
                closed({"items": listed(B64)}),
                status=201,
            ),
        },
        "/collateral/{sha256}": {
            "get": _get(
                "collateralItem",
                "One item with its bytes.",
                "CollateralItem",
                parameters=(in_path("sha256", HEX64),),
            )
        },
    }


def _audit() -> dict[str, object]:
    which = (in_path("entry", HEX32),)
    sizes = tuple(in_query(name, COUNT) for name in ("first", "second"))
    return {
        "/audit/entries": {
            "get": _get("auditEntries", "Query the log.", "Entries", parameters=_QUERY)
        },
        "/audit/entries/{entry}": {
            "get": _get(
                "auditEntry",
                "An entry, or the sample with this decision id.",
                "Entry",
                parameters=which,
            )
        },
        "/audit/entries/{entry}/proof": {
            "get": _get(
                "auditProof",
                "A receipt of an entry under the latest checkpoint.",
                "Receipt",
                parameters=which,
            )
        },
        "/audit/export": {
            "get": _get(
                "auditExport",
                "The log as JSON lines; bodies of other tenants are withheld.",
                None,
                media_type="application/jsonl",
            )
        },
        "/audit/consistency": {
            "get": _get(
                "auditConsistency",
                "The proof that one tree extends another.",
                "Consistency",
                parameters=sizes,
            )
        },
        "/audit/evidence/{digest}": {
            "get": _get(
                "auditEvidence",
                "Recorded evidence, decrypted.",
                "Evidence",
                parameters=(in_path("digest", HEX64),),
            )
        },
        "/integrity": {
            "post": _post(
                "integrity",
                "Read and verify governance and log anew.",
                "Integrity",
                _EMPTY,
            )
        },
    }
