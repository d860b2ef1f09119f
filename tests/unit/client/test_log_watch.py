"""The guest remembers the broker's log and demands that it only grows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit.logkey import LogKey, LogSigner
from kbs.audit.receipt import read_receipt
from kbs.channel.answer import Answer, parse_answer
from kbs.channel.binding import Mode
from kbs.channel.signing import parse_response_key
from kbs.client.guest import GuestClient
from kbs.client.log_watch import LogWatch
from kbs.client.sample import SampleAttester
from kbs.client.transport import Transport
from kbs.core.errors import (
    KbsError,
    MalformedError,
    UnavailableError,
    VerificationError,
)
from kbs.core.ids import KeyId, KeyRef
from tests.fakes.guest_broker import ORIGIN, FakeBroker, serving
from tests.fakes.logs import MemoryLog

pytestmark = pytest.mark.enable_socket

CHAT = KeyId("acme", "model", "chat")


class Bench:
    """A guest's watch over a broker whose log the tests rewrite."""

    def __init__(self, broker: FakeBroker, url: str, state: Path) -> None:
        self.broker, self.url, self.state = broker, url, state
        self.transport = Transport(url)
        self.warnings: list[str] = []

    def watch(
        self, *, pinned: LogKey | None = None, state: Path | None = None
    ) -> LogWatch:
        return LogWatch(
            self.transport,
            state=state or self.state,
            pinned=pinned,
            warn=self.warnings.append,
        )

    def release(self, watch: LogWatch | None = None) -> None:
        """Fetch a key, as a guest does, which shows one more entry."""
        GuestClient(
            self.transport,
            parse_response_key(self.broker.response_pem),
            SampleAttester(),
            log=watch or self.watch(),
        ).fetch([KeyRef(CHAT)])

    def trusting(self, *, state: Path | None = None) -> LogWatch:
        """A watch that heard a challenge."""
        watch = self.watch(state=state)
        watch.trust(ORIGIN, self.broker.signer.key.vkey)
        return watch

    def answer(self) -> tuple[Answer, object]:
        """An answer and its receipt, not verified yet."""
        client = GuestClient(
            self.transport,
            parse_response_key(self.broker.response_pem),
            SampleAttester(),
            log=self.watch(),
        )
        attested = client.attest([KeyRef(CHAT)], mode=Mode.RELEASE)
        _, document = self.broker.release(attested.bundle.raw)
        return parse_answer(document["answer"]), document["receipt"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    broker = FakeBroker(keys={CHAT: (1, b"key")})
    with serving(broker) as url:
        yield Bench(broker, url, tmp_path / "state")


@pytest.mark.parametrize("between", [0, 1, 5, 300, 700])
def test_a_log_that_grew_is_accepted(bench: Bench, between: int) -> None:
    """Across tiles of 256 hashes, and the levels that are folded from them."""
    bench.release()
    answer, _ = bench.answer()
    for _ in range(between):
        bench.broker.record(answer)
    bench.release()
    bench.release()


def test_the_challenge_names_the_log_key_and_nobody_else_is_asked(
    bench: Bench,
) -> None:
    bench.release()
    assert bench.broker.paths == ["/v1/challenge", "/v1/release"]
    (kept,) = bench.state.glob("*/log_key")
    assert kept.read_text() == bench.broker.signer.key.vkey + "\n"


def test_a_pinned_log_key_that_the_broker_names_too_is_used(bench: Bench) -> None:
    watch = bench.watch(pinned=bench.broker.signer.key)
    key = watch.trust(ORIGIN, bench.broker.signer.key.vkey)
    answer, receipt = bench.answer()
    watched = watch.verify(answer, read_receipt(receipt))
    assert watched.to_json() == {
        "index": 0,
        "size": 1,
        "entry": watched.receipt.leaf.id,
        "log_key": key.vkey,
    }


def test_another_log_key_than_the_pinned_one_is_refused(bench: Bench) -> None:
    pinned = FakeBroker().signer.key
    with pytest.raises(VerificationError, match="--log-key") as caught:
        bench.release(bench.watch(pinned=pinned))
    assert caught.value.code == "audit.log_key"
    assert caught.value.expected == pinned.vkey
    assert bench.broker.bodies == [], "no evidence is sent"


def test_another_log_key_than_at_the_last_contact_is_refused(bench: Bench) -> None:
    bench.release()
    bench.broker.signer = FakeBroker().signer
    with pytest.raises(VerificationError, match="do not follow yet") as caught:
        bench.release(bench.watch(pinned=bench.broker.signer.key))
    assert caught.value.code == "audit.log_key"
    assert len(bench.broker.bodies) == 1, "no evidence is sent"


def test_a_log_key_of_another_log_is_refused(bench: Bench) -> None:
    bench.broker.log_key = LogSigner(
        "other.example/1", Ed25519PrivateKey.generate()
    ).key.vkey
    with pytest.raises(VerificationError, match=r"other\.example/1") as caught:
        bench.release()
    assert caught.value.code == "audit.log_key"


def test_a_log_key_that_is_none_is_not_understood(bench: Bench) -> None:
    bench.broker.log_key = "nonsense"
    with pytest.raises(UnavailableError, match="log key") as caught:
        bench.release()
    assert caught.value.code == "answer.malformed"


def test_a_checkpoint_by_another_key_than_the_challenge_named_is_refused(
    bench: Bench,
) -> None:
    bench.broker.log_key = FakeBroker().signer.key.vkey
    with pytest.raises(VerificationError) as caught:
        bench.release()
    assert caught.value.code == "audit.checkpoint.signer"


def test_without_a_challenge_no_log_is_trusted(bench: Bench) -> None:
    answer, receipt = bench.answer()
    with pytest.raises(VerificationError, match="none is known"):
        bench.watch().verify(answer, read_receipt(receipt))


@pytest.mark.parametrize("entries", [0, 1, 6])
def test_a_log_that_was_rolled_back_is_noticed(bench: Bench, entries: int) -> None:
    """Smaller, of the same size, and larger than before: it is another log."""
    bench.release()
    bench.release()
    bench.broker.log = MemoryLog()
    answer, _ = bench.answer()
    bench.broker.log = MemoryLog()
    for _ in range(entries):
        bench.broker.record(answer)
    with pytest.raises(VerificationError) as caught:
        bench.release()
    assert caught.value.code == "audit.rollback"


def test_a_receipt_older_than_what_was_seen_meanwhile_is_accepted(
    bench: Bench,
) -> None:
    """Two requests of one machine: the retry of the first gets its first receipt."""
    answer, receipt = bench.answer()
    bench.release()
    watched = bench.trusting().verify(answer, read_receipt(receipt))
    assert watched.receipt.checkpoint.size == 1
    kept = next(bench.state.glob("*/checkpoint")).read_text()
    assert kept.splitlines()[1] == "2", "the later checkpoint stays remembered"


def test_a_log_that_hides_its_tiles_is_not_believed(bench: Bench) -> None:
    bench.release()
    bench.broker.faults = ["no_tiles"]
    with pytest.raises(UnavailableError) as caught:
        bench.release()
    assert caught.value.code == "audit.no_tile"


def test_a_state_that_cannot_be_written_is_warned_about(
    bench: Bench, tmp_path: Path
) -> None:
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "none")
    bench.release(bench.watch(state=dangling))
    assert "cannot remember" in bench.warnings[-1]


