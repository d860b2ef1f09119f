"""`kbs guest` from the outside: exit codes, documents, files, nothing secret shown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from kbs.artifacts.files import seal_file
from kbs.channel.recipient import Suite
from kbs.cli.context import main_with
from kbs.cli.guest import guest
from kbs.cli.guest_options import GuestOptions, default_state
from kbs.core.ids import KeyId, parse_key_ref
from kbs.evidence.bundle import parse_bundle
from tests.fakes.guest_broker import FakeBroker, serving

pytestmark = pytest.mark.enable_socket

CHAT = KeyId("acme", "model", "chat")
SECRET = b"s3cr3t-" * 4 + b"byte"
ROOT = click.Group("kbs", commands={"guest": guest})


@dataclass
class Bench:
    """A broker, a guest's folder, and what its commands printed."""

    broker: FakeBroker
    url: str
    folder: Path
    capture: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def run(self, *arguments: str, server: bool = True) -> int:
        common = [
            "--server",
            self.url,
            "--broker-key",
            str(self.folder / "broker.pem"),
            "--kind",
            "sample",
            "--state",
            str(self.folder / "state"),
            "--retry-for",
            "0",
        ]
        command, *rest = arguments
        code = main_with(ROOT, ["guest", command, *(common if server else []), *rest])
        captured = self.capture.readouterr()
        self.out, self.err = captured.out, captured.err
        return code


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    broker = FakeBroker(
        keys={CHAT: (3, SECRET), KeyId("acme", "data", "set"): (1, b"d" * 32)}
    )
    (tmp_path / "broker.pem").write_bytes(broker.response_pem)
    with serving(broker) as url:
        yield Bench(broker, url, tmp_path, capsys)


def test_fetch_writes_files_and_shows_no_secret(bench: Bench) -> None:
    out = bench.folder / "keys"
    code = bench.run("fetch", str(CHAT), "acme/data/set", "--out", str(out), "--json")
    document = json.loads(bench.out)
    assert code == 0
    assert document["outcome"] == "granted"
    assert document["keys"] == [
        {"id": "acme/model/chat", "version": 3},
        {"id": "acme/data/set", "version": 1},
    ]
    assert document["files"]["acme/model/chat"] == str(out / "acme/model/chat")
    assert document["receipt"]["size"] == 1
    assert (out / "acme/model/chat").read_bytes() == SECRET
    assert "s3cr3t" not in bench.out + bench.err


def test_a_folder_on_a_disk_is_warned_about(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kbs.client import deliver

    for in_memory, warned in [(True, False), (False, True)]:
        monkeypatch.setattr(deliver, "is_in_memory", lambda _, say=in_memory: say)
        assert bench.run("fetch", str(CHAT), "--out", str(bench.folder / "k")) == 0
        assert bench.err.count("warning: ") == int(warned)
        assert ("not on tmpfs" in bench.err) is warned


def test_several_keys_on_a_disk_are_one_warning(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kbs.client import deliver

    monkeypatch.setattr(deliver, "is_in_memory", lambda _: False)
    out = str(bench.folder / "k")
    assert bench.run("fetch", str(CHAT), "acme/data/set", "--out", out) == 0
    assert bench.err.splitlines() == [
        f"warning: {out} is not on tmpfs: the keys may stay on a disk"
    ]


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ([], "neither --out nor --out-fd"),
        (["--out", "x", "--out-fd", "9"], "--out and --out-fd"),
    ],
)
def test_fetch_says_that_it_must_know_where_the_keys_go(
    bench: Bench, options: list[str], got: str
) -> None:
    assert bench.run("fetch", str(CHAT), *options, "--json") == 2
    assert bench.out == ""
    assert f"got {got}" in bench.err
    assert "--out DIR" in bench.err
    assert "--out-fd N" in bench.err
    assert bench.broker.paths == []


@pytest.mark.parametrize(
    ("out", "got"),
    [
        ("taken", "a folder"),
        ("file", "is a file"),
        ("file/keys", "Not a directory"),
        ("/proc/kbs-keys", "No such file or directory"),
        ("/proc/kbs-keys/..", "No such file or directory"),
        ("linked", "a link"),
    ],
)
def test_fetch_asks_for_no_key_that_it_cannot_write(
    bench: Bench, out: str, got: str
) -> None:
    (bench.folder / "taken" / str(CHAT)).mkdir(parents=True)
    (bench.folder / "file").write_bytes(b"")
    (bench.folder / "linked").mkdir()
    (bench.folder / "linked" / "acme").symlink_to(bench.folder)
    before = sorted(bench.folder.rglob("*"))
    assert bench.run("fetch", str(CHAT), "--out", str(bench.folder / out)) == 2
    assert got in bench.err
    assert "room" not in bench.err
    assert len(bench.err.splitlines()) == 1
    assert bench.broker.paths == []
    assert sorted(bench.folder.rglob("*")) == before


