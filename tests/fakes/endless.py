"""An application whose answers are long, behind the gateway and the real server."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask, Response

from kbs.api.gateway import Gateway

PIECE = b"x" * 100_000
PIECES = 2000
"""Two hundred megabytes: more than sockets and pipes hold."""

made = [0]


def application() -> Flask:
    """Say how much was made of the long answer."""
    app = Flask("endless", static_folder=None)

    @app.get("/made")
    def count() -> str:
        return str(made[0])

    @app.get("/long")
    def long() -> Response:
        def pieces() -> Iterator[bytes]:
            made[0] = 0
            for _ in range(PIECES):
                made[0] += 1
                yield PIECE

        return Response(pieces())

    return app


gateway = Gateway(application(), threads=2)
