"""The OpenAPI 3.1 document of the RCAR door, `/kbs/v0`.

The protocol is that of Trustee 0.21; this says what of it is here, and the answers.
"""

from __future__ import annotations

from functools import cache

from kbs.api.schemas import (
    B64U,
    NAME,
    PROBLEM,
    TEXT,
    closed,
    document,
    in_path,
    operation,
    problem_response,
    ref,
)

_TAKEN = {"type": "object"}
_RESOURCE = tuple(in_path(name, NAME) for name in ("repository", "type", "tag"))


@cache
def rcar_document() -> dict[str, object]:
    """Return the document; it depends on nothing."""
    return document(
        "kbs: attestation-gated key broker, RCAR door",
        "What guests of Confidential Containers speak: begin a session, attest in it, "
        "ask for resources. Every refusal is 401, but for what does not exist (404) "
        "and what cannot be checked now (503). Other paths are refused with the same "
        "error: 401 for what only signed statements change, 404 for the rest.",
        paths=_paths(),
        schemas=_schemas(),
        responses={"Problem": problem_response(), "RcarError": _error()},
    )


def _error() -> dict[str, object]:
    return {
        "description": "Refused, in the words of the protocol.",
        "content": {"application/json": {"schema": ref("RcarError")}},
    }


def _paths() -> dict[str, object]:
    return {
        "/kbs/v0/auth": {
            "post": operation(
                "rcarAuth",
                "Begin a session; its cookie is `kbs-session-id`.",
                body=ref("AuthRequest"),
                ok="Challenge",
                errors=(401, 503),
                refusal="RcarError",
            )
        },
        "/kbs/v0/attest": {
            "post": operation(
                "rcarAttest",
                "Send evidence in a session; get the token of what it proves.",
                body=ref("Attestation"),
                ok="Token",
                errors=(401, 503),
                refusal="RcarError",
            )
        },
        "/kbs/v0/resource/{repository}/{type}/{tag}": {
            "get": operation(
                "rcarResource",
                "Get a resource, sealed to the key that was attested.",
                ok="Jwe",
                errors=(401, 404, 503),
                parameters=_RESOURCE,
                refusal="RcarError",
            ),
            "post": operation(
                "rcarStore",
                "Store a resource as an administrator, or its next version.",
                media_type="text/xml",
                body=TEXT,
                body_type="application/octet-stream",
                errors=(401, 404, 503),
                parameters=_RESOURCE,
                refusal="RcarError",
            ),
            "delete": operation(
                "rcarDelete",
                "Retire a resource as an administrator.",
                media_type="text/xml",
                errors=(401, 404, 503),
                parameters=_RESOURCE,
                refusal="RcarError",
            ),
        },
    }


def _schemas() -> dict[str, object]:
    evidence = {
        "primary_evidence": _TAKEN,
        # JSON inside of a string, byte for byte what the primary evidence covers.
        "additional_evidence": TEXT,
    }
    return {
        "AuthRequest": {
            "type": "object",
            "properties": {"version": TEXT, "tee": TEXT, "extra-params": {}},
            "required": ["version", "tee", "extra-params"],
        },
        "Challenge": closed({"nonce": TEXT, "extra-params": {"const": ""}}),
        "Attestation": {
            "type": "object",
            "properties": {
                "init-data": {},
                "runtime-data": {
                    "type": "object",
                    "properties": {"nonce": TEXT, "tee-pubkey": _TAKEN},
                    "required": ["nonce", "tee-pubkey"],
                },
                "tee-evidence": {
                    "type": "object",
                    "properties": evidence,
                    "required": sorted(evidence),
                },
            },
            "required": ["runtime-data", "tee-evidence"],
        },
        "Token": closed({"token": TEXT}),
        "Jwe": closed(
            {
                "protected": B64U,
                "encrypted_key": B64U,
                "iv": B64U,
                "ciphertext": B64U,
                "tag": B64U,
            }
        ),
        "RcarError": closed({"type": TEXT, "detail": TEXT}),
        "Problem": PROBLEM,
    }