@pytest.mark.parametrize("data", [b"", bytes(1024 * 1024 + 1)])
def test_what_no_broker_registers_is_not_measured(bench: Bench, data: bytes) -> None:
    policy = bench.folder / "policy"
    policy.write_bytes(data)
    arguments = ("measure", str(policy), "--tcti", "device:/nowhere")
    assert bench.run(*arguments, server=False) == 2
    assert "1048576 bytes" in bench.err


def test_an_interrupted_fetch_is_3_and_leaves_no_partial_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kbs.client import deliver

    write = deliver._write_file

    def interrupted(path: Path, value: bytes) -> None:
        write(path, value)
        raise KeyboardInterrupt

    monkeypatch.setattr(deliver, "_write_file", interrupted)
    out = bench.folder / "keys"
    assert bench.run("fetch", str(CHAT), "--out", str(out)) == 3
    assert bench.err.strip() == "error: interrupted"
    assert [path for path in out.rglob("*") if not path.is_dir()] == []


def test_fetch_to_a_descriptor_gives_the_bytes_alone(bench: Bench) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file:
        code = bench.run("fetch", str(CHAT), "--out-fd", str(writer), "--json")
        os.close(writer)
        assert file.read() == SECRET
    assert code == 0
    assert json.loads(bench.out)["outcome"] == "granted"


@pytest.mark.parametrize(
    "arguments",
    [
        ["fetch", str(CHAT)],
        ["fetch", str(CHAT), "--out", "x", "--out-fd", "9"],
        ["fetch", str(CHAT), "acme/data/set", "--out-fd", "1"],
        ["fetch", str(CHAT), "--out-fd", "1", "--json"],
        ["fetch", str(CHAT), "--out-fd", "2"],
        ["fetch", f"{CHAT}@1", f"{CHAT}@2", "--out", "x"],
        ["fetch", str(CHAT), f"{CHAT}@2", "--out", "x"],
        ["fetch", str(CHAT), str(CHAT), "--out", "x"],
        ["fetch", "not-a-key", "--out", "x"],
        ["check"],
        ["check", str(CHAT), "--kind", "tdx"],
        ["check", str(CHAT), "--ak-handle", "0x80000001"],
        ["check", str(CHAT), "--ak-handle", "x"],
        ["check", str(CHAT), "--tls-sha256", "zz"],
        ["check", str(CHAT), "--retry-for", "-1"],
        ["check", str(CHAT), "--retry-for", "nan"],
        ["check", str(CHAT), "--retry-for", "inf"],
        ["check", str(CHAT), "--retry-for", "1e999"],
        ["check", str(CHAT), "--claims", "/nowhere"],
        ["check", str(CHAT), "--log-key", "/nowhere"],
        ["check", str(CHAT), "--kind", "vtpm", "--pcrs", "sha256:99"],
        ["check", str(CHAT), "--kind", "vtpm", "--ak-cert", "/nowhere"],
        ["check", str(CHAT), "--kind", "vtpm", "--event-log", "/nowhere"],
        ["enroll", "--group", "nonsense"],
        ["enroll", "--group", "acme/hosts"],
        ["enroll", "--group", "acme/hosts", "--kind", "snp"],
        ["enroll", "--group", "acme/hosts", "--kind", "vtpm", "--kind", "snp"],
    ],
)
def test_wrong_use_is_2_and_reaches_no_broker(
    bench: Bench, arguments: list[str]
) -> None:
    assert bench.run(*arguments) == 2
    assert bench.err.startswith("error: ")
    assert len(bench.err.splitlines()) == 1
    assert bench.broker.paths == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--event-log", "/nowhere"], "/nowhere"),
        (["--pcrs", "sha1:24"], "PCR selection"),
        (["--kind", "snp"], "only a TPM's key is enrolled"),
        (["--kind", "vtpm", "--kind", "snp"], "got vtpm, snp"),
    ],
)
def test_enrolling_reads_every_option_before_anybody_is_asked(
    bench: Bench, options: list[str], words: str
) -> None:
    enroll = ("enroll", "--group", "acme/hosts", "--server", bench.url)
    assert bench.run(*enroll, "--tcti", "nonsense:", *options, server=False) == 2
    assert words in bench.err
    assert len(bench.err.splitlines()) == 1
    assert bench.broker.paths == []


def test_stdout_may_be_the_descriptor_when_it_is_a_pipe(bench: Bench) -> None:
    """Nothing but the key goes there: `kbs guest fetch KEY --out-fd 1 | workload`."""
    reader, writer = os.pipe()
    saved = os.dup(1)
    os.dup2(writer, 1)
    os.close(writer)
    try:
        code = bench.run("fetch", str(CHAT), "--out-fd", "1")
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == SECRET
    assert (code, bench.out) == (0, "")


