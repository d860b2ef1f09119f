"""The OpenAPI 3.1 document of the v1 door, at `/v1/openapi.json`; the other two doors'.

`/v1/openapi/rcar.json` and `/v1/openapi/admin.json` describe `/kbs/v0` and `/admin/v1`.
"""

from __future__ import annotations

from functools import cache

from flask import Blueprint, Response

from kbs.api.openapi_admin import admin_document
from kbs.api.openapi_rcar import rcar_document
from kbs.api.problems import answer
from kbs.api.schemas import B64 as _B64
from kbs.api.schemas import B64U as _B64U
from kbs.api.schemas import HEX32 as _HEX32
from kbs.api.schemas import HEX64 as _HEX64
from kbs.api.schemas import KEY as _KEY
from kbs.api.schemas import TEXT as _TEXT
from kbs.api.schemas import TIME as _TIME
from kbs.api.schemas import Schema, in_path, operation, problem_response
from kbs.api.schemas import closed as _object
from kbs.api.schemas import document as _document
from kbs.api.schemas import listed as _list
from kbs.api.schemas import ref as _ref

blueprint = Blueprint("openapi", __name__, url_prefix="/v1")


@blueprint.get("/openapi.json")
def document() -> Response:
    """Answer with the document of this door."""
    return answer(openapi())


@blueprint.get("/openapi/rcar.json")
def rcar() -> Response:
    """Answer with the document of the RCAR door."""
    return answer(rcar_document())


@blueprint.get("/openapi/admin.json")
def admin() -> Response:
    """Answer with the document of the administrators' door."""
    return answer(admin_document())


@cache
def openapi() -> dict[str, object]:
    """Return the document of the v1 door; it depends on nothing."""
    return _document(
        "kbs: attestation-gated key broker, front door v1",
        "A workload asks for a challenge, binds its evidence to it, to a fresh key "
        "pair and to the keys that it wants, and gets them sealed to that key pair, or "
        "a refusal that says which checks failed.",
        paths=_paths(),
        schemas=_schemas(),
        responses={
            "Problem": problem_response(),
            "NotReady": {
                "description": "It cannot release, and says why.",
                "content": {"application/json": {"schema": _ref("Ready")}},
            },
        },
    )


def _paths() -> dict[str, object]:
    return {
        "/v1/challenge": {
            "post": operation(
                "challenge",
                "Get a fresh, signed challenge; nothing is stored.",
                body={"type": "object", "additionalProperties": False},
                optional=True,
                ok="ChallengeAnswer",
            )
        },
        "/v1/release": {
            "post": operation(
                "release",
                "Send evidence and get keys sealed to the recipient that it binds. "
                "Sending the same bytes again gets the same answer again.",
                body=_ref("EvidenceBundle"),
                ok="ReleaseAnswer",
                errors=(401, 403, 404),
            )
        },
        "/v1/enrolments": {
            "post": operation(
                "beginEnrolment",
                "Ask for a credential that only the TPM with this EK and AK can open.",
                body=_ref("EnrolmentRequest"),
                ok="EnrolmentCredential",
                errors=(403,),
            )
        },
        "/v1/enrolments/activate": {
            "post": operation(
                "activateEnrolment",
                "Return the credential's secret; the enrolment is then pending.",
                body=_ref("ActivationRequest"),
                ok="PendingEnrolment",
                status=201,
                errors=(401,),
            )
        },
        "/v1/broker": {
            "get": operation(
                "broker", "Who this broker is; information, not trust.", ok="Broker"
            )
        },
        "/v1/log/checkpoint": {
            "get": operation(
                "checkpoint", "The latest checkpoint (C2SP).", media_type="text/plain"
            )
        },
        "/v1/log/tile/{path}": {
            "get": operation(
                "tile",
                "A tile of the log (C2SP).",
                media_type="application/octet-stream",
                errors=(400, 404),
                parameters=(in_path("path"),),
            )
        },
        "/health": {
            "get": operation("health", "Whether it runs, and can release.", ok="Health")
        },
        "/health/live": {"get": operation("live", "Whether it runs.", ok="Live")},
        "/health/ready": {
            "get": operation(
                "ready",
                "Whether it can release, and what is missing.",
                ok="Ready",
                errors=(503,),
                refusal="NotReady",
            )
        },
    }


_READY: dict[str, Schema] = {
    "ready": {"type": "boolean"},
    "development": {"type": "boolean"},
    "kek": _TEXT,
    "missing": _list(
        _object({"what": _TEXT, "detail": _TEXT, "blocking": {"type": "boolean"}})
    ),
    "notes": _list(_object({"what": _TEXT, "detail": _TEXT})),
}


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
                for kind in (
                    *("Snp", "Dcap", "Cca", "Token", "Vtpm", "Nitro", "Azure"),
                    *("NvGpu", "Sample"),
                )
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
        "DcapItem": _object(
            {"kind": {"enum": ["tdx", "sgx"]}, "quote": _B64},
            {"event_log": _B64, "collateral": {"type": "object"}},
        ),
        "NvGpuItem": _object(
            {"kind": {"const": "nvgpu"}, "report": _B64},
            {
                "certificates": _list(_TEXT),
                "nonce": _TEXT,
                "arch": _TEXT,
                "rims": _list({"type": ["string", "object"]}),
                "ocsp": _list(_B64),
                "crls": _list(_B64),
            },
        ),
        "NitroItem": _object(
            {"kind": {"enum": ["nitro", "nitrotpm"]}, "document": _B64}
        ),
        "AzureItem": _object(
            {"kind": {"const": "azure"}, "hcl_report": _B64},
            {
                "vtpm": _object(
                    {
                        "quote": _object({"message": _B64, "signature": _B64}),
                        "pcrs": {"type": "object"},
                    },
                    {"event_log": _B64},
                ),
                "certificates": _list(_TEXT),
                "crl": _B64,
                "td_quote": _B64,
                "collateral": {"type": "object"},
            },
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
        "Live": _object({"live": {"const": True}}),
        "Ready": _object(_READY),
        "Health": _object({"live": {"const": True}, **_READY}),
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
