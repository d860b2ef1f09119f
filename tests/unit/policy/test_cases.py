from __future__ import annotations

import json
from pathlib import Path

import pytest

from kbs.core.claims import Claims
from kbs.core.errors import MalformedError
from kbs.policy.cases import FolderResult, parse_case, parse_claims, run_folder
from tests.unit.policy.words import WORDS, policy_text

POLICY = policy_text(
    "[{safe: true}, {claim: cpu.measurement, in: {reference: images}},"
    " {claim: cpu.tcb, at_least: {micro: 3}}]"
)
GOOD: dict[str, object] = {
    "cpu": {
        "measurement": "aabbccdd",
        "debug": False,
        "vmpl": 0,
        "key": "own",
        "tcb": {"micro": 3},
        "advisories": ["A-1"],
    },
    "gpu": [{"cc": True}, {"cc": False}],
    "vtpm": {"pcr": {"sha256": {"15": "11" * 32}}, "ak": {"group": "hosts"}},
}
BAD: dict[str, object] = {"cpu": {"measurement": "ffffffff"}}
KEYS: dict[str, object] = {"keys": ["acme/model/chat"]}


def folder(
    tmp_path: Path, *, allow: object = None, deny: object = None, context: str = ""
) -> Path:
    (tmp_path / "policy.yaml").write_bytes(POLICY)
    (tmp_path / "context.yaml").write_text(
        context or "references: {images: [aabbccdd]}"
    )
    for kind, case in (("allow", allow), ("deny", deny)):
        (tmp_path / kind).mkdir()
        if case is not None:
            (tmp_path / kind / "one.json").write_text(json.dumps(case))
    return tmp_path


def run(
    tmp_path: Path, *, allow: object = None, deny: object = None, context: str = ""
) -> FolderResult:
    return run_folder(folder(tmp_path, allow=allow, deny=deny, context=context), WORDS)


ALLOW = {"claims": GOOD, "request": KEYS}
DENY = {"claims": BAD, "request": KEYS, "reasons": ["cpu.measurement", "cpu.debug"]}


def test_a_folder_whose_cases_come_out_right_passes(tmp_path: Path) -> None:
    result = run(tmp_path, allow=ALLOW, deny=DENY)
    assert result.passed
    assert [(case.name, case.passed) for case in result.cases] == [
        ("allow/one.json", True),
        ("deny/one.json", True),
    ]
    assert result.policy.policy.name == "test"
    assert result.cases[0].appraisals[0].appraisals[0].granted


@pytest.mark.parametrize(
    ("allow", "deny", "detail"),
    [
        ({"claims": BAD, "request": KEYS}, DENY, "denied: cpu.debug, cpu.vmpl"),
        (ALLOW, {"claims": GOOD, "request": KEYS}, "granted"),
        (ALLOW, {**DENY, "reasons": ["cpu.svn"]}, "denied, but not for cpu.svn"),
        (
            {"claims": GOOD, "request": {"keys": ["acme/data/x"]}},
            DENY,
            "denied: policy.none",
        ),
        (
            {"claims": GOOD, "request": {**KEYS, "door": "kms"}},
            DENY,
            "denied: request.door",
        ),
        (
            {"claims": GOOD, "request": {**KEYS, "freshness": "none"}},
            DENY,
            "denied: request.freshness",
        ),
        ({**ALLOW, "reasons": []}, DENY, "unknown member"),
        ({"claims": GOOD}, DENY, "no request"),
        ({"claims": GOOD, "request": {}}, DENY, "no keys"),
        ({"claims": GOOD, "request": {"keys": []}}, DENY, "at least one"),
        ({"claims": GOOD, "request": {"keys": ["x"]}}, DENY, "repository/type/tag"),
        ({"claims": [], "request": KEYS}, DENY, "an object"),
        ({"claims": GOOD, "request": {**KEYS, "when": 1}}, DENY, "unknown member"),
        ({"claims": GOOD, "request": {**KEYS, "time": "now"}}, DENY, "RFC 3339"),
        ({"claims": GOOD, "request": {**KEYS, "token_age": -1}}, DENY, "0 to"),
        ({"claims": GOOD, "request": {**KEYS, "development": 1}}, DENY, "true or"),
    ],
)
def test_a_case_that_comes_out_wrong_says_how(
    tmp_path: Path, allow: object, deny: object, detail: str
) -> None:
    result = run(tmp_path, allow=allow, deny=deny)
    assert not result.passed
    (failed,) = [case for case in result.cases if not case.passed]
    assert detail in failed.detail


