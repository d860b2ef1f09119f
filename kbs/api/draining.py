"""Reading what is left of a body that was too large, so that the refusal arrives.

A client that still sends when the connection closes sees a broken pipe and never the
answer; so the rest is read and thrown away, as far as patience goes.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import BinaryIO

from flask import Response, request

from kbs.api.limits import MAX_BODY_BYTES

PATIENCE_BYTES = 4 * MAX_BODY_BYTES
"""How much is read of a body that nobody wants."""

_PIECE = 64 * 1024


def drain(response: Response) -> Response:
    """Throw the body away when the answer is that it is too large."""
    if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        _discard(request.environ["wsgi.input"])
    return response


def _discard(stream: BinaryIO) -> None:
    left = PATIENCE_BYTES
    while left > 0:
        piece = stream.read(_PIECE)
        if not piece:
            return
        left -= len(piece)
