from __future__ import annotations

import hashlib

import pytest

from kbs.core.encode import parse_json_object
from kbs.core.errors import MalformedError
from kbs.policy.model import (
    Accept,
    Components,
    Count,
    DigestStep,
    Door,
    Every,
    Freshness,
    Leaf,
    Measured,
    Not,
    Operator,
    Reference,
    Values,
    WorkloadStep,
    parts_of,
)
from kbs.policy.parse import PolicyError, parse_release_policy
from tests.unit.policy.words import WORDS, parsed, policy_text

GOOD = "[{safe: true}, {claim: cpu.measurement, in: {reference: images}}]"


def problems(source: bytes) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_release_policy(source, vocabulary=WORDS, what="policy.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_a_policy_becomes_a_model_with_its_defaults() -> None:
    policy = parsed(GOOD).policy
    assert policy.name == "test"
    assert policy.tenant == "acme"
    assert policy.accept == Accept(
        doors=(Door.V1, Door.RCAR), freshness=Freshness.CHALLENGE
    )
    assert not policy.tolerate_missing_revocation
    assert policy.allow[0].tree.children[1] == Leaf(
        Operator.IN, "cpu.measurement", Reference("images")
    )


def test_the_digest_is_over_the_canonical_model() -> None:
    one = parsed(GOOD)
    assert one.digest == hashlib.sha256(one.canonical).hexdigest()
    spaced = policy_text(GOOD.replace(", ", " ,\n       ")) + b"# comment\n"
    assert parse_release_policy(spaced, vocabulary=WORDS).digest == one.digest
    written_out = policy_text(
        GOOD,
        tail="accept: {freshness: challenge, doors: [v1, rcar]}\n"
        "revocation: {tolerate_missing: false}\n",
    )
    assert parse_release_policy(written_out, vocabulary=WORDS).digest == one.digest


EVERYTHING = """[
  {safe: true},
  {claim: cpu.measurement, in: [aabbccdd, "00112233"]},
  {claim: cpu.tcb, at_least: {micro: 3, boot: 1}},
  {claim: cpu.tcb.fmc, at_most: 9},
  {claim: cpu.raw, at_least: "00000000000000ff"},
  {claim: cpu.build, at_most: "1.2.3"},
  {claim: cpu.key, matches: "o.*"},
  {claim: cpu.blob, present: false},
  {claim: cpu.advisories, equals: []},
  {claim: cpu.since, at_least: "2026-01-01T00:00:00Z"},
  {claim: "vtpm[0].ak.group", equals: x},
  {claim: vtpm.ak.ca, equals: tpm-ca},
  {claim: vtpm.pcr.sha256.15, measures: {workload_policy: runtime, version: 1}},
  {claim: cpu.host_data, measures: {workload_policy: shared/agent, version: 2}},
  {claim: vtpm.pcr.sha256.1, measures: {sequence: [{digest: "DIGEST"},
     {workload_policy: acme/runtime, version: 1}]}},
  {any: [{not: {claim: cpu.svn, equals: 3}}, {count: gpu, equals: 0}]},
  {every: gpu, any: [{claim: gpu.cc, equals: true}]},
  {count: gpu, at_least: 1}
]""".replace("DIGEST", "11" * 32)


def test_every_construct_reads_back_from_its_canonical_form() -> None:
    one = parsed(
        EVERYTHING,
        tail=(
            "accept: {doors: [kms], freshness: token_age, max_age: 300}\n"
            "revocation: {tolerate_missing: true}\n"
            "unsafe: {request.freshness: unused here}\n"
            "description: 'ünïcode \"quoted\"'\n"
        ),
        unsafe="{vtpm.ak.group: only a laboratory}",
    )
    again = parse_release_policy(one.canonical, vocabulary=WORDS)
    assert again.policy == one.policy
    assert again.canonical == one.canonical
    assert parse_json_object(one.canonical, "p", limit=10**6) == one.policy.to_json()
    kinds = {type(part) for part in parts_of(one.policy.allow[0].tree)}
    assert {Not, Every, Count, Leaf} <= kinds
    operands = [
        part.operand
        for part in parts_of(one.policy.allow[0].tree)
        if isinstance(part, Leaf)
    ]
    assert Components((("boot", 1), ("micro", 3))) in operands
    assert Values(()) in operands
    assert (
        Measured((DigestStep("11" * 32), WorkloadStep("acme/runtime", 1)), listed=True)
        in operands
    )


def test_dependencies_name_everything_that_has_to_exist() -> None:
    needs = parsed(EVERYTHING).policy.dependencies()
    assert needs.workload_policies == {
        ("runtime", 1),
        ("shared/agent", 2),
        ("acme/runtime", 1),
    }
    assert needs.ak_groups == {"x"}
    assert needs.cas == {"tpm-ca"}
    assert needs.references == frozenset()
    listed = parsed(
        "[{safe: true}, {claim: vtpm.ak.group, in: [a, b]},"
        " {claim: vtpm.ak.ca, present: false},"
        " {claim: cpu.measurement, not_in: {reference: old}}]"
    ).policy.dependencies()
    assert listed.ak_groups == {"a", "b"}
    assert listed.references == {"old"}


@pytest.mark.parametrize(
    ("condition", "column", "words"),
    [
        ("{claim: cpu.measurment, equals: aabbccdd}", 19, "did you mean cpu.measurem"),
        ("{claim: cpu.tcb.mikro, at_least: 1}", 19, "did you mean cpu.tcb.micro"),
        ("{claim: nothing.like.it, present: true}", 19, "unknown name"),
        ("{claim: CPU.SVN, present: true}", 19, "unknown name"),
        ("{claim: 5, present: true}", 19, "a string"),
        ("{claim: cpu.svn, atleast: 1}", 28, "did you mean at_least"),
        ("{claim: cpu.svn}", 11, "no operator"),
        ("{claim: cpu.svn, equals: 1, in: [1]}", 11, "exactly one operator"),
        ("{claim: cpu.svn, equals: '1'}", 36, "an integer"),
        ("{claim: cpu.svn, equals: true}", 36, "an integer"),
        ("{claim: cpu.debug, equals: 0}", 38, "true or false"),
        ("{claim: cpu.debug, at_least: true}", 30, "operator at_least"),
        ("{claim: cpu.measurement, equals: aabb}", 44, "4 bytes as 8"),
        ("{claim: cpu.measurement, equals: AABBCCDD}", 44, "it has upper-case ones"),
        ("{claim: cpu.measurement, equals: aabbccxy}", 44, "'aabbccxy', expected 4"),
        ("{claim: cpu.measurement, equals: 11223344}", 44, "quote it"),
        ("{claim: cpu.measurement, at_least: aabbccdd}", 36, "operator at_least"),
        ("{claim: cpu.blob, equals: abc}", 37, "lower-case hex"),
        ("{claim: cpu.measurement, equals: " + "ab" * 40 + "}", 44, "…', expected"),
        ("{claim: cpu.measurement, in: []}", 40, "0 elements"),
        ("{claim: cpu.measurement, in: aabbccdd}", 40, "a list"),
        ("{claim: cpu.measurement, in: {references: x}}", 41, "unknown member"),
        ("{claim: cpu.measurement, in: {reference: a/b/c}}", 52, "TENANT/NAME"),
        ("{claim: cpu.measurement, in: {reference: rival/x}}", 40, "another tenant"),
        ("{claim: cpu.raw, equals: ff}", 36, "16 lower-case hex"),
        ("{claim: cpu.raw, equals: 5}", 36, "quote it"),
        ("{claim: cpu.build, equals: v1.2}", 38, "dot-separated"),
        ("{claim: cpu.key, at_least: v1.2}", 38, "dot-separated"),
        ("{claim: cpu.since, at_least: yesterday}", 40, "RFC 3339"),
        ("{claim: cpu.since, in: [x]}", 30, "operator in"),
        ("{claim: cpu.tcb, at_least: {mikro: 1}}", 39, "did you mean micro"),
        ("{claim: cpu.tcb, at_least: {}}", 38, "at least one"),
        ("{claim: cpu.tcb, at_least: {micro: -1}}", 46, "0 to"),
        ("{claim: cpu.tcb, at_least: 7}", 38, "a mapping"),
        ("{claim: cpu.key, matches: '('}", 37, "RE2"),
        ("{claim: cpu.key, matches: '(?=a)b'}", 37, "RE2"),
        ("{claim: cpu.key, matches: '(?:a{1,900}){1,900}'}", 37, "RE2"),
        ("{claim: cpu.svn, matches: '1'}", 28, "operator matches"),
        ("{claim: cpu.advisories, equals: x}", 43, "a list"),
        ("{claim: cpu.svn, present: maybe}", 37, "true or false"),
        ("{claim: cpu.svn, measures: {}}", 28, "no register"),
        ("{claim: cpu.host_data, measures: {}}", 44, "workload_policy"),
        ("{claim: cpu.host_data, measures: {sequence: []}}", 45, "set, not extended"),
        (
            "{claim: vtpm.pcr.sha256.15, measures: {workload_policy: x, version: 0}}",
            79,
            "1 to",
        ),
        (
            "{claim: vtpm.pcr.sha256.15, measures: {sequence: [{digest: 'aa'}]}}",
            70,
            "32 bytes as 64",
        ),
        (
            (
                "{claim: vtpm.pcr.sha256.15,"
                " measures: {workload_policy: rival/x, version: 1}}"
            ),
            49,
            "another tenant",
        ),
        ("{all: []}", 17, "1 to 256"),
        ("{any: []}", 17, "1 to 256"),
        ("{all: [{claim: cpu.svn, equals: 1}], any: []}", 48, "unknown member"),
        ("{}", 11, "empty mapping"),
        ("{some: x}", 11, "one of claim"),
        ("text", 11, "a mapping"),
        ("{not: [{claim: cpu.svn, equals: 1}]}", 17, "a mapping"),
        ("{not: {safe: true}}", 18, "rule's own all"),
        ("{all: [{safe: true}]}", 19, "rule's own all"),
        ("{safe: false}", 18, "expected true"),
        ("{every: gpus, all: [{claim: gpu.cc, equals: true}]}", 19, "did you mean gpu"),
        (
            "{every: request, all: [{claim: gpu.cc, equals: true}]}",
            19,
            "unknown family",
        ),
        ("{every: gpu}", 11, "all or any"),
        ("{every: gpu, all: [{claim: cpu.svn, equals: 1}]}", 38, "a claim of gpu"),
        (
            '{every: gpu, all: [{claim: "gpu[0].cc", equals: true}]}',
            38,
            "without an index",
        ),
        ('{claim: "request[0].door", equals: v1}', 19, "without an index"),
        ("{every: gpu, all: [{count: gpu, at_least: 1}]}", 30, "inside every gpu"),
        ("{count: gpu}", 11, "no operator"),
        ("{count: gpu, in: [1]}", 24, "unknown member"),
        ("{count: gpu, at_least: -1}", 34, "0 to"),
        ("{count: gpu, at_least: 1, at_most: 2}", 11, "exactly one"),
    ],
)
def test_a_wrong_condition_is_named_with_its_place(
    condition: str, column: int, words: str
) -> None:
    good = "{claim: cpu.measurement, equals: aabbccdd}"
    found = problems(policy_text(f"\n      - {good}\n      -   {condition}"))
    assert found[0].startswith(f"policy.yaml line 8 column {column}: ")
    assert words in found[0]


GOOD_RULE = "[{rule: a, all: " + GOOD + "}]"


def whole(**changes: str | None) -> bytes:
    members: dict[str, str | None] = {
        "kind": "ReleasePolicy",
        "name": "test",
        "releases": '["acme/model/*"]',
        "allow": GOOD_RULE,
    }
    members.update(changes)
    lines = [f"{name}: {value}" for name, value in members.items() if value is not None]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"kind": "~"}, "1 column 7", "got null"),
        ({"kind": "WorkloadPolicy"}, "1 column 7", "expected ReleasePolicy"),
        ({"name": "Big Name"}, "2 column 7", "a-z 0-9"),
        ({"name": "5"}, "2 column 7", "quote it"),
        ({"name": None}, "1 column 1", "no name"),
        ({"extra": "1"}, "5 column 1", "unknown member 'extra'"),
        ({"releases": "[]"}, "3 column 11", "1 to 64"),
        ({"releases": "acme/model/*"}, "3 column 11", "a list"),
        ({"releases": "['acme/model']"}, "3 column 12", "repository/type/tag"),
        ({"releases": "['*/model/x']"}, "3 column 12", "repository/type/tag"),
        ({"releases": "['ac*/model/x']"}, "3 column 12", "repository/type/tag"),
        ({"releases": "['acme/**/x']"}, "3 column 12", "repository/type/tag"),
        ({"releases": "['acme/model/x/y']"}, "3 column 12", "repository/type/tag"),
        ({"releases": "['acme/model/X']"}, "3 column 12", "repository/type/tag"),
        ({"releases": "[a/b/c, x/b/c]"}, "3 column 19", "one tenant"),
        ({"releases": "[a/b/c, a/b/c]"}, "3 column 19", "twice"),
        ({"allow": "[]"}, "4 column 8", "1 to 256"),
        ({"allow": "[{all: []}]"}, "4 column 9", "no rule"),
        ({"allow": "[{rule: a, every: gpu}]"}, "4 column 19", "unknown member"),
        ({"allow": "[{rule: a}]"}, "4 column 9", "all or any"),
        ({"allow": "[{rule: A b, all: [{safe: true}]}]"}, "4 column 16", "rule name"),
        ({"allow": GOOD_RULE[:-1] + ", " + GOOD_RULE[1:]}, "4 column", "a twice"),
        ({"accept": "{doors: []}"}, "5 column 17", "1 to"),
        ({"accept": "{doors: [front]}"}, "5 column 18", "each once"),
        ({"accept": "{doors: [v1, v1]}"}, "5 column 22", "each once"),
        ({"accept": "{freshness: old}"}, "5 column 21", "challenge, token_age"),
        ({"accept": "{freshness: token_age}"}, "5 column 9", "max_age"),
        ({"accept": "{max_age: 5}"}, "5 column 9", "token_age"),
        ({"accept": "{freshness: token_age, max_age: 0}"}, "5 column 41", "1 to"),
        ({"accept": "{freshness: none}"}, "5 column 9", "unsafe"),
        ({"accept": "{window: 1}"}, "5 column 10", "unknown member"),
        ({"revocation": "{}"}, "5 column 13", "tolerate_missing"),
        ({"revocation": "{tolerate_missing: 1}"}, "5 column 32", "true or false"),
        ({"unsafe": "{request.freshness: '...'}"}, "5 column 29", "reason in words"),
        ({"unsafe": "{requst.freshness: x y}"}, "5 column 10", "did you mean request"),
        ({"description": "''"}, "5 column 14", "1 to 4096"),
    ],
)
def test_a_wrong_member_is_named_with_its_place(
    changes: dict[str, str | None], place: str, words: str
) -> None:
    found = problems_or_first(whole(**changes))
    assert found.startswith(f"policy.yaml line {place}")
    assert words in found


