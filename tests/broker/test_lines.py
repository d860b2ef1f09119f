"""The broker's own log: one line a decision, under the id of its answer and entry."""

from __future__ import annotations

import base64
import functools
import logging
import re

import pytest

from kbs.broker.lines import MAX_NAMES, MAX_TEXT, UNPAID_SECONDS, listed
from kbs.broker.pace import Pace
from kbs.channel.binding import Mode, device_binding, device_digest, primary_binding
from kbs.evidence.registry import VERIFIERS
from kbs.governance.statement import Action, Kind
from tests.fakes.amd import FakeAmd
from tests.fakes.answers import Seen, refusals, releases, see
from tests.fakes.snp_world import KEY
from tests.fakes.steps import Bench
from tests.fakes.world import World, request_of

CHAT = "acme/model/chat"
LINE = re.compile(r"decision ([0-9a-f]{32}) ([a-z]+) (.*)")


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "kbs.release")
    return caplog


def _give(item: dict[str, object], _: bytes) -> dict[str, object]:
    return item


def _lines(
    caplog: pytest.LogCaptureFixture, level: int = logging.INFO
) -> list[tuple[str, str, dict[str, str]]]:
    """Id, word and members of each line at a level."""
    found = []
    for record in caplog.records:
        if record.name == "kbs.release" and record.levelno == level:
            match = LINE.fullmatch(record.getMessage())
            assert match is not None, record.getMessage()
            members = dict(one.split("=", 1) for one in match[3].split(" "))
            assert members["ms"].isdigit()
            found.append((match[1], match[2], members))
    return found


def _decision(seen: Seen) -> str:
    """The id that answer and problem document name."""
    document = seen.document
    found = document.get("decision") or document["answer"]["decision"]
    return str(found)


def _one(
    caplog: pytest.LogCaptureFixture, seen: Seen, level: int = logging.INFO
) -> tuple[str, dict[str, str]]:
    ((decision, word, members),) = _lines(caplog, level)
    assert decision == _decision(seen)
    assert set(re.findall(r"[0-9a-f]{32,}", caplog.text)) == {decision}
    return word, members


