"""The public log: C2SP tlog-tiles. Leaves only; bodies go to auditors."""

from __future__ import annotations

from flask import Blueprint, Response

from kbs.api.requests import broker

blueprint = Blueprint("log", __name__, url_prefix="/v1/log")

# C2SP tlog-tiles: a tile never changes once written.
IMMUTABLE = "public, max-age=31536000, immutable"


@blueprint.get("/checkpoint")
def checkpoint() -> Response:
    """Answer with the latest signed checkpoint."""
    note = broker().audit.latest_checkpoint()
    response = Response(note, mimetype="text/plain")
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/tile/<path:path>")
def tile(path: str) -> Response:
    """Answer with a tile of hashes or a bundle of leaves."""
    data = broker().audit.tile(f"tile/{path}")
    response = Response(data, mimetype="application/octet-stream")
    response.headers["Cache-Control"] = IMMUTABLE
    return response