def problems_or_first(source: bytes) -> str:
    with pytest.raises(MalformedError) as caught:
        parse_release_policy(source, vocabulary=WORDS, what="policy.yaml")
    return str(caught.value)


def test_a_list_is_no_policy() -> None:
    assert "a mapping" in problems_or_first(b"[1]")


def test_another_kind_is_said_beside_the_members_that_miss() -> None:
    for text in (b"kind: Foo\nname: x\n", b"kind: Foo\nspec: {}\n"):
        with pytest.raises(PolicyError) as caught:
            parse_release_policy(text, vocabulary=WORDS)
        first, second = caught.value.problems
        assert "kind: got 'Foo', expected ReleasePolicy" in str(first)
        assert "ReleasePolicy: got " in str(second)
    with pytest.raises(MalformedError) as one:
        parse_release_policy(b"kind: ReleasePolicy\nname: x\n", vocabulary=WORDS)
    assert str(one.value).endswith(
        "got no allow, releases, expected all of allow, kind, name, releases"
    )


def test_all_problems_are_found_in_one_run() -> None:
    found = problems(
        whole(
            name="Bad Name",
            releases="[x]",
            allow="[{rule: a, all: [{claim: a.b, equals: 1}, {claim: cpu.svn}],"
            " unsafe: {a.b: why ever}}]",
        )
    )
    assert len(found) == 5
    message = str(PolicyError(tuple(MalformedError(text) for text in found)))
    assert message.endswith("(and 4 more)")


