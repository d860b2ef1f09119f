"""The OpenAPI 3.1 document of the v1 door, at `/v1/openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from flask import Blueprint, Response

from kbs import __version__
from kbs.api.problems import answer
from kbs.wire.problem import MEDIA_TYPE

blueprint = Blueprint("openapi", __name__, url_prefix="/v1")

Schema = Mapping[str, object]

_TEXT: Schema = {"type": "string"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_HEX32: Schema = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_HEX64: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_B64U: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]*$"}
_B64: Schema = {"type": "string", "contentEncoding": "base64"}
_KEY: Schema = {
    "type": "string",
    "pattern": "^[a-z0-9._-]+/[a-z0-9._-]+/[a-z0-9._-]+(@[1-9][0-9]*)?$",
    "examples": ["acme/model/chat", "acme/model/chat@2"],
}


@blueprint.get("/openapi.json")
def document() -> Response:
    """Answer with the document."""
    return answer(openapi())


@cache
def openapi() -> dict[str, object]:
    """Return the document; it depends on nothing."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kbs: attestation-gated key broker, front door v1",
            "version": __version__,
            "description": (
                "A workload asks for a challenge, binds its evidence to it, to a fresh "
                "key pair and to the keys that it wants, and gets them sealed to that "
                "key pair, or a refusal that says which checks failed."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {"schemas": _schemas(), "responses": _responses()},
    }


def _paths() -> dict[str, object]:
    return {
        "/v1/challenge": {
            "post": _operation(
                "challenge",
                "Get a fresh, signed challenge; nothing is stored.",
                body={"type": "object", "additionalProperties": False},
                optional=True,
                ok="ChallengeAnswer",
            )
        },
        "/v1/release": {
            "post": _operation(
                "release",
                "Send evidence and get keys sealed to the recipient that it binds. "
                "Sending the same bytes again gets the same answer again.",
                body=_ref("EvidenceBundle"),
                ok="ReleaseAnswer",
                errors=(401, 403, 404),
            )
        },
        "/v1/enrolments": {
            "post": _operation(
                "beginEnrolment",
                "Ask for a credential that only the TPM with this EK and AK can open.",
                body=_ref("EnrolmentRequest"),
                ok="EnrolmentCredential",
                errors=(403,),
            )
        },
        "/v1/enrolments/activate": {
            "post": _operation(
                "activateEnrolment",
                "Return the credential's secret; the enrolment is then pending.",
                body=_ref("ActivationRequest"),
                ok="PendingEnrolment",
                created=True,
                errors=(401,),
            )
        },
        "/v1/broker": {
            "get": _operation(
                "broker", "Who this broker is; information, not trust.", ok="Broker"
            )
        },
        "/v1/log/checkpoint": {
            "get": _raw("checkpoint", "The latest checkpoint (C2SP).", "text/plain")
        },
        "/v1/log/tile/{path}": {
            "get": {
                **_raw("tile", "A tile of the log (C2SP).", "application/octet-stream"),
                "parameters": [
                    {"name": "path", "in": "path", "required": True, "schema": _TEXT}
                ],
            }
        },
    }


def _operation(
    name: str,
    summary: str,
    *,
    ok: str,
    body: Schema | None = None,
    optional: bool = False,
    created: bool = False,
    errors: tuple[int, ...] = (),
) -> dict[str, object]:
    responses: dict[str, object] = {
        "201" if created else "200": {
            "description": "Done.",
            "content": {"application/json": {"schema": _ref(ok)}},
        }
    }
    always = (400, 408, 413, 415, 429, 503) if body is not None else (429, 503)
    for status in sorted({*errors, *always}):
        responses[str(status)] = {"$ref": "#/components/responses/Problem"}
    operation: dict[str, object] = {
        "operationId": name,
        "summary": summary,
        "responses": responses,
    }
    if body is not None:
        operation["requestBody"] = {
            "required": not optional,
            "content": {"application/json": {"schema": body}},
        }
    return operation


def _raw(name: str, summary: str, media_type: str) -> dict[str, object]:
    problem = {"$ref": "#/components/responses/Problem"}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {"description": "Done.", "content": {media_type: {}}},
            "400": problem,
            "404": problem,
            "429": problem,
            "503": problem,
        },
    }


def _ref(name: str) -> dict[str, object]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(
    members: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None
) -> dict[str, object]:
    return {
        "type": "object",
        "properties": {**members, **(optional or {})},
        "required": sorted(members),
        "additionalProperties": False,
    }


def _list(items: Schema) -> dict[str, object]:
    return {"type": "array", "items": items}