class Meanwhile(FakeBroker):
    """A broker that does something else while it is asked for a tile."""

    then: Callable[[], None] | None = None

    def tile(self, path: str) -> bytes:
        then, self.then = self.then, None
        if then is not None:
            then()
        return super().tile(path)


def test_a_guest_does_not_forget_what_another_saw_meanwhile(tmp_path: Path) -> None:
    """Many units of one machine fetch at boot, with one state."""
    broker = Meanwhile(keys={CHAT: (1, b"key")})
    with serving(broker) as url:
        bench = Bench(broker, url, tmp_path / "state")
        bench.release()
        broker.then = bench.release
        bench.release()
    kept = next(bench.state.glob("*/checkpoint")).read_text()
    assert kept.splitlines()[1] == "3"


def test_without_a_state_nothing_is_remembered(bench: Bench) -> None:
    answer, receipt = bench.answer()
    watch = LogWatch(bench.transport, warn=bench.warnings.append)
    watch.trust(ORIGIN, bench.broker.signer.key.vkey)
    assert watch.verify(answer, read_receipt(receipt)).receipt.index == 0
    assert not bench.state.exists()
    assert bench.warnings == []


def test_a_state_that_cannot_be_read_is_an_error(bench: Bench, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(UnavailableError, match="--state") as caught:
        bench.release(bench.watch(state=blocked))
    assert caught.value.code == "guest.state"


@pytest.mark.parametrize(
    ("name", "code"), [("log_key", "audit.log_key"), ("checkpoint", "guest.state")]
)
def test_a_state_that_was_damaged_is_an_error(
    bench: Bench, name: str, code: str
) -> None:
    bench.release()
    (path,) = bench.state.glob(f"*/{name}")
    path.write_bytes(b"\xff")
    with pytest.raises(KbsError, match=re.escape(str(path.parent))) as caught:
        bench.release()
    assert caught.value.code == code


def test_a_remembered_checkpoint_by_another_key_is_a_damaged_state(
    bench: Bench,
) -> None:
    bench.release()
    (path,) = bench.state.glob("*/checkpoint")
    path.write_bytes(FakeBroker().checkpoint())
    with pytest.raises(UnavailableError) as caught:
        bench.release()
    assert caught.value.code == "guest.state"


def test_a_receipt_of_the_wrong_shape_is_malformed() -> None:
    with pytest.raises(MalformedError):
        read_receipt(None)