def test_no_excuse_is_needed_where_every_rule_has_one() -> None:
    accepted = whole(
        accept="{freshness: none}",
        allow=GOOD_RULE.replace(
            "all:", "unsafe: {request.freshness: recorded evidence}, all:"
        ),
    )
    read = parse_release_policy(accepted, vocabulary=WORDS)
    assert read.policy.accept.freshness is Freshness.NONE
    assert not any("excuses nothing" in one for one in read.warnings)
    beside = whole(
        accept="{freshness: none}", unsafe="{request.freshness: recorded evidence}"
    )
    read = parse_release_policy(beside, vocabulary=WORDS)
    assert read.policy.unsafe
    assert not any("excuses nothing" in one for one in read.warnings)


def test_an_excuse_that_stands_in_the_wrong_place_excuses_nothing() -> None:
    reason = "{request.freshness: recorded evidence, cpu.vmpl: a test bench}"
    for source, claims in (
        (whole(unsafe=reason), ["cpu.vmpl", "request.freshness"]),
        (whole(accept="{freshness: none}", unsafe=reason), ["cpu.vmpl"]),
    ):
        warnings = parse_release_policy(source, vocabulary=WORDS).warnings
        found = [one.split()[1] for one in warnings if "of the policy excuses" in one]
        assert found == claims


