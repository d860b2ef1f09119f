"""Planted secrets, and a real broker that handles them: where may they be found?

Nowhere in files, database, logs and temporary files. In memory, only what has to be
there while it is used: `docs/threat-model.md` says what of that cannot be prevented.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kbs.adapters.sql.database import connect
from kbs.adapters.trust import read_instance, read_kek
from kbs.api.problems import TRACE_SECONDS
from kbs.broker.vault import Vault
from kbs.keys.wrap import LocalKEK
from tests.conftest import ROOT
from tests.e2e.test_rcar import must
from tests.fakes.hunting import Hunted, files, memory, processes
from tests.fakes.rcar_client import RcarClient, unb64u
from tests.fakes.rcar_evidence import POLICY
from tests.fakes.served import Folders, Served, made, serving

IMPORTED = "default/test/imported"
UPLOADED = "default/test/uploaded"
LARGE = "default/test/large"
OTHER = "default/test/other"
FURTHER = 40
"""Releases of another key after the last one of a marked key."""


def _marker(name: str) -> Hunted:
    # Text, so that a representation would show it as it is; 48 bytes of it.
    text = f"planted {name} ".ljust(20, "#") + os.urandom(14).hex()
    return Hunted(name, text.encode())


@dataclass
class Story:
    """A broker that has done everything with secrets, and what they were."""

    folders: Folders
    hunted: list[Hunted] = field(default_factory=list)
    found_in_memory: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def temporary(self) -> Path:
        return self.folders.base / "tmp"

    @property
    def environ(self) -> dict[str, str]:
        return {"KBS_LOG_LEVEL": "debug", "TMPDIR": str(self.temporary)}

    def count(self, what: str, served: Served, hunted: Hunted) -> None:
        """Remember how often a secret is in the memory of the broker's processes."""
        total: dict[str, int] = {}
        for pid in processes(served.process.pid):
            for data in memory(pid):
                for form, number in hunted.count(data).items():
                    total[form] = total.get(form, 0) + number
        self.found_in_memory[what] = total

    def searched(self) -> Iterator[tuple[str, bytes]]:
        """All that the broker wrote, but for the two files that are secrets."""
        for path, data in files(self.folders.base):
            whole = self.folders.profile in path.parents
            if path.name not in {"kek", "tls.key"} and not whole:
                yield path.name, data

    def hunt(self, name: str, secret: bytes) -> None:
        self.hunted.append(Hunted(name, secret))