def test_a_denial_is_1_with_reasons_and_without_files(bench: Bench) -> None:
    bench.broker.denied[CHAT] = ("deny.key",)
    out = bench.folder / "keys"
    assert bench.run("fetch", str(CHAT), "--out", str(out), "--json") == 1
    error = json.loads(bench.out)["error"]
    assert error["denied"] == [{"key": str(CHAT), "reasons": ["deny.key"]}]
    assert error["signed"] is True
    assert error["receipt"]["index"] == 0
    assert error["receipt"]["log_key"] == bench.broker.signer.key.vkey
    assert "an administrator denied it" in bench.err
    assert "warning" not in bench.err
    assert not out.exists()


def test_a_denial_without_a_receipt_is_1_with_one_warning(bench: Bench) -> None:
    bench.broker.denied[CHAT] = ("deny.key",)
    bench.broker.faults = ["no_receipt"]
    out = str(bench.folder / "keys")
    assert bench.run("fetch", str(CHAT), "--out", out, "--json") == 1
    assert json.loads(bench.out)["error"]["receipt"] is None
    warning, error = bench.err.splitlines()
    assert warning.startswith("warning: denial ")
    assert error.startswith("error: denied: ")


def test_a_part_is_written_when_a_part_is_enough(bench: Bench) -> None:
    bench.broker.denied[CHAT] = ("policy.none",)
    out = bench.folder / "keys"
    wanted = (str(CHAT), "acme/data/set")
    assert bench.run("fetch", *wanted, "--out", str(out)) == 1
    assert not out.exists()
    assert bench.run("fetch", *wanted, "--out", str(out), "--partial") == 0
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["set"]
    assert "acme/model/chat denied" in bench.out


def test_a_broker_that_is_away_is_3(bench: Bench) -> None:
    bench.url = "http://127.0.0.1:1"
    assert bench.run("check", str(CHAT)) == 3
    assert "Connection refused" in bench.err


def test_each_wait_is_told(bench: Bench) -> None:
    bench.broker.faults = ["503"]
    assert bench.run("check", str(CHAT), "--retry-for", "0") == 3
    bench.broker.faults = ["503"]
    assert bench.run("check", str(CHAT), "--retry-for", "5") == 0
    assert "trying again in" in bench.err


@pytest.mark.parametrize(
    ("keys", "options", "code"),
    [
        ([str(CHAT)], [], 0),
        ([str(CHAT), "acme/model/none"], [], 1),
        ([str(CHAT), "acme/model/none"], ["--partial"], 0),
        (["acme/model/none"], ["--partial"], 1),
    ],
)
def test_check_says_what_fetch_would_do(
    bench: Bench, keys: list[str], options: list[str], code: int
) -> None:
    assert bench.run("check", *keys, *options, "--json") == code
    document = json.loads(bench.out)
    assert document["outcome"] == "checked"
    assert len(document["keys"]) + len(document["denied"]) == len(keys)


def test_check_in_words(bench: Bench) -> None:
    assert bench.run("check", str(CHAT), "acme/model/none") == 1
    assert f"{CHAT}@3 would be released" in bench.out
    assert "no policy covers this key" in bench.out


def test_attest_writes_a_bundle_that_asks_for_nothing(bench: Bench) -> None:
    out = bench.folder / "bundle.json"
    assert bench.run("attest", "--out", str(out), "--json") == 0
    document = json.loads(bench.out)
    bundle = parse_bundle(out.read_bytes())
    assert bundle.runtime_data is not None
    assert bundle.runtime_data["nonce"] == document["nonce"]
    assert bundle.runtime_data["request"] == {
        "keys": ["attest/only/none"],
        "mode": "check",
        "partial": False,
        "suite": "0020-0001-0002",
    }
    assert document["kinds"] == ["sample"]
    assert bench.broker.bodies == []


def test_attest_takes_keys_mode_suite_and_claims(bench: Bench) -> None:
    out, claims = bench.folder / "bundle.json", bench.folder / "claims.json"
    claims.write_text('{"svn": 4}')
    code = bench.run(
        *("attest", str(CHAT), "--out", str(out), "--mode", "release"),
        *("--suite", "p384", "--claims", str(claims)),
    )
    assert code == 0
    bundle = parse_bundle(out.read_bytes())
    assert bundle.runtime_data is not None
    request = bundle.runtime_data["request"]
    assert isinstance(request, dict)
    assert (request["mode"], request["suite"]) == ("release", "0011-0002-0002")
    assert bundle.items[0]["claims"] == {"svn": 4}
    assert "sample evidence" in bench.out