def test_a_policy_that_grows_too_large_to_be_read_again_is_refused() -> None:
    """Quotes are written with an escape in canonical JSON."""
    reason = "{cpu.vmpl: 'quoted " + '"' * 1000 + "'}"
    rule = GOOD_RULE.strip("[]")
    rules = ", ".join(
        rule.replace("rule: a,", f"rule: a{number}, unsafe: {reason},")
        for number in range(180)
    )
    source = whole(allow=f"[{rules}]")
    assert len(source) < 256 * 1024
    assert "in canonical JSON: got " in problems_or_first(source)


def test_a_registered_policy_keeps_what_it_was_registered_with() -> None:
    """Refusing it would take its keys from everybody."""
    source = whole(description="a\u200fb")
    assert "U+200F" in problems_or_first(source)
    again = parse_release_policy(source, vocabulary=WORDS, registered=True)
    assert again.policy.description == "a\u200fb"


def test_json_is_read_as_well() -> None:
    one = parsed(GOOD)
    text = one.canonical.decode().replace(",", ",\n\t")
    assert parse_release_policy(text.encode(), vocabulary=WORDS).digest == one.digest


def test_what_newer_verifiers_ask_is_a_warning_for_a_registered_policy() -> None:
    source = policy_text("[{claim: cpu.measurement, equals: aabbccdd}]")
    assert len(problems(source)) == 3
    again = parse_release_policy(source, vocabulary=WORDS, registered=True)
    assert sum("left open" in warning for warning in again.warnings) == 3
