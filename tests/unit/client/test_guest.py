"""The guest against a broker that signs, seals and logs, and errs on command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from kbs.channel.answer import Outcome
from kbs.channel.binding import Mode
from kbs.channel.recipient import Suite
from kbs.channel.signing import parse_response_key
from kbs.client.attester import Attester
from kbs.client.guest import GuestClient
from kbs.client.log_watch import LogWatch
from kbs.client.refusal import RefusalError
from kbs.client.retry import Patience
from kbs.client.sample import SampleAttester
from kbs.client.transport import Transport
from kbs.core.errors import (
    AuthenticationError,
    ConflictError,
    KbsError,
    MalformedError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from kbs.core.ids import KeyId, KeyRef, parse_key_ref
from tests.fakes.guest_broker import FakeBroker, serving
from tests.fakes.logs import MemoryLog

pytestmark = pytest.mark.enable_socket

CHAT = KeyId("acme", "model", "chat")
DATA = KeyId("acme", "data", "set")


@dataclass
class Bench:
    """A broker, its address, and a clock that only sleeping moves."""

    broker: FakeBroker
    url: str
    state: Path
    now: float = 0.0
    waits: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def client(
        self,
        *,
        pinned: FakeBroker | None = None,
        retry_for: float = 0.0,
        suite: Suite = Suite.X25519,
        devices: tuple[Attester, ...] = (),
    ) -> GuestClient:
        transport = Transport(self.url)
        return GuestClient(
            transport,
            parse_response_key((pinned or self.broker).response_pem),
            SampleAttester(),
            devices=devices,
            suite=suite,
            log=LogWatch(transport, state=self.state, warn=self.warnings.append),
            patience=Patience(
                total_seconds=retry_for,
                sleep=self.sleep,
                monotonic=lambda: self.now,
                dice=lambda: 1.0,
            ),
            monotonic=lambda: self.now,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    broker = FakeBroker(keys={CHAT: (3, b"chat key"), DATA: (1, b"data key")})
    with serving(broker) as url:
        yield Bench(broker, url, tmp_path / "state")


def refs(*texts: str) -> list[KeyRef]:
    return [parse_key_ref(text) for text in texts]


@pytest.mark.parametrize("suite", list(Suite))
def test_keys_arrive_in_the_order_asked_for(bench: Bench, suite: Suite) -> None:
    fetched = bench.client(suite=suite).fetch(refs(str(DATA), f"{CHAT}@3"))
    assert [(str(key.ref), key.value) for key in fetched.keys] == [
        ("acme/data/set@1", b"data key"),
        ("acme/model/chat@3", b"chat key"),
    ]
    assert fetched.answer.outcome is Outcome.GRANTED
    assert fetched.receipt.receipt.checkpoint.size == 1


def test_a_value_is_in_no_repr(bench: Bench) -> None:
    fetched = bench.client().fetch(refs(str(CHAT)))
    assert "chat key" not in repr(fetched)


def test_devices_are_covered_by_the_primary(bench: Bench) -> None:
    device = SampleAttester({"svn": 2})
    fetched = bench.client(devices=(device,)).fetch(refs(str(CHAT)))
    items = json.loads(bench.broker.bodies[0])["items"]
    assert [item.get("claims") for item in items] == [None, {"svn": 2}]
    assert fetched.keys[0].value == b"chat key"


def test_a_dry_run_says_what_would_happen_and_brings_no_key(bench: Bench) -> None:
    checked = bench.client().check(refs(str(CHAT), "acme/model/none"))
    assert checked.answer.outcome is Outcome.CHECKED
    assert [str(ref) for ref in checked.answer.keys] == ["acme/model/chat@3"]
    assert [str(one.ref) for one in checked.answer.denied] == ["acme/model/none"]
    assert checked.keys == ()


def test_a_part_is_given_only_when_asked_for(bench: Bench) -> None:
    wanted = refs(str(CHAT), "acme/model/none")
    with pytest.raises(RefusalError):
        bench.client().fetch(wanted)
    fetched = bench.client().fetch(wanted, partial=True)
    assert [key.value for key in fetched.keys] == [b"chat key"]
    assert fetched.answer.denied[0].reasons == ("policy.none",)


def test_a_signed_denial_is_told_in_words_and_never_tried_again(bench: Bench) -> None:
    bench.broker.denied[CHAT] = ("vtpm.pcr.sha256.15", "deny.key")
    with pytest.raises(RefusalError) as caught:
        bench.client(retry_for=100).fetch(refs(str(CHAT)))
    assert caught.value.signed
    assert caught.value.denied[0].reasons == ("vtpm.pcr.sha256.15", "deny.key")
    assert caught.value.decision is not None
    assert "a PCR does not hold" in str(caught.value)
    assert "an administrator denied it" in str(caught.value)
    assert len(bench.broker.bodies) == 1
    assert bench.waits == []


def test_checks_beside_a_signed_denial_count_only_if_it_names_them(
    bench: Bench,
) -> None:
    """Who stands between could send the operator after another fault."""
    bench.broker.denied[CHAT] = ("vtpm.pcr.sha256.15",)
    bench.broker.faults = ["other_checks"]
    with pytest.raises(RefusalError) as caught:
        bench.client().fetch(refs(str(CHAT)))
    document = caught.value.to_json()
    assert document["signed"] is True
    assert document["checks"] == ["vtpm.pcr.sha256.15"]


def test_a_denials_receipt_is_verified_and_remembered(bench: Bench) -> None:
    bench.broker.denied[CHAT] = ("deny.key",)
    for size in (1, 2):
        with pytest.raises(RefusalError) as caught:
            bench.client().fetch(refs(str(CHAT)))
        receipt = caught.value.receipt
        assert receipt is not None
        assert receipt.receipt.body is None, "why is for administrators"
        assert receipt.receipt.checkpoint.size == size
        assert caught.value.to_json()["receipt"] == receipt.to_json()
        (kept,) = bench.state.glob("*/checkpoint")
        assert kept.read_text().splitlines()[1] == str(size)
    assert bench.warnings == []


@pytest.mark.parametrize(
    ("fault", "warning"),
    [
        ("no_receipt", "has no receipt"),
        ("unlogged", "does not hold: "),
        ("other_receipt", "does not hold: receipt decision"),
        ("shapeless_receipt", "does not hold: receipt"),
        ("receipt_by_another", "does not hold: checkpoint signer"),
    ],
)
def test_a_denial_whose_receipt_does_not_hold_is_a_denial_with_a_warning(
    bench: Bench, fault: str, warning: str
) -> None:
    bench.broker.denied[CHAT] = ("deny.key",)
    bench.broker.faults = [fault]
    with pytest.raises(RefusalError) as caught:
        bench.client(retry_for=100).fetch(refs(str(CHAT)))
    assert caught.value.signed
    assert caught.value.receipt is None
    assert caught.value.to_json()["receipt"] is None
    assert len(bench.warnings) == 1
    assert warning in bench.warnings[0]
    assert bench.waits == []
    assert not bench.state.exists()


def test_a_denial_from_a_log_that_was_rolled_back_is_warned_about(
    bench: Bench,
) -> None:
    bench.client().fetch(refs(str(CHAT)))
    bench.broker.log = MemoryLog()
    bench.broker.denied[CHAT] = ("deny.key",)
    with pytest.raises(RefusalError) as caught:
        bench.client(retry_for=100).fetch(refs(str(CHAT)))
    assert caught.value.receipt is None
    assert "rolled back" in bench.warnings[0]
    assert bench.waits == []


def test_an_unsigned_denial_is_not_taken_for_the_brokers_word(bench: Bench) -> None:
    bench.broker.faults = ["unsigned_denial"]
    with pytest.raises(RefusalError, match="not signed by the broker") as caught:
        bench.client(retry_for=100).fetch(refs(str(CHAT)))
    assert not caught.value.signed
    assert caught.value.to_json()["receipt"] is None
    assert caught.value.checks == ("vtpm.pcr.sha256.15",)
    assert len(bench.broker.bodies) == 1


def test_a_refusal_without_checks_says_what_the_server_said(bench: Bench) -> None:
    bench.broker.faults = ["bare_denial"]
    with pytest.raises(RefusalError, match="denied happened"):
        bench.client().fetch(refs(str(CHAT)))


@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
def test_the_same_bytes_are_sent_again_when_the_connection_dies(
    bench: Bench, fault: str
) -> None:
    bench.broker.faults = [fault, fault]
    fetched = bench.client(retry_for=100).fetch(refs(str(CHAT)))
    assert fetched.keys[0].value == b"chat key"
    assert len(bench.broker.bodies) == 3
    assert len(set(bench.broker.bodies)) == 1
    with bench.broker.log.transaction() as tx:
        assert tx.head().size == 1, "the release is recorded once"


@pytest.mark.parametrize("fault", ["503", "429", "busy", "garbage", "html", "redirect"])
def test_could_not_check_is_tried_again(bench: Bench, fault: str) -> None:
    bench.broker.faults = [fault]
    fetched = bench.client(retry_for=100).fetch(refs(str(CHAT)))
    assert fetched.keys[0].value == b"chat key"
    assert len(bench.waits) == 1


@pytest.mark.parametrize("fault", ["503", "garbage", "html", "redirect", "huge"])
def test_could_not_check_is_no_refusal(bench: Bench, fault: str) -> None:
    bench.broker.faults = [fault]
    with pytest.raises(UnavailableError):
        bench.client().fetch(refs(str(CHAT)))


def test_the_server_is_given_the_time_it_asks_for(bench: Bench) -> None:
    bench.broker.faults = ["busy"]
    bench.client(retry_for=100).fetch(refs(str(CHAT)))
    assert bench.waits == [7.5]


def test_a_challenge_that_ended_while_waiting_is_replaced(bench: Bench) -> None:
    bench.broker.faults = ["busy"]
    bench.broker.lifetime = timedelta(seconds=12)
    bench.client(retry_for=100).fetch(refs(str(CHAT)))
    assert len(set(bench.broker.bodies)) == 2


def test_a_challenge_fault_gets_a_new_challenge_at_once(bench: Bench) -> None:
    bench.broker.faults = ["expired"]
    bench.client().fetch(refs(str(CHAT)))
    assert len(set(bench.broker.bodies)) == 2
    assert bench.waits == []


def test_challenge_faults_without_end_are_reported(bench: Bench) -> None:
    bench.broker.faults = ["expired"] * 9
    with pytest.raises(AuthenticationError) as caught:
        bench.client(retry_for=100).fetch(refs(str(CHAT)))
    assert caught.value.code == "challenge.expired"
    assert len(bench.broker.bodies) == 3


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("signature", AuthenticationError, "answer.signature"),
        ("keyid", AuthenticationError, "answer.signature"),
        ("nonce", VerificationError, "answer.request"),
        ("audience", VerificationError, "answer.request"),
        ("other_keys", VerificationError, "answer.request"),
        ("decision", VerificationError, "answer.sealed"),
        ("sealed", VerificationError, "answer.sealed"),
        ("no_receipt", UnavailableError, "answer.malformed"),
        ("other_receipt", VerificationError, "audit.receipt.answer"),
        ("bodiless_receipt", VerificationError, "audit.receipt.answer"),
        ("told_as_probe", VerificationError, "audit.receipt.answer"),
        ("told_as_denial", VerificationError, "audit.receipt.answer"),
        ("told_of_another_key", VerificationError, "audit.receipt.answer"),
        ("told_of_another_version", VerificationError, "audit.receipt.answer"),
        ("unlogged", VerificationError, "audit.inclusion"),
        ("400", MalformedError, "malformed"),
        ("404", NotFoundError, "http.not_found"),
        ("409", ConflictError, "conflict"),
    ],
)
def test_an_answer_that_does_not_hold_gives_no_key(
    bench: Bench, fault: str, kind: type[KbsError], code: str
) -> None:
    bench.broker.faults = [fault]
    with pytest.raises(kind) as caught:
        bench.client().fetch(refs(str(CHAT)))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "fault", ["told_as_probe", "told_as_denial", "told_of_no_release"]
)
def test_a_part_is_logged_as_a_grant_too(bench: Bench, fault: str) -> None:
    """Its receipt has no body; the kind of the entry shows all the same."""
    bench.broker.denied[DATA] = ("policy.none",)
    bench.broker.faults = [fault]
    with pytest.raises(VerificationError, match="receipt kind") as caught:
        bench.client().fetch(refs(str(CHAT), str(DATA)), partial=True)
    assert caught.value.code == "audit.receipt.answer"


def test_an_answer_to_an_earlier_request_is_refused(bench: Bench) -> None:
    """A bystander who recorded the broker's answer cannot give it again."""
    client = bench.client()
    first = client.attest(refs(str(CHAT)), mode=Mode.RELEASE)
    client.send(first)
    second = client.attest(refs(str(CHAT)), mode=Mode.RELEASE)
    answered = bench.broker.spent[first.runtime_data.nonce][1]
    import hashlib

    bench.broker.spent[second.runtime_data.nonce] = (
        hashlib.sha256(second.bundle.raw).digest(),
        answered,
    )
    with pytest.raises(VerificationError) as caught:
        client.send(second)
    assert caught.value.code == "answer.request"


