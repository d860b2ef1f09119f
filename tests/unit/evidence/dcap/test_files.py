"""JSON around a quote, and what becomes of the event log beside it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.core.encode import b64, parse_b64
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.files import item_of_document, kind_of_document
from kbs.evidence.tdx.eventlog import parse_td_log
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.eventlog import replay
from tests.fakes.eventlog import FakeEventLog
from tests.fakes.intel import FakeIntel

INTEL = FakeIntel()
TDX = INTEL.quote()
SGX = INTEL.quote(tee="sgx", version=3)


def document(**members: Any) -> bytes:
    return json.dumps({"quote": TDX.hex(), **members}).encode()


def log_in(item: dict[str, object]) -> bytes:
    return parse_b64(item["event_log"], "log", limit=2**20)


@pytest.mark.parametrize(
    "text",
    [TDX.hex(), f"0x{TDX.hex()}", b64(TDX), base64.urlsafe_b64encode(TDX).decode()],
    ids=["hex", "0x", "base64", "base64url"],
)
def test_a_quote_is_found_in_every_spelling(text: str) -> None:
    data = document(quote=text, report_data="00", vm_config="{}")
    assert kind_of_document(data) == "tdx"
    assert item_of_document(data, "tdx") == {"kind": "tdx", "quote": b64(TDX)}
    inner = json.dumps({"tee": "tdx", "evidence": json.loads(data)}).encode()
    assert kind_of_document(inner) == "tdx"
    assert item_of_document(inner, "tdx") == item_of_document(data, "tdx")


def test_the_quote_says_which_family() -> None:
    assert kind_of_document(document(quote=b64(SGX))) == "sgx"
    # No log belongs to an enclave.
    log = FakeEventLog(("sha384",)).to_bytes()
    item = item_of_document(document(quote=b64(SGX), cc_eventlog=b64(log)), "sgx")
    assert item == {"kind": "sgx", "quote": b64(SGX)}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"quote": 7}',
        b'{"quote": "%"}',
        b'{"quote": "AAAA"}',
        b'{"quote": {"message": "AAAA"}}',
        document(format="kbs.evidence/1"),
    ],
)
def test_other_documents_are_none(data: bytes) -> None:
    assert kind_of_document(data) is None


@pytest.mark.parametrize("name", ["cc_eventlog", "event_log"])
def test_a_log_in_the_uefi_form_stays_as_it_is(name: str) -> None:
    log = FakeEventLog(("sha384",)).to_bytes()
    item = item_of_document(document(**{name: b64(log)}), "tdx")
    assert log_in(item) == log


@pytest.mark.parametrize("value", [None, "", [], "[]"])
def test_a_log_of_nothing_is_none(value: object) -> None:
    assert "event_log" not in item_of_document(document(event_log=value), "tdx")


def event(imr: int, digest: bytes, payload: bytes = b"") -> dict[str, object]:
    return {
        "imr": imr,
        "event_type": 0x08000001,
        "digest": digest.hex(),
        "event": "name",
        "event_payload": payload.hex(),
    }


@pytest.mark.parametrize("as_text", [True, False])
def test_a_list_of_events_becomes_a_log_that_replays(*, as_text: bool) -> None:
    events = [event(0, b"\x01" * 48, b"data"), event(3, b"\x02" * 32)]
    given: object = json.dumps(events) if as_text else events
    log = parse_td_log(log_in(item_of_document(document(event_log=given), "tdx")))
    assert [(one.pcr, one.type, one.data) for one in log.events] == [
        (1, 0x08000001, b"data"),
        (4, 0x08000001, b""),
    ]
    # What is shorter than a register is extended with zeros behind it.
    digests = [one.digest_of(Algorithm.SHA384) for one in log.events]
    assert digests == [b"\x01" * 48, b"\x02" * 32 + bytes(16)]
    assert set(replay(log)) == {(Algorithm.SHA384, 1), (Algorithm.SHA384, 4)}


BAD_LOGS: dict[str, object] = {
    "a number": 7,
    "neither": "%%%",
    "no JSON": "[",
    "no object": [1],
    "no register": [{**event(0, b""), "imr": 4}],
    "a type that is no number": [{**event(0, b""), "event_type": "1"}],
    "a long digest": [event(0, bytes(49))],
    "a digest that is no hex": [{**event(0, b""), "digest": "zz"}],
    "no digest": [{"imr": 0, "event_type": 1}],
}


@pytest.mark.parametrize("name", BAD_LOGS)
def test_a_log_of_another_shape_is_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        item_of_document(document(event_log=BAD_LOGS[name]), "tdx")


@pytest.mark.parametrize("text", [None, 7, "%"])
def test_a_document_that_is_said_to_be_one_has_a_quote(text: object) -> None:
    with pytest.raises(MalformedError):
        item_of_document(document(quote=text), "tdx")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 99) | st.text("0aZ=[", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["imr", "event_type", "digest", "event_payload"]), inner
        )
    ),
    max_leaves=6,
)


@given(JSON, JSON)
def test_any_document_is_an_item_or_malformed(quote: object, log: object) -> None:
    data = document(event_log=log)
    for one in (data, document(quote=quote)):
        kind_of_document(one)
        try:
            item_of_document(one, "tdx")
        except MalformedError:
            continue