def _schemas() -> dict[str, object]:
    return {
        "EvidenceBundle": _object(
            {
                "format": {"const": "kbs.evidence/1"},
                "runtime_data": _ref("RuntimeData"),
                "items": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 16,
                    "items": _ref("EvidenceItem"),
                },
            }
        ),
        "RuntimeData": _object(
            {
                "audience": _TEXT,
                "nonce": {"type": "string", "minLength": 79, "maxLength": 79},
                "recipient": _ref("Recipient"),
                "request": _ref("ReleaseRequest"),
            }
        ),
        "Recipient": {
            "description": "A public JWK with exactly these members.",
            "oneOf": [
                _object(
                    {"kty": {"const": "OKP"}, "crv": {"const": "X25519"}, "x": _B64U}
                ),
                _object(
                    {
                        "kty": {"const": "EC"},
                        "crv": {"enum": ["P-256", "P-384"]},
                        "x": _B64U,
                        "y": _B64U,
                    }
                ),
            ],
        },
        "ReleaseRequest": _object(
            {
                "keys": {
                    "type": "array",
                    "items": _KEY,
                    "minItems": 1,
                    "maxItems": 64,
                    "uniqueItems": True,
                },
                "mode": {"enum": ["release", "check"]},
                "partial": {"type": "boolean"},
                "suite": {
                    "enum": ["0020-0001-0002", "0010-0001-0002", "0011-0002-0002"]
                },
            }
        ),
        "EvidenceItem": {
            "oneOf": [
                _ref(f"{kind}Item")
                for kind in ("Snp", "Cca", "Token", "Vtpm", "Sample")
            ],
            "discriminator": {"propertyName": "kind"},
        },
        "SnpItem": _object(
            {"kind": {"const": "snp"}, "report": _B64},
            {"certificates": _list(_TEXT), "crl": _B64},
        ),
        "CcaItem": _object({"kind": {"const": "cca"}, "token": _B64}),
        "TokenItem": _object(
            {"kind": {"const": "token"}, "jwt": _TEXT},
            {"submodules": {"type": "object", "additionalProperties": _TEXT}},
        ),
        "VtpmItem": _object(
            {
                "kind": {"const": "vtpm"},
                "quote": _object({"message": _B64, "signature": _B64}),
                "pcrs": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "additionalProperties": _TEXT,
                    },
                },
                "ak": _TEXT,
            },
            {"ak_certificates": _list(_TEXT), "event_log": _B64},
        ),
        "SampleItem": _object(
            {"kind": {"const": "sample"}, "report_data": _B64},
            {"claims": {"type": "object"}},
        ),
        "ChallengeAnswer": _object(
            {
                "answer": _object(
                    {
                        "format": {"const": "kbs.challenge-answer/1"},
                        "audience": _TEXT,
                        "challenge": _B64U,
                        "expires": _TIME,
                        "time": _TIME,
                        "log_key": _TEXT,
                    }
                ),
                "signature": _B64U,
                "keyid": _HEX64,
            }
        ),
        "ReleaseAnswer": _object(
            {
                "answer": _ref("Answer"),
                "signature": _B64U,
                "keyid": _HEX64,
                "receipt": _ref("Receipt"),
            }
        ),
        "Answer": _object(
            {
                "format": {"const": "kbs.answer/1"},
                "audience": _TEXT,
                "nonce": _TEXT,
                "decision": _HEX32,
                "time": _TIME,
                "outcome": {"enum": ["granted", "denied", "checked"]},
                "suite": _TEXT,
                "keys": _list(_object({"id": _TEXT, "version": {"type": "integer"}})),
                "denied": _list(_object({"key": _TEXT, "reasons": _list(_TEXT)})),
            },
            {"sealed": _B64U},
        ),
        "Receipt": _object(
            {
                "format": {"const": "kbs.receipt/1"},
                "leaf": _TEXT,
                "index": {"type": "integer", "minimum": 0},
                "checkpoint": _TEXT,
                "inclusion": _list(_B64),
            },
            {"body": {"type": "object"}, "salt": _B64},
        ),
        "EnrolmentRequest": _object(
            {
                "group": {"type": "string", "examples": ["acme/hosts"]},
                "ak": _B64,
                "ek": _B64,
                "ek_certificate": _B64,
                "ek_chain": _list(_B64),
            }
        ),
        "EnrolmentCredential": _object(
            {
                "enrolment": _B64U,
                "credential_blob": _B64,
                "encrypted_secret": _B64,
                "expires": _TIME,
            }
        ),
        "ActivationRequest": _object({"enrolment": _B64U, "secret": _B64}),
        "PendingEnrolment": _object(
            {
                "id": _HEX32,
                "status": {"const": "pending"},
                "group": _TEXT,
                "ak_name": _TEXT,
            }
        ),
        "Broker": _object(
            {
                "instance": _HEX32,
                "audience": _TEXT,
                "response_key": _TEXT,
                "log_key": _TEXT,
                "time": _TIME,
                "development": {"type": "boolean"},
            }
        ),
        "Problem": {
            "description": "RFC 9457; a workload learns which checks failed, no more.",
            "type": "object",
            "properties": {
                "type": _TEXT,
                "title": _TEXT,
                "status": {"type": "integer"},
                "detail": _TEXT,
                "code": _TEXT,
                "decision": _HEX32,
                "instance": _TEXT,
                "checks": _list(
                    _object(
                        {
                            "id": _TEXT,
                            "item": {"type": ["integer", "null"]},
                            "status": {"enum": ["fail", "unchecked"]},
                        }
                    )
                ),
                "denied": _list(_object({"key": _TEXT, "reasons": _list(_TEXT)})),
                "answer": _ref("Answer"),
                "signature": _B64U,
                "keyid": _HEX64,
                "receipt": _ref("Receipt"),
            },
            "required": ["type", "title", "status", "detail", "code"],
        },
    }


def _responses() -> dict[str, object]:
    return {
        "Problem": {
            "description": "Refused, malformed, or not to be checked now.",
            "content": {MEDIA_TYPE: {"schema": _ref("Problem")}},
        }
    }
