"""The OpenAPI 3.1 document of the administrators' door, `/admin/v1`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from kbs.api.schemas import (
    B64,
    B64U,
    HEX32,
    HEX64,
    KEY,
    NAME,
    PROBLEM,
    TEXT,
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
from kbs.governance.statement import Kind
from kbs.keys.model import KeyKind, KeyState

_COUNT: Schema = {"type": "integer", "minimum": 0}
_FLAG: Schema = {"type": "boolean"}
_ANY: Schema = {"type": "object"}
_KIND: Schema = {"enum": [kind.value for kind in Kind]}
_EMPTY: Schema = {"type": "object", "additionalProperties": False}
_REFUSALS = (400, 401, 403)
_KEY_PATH = tuple(in_path(name, NAME) for name in ("repository", "kind", "tag"))
_QUERY = (
    *(in_query(name) for name in ("key", "decision", "kind", "policy")),
    *(in_query(name, TIME) for name in ("since", "until")),
    *(in_query(name, _COUNT) for name in ("after", "limit")),
    in_query("newest", _FLAG),
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
        schemas=_schemas(),
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
    place = (in_path("kind", _KIND), in_path("tenant"), in_path("name"))
    return {
        "/governance/head": {
            "get": _get("head", "What the next statement must follow.", "Head")
        },
        "/governance/statements": {
            "get": _get(
                "statements",
                "The signed statements after a number.",
                "Statements",
                parameters=(in_query("after", _COUNT),),
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
                parameters=(*place, in_path("version", _COUNT)),
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
    sizes = tuple(in_query(name, _COUNT) for name in ("first", "second"))
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


# -- schemas ---------------------------------------------------------------------------


def _schemas() -> dict[str, object]:
    return {
        **_governance_schemas(),
        **_key_schemas(),
        **_intake_schemas(),
        **_audit_schemas(),
        "Problem": PROBLEM,
    }


def _governance_schemas() -> dict[str, object]:
    version: Schema = {"type": "integer", "minimum": 1}
    place = {"kind": _KIND, "tenant": TEXT, "name": TEXT, "version": version}
    stored = {**place, "digest": HEX64, "registered": TIME}
    optional_time: Schema = {"type": ["string", "null"], "format": "date-time"}
    statement = {
        "typ": {"const": "kbs.statement/1"},
        "instance": HEX32,
        "seq": version,
        "prev": HEX64,
        "action": TEXT,
        **place,
        "digest": HEX64,
        "not_before": optional_time,
        "expires": optional_time,
    }
    signature = closed(
        {"keyid": HEX64, "alg": {"enum": ["EdDSA", "ES256", "sshsig"]}, "sig": B64U}
    )
    head = {"instance": HEX32, "seq": _COUNT, "prev": HEX64, "authority": _ANY}
    return {
        "Head": closed(
            {**head, "authority_digest": HEX64, "authority_version": version}
        ),
        "Statements": closed(
            {
                "statements": listed(
                    closed({"seq": version, "accepted": TIME, "envelope": TEXT})
                )
            }
        ),
        "SignedStatement": closed(
            {
                "envelope": closed(
                    {"statement": closed(statement), "signatures": listed(signature)}
                )
            }
        ),
        "Accepted": closed({"seq": version, "statement": HEX64}),
        "NewObject": closed(
            {"kind": _KIND, "tenant": TEXT, "name": TEXT, "source": B64}
        ),
        "Stored": closed({**stored, "warnings": listed(TEXT)}),
        "Objects": closed(
            {"objects": listed(closed({**stored, "active": _FLAG})), "seq": _COUNT}
        ),
        "Object": closed({**stored, "active": _FLAG, "source": B64, "content": B64}),
        "Question": closed(
            {},
            {
                "policy": B64,
                "name": TEXT,
                "bundle": _ANY,
                "claims": _ANY,
                "request": closed(
                    {},
                    {
                        "door": TEXT,
                        "freshness": TEXT,
                        "keys": listed(KEY),
                        "time": TIME,
                        "token_age": _COUNT,
                    },
                ),
                "at": TIME,
            },
        ),
        "Explanation": {
            "type": "object",
            "properties": {
                "decision": {"enum": ["granted", "denied"]},
                "policy": TEXT,
                "digest": HEX64,
                "request": _ANY,
                "assumed_request": _FLAG,
                "checks": listed(_ANY),
                "not_covered": listed(KEY),
                "reasons": listed(_ANY),
                "rules": listed(_ANY),
            },
            "required": ["assumed_request", "checks", "decision", "digest", "request"],
        },
    }


def _key_schemas() -> dict[str, object]:
    kinds: Schema = {"enum": [kind.value for kind in KeyKind]}
    version = {
        "id": KEY,
        "kind": kinds,
        "version": {"type": "integer", "minimum": 1},
        "state": {"enum": [state.value for state in KeyState]},
        "origin": TEXT,
        "revision": _COUNT,
        "created": TIME,
        "changed": TIME,
    }
    one = {"id": KEY, "kind": kinds, "versions": listed(ref("KeyVersion"))}
    explanation = {
        "key": KEY,
        "exists": _FLAG,
        "versions": listed(ref("KeyVersion")),
        "policies": listed(_ANY),
        "denied_by": listed(_ANY),
        "governance": _COUNT,
        "summary": TEXT,
    }
    return {
        "KeyVersion": closed(version),
        "ChangedKey": closed({**version, "entry": HEX32}),
        "Key": closed(one, {"public": _ANY}),
        "Keys": closed({"keys": listed(ref("Key"))}),
        "NewKey": closed({"id": KEY, "kind": kinds}, {"value": B64}),
        "NewVersion": closed({}, {"value": B64}),
        "WhichVersion": closed({"version": {"type": "integer", "minimum": 1}}),
        "KeyExplanation": closed(explanation),
    }


def _intake_schemas() -> dict[str, object]:
    pending = {
        "id": HEX32,
        "tenant": TEXT,
        "group": TEXT,
        "ak_public": B64,
        "ak_name": TEXT,
        "ek": HEX64,
        "ek_certificate": B64,
        "ca": TEXT,
        "created": TIME,
        "expires": TIME,
    }
    item = {
        "kind": {
            "enum": [
                *("certificate", "crl", "ocsp", "rim"),
                *("intel.tcb_info", "intel.qe_identity"),
            ]
        },
        "sha256": HEX64,
        "subject": TEXT,
        "issuer": TEXT,
        "not_before": TIME,
        "not_after": {"type": ["string", "null"], "format": "date-time"},
        "imported": TIME,
        "source": {"type": ["string", "null"]},
    }
    return {
        "Enrolment": closed(pending),
        "Enrolments": closed(
            {
                "enrolments": listed(ref("Enrolment")),
                "tampered": listed(closed({"id": TEXT, "code": TEXT, "detail": TEXT})),
            }
        ),
        "Forgotten": closed({"id": HEX32, "entry": HEX32}),
        "CollateralList": closed({"collateral": listed(closed(item))}),
        "CollateralItem": closed({**item, "data": B64}),
        "Imported": closed({"read": _COUNT, "added": _COUNT, "entry": HEX32}),
    }


def _audit_schemas() -> dict[str, object]:
    entry = {
        "index": _COUNT,
        "id": HEX32,
        "kind": TEXT,
        "decision": {"type": ["string", "null"]},
        "body": _ANY,
    }
    receipt = {
        "format": {"const": "kbs.receipt/1"},
        "leaf": TEXT,
        "index": _COUNT,
        "checkpoint": TEXT,
        "inclusion": listed(B64),
    }
    return {
        "Entry": closed(entry, {"sample": _ANY}),
        "Entries": closed({"entries": listed(ref("Entry")), "size": _COUNT}),
        "Receipt": closed(receipt, {"body": _ANY, "salt": B64}),
        "Consistency": closed(
            {"first": _COUNT, "second": _COUNT, "proof": listed(B64)}
        ),
        "Evidence": closed({"digest": HEX64, "decision": HEX32, "bundle": B64}),
        "Integrity": closed({"statements": _COUNT, "entries": _COUNT, "root": HEX64}),
    }