def _admin(folders: Folders) -> Ed25519PrivateKey:
    key = load_pem_private_key((folders.profile / "admin.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def _upload(story: Story, client: RcarClient, value: bytes) -> None:
    now = int(time.time())
    claims = {"iat": now, "exp": now + 600, "nbf": now}
    token = jwt.encode(claims, _admin(story.folders), algorithm="EdDSA")
    answer = client.call("POST", f"/resource/{UPLOADED}", value, bearer=token)
    assert answer.status == 200, answer
    story.hunt("upload token", token.rpartition(".")[2].encode())


def _import(story: Story, served: Served, path: str, value: bytes) -> None:
    # From a folder that is not searched: it is the administrator's.
    source = story.folders.profile / "value"
    source.write_bytes(value)
    must(story.folders, "key", "import", path, str(source), "--server", served.url)
    source.unlink()


def _guest(story: Story, served: Served) -> RcarClient:
    client = RcarClient(served.send)
    assert client.handshake().status == 200
    assert client.token is not None
    assert client.cookie is not None
    story.hunt("session cookie", client.cookie.encode())
    story.hunt("session", unb64u(client.cookie))
    story.hunt("EAR token's signature", unb64u(client.token.rpartition(".")[2]))
    return client


def _fetch_v1(story: Story, served: Served, key: str) -> bytes:
    claims, out = story.folders.profile / "claims", story.folders.profile / "out"
    claims.write_text('{"svn": 1}')
    must(
        story.folders,
        *("guest", "fetch", key, "--kind", "sample", "--claims", str(claims)),
        *("--broker-key", str(served.line["response_key"])),
        *("--out", str(out), "--server", served.url),
        *("--state", str(story.folders.profile / "state")),
        *("--tls-sha256", str(served.line["tls_sha256"])),
    )
    return (out / key).read_bytes()


def _own_keys(folders: Folders) -> Iterator[Hunted]:
    kek = read_kek(folders.trust / "kek")
    yield Hunted("key-encryption key", kek.reveal())
    instance = read_instance(folders.trust / "instance.json").instance
    vault = Vault(LocalKEK(kek), instance)
    with (
        closing(connect(None, data_dir=folders.data)) as database,
        database.read() as tx,
    ):
        rows = tx.broker_keys.list()
    for row in rows:
        secret = vault.open(
            row.sealed, purpose=f"broker-key.{row.purpose}", blob_id=str(row.version)
        )
        yield Hunted(f"{row.purpose} key", secret.reveal())


def _live(story: Story, served: Served) -> None:
    """Everything that is done with secrets, in both doors."""
    imported, rotated = _marker("imported"), _marker("rotated")
    uploads = [_marker("uploaded"), _marker("uploaded again")]
    destroyed = _marker("destroyed")
    large = _marker("large")
    story.hunted += [imported, rotated, *uploads, destroyed, large]
    policy = story.folders.profile / "policy.yaml"
    policy.write_text(POLICY)
    must(story.folders, "policy", "register", str(policy), "--server", served.url)
    _import(story, served, IMPORTED, imported.secret)
    _import(story, served, LARGE, b"\1" * 8192 + large.secret + b"\2" * 8192)
    _import(story, served, OTHER, b"another value, which is not looked for")
    client = _guest(story, served)
    for upload in uploads:
        _upload(story, client, upload.secret)
    assert client.get(UPLOADED).status == 200
    assert client.get(IMPORTED).status == 200
    assert client.get(LARGE).status == 200
    story.count("released just now", served, imported)
    story.count("released just now, 16 KiB", served, large)
    assert _fetch_v1(story, served, IMPORTED) == imported.secret
    assert _fetch_v1(story, served, UPLOADED) == uploads[1].secret
    value = story.folders.profile / "value"
    value.write_bytes(rotated.secret)
    server = ("--server", served.url)
    must(story.folders, "key", "rotate", IMPORTED, str(value), *server)
    value.unlink()
    _import(story, served, "default/test/destroyed", destroyed.secret)
    gone = ("default/test/destroyed", "--version", "1", "--yes")
    must(story.folders, "key", "destroy", *gone, *server)
    for _ in range(FURTHER // 4):
        other = _guest(story, served)
        for _ in range(4):
            assert other.get(OTHER).status == 200
    later = f"released {FURTHER} releases ago"
    story.count(later, served, imported)
    story.count(f"{later}, 16 KiB", served, large)


@pytest.fixture
def story(tmp_path: Path) -> Story:
    story = Story(Folders(tmp_path))
    story.temporary.mkdir()
    made(story.folders)
    return story


def _assert_none(story: Story, found: Iterable[tuple[str, bytes]]) -> None:
    for where, data in found:
        for hunted in story.hunted:
            assert not hunted.count(data), f"{hunted.name} in {where}"


def test_the_search_finds_every_form() -> None:
    hunted = _marker("one")
    for form, pattern in hunted.forms().items():
        assert form in hunted.count(b"x" + pattern + b"y")
    shown = (json.dumps({"value": hunted.secret.decode()}), repr(hunted.secret + b"\0"))
    assert all(hunted.count(text.encode()) for text in shown)


def test_nothing_that_the_broker_writes_holds_one(
    story: Story, record_property: Callable[[str, object], None]
) -> None:
    options = ("--dev", "--rate-limit", "0")
    with serving(story.folders, *options, environ=story.environ) as served:
        _live(story, served)
        admin = Hunted("administrator", _admin(story.folders).private_bytes_raw())
        for own in (admin, *_own_keys(story.folders)):
            story.count(own.name, served, own)
            story.hunted.append(own)
        # The write-ahead log is only there while the database is open.
        running = dict(story.searched())
        served.kill()
    assert {"kbs.db", "kbs.db-wal", "kbs.db-shm", "stdout", "stderr"} <= set(running)
    _assert_none(story, running.items())
    # After a crash, too, and it leaves no temporary file.
    _assert_none(story, story.searched())
    assert list(story.temporary.iterdir()) == []
    _check_memory(story.found_in_memory)
    record_property("copies", story.found_in_memory)


def _check_memory(found: dict[str, dict[str, int]]) -> None:
    # What never came to the broker is not in its memory.
    assert found["administrator"] == {}
    # What it signs with all day is, and the search finds it.
    assert found["log key"]
    assert found["response key"]
    # What was released gets no more copies. That none is left nobody can promise:
    # Python cannot wipe them (docs/threat-model.md).
    for size in ("", ", 16 KiB"):
        now = found[f"released just now{size}"]
        later = found[f"released {FURTHER} releases ago{size}"]
        assert sum(later.values()) <= sum(now.values())


# -- logs and tracebacks ---------------------------------------------------------------


FAULTS = ("verified", "sealed", "recorded", "before-commit")


def test_no_traceback_tells_one(story: Story, tmp_path: Path) -> None:
    """A bug at each step of a release, the secret at hand; the log has all of it."""
    planted = _marker("planted")
    story.hunted.append(planted)
    order, policy = tmp_path / "order", story.folders.profile / "policy.yaml"
    policy.write_text(POLICY)
    program = ("-m", "tests.e2e.faulty", "--order", str(order))
    with serving(story.folders, environ=story.environ, program=program) as served:
        must(story.folders, "policy", "register", str(policy), "--server", served.url)
        _import(story, served, IMPORTED, planted.secret)
        for step in FAULTS:
            client, other = _guest(story, served), RcarClient(served.send)
            order.write_text(step)
            answers = [client.get(IMPORTED), other.handshake()]
            order.unlink()
            refusals = [one.body for one in answers if one.status != 200]
            assert refusals
            _assert_none(story, (("answer", body) for body in refusals))
            assert client.get(IMPORTED).status == 200
            # Tracebacks are written once a second; each step is to have its own.
            time.sleep(TRACE_SECONDS)
        log = served.stderr.read_bytes()
    assert log.count(b"Traceback") >= len(FAULTS)
    assert all(f"a bug at {step}".encode() in log for step in FAULTS)
    _assert_none(story, [("log", log)])


# -- memory ----------------------------------------------------------------------------


_READY = "print('ready', flush=True); input()"
_HARDENED = f"from kbs.adapters.process import harden; harden(); {_READY}"
_READER = """
import os, sys
maps = open(f"/proc/{sys.argv[1]}/maps").readline()
mem = os.open(f"/proc/{sys.argv[1]}/mem", os.O_RDONLY)
assert os.pread(mem, 4, int(maps.partition("-")[0], 16)) == b"\\x7fELF"
"""


def _without_ptrace() -> list[str]:
    """As any user is: root without the one right that reads everybody's memory."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]


@contextmanager
def _process(program: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    unlimited = [] if os.geteuid() != 0 else ["prlimit", "--core=unlimited"]
    process = subprocess.Popen(
        [*unlimited, *_without_ptrace(), sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        if process.returncode is None:
            process.kill()


def _is_readable(pid: int) -> bool:
    done = subprocess.run(
        [*_without_ptrace(), sys.executable, "-c", _READER, str(pid)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0 or b"PermissionError" in done.stderr, done.stderr
    return done.returncode == 0


def _dumps_core(process: subprocess.Popen[bytes]) -> bool:
    os.kill(process.pid, signal.SIGABRT)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == -signal.SIGABRT
    return os.WCOREDUMP(status)


def test_no_other_process_of_its_user_reads_its_memory(tmp_path: Path) -> None:
    with _process(_READY, tmp_path) as bare, _process(_HARDENED, tmp_path) as hardened:
        if not _is_readable(bare.pid):
            pytest.skip("this system lets nobody read another process's memory")
        assert not _is_readable(hardened.pid)


def test_a_crash_leaves_no_dump(tmp_path: Path) -> None:
    with _process(_HARDENED, tmp_path) as hardened:
        assert not _dumps_core(hardened)
    assert list(tmp_path.iterdir()) == []
    with _process(_READY, tmp_path) as bare:
        if not _dumps_core(bare):
            pytest.skip("this system dumps nothing")


def test_every_process_of_the_broker_is_hardened(tmp_path: Path) -> None:
    with serving(Folders(tmp_path), "--workers", "2") as served:
        pids = processes(served.process.pid)
        assert len(pids) >= 3
        for pid in pids:
            limits = Path(f"/proc/{pid}/limits").read_text("ascii").splitlines()
            (core,) = (line for line in limits if line.startswith("Max core file size"))
            assert core.split()[4:6] == ["0", "0"]
            assert not _is_readable(pid)
        assert not _dumps_core(served.process)
        for pid in pids[1:]:
            os.kill(pid, signal.SIGKILL)