def test_cases_of_both_kinds_are_needed(tmp_path: Path) -> None:
    result = run(tmp_path, deny=DENY)
    assert not result.passed
    assert result.problems == ("no case in allow/",)
    assert all(case.passed for case in result.cases)


def test_names_that_the_context_lacks_are_problems(tmp_path: Path) -> None:
    result = run(tmp_path, allow=ALLOW, deny=DENY, context="references: {x: [aa]}")
    assert result.problems == ("reference images does not exist",)


def test_a_folder_without_a_context_has_no_names(tmp_path: Path) -> None:
    folder(tmp_path, allow=ALLOW, deny=DENY)
    (tmp_path / "context.yaml").unlink()
    assert run_folder(tmp_path, WORDS).problems == ("reference images does not exist",)


def test_a_folder_without_a_policy_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match=r"policy\.yaml"):
        run_folder(tmp_path, WORDS)


def test_claims_are_typed_by_the_vocabulary() -> None:
    items = parse_claims(GOOD, WORDS, "case")
    assert [item.family for item in items] == ["cpu", "gpu", "gpu", "vtpm"]
    assert items[0].values["cpu.tcb"] == {"micro": 3}
    assert items[0].values["cpu.advisories"] == ("A-1",)
    assert items[3].values["vtpm.pcr.sha256.15"] == "11" * 32
    assert Claims(items=items, request={}).to_json() == GOOD
    (below,) = parse_claims({"cpu": {"svn": -1}}, WORDS, "case")
    assert below.values == {"cpu.svn": -1}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"cpu": {"measurment": "aabbccdd"}}, "did you mean cpu.measurement"),
        ({"cpu": {"measurement": "AABBCCDD"}}, "lower-case hex"),
        ({"cpu": {"measurement": 5}}, "a string"),
        ({"cpu": {"svn": "5"}}, "an integer"),
        ({"cpu": {"svn": True}}, "an integer"),
        ({"cpu": {"debug": 0}}, "true or false"),
        ({"cpu": {"raw": "5"}}, "16 lower-case"),
        ({"cpu": {"tcb": {"mikro": 1}}}, "unknown member"),
        ({"cpu": {"tcb": {"micro": "1"}}}, "an integer"),
        ({"cpu": {"tcb": 1}}, "an object"),
        ({"cpu": {"advisories": "x"}}, "a list"),
        ({"cpu": {"advisories": [1]}}, "a string"),
        ({"cpu": 5}, "no verifier gives"),
        ({"tpm": {"x": 1}}, "no verifier gives"),
        ({"request": {"door": "v1"}}, "under request"),
    ],
)
def test_claims_that_no_verifier_gives_are_refused(
    document: object, words: str
) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_claims(document, WORDS, "case")
    assert words in str(caught.value)


def test_an_empty_text_is_a_text() -> None:
    (item,) = parse_claims({"cpu": {"key": ""}}, WORDS, "case")
    assert item.values == {"cpu.key": ""}


def test_a_request_may_say_time_and_age() -> None:
    source = {
        "claims": {},
        "request": {
            **KEYS,
            "freshness": "token_age",
            "time": "2026-11-22T08:00:00Z",
            "token_age": 5,
            "development": True,
        },
    }
    case = parse_case(json.dumps(source).encode(), WORDS, "case", deny=False)
    assert case.development
    assert case.claims.request == {
        "request.door": "v1",
        "request.freshness": "token_age",
        "request.time": "2026-11-22T08:00:00Z",
        "request.token_age": 5,
    }


def test_a_context_that_the_broker_would_refuse_fails_the_folder(
    tmp_path: Path,
) -> None:
    """The broker activates no policy over such values: `reference.type`."""
    context = "references: {images: [aabbccdd, AABBCCDD]}"
    result = run(tmp_path, allow=DENY, deny=DENY, context=context)
    assert not result.passed
    (problem,) = result.problems
    assert "'AABBCCDD' is not of cpu.measurement's type" in problem
