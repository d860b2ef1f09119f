"""What the OpenAPI documents are made of: operations, closed objects, refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kbs import __version__
from kbs.wire.problem import MEDIA_TYPE

Schema = Mapping[str, object]

TEXT: Schema = {"type": "string"}
TIME: Schema = {"type": "string", "format": "date-time"}
HEX32: Schema = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
HEX64: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
B64U: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]*$"}
B64: Schema = {"type": "string", "contentEncoding": "base64"}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"}
KEY: Schema = {
    "type": "string",
    "pattern": "^[a-z0-9._-]+/[a-z0-9._-]+/[a-z0-9._-]+(@[1-9][0-9]*)?$",
    "examples": ["acme/model/chat", "acme/model/chat@2"],
}

PROBLEM: Schema = {
    "description": "RFC 9457.",
    "type": "object",
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "code": TEXT,
        "decision": HEX32,
        "instance": TEXT,
    },
    "required": ["type", "title", "status", "detail", "code"],
    "additionalProperties": False,
}

WITH_BODY = (400, 408, 413, 415)
"""What any body may be refused with: malformed, too late, too large, no JSON."""

ALWAYS = (429, 503)
"""What anything may be answered: too many requests, and not now."""


def ref(name: str) -> dict[str, object]:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def closed(
    members: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None
) -> dict[str, object]:
    """Return the schema of an object with these members and no others."""
    return {
        "type": "object",
        "properties": {**members, **(optional or {})},
        "required": sorted(members),
        "additionalProperties": False,
    }


def listed(items: Schema) -> dict[str, object]:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def operation(
    name: str,
    summary: str,
    *,
    ok: str | None = None,
    media_type: str = "application/json",
    body: Schema | None = None,
    body_type: str = "application/json",
    optional: bool = False,
    status: int = 200,
    errors: Sequence[int] = (),
    parameters: Sequence[Schema] = (),
    refusal: str = "Problem",
) -> dict[str, object]:
    """Return an operation: what it takes, what it answers, how it refuses.

    `ok` is the schema of its answer, None where that is no JSON; `refusal` names the
    response that every error of `errors` is.
    """
    content: dict[str, object] = {media_type: {"schema": ref(ok)} if ok else {}}
    responses: dict[str, object] = {
        str(status): {"description": "Done.", "content": content}
    }
    always = (*ALWAYS, *(WITH_BODY if body is not None else ()))
    for code in sorted({*errors, *always}):
        # The rate, the deadline and the cap are the server's, whatever door it is.
        is_door = code in errors
        responses[str(code)] = {
            "$ref": f"#/components/responses/{refusal if is_door else 'Problem'}"
        }
    found: dict[str, object] = {
        "operationId": name,
        "summary": summary,
        "responses": responses,
    }
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = {
            "required": not optional,
            "content": {body_type: {"schema": body}},
        }
    return found


def in_path(name: str, schema: Schema = TEXT) -> dict[str, object]:
    """Return a parameter of the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema}


def in_query(name: str, schema: Schema = TEXT) -> dict[str, object]:
    """Return an optional parameter of the query."""
    return {"name": name, "in": "query", "required": False, "schema": schema}


def document(
    title: str,
    description: str,
    *,
    paths: Mapping[str, object],
    schemas: Mapping[str, object],
    responses: Mapping[str, object],
    security: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return an OpenAPI 3.1 document; `security` are schemes that all of it needs."""
    components: dict[str, object] = {"schemas": schemas, "responses": responses}
    found: dict[str, object] = {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": __version__,
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": components,
    }
    if security is not None:
        components["securitySchemes"] = security
        found["security"] = [{name: []} for name in security]
    return found


def problem_response() -> dict[str, object]:
    """Return the response that every refusal is."""
    return {
        "description": "Refused, malformed, or not to be checked now.",
        "content": {MEDIA_TYPE: {"schema": ref("Problem")}},
    }
