"""The administrators' client: errors, retries, and what it never signs or believes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit.checkpoint import Checkpoint, sign_checkpoint
from kbs.audit.logkey import LogSigner
from kbs.cli.admin_client import STATEMENT_RETRIES, AdminClient
from kbs.cli.admin_transport import AdminTransport, error_of, path_with, split_lines
from kbs.cli.profile import load_profile
from kbs.cli.seen_log import follow_log
from kbs.client.transport import Reply
from kbs.core.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    KbsError,
    MalformedError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from kbs.governance.statement import Action, Kind
from tests.fakes.admin_bench import Bench, write_key, write_profile

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def client(bench: Bench) -> Iterator[AdminClient]:
    with made(bench) as opened:
        yield opened


def made(bench: Bench) -> AdminClient:
    return AdminClient(
        load_profile(bench.profile),
        AdminTransport(bench.url),
        clock=bench.world.clock,
        sleep=lambda _: None,
    )


def add_values(client: AdminClient, name: str, values: list[str]) -> dict[str, object]:
    from kbs.governance.contents import digest_of
    from kbs.governance.objects import parse_reference_set

    content = parse_reference_set({"values": values}).canonical()
    stored = client.store_object(
        Kind.REFERENCE_SET,
        tenant="acme",
        name=name,
        source=content,
        digest=digest_of(content),
    )
    version = stored["version"]
    assert isinstance(version, int)
    return client.sign_and_submit(
        Action.ADD,
        Kind.REFERENCE_SET,
        tenant="acme",
        name=name,
        version=version,
        digest=digest_of(content),
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, MalformedError),
        (401, AuthenticationError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, MalformedError),
        (415, MalformedError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
        (302, UnavailableError),
    ],
)
def test_a_problem_becomes_an_error_with_the_servers_words(
    status: int, kind: type[KbsError]
) -> None:
    body = json.dumps({"detail": "the words", "code": "some.code"}).encode()
    problem = Reply(status=status, content_type="application/problem+json", body=body)
    error = error_of(problem)
    assert type(error) is kind
    assert (str(error), error.code) == ("the words", "some.code")
    plain = error_of(Reply(status=status, content_type="text/html", body=b"<html>"))
    assert type(plain) is kind
    assert str(plain) == f"status {status}"


def test_a_query_is_spelled_as_it_is_signed() -> None:
    assert path_with("/a", None) == "/a"
    assert path_with("/a", {"x": None}) == "/a"
    assert path_with("/a", {"x": "*", "y": "a b/ä", "n": 3}) == (
        "/a?x=%2A&y=a%20b%2F%C3%A4&n=3"
    )


def test_statements_of_four_at_once_are_all_accepted(bench: Bench) -> None:
    errors: list[BaseException] = []

    def administrator(number: int) -> None:
        try:
            with made(bench) as client:
                add_values(client, f"set{number}", ["a"])
        except KbsError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=administrator, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    head = bench.world.must("GET", "/admin/v1/governance/head")
    assert head["seq"] == 4


def test_a_statement_is_signed_anew_until_it_fits(
    bench: Bench, client: AdminClient
) -> None:
    stale: list[bytes] = []

    def old_head(path: str, body: bytes) -> bytes | None:
        if path != "/admin/v1/governance/head":
            return None
        stale.append(body)
        return stale[0] if len(stale) <= 3 else None

    add_values(client, "first", ["a"])
    with bench.tampering(old_head):
        add_values(client, "second", ["a"])
        stale[:] = [stale[0]]
        accepted = add_values(client, "third", ["a"])
    assert accepted["seq"] == 3


def test_others_being_faster_every_time_is_a_conflict(
    bench: Bench, client: AdminClient
) -> None:
    add_values(client, "first", ["a"])
    head: list[bytes] = []

    def always_old(path: str, body: bytes) -> bytes | None:
        if path != "/admin/v1/governance/head":
            return None
        head.append(json.dumps({**json.loads(body), "seq": 0}).encode())
        return head[-1]

    with bench.tampering(always_old), pytest.raises(ConflictError):
        add_values(client, "second", ["a"])
    assert len(head) == 1 + STATEMENT_RETRIES


def test_a_conflict_of_another_sort_is_not_tried_again(
    bench: Bench, client: AdminClient
) -> None:
    add_values(client, "same", ["a"])
    before = bench.requests.count(("GET", "/admin/v1/governance/head"))
    with pytest.raises(ConflictError, match="in force already"):
        add_values(client, "same", ["a"])
    after = bench.requests.count(("GET", "/admin/v1/governance/head"))
    assert after == before + 1


def test_nothing_is_signed_for_another_instance(
    bench: Bench, client: AdminClient
) -> None:
    def another(path: str, body: bytes) -> bytes | None:
        if path != "/admin/v1/governance/head":
            return None
        return json.dumps({**json.loads(body), "instance": "f" * 32}).encode()

    with bench.tampering(another), pytest.raises(VerificationError, match="signed"):
        add_values(client, "x", ["a"])
    assert ("POST", "/admin/v1/governance/statements") not in bench.requests


def test_import_makes_a_key_and_then_its_next_version(client: AdminClient) -> None:
    first = client.import_key("acme/model/k", "opaque", b"one")
    second = client.import_key("acme/model/k", "opaque", b"two")
    assert (first["version"], second["version"]) == (1, 2)
    with pytest.raises(ConflictError):
        client.create_key("acme/model/k", "opaque")
    with pytest.raises(MalformedError):
        client.import_key("acme/model/aes", "aes256", b"short")


def test_an_unknown_administrator_is_not_let_in(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    write_profile(folder, bench.world, bench.url)
    stranger = Ed25519PrivateKey.generate()
    write_key(folder, stranger)
    from kbs.governance.signature import key_id

    document = json.loads((folder / "profile.json").read_text())
    document["keyid"] = key_id(stranger.public_key())
    (folder / "profile.json").write_text(json.dumps(document))
    bench.profile = folder
    ran = bench.run("key", "list")
    assert ran.code == 1
    assert "token" in ran.err
    ran.assert_one_error_line()


def test_the_server_comes_from_option_environment_or_profile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(bench.profile, bench.world, None)
    ran = bench.run("key", "list")
    assert ran.code == 2
    assert "KBS_SERVER" in ran.err
    assert bench.run("key", "list", "--server", bench.url).code == 0
    monkeypatch.setenv("KBS_SERVER", bench.url)
    assert bench.run("key", "list").code == 0
    monkeypatch.setenv("KBS_SERVER", "http://127.0.0.1:1")
    away = bench.run("key", "list")
    assert away.code == 3
    away.assert_one_error_line()


def test_the_log_may_grow_but_neither_shrink_nor_change(
    bench: Bench, client: AdminClient
) -> None:
    first = follow_log(client)
    add_values(client, "grow", ["a"])
    second = follow_log(client)
    assert second.size > first.size
    assert follow_log(client) == second
    signer = bench.world.broker.identity.log_signer

    def answering(size: int, root: bytes) -> bytes:
        note = Checkpoint(client.profile.log_key.origin, size, root)
        return sign_checkpoint(note, signer)

    for size, root in (
        (first.size, first.root),
        (second.size, bytes(32)),
        (second.size + 1, bytes(32)),
    ):
        note = answering(size, root)

        def forged(path: str, _: bytes, note: bytes = note) -> bytes | None:
            if path.endswith("/consistency"):
                return b'{"proof": []}'
            return note if path == "/v1/log/checkpoint" else None

        with bench.tampering(forged), pytest.raises(VerificationError):
            follow_log(client)
    stranger = LogSigner(client.profile.log_key.origin, Ed25519PrivateKey.generate())
    note = sign_checkpoint(
        Checkpoint(stranger.key.origin, second.size, second.root), stranger
    )
    with (
        bench.tampering(lambda path, _: note if path == "/v1/log/checkpoint" else None),
        pytest.raises(VerificationError),
    ):
        follow_log(client)
    last = client.profile.last_checkpoint()
    assert last is not None
    assert last[0] == second


def test_an_accepted_statement_whose_log_is_not_shown_says_so(bench: Bench) -> None:
    def endless(path: str, _: bytes) -> bytes | None:
        return b"x" * 100_000 if path == "/v1/log/checkpoint" else None

    with bench.tampering(endless):
        ran = bench.run("ref", "add", "values", "acme/x", "a")
    assert ran.code == 3
    assert "the statement was accepted" in ran.err


def test_a_stream_that_is_refused_or_away_is_an_error(
    bench: Bench, client: AdminClient
) -> None:
    with pytest.raises(NotFoundError), client.lines("/admin/v1/nowhere"):
        pass
    with closing(AdminTransport("http://127.0.0.1:1")) as transport:
        away = AdminClient(client.profile, transport, clock=bench.world.clock)
        with pytest.raises(UnavailableError), away.lines("/x"):
            pass


def test_lines_come_whole_whatever_the_chunks_are() -> None:
    assert list(split_lines(iter([b"a\nb", b"c\n\nd"]))) == [
        b"a\n",
        b"bc\n",
        b"\n",
        b"d",
    ]
    endless = iter([b"x" * (1024 * 1024)] * 16)
    with pytest.raises(UnavailableError, match="endless"):
        list(split_lines(endless))
