"""A stream of lines: where it breaks off is told from what its reader does."""

from __future__ import annotations

import errno
from contextlib import closing
from http.server import BaseHTTPRequestHandler

import pytest

from kbs.cli.admin_transport import AdminTransport
from kbs.core.errors import UnavailableError
from tests.fakes.answering import answering

pytestmark = pytest.mark.enable_socket


def lines(handler: BaseHTTPRequestHandler, status: int = 200, missing: int = 0) -> None:
    body = b"one\ntwo\n"
    handler.send_response(status)
    handler.send_header("Content-Type", "application/x-ndjson; charset=utf-8")
    handler.send_header("Content-Length", str(len(body) + missing))
    handler.end_headers()
    handler.wfile.write(body)


def test_lines_are_given_as_they_are() -> None:
    seen: list[tuple[str | None, str | None]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append((handler.headers["Accept"], handler.headers["Authorization"]))
        lines(handler)

    with (
        answering(answer) as url,
        closing(AdminTransport(url)) as transport,
        transport.streaming("/x", {"Authorization": "Bearer t"}) as (reply, got),
    ):
        assert (reply.status, reply.body) == (200, b"")
        assert reply.content_type == "application/x-ndjson"
        assert list(got) == [b"one\n", b"two\n"]
    assert seen == [("*/*", "Bearer t")]


def test_a_refusal_is_a_body_without_lines() -> None:
    with (
        answering(lambda handler: lines(handler, status=403)) as url,
        closing(AdminTransport(url)) as transport,
        transport.streaming("/x", {}) as (reply, got),
    ):
        assert (reply.status, reply.body, list(got)) == (403, b"one\ntwo\n", [])


def test_an_answer_that_breaks_off_is_unavailable() -> None:
    with (
        answering(lambda handler: lines(handler, missing=1)) as url,
        closing(AdminTransport(url)) as transport,
        transport.streaming("/x", {}) as (_, got),
        pytest.raises(UnavailableError) as caught,
    ):
        list(got)
    assert caught.value.code == "unreachable"


def test_a_full_disk_is_not_said_of_the_server() -> None:
    def write(transport: AdminTransport) -> None:
        with transport.streaming("/x", {}) as (_, got):
            next(got)
            raise OSError(errno.ENOSPC, "disk is full")

    with (
        answering(lines) as url,
        closing(AdminTransport(url)) as transport,
        pytest.raises(OSError, match="disk is full"),
    ):
        write(transport)
