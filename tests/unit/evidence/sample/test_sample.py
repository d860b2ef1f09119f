"""Sample evidence: strictly parsed, accepted in development mode only."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kbs.core.checks import Verdict, verdict
from kbs.core.claims import Vocabulary
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.model import ParsedItem, Trust, Verifier
from kbs.evidence.sample.verify import DEVICE, SampleVerifier, sample_claims

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
BINDING = bytes(range(48))
CLAIMS = {"measurement": "m1", "svn": 3, "debug": False, "launch": "image-1"}
ITEM: dict[str, object] = {
    "kind": "sample",
    "report_data": b64(BINDING),
    "claims": CLAIMS,
}
VERIFIER: Verifier = SampleVerifier()


def test_development_mode_accepts_it_and_gives_its_claims() -> None:
    parsed = VERIFIER.parse(ITEM, 2)
    result = VERIFIER.verify(parsed, Trust(now=NOW, development=True))
    assert [(c.id, c.status, c.item) for c in result.checks] == [
        ("sample.development", "pass", 2)
    ]
    assert verdict(result.checks) is Verdict.VERIFIED
    assert result.authenticated
    assert result.claims is not None
    assert result.claims.item == 2
    assert result.claims.values == {f"sample.{k}": v for k, v in CLAIMS.items()}


def test_everywhere_else_it_is_refused() -> None:
    result = VERIFIER.verify(VERIFIER.parse(ITEM, 0), Trust(now=NOW))
    assert [(c.id, c.status) for c in result.checks] == [("sample.development", "fail")]
    assert verdict(result.checks) is Verdict.REFUSED
    assert not result.authenticated
    assert result.claims is None


def test_core_is_the_canonical_item() -> None:
    item = {"report_data": b64(BINDING), "kind": "sample"}
    parsed = VERIFIER.parse(item, 0)
    assert (
        parsed.core == b'{"kind":"sample","report_data":"%s"}' % b64(BINDING).encode()
    )
    assert parsed.bound == BINDING


def test_all_of_report_data_is_compared() -> None:
    parsed = VERIFIER.parse(ITEM, 0)
    assert VERIFIER.bound_matches(parsed, BINDING)
    for other in (BINDING[:-1], BINDING + b"\0", b"\1" + BINDING[1:], b""):
        assert not VERIFIER.bound_matches(parsed, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "snp"}, "item kind"),
        ({"nonce": ""}, "unknown member 'nonce'"),
        ({"report_data": b64(BINDING[:-1])}, "47 bytes"),
        ({"report_data": b64(BINDING + b"xxx")}, "51 bytes"),
        ({"report_data": None}, "base64"),
        ({"claims": None}, "an object"),
        ({"claims": {"vmpl": 0}}, "unknown member"),
        ({"claims": {"measurement": 1}}, "a string"),
        ({"claims": {"launch": "x" * 257}}, "at most 256"),
        ({"claims": {"svn": -1}}, "0 to"),
        ({"claims": {"svn": True}}, "an integer"),
        ({"claims": {"debug": 0}}, "true or false"),
    ],
)
def test_other_items_are_malformed(changes: dict[str, object], message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        VERIFIER.parse(ITEM | changes, 0)


def test_inspection_shows_what_it_says() -> None:
    shown = VERIFIER.inspect(VERIFIER.parse(ITEM, 0))
    assert shown == {"report_data": BINDING.hex(), "claims": CLAIMS}


def test_vocabulary_is_small_and_demands_nothing() -> None:
    vocabulary = Vocabulary.of(sample_claims("sample"))
    assert VERIFIER.vocabulary == sample_claims("sample")
    assert vocabulary.safety("sample") == ()
    assert [spec.name for spec in vocabulary if spec.boot] == ["sample.launch"]
    assert VERIFIER.kind == "sample"
    assert not VERIFIER.primary


def test_a_device_of_this_sort_is_a_kind_of_its_own() -> None:
    verifier = SampleVerifier(DEVICE)
    item = verifier.parse(ITEM | {"kind": "sampledevice"}, 1)
    found = verifier.verify(item, Trust(now=NOW, development=True))
    assert found.claims is not None
    assert set(found.claims.values) == {f"sampledevice.{name}" for name in CLAIMS}
    refused = verifier.verify(item, Trust(now=NOW))
    assert [check.id for check in refused.checks] == ["sample.development"]
    with pytest.raises(MalformedError, match="sampledevice"):
        verifier.parse(ITEM, 1)


def test_items_of_another_verifier_are_a_mistake_in_the_program() -> None:
    foreign = ParsedItem(kind="snp", index=0, core=b"", bound=b"", body=object())
    with pytest.raises(TypeError, match="snp"):
        VERIFIER.verify(foreign, Trust(now=NOW))