def test_a_grant_joins_answer_line_and_entry(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    seen = see(world, world.request(world.standard()))
    word, members = _one(caplog, seen)
    (entry,) = releases(world)
    assert entry["decision"] == _decision(seen)
    assert seen.receipt is not None
    with world.parts.database.read() as tx:
        index = tx.log.head().size - 1
    del members["ms"]
    assert (word, members) == (
        "granted",
        {
            "keys": f"{CHAT}@1",
            "door": "v1",
            "primary": "vtpm",
            "governance": str(entry["governance"]),
            "entry": str(index),
        },
    )


def test_a_retry_names_the_decision_that_it_repeats(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    request = world.request(world.standard())
    first, again = see(world, request), see(world, request)
    (granted, retried) = _lines(caplog)
    assert granted[0] == retried[0] == _decision(first) == _decision(again)
    assert retried[1] == "retried"
    assert retried[2]["entry"] == granted[2]["entry"]


def test_a_denial_has_the_ids_of_its_reasons(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    tpm = world.standard()
    seen = see(world, world.request(tpm, ["acme/db/other"]))
    word, members = _one(caplog, seen)
    assert (word, members["keys"], members["reasons"]) == (
        "denied",
        "acme/db/other",
        "policy.none",
    )


def test_a_part_of_what_was_asked(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    tpm = world.standard()
    seen = see(world, world.request(tpm, [CHAT, "acme/db/other"], partial=True))
    word, members = _one(caplog, seen)
    assert (word, members["keys"], members["withheld"], members["reasons"]) == (
        "granted",
        f"{CHAT}@1",
        "acme/db/other",
        "policy.none",
    )


def test_a_dry_run(world: World, caplog: pytest.LogCaptureFixture) -> None:
    seen = see(world, world.request(world.standard(), mode=Mode.CHECK))
    assert _one(caplog, seen)[0] == "checked"


def test_evidence_refused_after_it_authenticated(
    snp_world: World, amd: FakeAmd, caplog: pytest.LogCaptureFixture
) -> None:
    """The check by its id; nothing that the guest wrote, no chip."""
    data, private = snp_world.runtime_data([KEY])
    tpm = snp_world.booted_tpm()
    device = tpm.quote_item(device_binding("vtpm", data)[:32])
    digest = device_digest("vtpm", VERIFIERS["vtpm"].parse(device, 1).core)
    primary = primary_binding("snp", data, [digest])
    stranger = {"kind": "planted-word", "x": 1}
    items = [amd.bundle_item(primary), device]
    seen = see(snp_world, request_of(data, private, primary, items))
    word, members = _one(caplog, seen)
    assert (word, members["primary"]) == ("refused", "snp")
    assert members["check"] == "vtpm.ak.trust"
    assert "reasons" not in members
    assert seen.entry(snp_world)["kind"] == "release.denied"
    see(snp_world, request_of(data, private, primary, [*items, stranger]))
    assert "planted-word" not in caplog.text


def test_refusals_of_strangers_are_at_debug_and_in_the_line_of_the_minute(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    tpm = world.standard()
    seen = see(world, world.request(tpm, challenge="AQEB"))
    assert _lines(caplog) == []
    word, members = _one(caplog, seen, logging.DEBUG)
    assert (word, members["check"]) == ("refused", "challenge.malformed")
    see(world, world.request(world.booted_tpm()))
    assert _lines(caplog) == []
    caplog.clear()
    assert len(refusals(world)) == 2
    (record,) = [one for one in caplog.records if one.name == "kbs.release"]
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("2 refusals before authentication since ")
    assert "challenge.malformed=1" in record.getMessage()
    assert "vtpm.ak.trust=1" in record.getMessage()


def test_what_could_not_be_checked_is_at_info_now_and_then(
    snp_world: World, amd: FakeAmd, caplog: pytest.LogCaptureFixture
) -> None:
    time = 0.0
    world = snp_world.restarted(monotonic=lambda: time)
    bare: dict[str, object] = {"certificates": []}

    def send() -> Seen:
        request = world.request_by(
            "snp", lambda primary: {**amd.bundle_item(primary), **bare}, [KEY]
        )
        return see(world, request)

    first = send()
    assert first.status == 503
    word, members = _one(caplog, first)
    assert (word, members["check"]) == ("unchecked", ",".join(first.checks))
    second = send()
    assert len(_lines(caplog)) == 1
    assert _lines(caplog, logging.DEBUG)[-1][0] == _decision(second)
    time += UNPAID_SECONDS
    send()
    assert len(_lines(caplog)) == 2


def test_a_decision_that_could_not_be_made(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    request = bench.request()
    bench.database.fail_before = 1
    seen = bench.send(request)
    assert seen.status == 503
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert {one.name for one in errors} == {"kbs.release"}
    assert all(_decision(seen) in one.getMessage() for one in errors)
    assert f"code={seen.code}" in caplog.text


def test_markers_in_what_a_guest_sends_never_appear(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    tpm = world.standard()
    item = tpm.quote_item(bytes(32))
    planted_items: list[dict[str, object]] = [
        {**item, "event_log": base64.b64encode(b"planted words").decode()},
        {**item, "planted": "planted words"},
        {"kind": "planted-words"},
    ]
    for planted in planted_items:
        request = world.request_by("vtpm", functools.partial(_give, planted))
        see(world, request)
    assert releases(world) == []
    assert len(_lines(caplog, logging.DEBUG)) == 3
    lines = [one.getMessage() for one in caplog.records if one.name == "kbs.release"]
    assert not any("planted" in line for line in lines)


def test_a_line_is_never_long(world: World, caplog: pytest.LogCaptureFixture) -> None:
    tpm = world.standard()
    keys = [f"acme/{'x' * 60}/tag{number}-{'z' * 50}" for number in range(64)]
    seen = see(world, world.request(tpm, keys))
    assert seen.status == 403
    _, members = _one(caplog, seen)
    assert members["keys"].endswith(",+56")
    assert all(len(one.getMessage()) < 3 * MAX_TEXT for one in caplog.records)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a", "b", "a"], "a,b"),
        ([str(n) for n in range(MAX_NAMES)], "0,1,2,3,4,5,6,7"),
        ([str(n) for n in range(MAX_NAMES + 1)], "0,1,2,3,4,5,6,7,+1"),
        (["y" * (MAX_TEXT + 1)], "y" * MAX_TEXT + "…"),
    ],
)
def test_names_in_a_line(names: list[str], text: str) -> None:
    assert listed(names) == text


def test_a_pace() -> None:
    time = 5.0
    pace = Pace(lambda: time, 2.0)
    assert [pace.is_due(), pace.is_due()] == [True, False]
    time = 6.9
    assert not pace.is_due()
    time = 7.0
    assert [pace.is_due(), pace.is_due()] == [True, False]


def test_an_emergency_stop_is_a_reason(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    tpm = world.standard()
    stop = b'{"target":"all","value":"","reason":"planted reason"}'
    world.govern(Action.DENY, Kind.DENY, "*", "stop", stop)
    _, members = _one(caplog, see(world, world.request(tpm)))
    assert members["reasons"] == "deny.all"
    assert "planted reason" not in caplog.text
