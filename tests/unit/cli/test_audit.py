"""`kbs audit`: what happened and why, proofs, and damage that is found and placed."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kbs.audit.checkpoint import Checkpoint, sign_checkpoint
from kbs.audit.logkey import parse_vkey
from kbs.audit.receipt import parse_receipt, verify_receipt
from kbs.cli import audit_export
from kbs.cli.admin_client import AdminClient
from kbs.cli.audit_export import write_export_stream
from kbs.cli.audit_words import about, explained, lines_of
from kbs.cli.context import initial_context
from kbs.core.encode import canonical_json
from tests.fakes.admin_bench import Bench, run
from tests.fakes.tpm import FakeTpm

pytestmark = pytest.mark.enable_socket


@pytest.fixture(scope="module")
def decided(shared_bench: Bench) -> dict[str, str]:
    """A grant, a denial by policy, and a refusal before anything authenticated."""
    world = shared_bench.world
    tpm = world.standard()
    ids = {}
    granted = world.send(world.request(tpm)).get_json()
    ids["granted"] = granted["answer"]["decision"]
    tpm.extend(15, bytes(32))
    denied = world.send(world.request(tpm)).get_json()
    ids["denied"] = denied["decision"]
    stranger = world.send(world.request(FakeTpm())).get_json()
    ids["refused"] = stranger["decision"]
    return ids


def test_entries_are_queried(shared_bench: Bench, decided: dict[str, str]) -> None:
    query = ("audit", "query")
    by_key = shared_bench.must(*query, "--key", "acme/model/chat")["entries"]
    assert {one["kind"] for one in by_key} >= {"release.granted", "release.denied"}
    (one,) = shared_bench.must(*query, "--decision", decided["granted"])["entries"]
    assert one["kind"] == "release.granted"
    kinds = {
        entry["kind"]
        for entry in shared_bench.must(*query, "--decision", "denied")["entries"]
    }
    assert kinds == {"release.denied", "refusals"}
    limited = shared_bench.must(*query, "--limit", "2")["entries"]
    assert len(limited) == 2
    human = shared_bench.run(*query)
    assert "acme/model/chat@1 granted" in human.out
    assert "activate release-policy acme/chat version 1" in human.out
    none = shared_bench.must(*query, "--since", "2999-01-01T00:00:00Z")
    assert none["entries"] == []
    bogus = shared_bench.run(*query, "--decision", "bogus")
    assert bogus.code == 2
    assert "expected granted, denied, or the ID of a decision" in bogus.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("query", "--kind", "nothing"), 2),
        (("query", "--since", "yesterday"), 2),
        (("query", "--limit", "0"), 2),
        (("show", "0" * 32), 1),
        (("show", "short"), 2),
        (("explain", "0" * 32), 1),
        (("prove", "0" * 32), 1),
        (("verify", "/nowhere"), 2),
        (("verify", "--log-key", "x"), 2),
        (("verify", "/dev/null"), 2),
        (("export", "/nowhere/at/all"), 2),
        (("export", "-", "--json"), 2),
    ],
)
def test_what_is_wrong_is_one_line(
    shared_bench: Bench, arguments: tuple[str, ...], code: int
) -> None:
    ran = shared_bench.run("audit", *arguments)
    assert ran.code == code
    ran.assert_one_error_line()


def test_a_denial_is_explained_with_got_and_expected(
    shared_bench: Bench, decided: dict[str, str]
) -> None:
    document = shared_bench.must("audit", "explain", decided["denied"])
    assert document["outcome"] == "denied"
    assert document["asked"]["mode"] == "release"
    assert document["nearest"]["rule"] == "enrolled-host"
    reason = document["keys"][0]["reasons"][0]
    assert reason["id"] == "vtpm.pcr.sha256.15"
    human = shared_bench.run("audit", "explain", decided["denied"]).out
    assert "outcome: denied" in human
    assert "vtpm.pcr.sha256.15" in human
    assert "expected" in human
    assert "nearest rule: enrolled-host" in human


def test_a_grant_is_explained_with_its_rule(
    shared_bench: Bench, decided: dict[str, str]
) -> None:
    human = shared_bench.run("audit", "explain", decided["granted"]).out
    assert "asked: release of acme/model/chat" in human
    assert "rule enrolled-host" in human


def test_a_counted_refusal_is_found_by_its_own_id(
    shared_bench: Bench, decided: dict[str, str]
) -> None:
    shown = shared_bench.must("audit", "show", decided["refused"])
    assert shown["kind"] == "refusals"
    assert shown["sample"]["decision"] == decided["refused"]
    document = shared_bench.must("audit", "explain", decided["refused"])
    assert document["outcome"] == "refused"
    assert document["checks"][0]["id"] == "vtpm.ak.trust"
    assert "got" in document["checks"][0]
    human = shared_bench.run("audit", "explain", decided["refused"]).out
    assert "vtpm.ak.trust" in human
    assert "  kind: refusals" not in human
    assert "{'" not in human
    assert "kind: refusals" in shared_bench.run("audit", "show", decided["refused"]).out


def test_an_entry_of_another_sort_is_told_as_it_is(shared_bench: Bench) -> None:
    (entry,) = shared_bench.must("audit", "query", "--kind", "instance.init")["entries"]
    human = shared_bench.run("audit", "explain", entry["id"]).out
    assert human.startswith("instance.init ")
    assert "  instance: " in human


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("refusals", {"count": 3, "reason": "x"}, "3 × x"),
        ("key.rotated", {"key": "a/b/c", "version": 2}, "a/b/c version 2"),
        ("admin.action", {"action": "a", "target": "t"}, "a t"),
        ("release.denied", {"outcome": "denied"}, "denied"),
        (
            "release.denied",
            {"withheld": True, "keys": [{"id": "a/b/c", "decision": "denied"}]},
            "a/b/c denied, the rest is for auditors of all its tenants",
        ),
        ("statement", {}, "None: None None None/None version None"),
    ],
)
def test_an_entry_on_one_line(kind: str, body: dict[str, Any], text: str) -> None:
    assert about(kind, body) == text


def test_nothing_in_an_entry_steers_a_terminal() -> None:
    hostile = "\x1b[2J\nx"
    body = {"outcome": "denied", "keys": [{"id": hostile, "decision": hostile}]}
    entry = {"kind": "release.denied", "id": hostile, "body": body}
    assert "\x1b" not in "".join(lines_of(explained(entry)))


def test_a_receipt_is_verified_and_holds_alone(
    shared_bench: Bench, decided: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "receipt.json"
    ran = shared_bench.run("audit", "prove", decided["granted"], "--out", str(out))
    assert ran.code == 0
    assert "the receipt holds" in ran.out
    key = parse_vkey(shared_bench.world.broker.identity.log_vkey)
    proven = verify_receipt(
        parse_receipt(out.read_bytes()), keys=[key], origin=key.origin
    )
    assert proven.body is not None
    assert proven.body.members["decision"] == decided["granted"]
    document = shared_bench.must("audit", "prove", decided["granted"])
    assert document["format"] == "kbs.receipt/1"

    def another_index(path: str, body: bytes) -> bytes | None:
        if not path.endswith("/proof"):
            return None
        receipt = json.loads(body)
        return json.dumps({**receipt, "index": receipt["index"] + 1}).encode()

    with shared_bench.tampering(another_index):
        assert shared_bench.run("audit", "prove", decided["granted"]).code == 1


@pytest.mark.parametrize("asked", ["granted", "denied"])
def test_a_receipt_that_was_kept_is_verified_without_the_broker(
    shared_bench: Bench, decided: dict[str, str], tmp_path: Path, asked: str
) -> None:
    path, nowhere = tmp_path / "receipt", ("--profile", str(tmp_path / "none"))
    shared_bench.must("audit", "prove", decided[asked], "--out", str(path))
    vkey = shared_bench.world.broker.identity.log_vkey
    proven = run("audit", "verify", str(path), *nowhere, "--log-key", vkey, "--json")
    assert (proven.code, proven.json["holds"]) == (0, True)
    assert proven.json["kind"] == f"release.{asked}"
    assert proven.json["body"]["decision"] == decided[asked]
    human = shared_bench.run("audit", "verify", str(path))
    assert human.code == 0
    assert human.out.endswith(f"the receipt holds under {vkey}\n")
    unpinned = run("audit", "verify", str(path), *nowhere)
    assert unpinned.code == 2
    assert "--log-key VKEY" in unpinned.err
    document = json.loads(path.read_bytes())
    # Without its body it begins as an export does.
    bare = {name: document[name] for name in document if name not in ("body", "salt")}
    path.write_bytes(canonical_json(bare) + b"\n")
    assert shared_bench.must("audit", "verify", str(path))["body"] is None
    path.write_bytes(canonical_json({**bare, "index": bare["index"] - 1}))
    moved = shared_bench.run("audit", "verify", str(path), "--json")
    assert (moved.code, moved.json["error"]["code"]) == (1, "audit.inclusion")
    path.write_bytes(canonical_json({**bare, "salt": document["salt"]}))
    assert shared_bench.run("audit", "verify", str(path)).code == 2


def test_an_export_is_verified_to_the_byte(
    shared_bench: Bench, decided: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "export"
    made = shared_bench.must("audit", "export", str(path))
    assert made["bytes"] == path.stat().st_size
    assert decided["granted"].encode() in path.read_bytes()
    good = shared_bench.must("audit", "verify", str(path))
    assert (good["consistent"], good["pinned"]) == (True, True)
    assert good["entries"] == made["entries"]
    assert "consistent, root" in shared_bench.run("audit", "verify", str(path)).out
    live = shared_bench.must("audit", "verify")
    assert live["consistent"] is True
    data = bytearray(path.read_bytes())
    place = data.index(decided["granted"].encode())
    data[place] ^= 1
    path.write_bytes(data)
    bad = shared_bench.run("audit", "verify", str(path), "--json")
    assert bad.code == 1
    assert bad.json["consistent"] is False
    assert bad.json["problems"][0]["line"] is not None
    human = shared_bench.run("audit", "verify", str(path))
    assert human.code == 1
    assert human.err.startswith("error: line ")
    assert "NOT consistent" in human.out


def test_an_export_to_nowhere_is_not_asked_for(bench: Bench, tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "out", tmp_path):
        ran = bench.run("audit", "export", str(path))
        assert ran.code != 0
        ran.assert_one_error_line()
    assert "audit.export" not in str(bench.world.entries())
    bench.must("audit", "export", str(tmp_path / "out"))
    assert "audit.export" in str(bench.world.entries())
    assert [one.name for one in tmp_path.iterdir() if "partial" in one.name] == []


def test_an_export_without_a_profile_vouches_for_itself(
    shared_bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "export"
    shared_bench.must("audit", "export", str(path))
    nowhere = ("--profile", str(tmp_path / "none"))
    ran = run("audit", "verify", str(path), *nowhere, "--json")
    assert ran.code == 0
    assert ran.json["pinned"] is False
    assert "note: no key is pinned" in run("audit", "verify", str(path), *nowhere).out
    vkey = shared_bench.world.broker.identity.log_vkey
    pinned = run("audit", "verify", str(path), *nowhere, "--log-key", vkey, "--json")
    assert pinned.json["pinned"] is True
    path.write_bytes(b"")
    empty = run("audit", "verify", str(path), *nowhere)
    assert empty.code == 2
    assert "got an empty file" in empty.err


@pytest.mark.parametrize("data", [b"hello\n", b"{}\n{}\n", b"\x00" * 5000])
def test_another_file_is_no_export_and_no_rollback(
    shared_bench: Bench, tmp_path: Path, data: bytes
) -> None:
    shared_bench.must("audit", "query")
    path = tmp_path / "other"
    path.write_bytes(data)
    ran = shared_bench.run("audit", "verify", str(path))
    assert ran.code == 2
    ran.assert_one_error_line()
    assert "got another kind of file" in ran.err
    assert "rolled back" not in ran.err


@pytest.mark.parametrize("damage", ["first byte", "second line", "cut"])
def test_a_damaged_export_stays_one(
    shared_bench: Bench, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "export"
    shared_bench.must("audit", "export", str(path))
    data = path.read_bytes()
    place = {"first byte": 0, "second line": data.index(b"\n") + 1, "cut": 40}[damage]
    path.write_bytes(data[:place] + (b"" if damage == "cut" else b"x" + data[place:]))
    ran = shared_bench.run("audit", "verify", str(path), "--json")
    assert (ran.code, ran.json["consistent"]) == (1, False)


def test_an_export_goes_to_standard_output(shared_bench: Bench, tmp_path: Path) -> None:
    ran = shared_bench.run("audit", "export", "-")
    assert (ran.code, ran.err) == (0, "")
    path = tmp_path / "export"
    path.write_text(ran.out)
    assert shared_bench.must("audit", "verify", str(path))["consistent"] is True

    def cut(asked: str, body: bytes) -> bytes | None:
        return body[:-10] if asked.endswith("/export") else None

    with shared_bench.tampering(cut):
        assert shared_bench.run("audit", "export", "-").code == 3


@pytest.mark.parametrize("kept", [0, 1, 2, -1])
def test_an_export_that_breaks_off_between_lines_is_none(
    shared_bench: Bench, tmp_path: Path, kept: int
) -> None:
    """The broker fails half-way, and its answer ends like any other."""
    sent: list[int] = []

    def cut(asked: str, body: bytes) -> bytes | None:
        if not asked.endswith("/export"):
            return None
        lines = body.splitlines(keepends=True)[:kept]
        sent.append(max(0, len(lines) - 2))
        return b"".join(lines)

    for number in range(3):
        shared_bench.must("key", "create", f"acme/model/broken-{kept}-{number}")
    path = tmp_path / "export"
    with shared_bench.tampering(cut):
        ran = shared_bench.run("audit", "export", str(path), "--json")
        assert ran.code == 3
        assert ran.json["error"]["code"] == "audit.export"
        assert f"got {sent[0]} entries" in ran.err
        assert shared_bench.run("audit", "export", "-").code == 3
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_begins_otherwise_is_none(
    shared_bench: Bench, tmp_path: Path
) -> None:
    with shared_bench.tampering(
        lambda asked, _: b"{}\n" if "export" in asked else None
    ):
        ran = shared_bench.run("audit", "export", str(tmp_path / "export"))
    assert ran.code == 3
    ran.assert_one_error_line()


def test_an_export_whose_reader_went_away_is_no_full_disk(shared_bench: Bench) -> None:
    class Gone(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    context = initial_context(profile=shared_bench.profile)
    with AdminClient.from_context(context) as away:
        away._clock = shared_bench.world.clock
        with pytest.raises(BrokenPipeError):
            write_export_stream(away, Gone())


def test_an_export_is_not_read_byte_by_byte(
    shared_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "export"
    shared_bench.must("audit", "export", str(path))
    calls: list[int] = []

    class Counted(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            calls.append(len(buffer))
            return super().readinto(buffer)

        def read(self, size: int | None = -1, /) -> bytes:
            calls.append(-1)
            return super().read(size) or b""

    monkeypatch.setattr(audit_export, "reading", Counted)
    shared_bench.must("audit", "verify", str(path))
    assert len(calls) < 10


def test_bodies_that_an_export_lacks_are_told(
    shared_bench: Bench, tmp_path: Path
) -> None:
    """Taking them out changes no hash, and may hide a grant that should not be."""
    shared_bench.must("ref", "add", "values", "acme/hidden", "ab")
    path = tmp_path / "export"
    shared_bench.must("audit", "export", str(path))
    lines = path.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"kind":"statement"' in line)
    hidden = {**json.loads(lines[place]), "body": None, "salt": None}
    lines[place] = canonical_json(hidden) + b"\n"
    path.write_bytes(b"".join(lines))
    said = f"1 of {len(lines) - 2} bodies are not in the export"
    ran = shared_bench.run("audit", "verify", str(path))
    assert ran.code == 0
    assert f"note: {said}" in ran.out
    result = shared_bench.must("audit", "verify", str(path))
    assert any(note.startswith(said) for note in result["notes"])
    status = {check["id"]: check["status"] for check in result["checks"]}
    assert status["audit.history"] == "skipped"


def test_an_older_export_is_no_rollback(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "export"
    bench.must("audit", "export", str(path))
    bench.must("key", "create", "acme/model/later")
    bench.must("audit", "query")
    result = bench.must("audit", "verify", str(path))
    assert "ends before the last checkpoint" in result["notes"][0]


def test_a_log_that_was_rolled_back_is_noticed(bench: Bench) -> None:
    bench.must("key", "create", "acme/model/k")
    bench.must("audit", "query")
    identity = bench.world.broker.identity
    first = Checkpoint(identity.origin, 1, b"\x01" * 32)
    note = sign_checkpoint(first, identity.log_signer)
    with bench.tampering(
        lambda path, _: note if path == "/v1/log/checkpoint" else None
    ):
        ran = bench.run("audit", "query")
    assert ran.code == 1
    assert "rolled back" in ran.err
    ran.assert_one_error_line()

    def cut(path: str, body: bytes) -> bytes | None:
        return body[:-10] if path.endswith("/export") else None

    with bench.tampering(cut):
        ran = bench.run("audit", "export", str(bench.profile / "out"))
        assert ran.code == 3
        assert not (bench.profile / "out").exists()
        live = bench.run("audit", "verify", "--json")
        assert live.code == 1


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_tail_goes_on_with_new_entries_until_it_is_interrupted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    rounds: list[float] = []

    def sleep(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 3:
            raise KeyboardInterrupt
        bench.world.create_key(f"acme/model/k{len(rounds)}")

    monkeypatch.setattr("kbs.cli.audit.time.sleep", sleep)
    ran = bench.run("audit", "query", "--tail", "--kind", "key.created", *more)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert len(lines) == 2
    if more:
        assert [json.loads(line)["body"]["key"] for line in lines] == [
            "acme/model/k1",
            "acme/model/k2",
        ]
    else:
        assert lines[1].endswith("acme/model/k2 version 1")


@pytest.mark.parametrize("when", ["write", "sync"])
def test_a_full_disk_ends_an_export_and_leaves_nothing(
    shared_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """`write` fails where lines are written, `sync` where the file is finished."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(io.BufferedWriter):
        write = full

    def opened(descriptor: int, _: str) -> io.BufferedWriter:
        return Full(io.FileIO(descriptor, "wb"))

    path = tmp_path / "out"
    path.write_bytes(b"the old one")
    if when == "write":
        monkeypatch.setattr("kbs.artifacts.files.os.fdopen", opened)
    else:
        monkeypatch.setattr("kbs.artifacts.files.os.fsync", full)
    ran = shared_bench.run("audit", "export", str(path))
    monkeypatch.undo()
    assert ran.code == 3
    assert "No space left on device, expected room" in ran.err
    ran.assert_one_error_line()
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"the old one"]