def test_another_brokers_challenge_is_refused(bench: Bench) -> None:
    with pytest.raises(AuthenticationError) as caught:
        bench.client(pinned=FakeBroker(), retry_for=100).fetch(refs(str(CHAT)))
    assert caught.value.code == "answer.signature"
    assert bench.broker.bodies == [], "no evidence goes to a broker that is not ours"


def test_a_challenge_that_is_none_is_not_understood(bench: Bench) -> None:
    bench.broker.faults = ["challenge:shape"]
    with pytest.raises(UnavailableError) as caught:
        bench.client().challenge()
    assert caught.value.code == "answer.malformed"


def test_a_broker_without_a_challenge_is_tried_again(bench: Bench) -> None:
    bench.broker.faults = ["challenge:503", "challenge:503"]
    bench.client(retry_for=100).fetch(refs(str(CHAT)))
    assert bench.waits == [0.5, 1.0]


def test_evidence_for_another_request_is_refused_by_the_broker(bench: Bench) -> None:
    client = bench.client()
    attested = client.attest(refs(str(CHAT)), mode=Mode.RELEASE)
    bundle = json.loads(attested.bundle.raw)
    bundle["items"][0]["report_data"] = "A" * 64
    from dataclasses import replace

    from kbs.client.attester import Bundle
    from kbs.core.encode import canonical_json

    forged = Bundle(canonical_json(bundle), attested.bundle.primary)
    with pytest.raises(RefusalError, match="made for another request") as caught:
        client.send(replace(attested, bundle=forged))
    assert caught.value.checks == ("binding.primary", "snp.chain")
