"""The schemas of the administrators' door: bodies of requests and answers."""

from __future__ import annotations

from kbs.api.schemas import (
    B64,
    B64U,
    HEX32,
    HEX64,
    KEY,
    PROBLEM,
    TEXT,
    TIME,
    Schema,
    closed,
    listed,
    ref,
)
from kbs.governance.statement import Kind
from kbs.keys.model import KeyKind, KeyState

COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
_ANY: Schema = {"type": "object"}
KIND: Schema = {"enum": [kind.value for kind in Kind]}


def admin_schemas() -> dict[str, object]:
    """Return what requests and answers of the door are made of, by name."""
    return {
        **_governance_schemas(),
        **_key_schemas(),
        **_intake_schemas(),
        **_audit_schemas(),
        "Problem": PROBLEM,
    }


def _governance_schemas() -> dict[str, object]:
    version: Schema = {"type": "integer", "minimum": 1}
    place = {"kind": KIND, "tenant": TEXT, "name": TEXT, "version": version}
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
    head = {"instance": HEX32, "seq": COUNT, "prev": HEX64, "authority": _ANY}
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
            {"kind": KIND, "tenant": TEXT, "name": TEXT, "source": B64}
        ),
        "Stored": closed({**stored, "warnings": listed(TEXT)}),
        "Objects": closed(
            {"objects": listed(closed({**stored, "active": FLAG})), "seq": COUNT}
        ),
        "Object": closed({**stored, "active": FLAG, "source": B64, "content": B64}),
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
                        "token_age": COUNT,
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
                "assumed_request": FLAG,
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
        "revision": COUNT,
        "created": TIME,
        "changed": TIME,
    }
    one = {"id": KEY, "kind": kinds, "versions": listed(ref("KeyVersion"))}
    explanation = {
        "key": KEY,
        "exists": FLAG,
        "versions": listed(ref("KeyVersion")),
        "policies": listed(_ANY),
        "denied_by": listed(_ANY),
        "governance": COUNT,
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
        "Imported": closed({"read": COUNT, "added": COUNT, "entry": HEX32}),
    }


def _audit_schemas() -> dict[str, object]:
    entry = {
        "index": COUNT,
        "id": HEX32,
        "kind": TEXT,
        "decision": {"type": ["string", "null"]},
        "body": _ANY,
    }
    receipt = {
        "format": {"const": "kbs.receipt/1"},
        "leaf": TEXT,
        "index": COUNT,
        "checkpoint": TEXT,
        "inclusion": listed(B64),
    }
    return {
        "Entry": closed(entry, {"sample": _ANY}),
        "Entries": closed({"entries": listed(ref("Entry")), "size": COUNT}),
        "Receipt": closed(receipt, {"body": _ANY, "salt": B64}),
        "Consistency": closed({"first": COUNT, "second": COUNT, "proof": listed(B64)}),
        "Evidence": closed({"digest": HEX64, "decision": HEX32, "bundle": B64}),
        "Integrity": closed({"statements": COUNT, "entries": COUNT, "root": HEX64}),
    }
