"""Patience has an end, grows, and is not spent on decisions."""

from __future__ import annotations

import pytest

from kbs.client.refusal import BusyError, RefusalError, error_of
from kbs.client.retry import Patience
from kbs.client.transport import Reply
from kbs.client.words import explain, words_for
from kbs.core.errors import KbsError, MalformedError, UnavailableError


class Timeline:
    """A clock that only sleeping moves."""

    def __init__(self, *errors: KbsError) -> None:
        self.errors = list(errors)
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)

    def attempt(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def patience(self, seconds: float, dice: float = 1.0) -> Patience:
        return Patience(
            total_seconds=seconds,
            sleep=self.sleep,
            monotonic=lambda: self.now,
            dice=lambda: dice,
        )


AWAY = UnavailableError("server", got="nothing")


def test_waits_double_up_to_the_longest() -> None:
    timeline = Timeline(*[AWAY] * 9)
    assert timeline.patience(1000).persist(timeline.attempt) == "done"
    assert timeline.waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_dice_spread_the_waits() -> None:
    timeline = Timeline(AWAY, AWAY)
    timeline.patience(1000, dice=0.5).persist(timeline.attempt)
    assert timeline.waits == [0.25, 0.5]


def test_the_last_error_comes_out_when_time_is_up() -> None:
    timeline = Timeline(AWAY, AWAY, AWAY, UnavailableError("the fourth"), AWAY)
    with pytest.raises(UnavailableError, match="the fourth"):
        timeline.patience(4).persist(timeline.attempt)


def test_a_real_clock_and_real_dice_are_the_default() -> None:
    timeline = Timeline(AWAY)
    patience = Patience(total_seconds=5, first_seconds=0.001)
    assert patience.persist(timeline.attempt) == "done"


@pytest.mark.parametrize(
    "error",
    [
        RefusalError("denied", got="policy"),
        MalformedError("x"),
        UnavailableError("x", code="tls.pin"),
        UnavailableError("x", code="tpm.library"),
    ],
)
def test_what_waiting_does_not_mend_comes_out_at_once(error: KbsError) -> None:
    timeline = Timeline(error)
    with pytest.raises(type(error)):
        timeline.patience(1000).persist(timeline.attempt)
    assert timeline.waits == []


def test_what_the_server_asks_for_is_added() -> None:
    timeline = Timeline(BusyError("x", got="y", code="busy", retry_after=20))
    timeline.patience(1000).persist(timeline.attempt)
    assert timeline.waits == [20.5]


def test_a_problem_without_any_member_is_still_an_error() -> None:
    for body in (b"{}", b'{"code": 1, "detail": [], "checks": 7, "decision": {}}'):
        reply = Reply(status=403, content_type="application/problem+json", body=body)
        error = error_of(reply)
        assert isinstance(error, RefusalError)
        assert error.code == "http.403"
        assert error.to_json() == {
            "decision": None,
            "checks": [],
            "denied": [],
            "signed": False,
            "receipt": None,
        }


@pytest.mark.parametrize(
    ("status", "words"), [(403, "refused: got one issued by X"), (404, "got one")]
)
def test_what_the_broker_says_is_told_in_its_own_words(status: int, words: str) -> None:
    body = b'{"detail": "got one issued by X", "code": "enrol.issuer"}'
    reply = Reply(status=status, content_type="application/problem+json", body=body)
    error = error_of(reply)
    assert words in str(error)
    assert str(error).count("got") == 1


def test_checks_of_another_shape_are_passed_over() -> None:
    body = b'{"checks": ["x", {"id": 7}, {"id": "snp.chain"}, {}]}'
    reply = Reply(status=403, content_type="application/problem+json", body=body)
    error = error_of(reply)
    assert isinstance(error, RefusalError)
    assert error.checks == ("snp.chain",)


@pytest.mark.parametrize(
    ("check_id", "words"),
    [
        ("vtpm.pcr.sha256.15", "a PCR does not hold"),
        ("vtpm.ak.trust", "kbs guest enroll"),
        ("snp.reported_tcb.microcode", "too old"),
        ("policy.none", "no policy covers"),
        ("nitro.debug", "debug mode"),
        ("nitrotpm.pcrs.4", "of the instance"),
        ("azure_snp.pcr.sha256.4", "a PCR of the VM"),
        ("azure.vmpl", "HCL report"),
        ("key.not_found", "does not exist"),
        ("deny.policy", "administrator"),
        ("request.not_all", "another key of the request is refused"),
        ("challenge.expired", "not good any more"),
    ],
)
def test_ids_have_words_and_are_named(check_id: str, words: str) -> None:
    assert words in words_for(check_id)
    assert f"({check_id})" in words_for(check_id)


def test_an_id_that_we_do_not_know_stands_alone_and_once() -> None:
    assert explain(("new.one", "new.one", "x.y")) == "new.one; x.y"
