"""`kbs init` and `kbs serve` from the outside: start, serve, refuse, end, return."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kbs.cli.admin_client import AdminClient
from kbs.cli.admin_transport import AdminTransport
from kbs.cli.profile import load_profile
from kbs.initialising import ADMIN_KEY_NAME
from tests.conftest import ROOT
from tests.fakes.served import Folders, Served, kbs, made, serving

REFUSED = {1, 2, 3}
"""Exit codes of a start that is refused: refused, usage, could not check."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One broker for tests that only ask."""
    folders = Folders(tmp_path_factory.mktemp("shared"))
    with serving(folders, "--rate-limit", "0") as served:
        yield served


def _document(body: bytes) -> dict[str, object]:
    document = json.loads(body)
    assert isinstance(document, dict)
    return document


# -- init ------------------------------------------------------------------------------


def test_init_makes_a_broker_and_says_where(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    document = made(folders)
    assert set(document) == {
        *("instance", "data", "trust", "profile", "tls_sha256", "response_key")
    }
    pinned = json.loads((folders.trust / "instance.json").read_text())
    assert pinned["instance"] == document["instance"]
    load_pem_public_key(Path(str(document["response_key"])).read_bytes())
    for path in (folders.data, folders.trust, folders.profile):
        assert path.stat().st_mode & 0o777 == 0o700
        for file in path.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600, file
    # The administrator's private key is in the profile and nowhere else.
    key = (folders.profile / ADMIN_KEY_NAME).read_bytes()
    body = b"".join(key.split(b"\n")[1:-2])
    for file in (*folders.data.iterdir(), *folders.trust.iterdir()):
        assert body not in file.read_bytes()


def test_init_for_people_says_what_to_do_next(tmp_path: Path) -> None:
    done = kbs("init", *Folders(tmp_path).options())
    assert done.returncode == 0
    assert "Next:" in done.stdout
    assert "kbs serve" in done.stdout


@pytest.mark.parametrize("name", ["kbs.example", "192.0.2.7", "2001:db8::7"])
def test_guests_reach_a_broker_by_the_names_that_init_was_given(
    tmp_path: Path, name: str
) -> None:
    """RCAR guests trust the certificate and compare the name in their URL with it."""
    folders = Folders(tmp_path)
    made(
        folders, "--host", "kbs.example", "--host", "192.0.2.7", "--host", "2001:db8::7"
    )
    trusting = ssl.create_default_context(cafile=folders.data / "tls.crt")
    with serving(folders) as served:
        address = ("127.0.0.1", served.port)
        for one in (name, "localhost"):
            with socket.create_connection(address, timeout=10) as plain:
                trusting.wrap_socket(plain, server_hostname=one).close()
        with (
            socket.create_connection(address, timeout=10) as plain,
            pytest.raises(ssl.SSLCertVerificationError, match="mismatch"),
        ):
            trusting.wrap_socket(plain, server_hostname="other.example")


@pytest.mark.parametrize("name", ["https://kbs.example", "kbs.example:8443", "ü", ""])
def test_init_refuses_what_is_no_name_of_a_host(tmp_path: Path, name: str) -> None:
    folders = Folders(tmp_path)
    done = kbs("init", *folders.options(), "--host", name)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --host: got {name!r}, expected a DNS name")
    assert not folders.data.exists()


def test_a_second_init_changes_nothing(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    made(folders)
    before = _bytes_of(folders)
    again = kbs("init", *folders.options(), "--json")
    assert again.returncode in REFUSED
    assert again.stdout == "" or "error" in again.stdout
    assert "of an instance that exists" in again.stdout + again.stderr
    assert _bytes_of(folders) == before


def test_init_refuses_a_profile_of_another_broker(tmp_path: Path) -> None:
    first, second = Folders(tmp_path / "1"), Folders(tmp_path / "2")
    first.base.mkdir()
    second.base.mkdir()
    made(first)
    shutil.copytree(first.profile, second.profile)
    done = kbs("init", *second.options())
    assert done.returncode in REFUSED
    assert "of another broker" in done.stderr
    assert not second.trust.exists()


def test_a_half_made_broker_is_neither_made_again_nor_served(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    made(folders)
    (folders.trust / "instance.json").unlink()
    shutil.rmtree(folders.profile)
    for command in ("init", "serve"):
        done = kbs(command, *folders.options())
        assert done.returncode in REFUSED, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert "trust folder" in done.stderr or "instance" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["response.pub", "tls.key", "notes.txt"])
def test_nothing_is_made_beside_what_lies_in_the_data_folder(
    tmp_path: Path, name: str
) -> None:
    """The data folder of a broker on PostgreSQL holds its certificate and pins."""
    folders = Folders(tmp_path)
    folders.data.mkdir(parents=True)
    (folders.data / name).write_bytes(b"of another broker")
    before = _bytes_of(folders)
    for command in ("init", "serve"):
        done = kbs(command, *folders.options())
        assert done.returncode == 2
        assert name in done.stderr
    assert _bytes_of(folders) == before


def test_a_trust_folder_inside_the_data_is_refused(tmp_path: Path) -> None:
    options = ["--data", str(tmp_path / "d"), "--trust", str(tmp_path / "d" / "t")]
    for command in ("init", "serve"):
        done = kbs(command, *options, "--profile", str(tmp_path / "p"))
        assert done.returncode in REFUSED
        assert "inside the data folder" in done.stderr
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("inside", ["d", "d/admin", "d/.config/kbs"])
def test_a_profile_inside_the_data_is_refused(tmp_path: Path, inside: str) -> None:
    """The administrator's private key would be in every copy of the data folder."""
    options = ["--data", str(tmp_path / "d"), "--trust", str(tmp_path / "t")]
    for command in ("init", "serve"):
        done = kbs(command, *options, "--profile", str(tmp_path / inside))
        assert done.returncode == 2
        assert "inside the data folder" in done.stderr
        assert "--profile DIR" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("in_use", [False, True])
def test_an_init_that_fails_at_the_database_leaves_no_key(
    tmp_path: Path, request: pytest.FixtureRequest, *, in_use: bool
) -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    if in_use:
        (tmp_path / "first").mkdir()
        first = Folders(tmp_path / "first", _database_url("postgresql", request))
        made(first)
        url = str(first.url)
    folders = Folders(tmp_path / "second", url)
    done = kbs("init", *folders.options())
    assert done.returncode in REFUSED, done.stderr
    assert "Traceback" not in done.stderr
    assert _bytes_of(folders) == {}


def _bytes_of(folders: Folders) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in sorted(folders.base.rglob("*"))
        if path.is_file()
    }


# -- serve -----------------------------------------------------------------------------


def test_the_ready_line_is_all_that_stdout_holds(shared: Served) -> None:
    assert set(shared.line) == {
        *("url", "instance", "tls_sha256", "response_key", "profile")
    }
    status, kind, body = shared.call("GET", "/v1/broker")
    assert (status, kind) == (200, "application/json")
    told = _document(body)
    assert told["instance"] == shared.line["instance"]
    assert told["development"] is False
    pinned = Path(str(shared.line["response_key"])).read_text()
    assert told["response_key"] == pinned
    assert shared.stdout.read_text().count("\n") == 1


def test_the_certificate_is_the_one_whose_digest_was_printed(shared: Served) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", shared.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        der = secured.getpeercert(binary_form=True)
        assert der is not None
        assert hashlib.sha256(der).hexdigest() == shared.line["tls_sha256"]
        assert secured.version() == "TLSv1.3"


def test_older_tls_is_refused(shared: Served) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", shared.port)) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/release", 405),
        ("DELETE", "/v1/challenge", 405),
        ("OPTIONS", "/v1/challenge", 405),
        ("PUT", "/admin/v1/keys", 405),
        ("GET", "/admin/v1/keys", 401),
        ("GET", "/v1/log/tile/../../etc/passwd", 404),
        ("GET", "/v1/log/tile/9/x", 400),
    ],
)
def test_what_is_not_there_is_a_problem_document(
    shared: Served, method: str, path: str, status: int
) -> None:
    found, kind, body = shared.call(method, path)
    assert kind == "application/problem+json"
    assert _document(body)["status"] == found
    assert found in {status, 400} if status == 404 else found == status


