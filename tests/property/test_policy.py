"""Properties of policies: logic, round trips, strict reading, no widening."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.core.claims import Claims, ClaimValue, ItemClaims
from kbs.core.decision import Denied, Granted
from kbs.core.encode import canonical_json
from kbs.core.errors import KbsError, MalformedError
from kbs.core.ids import parse_key_id
from kbs.policy.appraise import appraise, distance, failing
from kbs.policy.decide import ActivePolicy, appraise_key
from kbs.policy.logic import conjunction, disjunction, negation
from kbs.policy.parse import ParsedPolicy, parse_release_policy
from kbs.policy.yaml import Document, parse_yaml
from tests.unit.policy.words import V1, VIEW, WORDS, policy_text

TRUTH = st.sampled_from([True, False, None])
SVNS = st.integers(0, 3)
VISIBLE = st.characters(codec="utf-8", exclude_categories=["C", "Z"])

LEAVES = st.one_of(
    st.builds(
        lambda op, value: {"claim": "cpu.svn", op: value},
        st.sampled_from(["equals", "at_least", "at_most"]),
        SVNS,
    ),
    st.builds(
        lambda op, values: {"claim": "cpu.vmpl", op: values},
        st.sampled_from(["in", "not_in"]),
        st.lists(SVNS, min_size=1, max_size=3),
    ),
    st.builds(lambda value: {"claim": "cpu.debug", "equals": value}, st.booleans()),
    st.builds(lambda value: {"claim": "cpu.key", "present": value}, st.booleans()),
    st.builds(
        lambda text: {"claim": "cpu.key", "equals": text},
        st.text(
            st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1
        ),
    ),
    st.builds(
        lambda svn: {"claim": "cpu.tcb", "at_least": {"micro": svn}},
        SVNS,
    ),
    st.just({"claim": "cpu.measurement", "in": {"reference": "images"}}),
    st.builds(lambda number: {"count": "gpu", "at_least": number}, SVNS),
    st.just({"every": "gpu", "all": [{"claim": "gpu.cc", "equals": True}]}),
)
TREES: st.SearchStrategy[object] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda each: {"all": each}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda each: {"any": each}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda each: {"not": each}, inner),
    ),
    max_leaves=8,
)
EXCUSED = dict.fromkeys(
    ("cpu.debug", "cpu.vmpl", "cpu.key", "gpu.cc", "vtpm.ak.group"), "a property test"
)


@st.composite
def policies(draw: st.DrawFn, name: str = "drawn") -> ParsedPolicy:
    """A policy that registers: it needs evidence and excuses the rest."""
    rules = [
        {
            "rule": f"rule-{index}",
            "all": [{"claim": "cpu.svn", "at_least": 0}, draw(TREES)],
            "unsafe": EXCUSED,
        }
        for index in range(draw(st.integers(1, 2)))
    ]
    document = {
        "kind": "ReleasePolicy",
        "name": name,
        "releases": [
            draw(st.sampled_from(["acme/model/*", "acme/*/x", "acme/data/*"]))
        ],
        "allow": rules,
    }
    source = json.dumps(document, ensure_ascii=draw(st.booleans())).encode()
    return parse_release_policy(source, vocabulary=WORDS)


@st.composite
def evidence(draw: st.DrawFn) -> Claims:
    full: dict[str, st.SearchStrategy[ClaimValue]] = {
        "cpu.svn": SVNS,
        "cpu.vmpl": SVNS,
        "cpu.debug": st.booleans(),
        "cpu.key": st.sampled_from(["own", "x"]),
        "cpu.tcb": st.fixed_dictionaries({"micro": SVNS}),
        "cpu.measurement": st.sampled_from(["aabbccdd", "ffffffff"]),
    }
    named = draw(st.sets(st.sampled_from(sorted(full))))
    values = {name: draw(full[name]) for name in sorted(named)}
    gpus = [
        ItemClaims(family="gpu", item=index + 1, values={"gpu.cc": draw(st.booleans())})
        for index in range(draw(st.integers(0, 2)))
    ]
    return Claims(
        items=(ItemClaims(family="cpu", item=0, values=values), *gpus), request=dict(V1)
    )


@given(st.lists(TRUTH), st.lists(TRUTH))
def test_kleenes_laws_hold(left: list[bool | None], right: list[bool | None]) -> None:
    assert negation(conjunction(left)) is disjunction([negation(x) for x in left])
    assert negation(disjunction(left)) is conjunction([negation(x) for x in left])
    assert conjunction(left + right) is conjunction(right + left)
    assert disjunction(left + right) is disjunction(right + left)
    both = conjunction([conjunction(left), conjunction(right)])
    assert conjunction(left + right) is both
    either = disjunction([disjunction(left), disjunction(right)])
    assert disjunction(left + right) is either
    # Absorption: a and (a or b) is a.
    whole = conjunction(left)
    assert conjunction([whole, disjunction([whole, *right])]) is whole


@given(st.lists(TRUTH, min_size=1), st.integers(0, 20), st.booleans())
def test_learning_what_was_unknown_never_turns_true_into_false(
    values: list[bool | None],
    at: int,
    learned: bool,  # noqa: FBT001
) -> None:
    position = at % len(values)
    if values[position] is not None:
        return
    known = [*values[:position], learned, *values[position + 1 :]]
    for join in (conjunction, disjunction):
        before, after = join(values), join(known)
        assert before is None or before is after


@settings(max_examples=60)
@given(policies())
def test_the_canonical_form_reads_back_as_the_same_policy(parsed: ParsedPolicy) -> None:
    again = parse_release_policy(parsed.canonical, vocabulary=WORDS)
    assert again.policy == parsed.policy
    assert again.canonical == parsed.canonical
    assert again.digest == parsed.digest
    assert canonical_json(again.policy.to_json()) == parsed.canonical


@settings(max_examples=60)
@given(policies(), evidence())
def test_a_denial_has_reasons_and_a_grant_has_a_true_rule(
    parsed: ParsedPolicy, claims: Claims
) -> None:
    appraisal = appraise(parsed, claims, VIEW)
    results = [result.result for result in appraisal.rules]
    assert appraisal.granted is (True in results)
    for result in appraisal.rules:
        assert (result.distance == 0) is (result.result is True)
        assert bool(failing(result.tree, wanted=True)) is (result.result is not True)
        assert distance(result.tree, wanted=True) <= len(
            failing(result.tree, wanted=True)
        )
    if isinstance(appraisal.decision, Denied):
        assert appraisal.decision.reasons[0].rule == appraisal.nearest.rule
    assert appraise(parsed, claims, VIEW) == appraisal


@settings(max_examples=60)
@given(
    st.lists(policies(), max_size=3),
    policies(name="added"),
    evidence(),
    st.sampled_from(["acme/model/x", "acme/data/x", "acme/other/y"]),
)
def test_adding_a_policy_to_a_governed_key_never_widens_access(
    given_policies: list[ParsedPolicy],
    added: ParsedPolicy,
    claims: Claims,
    key_text: str,
) -> None:
    key = parse_key_id(key_text)
    before = [ActivePolicy(parsed=each, version=1) for each in given_policies]
    after = [*before, ActivePolicy(parsed=added, version=1)]
    old = appraise_key(before, key, claims, VIEW)
    new = appraise_key(after, key, claims, VIEW)
    if old.appraisals and isinstance(new.decision, Granted):
        assert isinstance(old.decision, Granted)
    if not new.appraisals:
        assert isinstance(new.decision, Denied)


PLACED = re.compile(r"policy\.yaml line [1-9][0-9]* column [1-9][0-9]*\b")

TOKENS = (
    *("a", "b", ":", " ", "\n", "- ", "[", "]", "{", "}", ",", "&x", "*x", "!!str "),
    *("no", "1", "017", "1.5", "'", '"', "\\ud800", "\\x01", "#", "---", "\t"),
    *("? ", "|", ">", "%YAML 1.1", "<<", "~", "\ufeff", "é", "\x85"),
)
YAML_LIKE = st.lists(st.sampled_from(TOKENS), max_size=40).map("".join)


def read(source: bytes) -> Document | MalformedError:
    """What came of it; any other exception is a failure of the test."""
    try:
        return parse_yaml(source, "policy.yaml")
    except MalformedError as exc:
        return exc


@given(st.one_of(st.binary(max_size=200), YAML_LIKE.map(str.encode)))
def test_any_bytes_are_a_value_or_an_error_with_a_place(source: bytes) -> None:
    result = read(source)
    if isinstance(result, MalformedError):
        assert PLACED.match(str(result))
        return
    # What was read has a canonical form that is read back as the same value.
    assert parse_yaml(canonical_json(result.value), "p").value == result.value


JSON_VALUES: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON_VALUES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_json_is_yaml(
    value: object,
    indent: int | str | None,
    ascii_only: bool,  # noqa: FBT001
) -> None:
    source = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(
        "utf-8", "surrogatepass"
    )
    result = read(source)
    if isinstance(result, MalformedError):
        # Only what nobody can see is refused.
        assert "U+" in str(result) or "surrogate" in str(result)
    else:
        assert result.value == value


@given(st.binary(max_size=80), st.integers(0, 200))
def test_a_policy_with_anything_in_it_is_a_policy_or_an_error(
    noise: bytes, at: int
) -> None:
    whole = policy_text("[{safe: true}, {claim: cpu.svn, equals: 1}]")
    source = whole[: at % len(whole)] + noise + whole[at % len(whole) :]
    refused: KbsError | None = None
    try:
        parse_release_policy(source, vocabulary=WORDS, what="policy.yaml")
    except KbsError as exc:
        refused = exc
    assert refused is None or isinstance(refused, MalformedError)
    assert refused is None or PLACED.match(str(refused))


@pytest.mark.parametrize("size", [1, 16, 32, 33, 34, 200, 5000])
def test_depth_is_bounded_without_recursion_errors(size: int) -> None:
    result = read(b"[" * size + b"]" * size)
    assert isinstance(result, MalformedError) is (size > 33)
