"""The guest remembers the broker's log and demands that it only grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kbs.audit.logkey import LogKey
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
from tests.fakes.guest_broker import FakeBroker, serving
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


def test_the_log_key_is_asked_for_once(bench: Bench) -> None:
    for _ in range(3):
        bench.release()
    assert bench.broker.paths.count("/v1/broker") == 1


def test_a_pinned_log_key_is_not_asked_for_and_is_said(bench: Bench) -> None:
    watch = bench.watch(pinned=bench.broker.signer.key)
    answer, receipt = bench.answer()
    watched = watch.verify(answer, read_receipt(receipt))
    assert watched.pinned
    assert watched.to_json()["log_key"] == bench.broker.signer.key.vkey
    assert "/v1/broker" not in bench.broker.paths


def test_another_log_key_than_the_pinned_one_is_refused(bench: Bench) -> None:
    with pytest.raises(VerificationError) as caught:
        bench.release(bench.watch(pinned=FakeBroker().signer.key))
    assert caught.value.code == "audit.checkpoint.signer"


def test_another_log_key_than_the_first_one_is_refused(bench: Bench) -> None:
    bench.release()
    bench.broker.signer = FakeBroker().signer
    with pytest.raises(VerificationError) as caught:
        bench.release()
    assert caught.value.code == "audit.checkpoint.signer"


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
    watched = bench.watch().verify(answer, read_receipt(receipt))
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
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    answer, receipt = bench.answer()
    bench.watch(pinned=bench.broker.signer.key)._remember(
        "origin", bench.broker.signer.key, b"note"
    )
    LogWatch(bench.transport, state=None).verify(answer, read_receipt(receipt))
    watch = bench.watch(state=blocked)
    watch._remember("origin", bench.broker.signer.key, b"note")
    assert "cannot remember" in bench.warnings[-1]


def test_a_state_that_cannot_be_read_is_an_error(bench: Bench, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(UnavailableError, match="--state"):
        bench.release(bench.watch(state=blocked))


@pytest.mark.parametrize("name", ["log_key", "checkpoint"])
def test_a_state_that_was_damaged_is_an_error(bench: Bench, name: str) -> None:
    bench.release()
    next(bench.state.glob(f"*/{name}")).write_bytes(b"\xff")
    with pytest.raises(KbsError):
        bench.release()


def test_a_broker_without_a_log_key_is_reported(bench: Bench) -> None:
    class NoKey(Transport):
        def get(self, path: str, headers: object = None) -> object:  # type: ignore[override]
            from kbs.client.transport import Reply

            return Reply(status=200, content_type="application/json", body=b"{}")

    answer, receipt = bench.answer()
    with pytest.raises(UnavailableError, match="log key"):
        LogWatch(NoKey(bench.url)).verify(answer, read_receipt(receipt))


def test_a_broker_that_does_not_describe_itself_is_reported(bench: Bench) -> None:
    class Away(Transport):
        def get(self, path: str, headers: object = None) -> object:  # type: ignore[override]
            from kbs.client.transport import Reply

            return Reply(
                status=503, content_type="application/problem+json", body=b"{}"
            )

    answer, receipt = bench.answer()
    with pytest.raises(UnavailableError, match="503"):
        LogWatch(Away(bench.url)).verify(answer, read_receipt(receipt))


def test_a_receipt_of_the_wrong_shape_is_malformed() -> None:
    with pytest.raises(MalformedError):
        read_receipt(None)