def test_a_body_beyond_the_cap_is_refused(shared: Served) -> None:
    huge = b'{"a":"' + b"x" * (2 * 1024 * 1024) + b'"}'
    for path in ("/v1/challenge", "/v1/release", "/v1/enrolments"):
        status, kind, body = shared.call("POST", path, huge)
        assert (status, kind) == (413, "application/problem+json")
        assert _document(body)["code"] == "http.too_large"


def test_a_body_without_a_length_is_read_or_refused_and_capped(shared: Served) -> None:
    context = shared.context
    with (
        socket.create_connection(("127.0.0.1", shared.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        secured.sendall(
            b"POST /v1/release HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
            b"Connection: close\r\n\r\n"
        )
        try:
            for _ in range(40):
                secured.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            secured.sendall(b"0\r\n\r\n")
        except OSError:
            pass
        answer = b""
        try:
            while piece := secured.recv(65536):
                answer += piece
        except OSError:
            pass
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 411", b"HTTP/1.1 413"))


def test_garbage_on_the_port_harms_nobody(shared: Served) -> None:
    for garbage in (
        b"\x00" * 512,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"A" * 300,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", shared.port), timeout=5) as plain:
            plain.sendall(garbage)
            plain.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                plain.recv(1024)
    for garbage in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
        b"GET /health/live HTTP/9.9\r\n\r\n",
        b"\r\n" * 50,
        b"GET " + b"/a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        with (
            socket.create_connection(("127.0.0.1", shared.port), timeout=5) as plain,
            shared.context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            try:
                secured.sendall(garbage)
                secured.recv(1024)
            except OSError:
                pass
    assert shared.call("GET", "/health/live")[0] == 200
    assert "Traceback" not in shared.errors()


def test_clients_that_leave_an_export_are_one_line(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    made(folders)
    with serving(folders, "--rate-limit", "0") as served:
        client = AdminClient(
            load_profile(folders.profile), AdminTransport(served.url, tls_sha256=None)
        )
        with client:
            for number in range(200):
                client.create_key(f"acme/model/k{number}", "opaque")
            path = "/admin/v1/audit/export"
            for _ in range(10):
                token = client._headers("GET", path, b"")["Authorization"]
                _leave(served, f"GET {path} HTTP/1.1\r\nHost: x\r\n", token)
        deadline = time.monotonic() + 10
        while "client left: GET" not in served.errors():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert served.call("GET", "/health/ready")[0] == 200
        assert "Traceback" not in served.errors()
        assert "ProtocolClosed" not in served.errors()


def _leave(served: Served, head: str, token: str) -> None:
    """Ask and be gone at once, as a process that is killed."""
    with socket.socket() as plain:
        # So small that the answer cannot be sent whole before the client leaves.
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(10)
        plain.connect(("127.0.0.1", served.port))
        secured = served.context.wrap_socket(plain, server_hostname="localhost")
        secured.sendall(f"{head}Authorization: {token}\r\n\r\n".encode())
        secured.recv(1)
        linger = struct.pack("ii", 1, 0)
        secured.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        secured.close()


@pytest.mark.slow
def test_headers_that_never_end_are_cut_off(shared: Served) -> None:
    with (
        socket.create_connection(("127.0.0.1", shared.port), timeout=30) as plain,
        shared.context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        secured.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        started = time.monotonic()
        answer = secured.recv(1024)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started < 20
    assert shared.call("GET", "/health/live")[0] == 200


def test_many_clients_at_once_are_all_answered(shared: Served) -> None:
    statuses: list[int] = []

    def ask() -> None:
        statuses.extend(
            shared.call("POST", "/v1/challenge", b"{}")[0] for _ in range(5)
        )

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40


def test_sigterm_ends_it_soon_and_nothing_counted_is_lost(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    with serving(folders, "--rate-limit", "0") as served:
        status, _, _ = served.call("GET", "/admin/v1/keys")
        assert status == 401
        assert served.terminate() < 5
        assert served.process.returncode == 0
        assert "Traceback" not in served.errors()
    # The refusal waited for its minute; it is an entry all the same.
    with contextlib.closing(sqlite3.connect(folders.database)) as database:
        rows = database.execute("SELECT kind FROM log_entries").fetchall()
    assert ("refusals",) in rows


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_killed_broker_comes_back(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    folders = Folders(tmp_path, _database_url(kind, request))
    if folders.url is not None:
        made(folders)
    with serving(folders, "--workers", "2") as served:
        instance = served.line["instance"]
        assert _key(folders, served, "acme/model/one") == 0
        served.kill()
    with serving(folders) as served:
        assert served.line["instance"] == instance
        assert _key(folders, served, "acme/model/one") == 1
        assert _key(folders, served, "acme/model/two") == 0
        assert served.terminate() < 5


def _database_url(kind: str, request: pytest.FixtureRequest) -> str | None:
    if kind == "sqlite":
        return None
    server = request.getfixturevalue("postgresql_server")
    url = server.url(server.create_database())
    assert isinstance(url, str)
    return url


def _key(folders: Folders, served: Served, key_id: str) -> int:
    """Create a key by the command line; return its exit code."""
    done = kbs(
        *("key", "create", key_id, "--profile", str(folders.profile)),
        *("--server", served.url, "--json"),
    )
    assert "Traceback" not in done.stderr
    return done.returncode


def test_several_workers_serve_one_state(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    with serving(folders, "--workers", "2", "--rate-limit", "0") as served:
        keys = [f"acme/model/k{number}" for number in range(4)]
        assert [_key(folders, served, key) for key in keys] == [0] * 4
        seen = set()
        for _ in range(20):
            status, _, body = served.call("GET", "/v1/log/checkpoint")
            assert status == 200
            seen.add(body)
        # Whichever worker answers, it is the log's one checkpoint.
        assert len(seen) == 1


def test_workers_keep_to_a_processor_each(tmp_path: Path) -> None:
    """And the one that takes the place of another, to that one's."""
    available = sorted(os.sched_getaffinity(0))
    with serving(Folders(tmp_path), "--workers", "2", "--pin-workers") as served:
        before = {pid: _processors(pid) for pid in served.workers()}
        assert sorted(before.values()) == sorted(
            [available[0], available[1 % len(available)]]
        )
        victim = served.workers()[0]
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while served.errors().count("keeps to processor") < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (other,) = set(served.workers()) - set(before)
        assert _processors(other) == before[victim]
        assert len(os.sched_getaffinity(served.process.pid)) == len(available)


def _processors(pid: int) -> int:
    """Return the one processor of all threads of a process."""
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    assert len(threads) > 2
    (processor,) = {frozenset(os.sched_getaffinity(thread)) for thread in threads}
    (only,) = processor
    return only


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        done = kbs("serve", *folders.options(), "--listen", f"127.0.0.1:{port}")
    assert done.returncode in REFUSED
    last = done.stderr.strip().splitlines()[-1]
    assert f"127.0.0.1:{port}" in last
    assert "in use" in last
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_two_brokers_do_not_share_a_port(tmp_path: Path, shared: Served) -> None:
    done = kbs(
        *("serve", *Folders(tmp_path).options()),
        *("--listen", f"127.0.0.1:{shared.port}"),
    )
    assert done.returncode in REFUSED
    assert "in use" in done.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--listen", "0.0.0.0:0", "--plain-http"], "loopback"),
        (["--listen", "127.0.0.1"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
        (["--listen", "192.0.2.1:0"], "192.0.2.1"),
        (["--workers", "0"], "--workers"),
        (["--threads", "100000"], "--threads"),
        (["--rate-limit", "-1"], "--rate-limit"),
        (["--evidence-retention-days", "99999999"], "--evidence-retention-days"),
        (["--db", "mysql://x/y"], "postgresql"),
        (["--db", "not a url"], "URL"),
    ],
)
def test_settings_that_cannot_be_are_one_line(
    tmp_path: Path, options: list[str], word: str
) -> None:
    done = kbs("serve", *Folders(tmp_path).options(), *options)
    assert done.returncode in REFUSED, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if "INFO" not in line]
    assert len(lines) == 1
    assert word in lines[0]
    assert done.stdout == ""


def test_plain_http_is_for_loopback(tmp_path: Path) -> None:
    with serving(Folders(tmp_path), "--plain-http", plain=True) as served:
        assert served.url.startswith("http://127.0.0.1:")
        assert served.line["tls_sha256"] is None
        assert served.call("GET", "/health/live")[0] == 200


@pytest.mark.parametrize("listen", ["localhost:0", "[::1]:0"])
def test_other_names_of_this_machine(tmp_path: Path, listen: str) -> None:
    with serving(Folders(tmp_path), "--listen", listen) as served:
        assert served.call("GET", "/health/live")[0] == 200


def test_development_says_so_everywhere(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    with serving(folders, "--dev") as served:
        assert _document(served.call("GET", "/v1/broker")[2])["development"] is True
        health = _document(served.call("GET", "/health")[2])
        assert health["development"] is True
        assert _document(served.call("GET", "/health/ready")[2])["development"] is True
        assert served.call("GET", "/admin/v1/keys")[0] == 401
        served.terminate()
        lines = served.errors().splitlines()
    assert lines
    assert [line for line in lines if "DEVELOPMENT" not in line] == []


def test_development_does_not_start_beside_production(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    with serving(folders):
        pass
    done = kbs("serve", *folders.options(), "--listen", "127.0.0.1:0", "--dev")
    assert done.returncode in REFUSED
    assert "production" in done.stderr


def test_serve_initialises_no_foreign_database(
    tmp_path: Path, postgresql_server: object, request: pytest.FixtureRequest
) -> None:
    folders = Folders(tmp_path, _database_url("postgresql", request))
    done = kbs("serve", *folders.options(), "--listen", "127.0.0.1:0")
    assert done.returncode in REFUSED
    assert "Traceback" not in done.stderr
    assert not (folders.trust / "kek").exists()


def test_postgresql_from_the_command_line(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folders = Folders(tmp_path, _database_url("postgresql", request))
    document = made(folders)
    with serving(folders) as served:
        assert served.line["instance"] == document["instance"]
        assert served.call("GET", "/health/ready")[0] == 200
        password = str(folders.url).partition("@")[0].rpartition(":")[2]
        if password and not password.startswith("//"):
            assert password not in served.errors()


# -- what is in the trust folder -------------------------------------------------------


def _refused(folders: Folders, *options: str) -> str:
    done = kbs("serve", *folders.options(), "--listen", "127.0.0.1:0", *options)
    assert done.returncode in REFUSED, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def test_a_damaged_trust_folder_is_refused(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    made(folders)
    kek, pinned = folders.trust / "kek", folders.trust / "instance.json"
    good, instance = kek.read_bytes(), pinned.read_bytes()

    kek.chmod(0o644)
    assert "0644" in _refused(folders)
    kek.chmod(0o600)
    kek.write_bytes(bytes(32))
    assert "kek" in _refused(folders) or "key-encryption key" in _refused(folders)
    kek.write_bytes(good[:16])
    assert "16 bytes" in _refused(folders)
    kek.unlink()
    assert "kek" in _refused(folders)
    kek.write_bytes(good)
    kek.chmod(0o600)

    other = {**json.loads(instance), "instance": "0" * 32}
    pinned.write_text(json.dumps(other))
    assert "instance" in _refused(folders)
    other = {**json.loads(instance), "genesis": "0" * 64}
    pinned.write_text(json.dumps(other))
    said = _refused(folders)
    assert "genesis" in said or "statement 0" in said
    pinned.write_bytes(b"{}")
    assert "instance.json" in _refused(folders)
    pinned.write_bytes(instance)
    with serving(folders) as served:
        assert served.call("GET", "/health/ready")[0] == 200


def test_an_old_database_is_refused_until_the_operator_accepts_it(
    tmp_path: Path,
) -> None:
    folders = Folders(tmp_path)
    made(folders)
    copy = tmp_path / "copy"
    shutil.copytree(folders.data, copy)
    with serving(folders) as served:
        assert _key(folders, served, "acme/model/one") == 0
        served.terminate()
    shutil.rmtree(folders.data)
    shutil.copytree(copy, folders.data)
    assert "high-water mark" in _refused(folders)
    with serving(
        folders, "--accept-rollback", "disk broke, backup of Monday"
    ) as served:
        query = kbs(
            *("audit", "query", "--profile", str(folders.profile)),
            *("--server", served.url, "--json"),
        )
        assert "rollback.accepted" in query.stdout
        assert "backup of Monday" in query.stdout
        served.terminate()
    # Once is enough: the mark is that of this database now.
    with serving(folders) as served:
        assert served.call("GET", "/health/ready")[0] == 200


def test_a_mark_that_is_gone_or_forged_is_refused(tmp_path: Path) -> None:
    folders, other = Folders(tmp_path / "1"), Folders(tmp_path / "2")
    for one in (folders, other):
        one.base.mkdir()
        made(one)
    mark = folders.trust / "highwater"
    good = mark.read_bytes()
    mark.unlink()
    assert "high-water mark" in _refused(folders)
    for forged in (
        (other.trust / "highwater").read_bytes(),
        good.replace(b'"size":1', b'"size":0'),
        b"",
        b"{}",
        bytes(100),
    ):
        mark.write_bytes(forged)
        assert "high-water mark" in _refused(folders)
    mark.write_bytes(good)
    with serving(folders) as served:
        assert served.call("GET", "/health/ready")[0] == 200


@pytest.mark.slow
def test_the_wheel_has_everything_that_is_needed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "setup.py", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    shutil.copytree(
        ROOT / "kbs", source / "kbs", ignore=shutil.ignore_patterns("__pycache__")
    )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(tmp_path),
            str(source),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "kbs").rglob("*"):
        if path.suffix in {".py", ".mako", ".typed"} and "__pycache__" not in str(path):
            assert str(path.relative_to(ROOT)) in names, path
    assert not [name for name in names if name.startswith("tests/")]
