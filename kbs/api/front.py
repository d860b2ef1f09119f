"""The front door v1: challenge, release, enrolment. Views parse, call, render."""

from __future__ import annotations

from flask import Blueprint, Response

from kbs.api.problems import answer, refusal
from kbs.api.requests import body_bytes, body_object, broker, no_members

blueprint = Blueprint("v1", __name__, url_prefix="/v1")


@blueprint.post("/challenge")
def challenge() -> Response:
    """Answer with a fresh challenge, signed by the response key."""
    no_members("challenge request")
    return answer(broker().release.challenge())


@blueprint.post("/release")
def release() -> Response:
    """Verify the bundle in the body, decide, record, and answer sealed keys."""
    reply = broker().release.release(body_bytes())
    if reply.refused:
        return refusal(dict(reply.document))
    return answer(reply.document)


@blueprint.post("/enrolments")
def begin_enrolment() -> Response:
    """Answer with a credential that only the TPM with that EK and AK can open."""
    return answer(broker().enrolment.begin(body_object()))


@blueprint.post("/enrolments/activate")
def activate_enrolment() -> Response:
    """Keep the AK as a pending enrolment once its TPM proved itself."""
    return answer(broker().enrolment.activate(body_object()), 201)


@blueprint.get("/broker")
def describe() -> Response:
    """Say who this broker is; information, not trust."""
    return answer(broker().describe())
