"""One request: caps, deadlines, pins, and only errors of ours."""

from __future__ import annotations

import hashlib
import socket
import threading
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from kbs.client.transport import Reply, Transport, is_loopback, parse_server
from kbs.core.errors import MalformedError, UnavailableError
from tests.fakes.answering import answering
from tests.fakes.guest_broker import _NOW, FakeBroker, serving

pytestmark = pytest.mark.enable_socket


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(_NOW)
        .not_valid_after(_NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    der = made.public_bytes(serialization.Encoding.DER)
    return *paths, hashlib.sha256(der).hexdigest()


def test_plain_http_to_a_tls_port_is_told() -> None:
    """The server of the broker answers with an alert: fatal, unexpected_message."""

    def answer(listening: socket.socket) -> None:
        connected, _ = listening.accept()
        with connected:
            connected.recv(65536)
            connected.sendall(b"\x15\x03\x03\x00\x02\x02\x0a")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        with pytest.raises(UnavailableError) as caught:
            Transport(f"http://127.0.0.1:{listening.getsockname()[1]}").get("/")
        thread.join()
    assert "it speaks TLS: use https://" in str(caught.value)


def test_tls_needs_no_known_issuer(certificate: tuple[Path, Path, str]) -> None:
    """The broker's signature is what a guest trusts; warnings would be errors here."""
    with serving(FakeBroker(), certificate[:2]) as url:
        assert Transport(url).get("/v1/broker").status == 200


def test_a_pinned_certificate_is_accepted(certificate: tuple[Path, Path, str]) -> None:
    with serving(FakeBroker(), certificate[:2]) as url:
        transport = Transport(url, tls_sha256=certificate[2])
        assert transport.get("/v1/broker").status == 200
        assert transport.server == url
        transport.close()
        assert transport.get("/v1/broker").status == 200
        transport.close()
        transport.close()


def test_another_certificate_than_the_pinned_one_is_refused(
    certificate: tuple[Path, Path, str],
) -> None:
    broker = FakeBroker()
    with serving(broker, certificate[:2]) as url:
        with pytest.raises(UnavailableError) as caught:
            Transport(url, tls_sha256="00" * 32).post("/v1/challenge", b"{}")
        assert caught.value.code == "tls.pin"
    assert broker.paths == []


@pytest.mark.parametrize("pin", ["", "00", "AB" * 32, "g" * 64])
def test_a_fingerprint_that_is_none_is_malformed(pin: str) -> None:
    with pytest.raises(MalformedError):
        Transport("https://broker.example", tls_sha256=pin)


def _send(handler: BaseHTTPRequestHandler, body: bytes, **headers: str) -> None:
    handler.send_response(200)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def test_no_more_than_the_limit_is_read() -> None:
    with answering(lambda handler: _send(handler, b"x" * 1001)) as url:
        assert len(Transport(url).request("GET", "/", limit=1001).body) == 1001
        with pytest.raises(UnavailableError, match="at most 1000"):
            Transport(url).request("GET", "/", limit=1000)


def test_an_answer_without_end_ends_at_the_deadline() -> None:
    times = iter([0.0, 61.0])
    with answering(lambda handler: _send(handler, b"x")) as url:
        transport = Transport(url, monotonic=lambda: next(times))
        with pytest.raises(UnavailableError, match="no end in 60 s"):
            transport.get("/")


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_byte_now_and_then_does_not_stretch_the_deadline(framing: str) -> None:
    times, over = iter([0.0, 61.0]), threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        if framing == "length":
            _send(handler, b" ", Content_Length="60000")
        else:
            handler.protocol_version = "HTTP/1.1"
            _send(handler, b"1\r\n \r\n", Transfer_Encoding="chunked")
        over.wait(20)

    with answering(drip) as url:
        transport = Transport(url, monotonic=lambda: next(times))
        try:
            with pytest.raises(UnavailableError, match="no end in 60 s"):
                transport.get("/")
        finally:
            over.set()


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    with (
        answering(lambda handler: _send(handler, b"{}", Content_Length="3")) as url,
        pytest.raises(UnavailableError) as caught,
    ):
        Transport(url).get("/")
    assert caught.value.code == "unreachable"


def test_a_redirect_is_an_answer_like_any_other() -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://127.0.0.1:1/")
        handler.end_headers()

    with answering(redirect) as url:
        assert Transport(url).get("/").status == 302


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("0", 0), ("-1", None), ("soon", None), ("9" * 7, None), ("٣", None)],
)
def test_retry_after_is_seconds_or_nothing(text: str, seconds: int | None) -> None:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        raw = text.encode("utf-8").decode("latin-1")
        _send(handler, b"", Retry_After=raw)

    with answering(reply) as url:
        assert Transport(url).get("/").retry_after == seconds


def test_a_closed_port_is_said_in_few_words() -> None:
    with pytest.raises(UnavailableError, match="Connection refused") as caught:
        Transport("http://127.0.0.1:1").get("/")
    assert caught.value.code == "unreachable"


def test_neither_proxies_nor_netrc_get_between_us_and_loopback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    seen: list[str | None] = []

    def note(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        _send(handler, b"")

    with answering(note) as url:
        assert Transport(url).get("/").status == 200
    assert seen == [None]


def test_elsewhere_the_proxy_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(UnavailableError):
        Transport("https://broker.example", tls_sha256="00" * 32).get("/")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "broker.example",
        "http://broker.example",
        "ftp://127.0.0.1",
        "https://",
        "https://a:b@broker.example",
        "https://broker.example?x",
        "https://broker.example#x",
        "https://broker.example:0",
        "https://broker.example:99999",
        "https://broker.example:x",
    ],
)
def test_what_is_no_server_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_server(text)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("https://broker.example/", "https://broker.example"),
        ("https://broker.example:8443/kbs", "https://broker.example:8443/kbs"),
        ("http://localhost:80", "http://localhost:80"),
        ("http://[::1]:80/", "http://[::1]:80"),
    ],
)
def test_a_server_has_one_spelling(text: str, server: str) -> None:
    assert parse_server(text) == server


@given(st.text(max_size=60) | st.text(max_size=40).map("https://".__add__))
def test_any_text_is_a_server_or_malformed(text: str) -> None:
    with suppress(MalformedError):
        assert parse_server(text).startswith(("https://", "http://"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.3.2.1", True), ("::1", True), ("10.0.0.1", False), ("broker", False)],
)
def test_loopback_is_this_machine(host: str, expected: bool) -> None:  # noqa: FBT001
    assert is_loopback(host) is expected


def test_json_of_another_type_or_shape_is_not_a_broker() -> None:
    for kind, body in [("text/html", b"{}"), ("", b"{}"), ("application/json", b"[]")]:
        with pytest.raises(UnavailableError):
            Reply(status=200, content_type=kind, body=body).json()
