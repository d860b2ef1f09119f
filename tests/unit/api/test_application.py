"""What surrounds every request: no host is trusted, asked for or redirected to."""

from __future__ import annotations

import pytest
from flask import request

from kbs.api.application import Application, Limits


def application() -> Application:
    app = Application(Limits.of_rates(0, 0, lambda: 0.0))

    @app.get("/v1/path/<name>")
    def path(name: str) -> str:
        return f"{name} of {request.path}"

    return app


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "elsewhere.example"},
        {"Host": "a" * 64 + ".example:0"},
        {"Host": "ü b"},
        {"Connection": "Upgrade", "Upgrade": "websocket"},
    ],
)
def test_a_path_means_the_same_whatever_the_host(headers: dict[str, str]) -> None:
    found = application().test_client().get("/v1/path/here", headers=headers)
    assert (found.status_code, found.text) == (200, "here of /v1/path/here")


@pytest.mark.parametrize("path", ["/v1/path//here", "/v1/path/a/../here", "/v1/path/"])
def test_a_path_is_not_corrected(path: str) -> None:
    found = application().test_client().get(path)
    assert found.status_code == 404
    assert found.location is None


def test_no_session_is_kept_in_a_cookie() -> None:
    given = {"Cookie": "session=eyJhIjoxfQ.aaaa.bbbb"}
    found = application().test_client().get("/v1/path/here", headers=given)
    assert found.status_code == 200
    assert "Set-Cookie" not in found.headers