def test_without_a_broker_key_nothing_is_trusted(bench: Bench) -> None:
    code = main_with(
        ROOT, ["guest", "check", str(CHAT), "--server", bench.url, "--kind", "sample"]
    )
    assert code == 2
    assert "--broker-key" in bench.capture.readouterr().err


def test_a_broker_key_that_is_none_is_2(bench: Bench) -> None:
    (bench.folder / "broker.pem").write_bytes(b"nonsense")
    assert bench.run("check", str(CHAT)) == 2


def test_a_pinned_log_key_is_used(bench: Bench) -> None:
    path = bench.folder / "log.vkey"
    path.write_text(bench.broker.signer.key.vkey + "\n")
    assert bench.run("check", str(CHAT), "--log-key", str(path), "--json") == 0
    assert json.loads(bench.out)["receipt"]["log_key"] == path.read_text().strip()
    path.write_text(FakeBroker().signer.key.vkey)
    assert bench.run("check", str(CHAT), "--log-key", str(path)) == 1
    assert "--log-key names another one" in bench.err


@pytest.mark.parametrize("more", [[], ["--verbose"], ["--json"]])
@pytest.mark.parametrize("text", ["s3cr3t", "s3cr3t+00+AA==", "a+s3cr3t+x", "a+00+s3c"])
def test_a_wrong_log_key_file_is_not_shown(
    bench: Bench, text: str, more: list[str]
) -> None:
    path = bench.folder / "file"
    path.write_text(text)
    assert bench.run("check", str(CHAT), "--log-key", str(path), *more) == 2
    assert "s3c" not in bench.out + bench.err
    assert f"--log-key {path}: got a file that holds no log key" in bench.err


def test_where_the_state_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert default_state() is None
    monkeypatch.setenv("HOME", "/home/a")
    assert default_state() == Path("/home/a/.local/state/kbs")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_state() == Path("/state/kbs")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/kbs-guest")
    assert default_state() == Path("/var/lib/kbs-guest/kbs")


def test_snp_alone_and_with_a_tpm_beside_it_are_ordered(bench: Bench) -> None:
    code = bench.run("check", str(CHAT), "--kind", "vtpm", "--kind", "snp")
    # No such hardware here: which device is asked first tells the order.
    assert code == 3
    options = GuestOptions(
        broker_key=None,
        kinds=("vtpm", "snp"),
        tcti="device:/dev/none",
        ak_handle=0x81010002,
        pcrs=None,
        event_log=None,
        ak_certs=(),
        claims=None,
        suite=Suite.X25519,
        state=None,
        log_key=None,
        tls_sha256=None,
        retry_for=0,
    )
    assert [attester.kind for attester in options.attesters()] == ["snp", "vtpm"]


def seal(bench: Bench, *, named: bool = True) -> Path:
    source, sealed = bench.folder / "model.bin", bench.folder / "model.sealed"
    source.write_bytes(b"weights" * 1000)
    ref = parse_key_ref(f"{CHAT}@3") if named else None
    seal_file(source, sealed, SECRET, key_ref=ref)
    return sealed


def test_unseal_finds_the_key_that_was_fetched(bench: Bench) -> None:
    sealed, keys, out = seal(bench), bench.folder / "keys", bench.folder / "opened"
    assert bench.run("fetch", str(CHAT), "--out", str(keys)) == 0
    arguments = ("unseal", str(sealed), "--keys", str(keys), "--out", str(out))
    assert bench.run(*arguments, "--json", server=False) == 0
    assert json.loads(bench.out)["size"] == 7000
    assert out.read_bytes() == b"weights" * 1000
    assert bench.run(*arguments, server=False) == 0
    assert "7000 bytes" in bench.out


def test_unseal_takes_a_key_file(bench: Bench) -> None:
    sealed, key, out = seal(bench), bench.folder / "key", bench.folder / "opened"
    key.write_bytes(SECRET)
    arguments = ("unseal", str(sealed), "--out", str(out), "--key-file")
    assert bench.run(*arguments, str(key), server=False) == 0
    key.write_bytes(b"x" * 32)
    out.unlink()
    assert bench.run(*arguments, str(key), server=False) == 1
    assert not out.exists()
    key.write_bytes(b"x" * 31)
    assert bench.run(*arguments, str(key), server=False) == 2
    assert bench.run(*arguments, str(key) + "none", server=False) == 2


def test_unseal_wants_one_key(bench: Bench) -> None:
    sealed, out = str(seal(bench, named=False)), str(bench.folder / "opened")
    assert bench.run("unseal", sealed, "--out", out, server=False) == 2
    both = ("--key-file", "a", "--keys", "b")
    assert bench.run("unseal", sealed, "--out", out, *both, server=False) == 2
    assert bench.run("unseal", sealed, "--out", out, "--keys", "b", server=False) == 2
    assert "no key in its header" in bench.err
