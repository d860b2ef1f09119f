"""`/health/live`: the process answers. `/health/ready`: it can release keys."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response

from kbs.api.problems import answer
from kbs.api.requests import broker

blueprint = Blueprint("health", __name__, url_prefix="/health")


@blueprint.get("/live")
def live() -> Response:
    """Answer that the process runs."""
    return answer({"live": True})


@blueprint.get("/ready")
def ready() -> Response:
    """Answer whether keys can be released, and name what is missing."""
    health = broker().health.report()
    status = HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return answer(health.to_json(), int(status))


@blueprint.get("")
def both() -> Response:
    """Answer both in one document; always 200 while the process runs."""
    return answer({"live": True, **broker().health.report().to_json()})
