from __future__ import annotations

import pytest

from kbs.core.claims import ClaimSpec
from kbs.policy.analysis import name_of, permitted
from kbs.policy.appraise import appraise
from kbs.policy.evaluate import Outcome
from kbs.policy.model import Leaf, Operator
from kbs.policy.parse import PolicyError, parse_release_policy
from tests.unit.policy.words import VIEW, WORDS, claims, parsed, policy_text

CPU = (
    "{claim: cpu.measurement, equals: aabbccdd}, {claim: cpu.debug, equals: false},"
    " {claim: cpu.vmpl, equals: 0}, {claim: cpu.key, equals: own}"
)
GROUP = "{claim: vtpm.ak.group, equals: hosts}"
MEASURES = (
    "{claim: vtpm.pcr.sha256.15, measures: {workload_policy: runtime, version: 1}}"
)
BOOT = "{claim: vtpm.pcr.sha256.0, equals: '" + "11" * 32 + "'}"


def open_claims(conditions: str, unsafe: str = "") -> list[str]:
    """The claims that stand open in the errors, in order; empty if it registers."""
    try:
        parsed(conditions, unsafe=unsafe)
    except PolicyError as exc:
        return [str(each).split(": ")[1].split()[2] for each in exc.problems]
    return []


def cpu(debug: str = "", vmpl: str = "", key: str = "") -> str:
    text = CPU
    if debug:
        text = text.replace("{claim: cpu.debug, equals: false}", debug)
    if vmpl:
        text = text.replace("{claim: cpu.vmpl, equals: 0}", vmpl)
    if key:
        text = text.replace("{claim: cpu.key, equals: own}", key)
    return f"[{text}]"


@pytest.mark.parametrize(
    ("conditions", "claims_open"),
    [
        (cpu(), []),
        ("[{safe: true}, {claim: cpu.svn, equals: 1}]", []),
        (
            "[{claim: cpu.svn, equals: 1}]",
            ["cpu.debug", "cpu.vmpl", "cpu.key"],
        ),
        # Fixed to what is dangerous.
        (cpu(debug="{claim: cpu.debug, equals: true}"), ["cpu.debug"]),
        (cpu(debug="{claim: cpu.debug, in: [true, false]}"), ["cpu.debug"]),
        (cpu(vmpl="{claim: cpu.vmpl, in: [0, 1]}"), ["cpu.vmpl"]),
        (cpu(vmpl="{claim: cpu.vmpl, at_most: 1}"), ["cpu.vmpl"]),
        (cpu(key="{claim: cpu.key, equals: other}"), ["cpu.key"]),
        (cpu(debug="{safe: true}, {claim: cpu.debug, equals: true}"), ["cpu.debug"]),
        # Fixed to what is acceptable, in other words.
        (cpu(debug="{claim: cpu.debug, not_in: [true]}"), []),
        (cpu(debug="{not: {claim: cpu.debug, equals: true}}"), []),
        (cpu(debug="{not: {claim: cpu.debug, in: [true]}}"), []),
        (cpu(debug="{not: {claim: cpu.debug, not_in: [false]}}"), []),
        (cpu(debug="{not: {not: {claim: cpu.debug, equals: false}}}"), []),
        (cpu(vmpl="{claim: cpu.vmpl, at_most: 0}"), []),
        (cpu(vmpl="{not: {claim: cpu.vmpl, at_least: 1}}"), []),
        (
            cpu(vmpl="{claim: cpu.vmpl, at_most: 3}, {claim: cpu.vmpl, in: [0, 7]}"),
            [],
        ),
        (cpu(key="{claim: cpu.key, in: [own, cloud]}"), []),
        # Only said in some of the ways through the rule.
        (
            cpu(debug="{any: [{claim: cpu.debug, equals: false}, " + GROUP + "]}"),
            ["cpu.debug", "vtpm.ak.group"],
        ),
        (
            cpu(
                debug="{any: [{claim: cpu.debug, equals: false},"
                " {claim: cpu.debug, in: [false]}]}"
            ),
            [],
        ),
        (
            cpu(
                debug="{not: {all: [{claim: cpu.debug, equals: true},"
                " {claim: cpu.svn, equals: 1}]}}"
            ),
            ["cpu.debug"],
        ),
        (
            cpu(
                debug="{not: {any: [{claim: cpu.debug, equals: true},"
                " {claim: cpu.svn, equals: 1}]}}"
            ),
            [],
        ),
        # Nothing that fixes a value.
        (cpu(debug="{claim: cpu.debug, present: true}"), ["cpu.debug"]),
        (cpu(vmpl="{claim: cpu.vmpl, at_least: 0}"), ["cpu.vmpl"]),
        (cpu(vmpl="{claim: cpu.vmpl, at_most: 99}"), ["cpu.vmpl"]),
        (cpu(vmpl="{not: {claim: cpu.vmpl, equals: 1}}"), ["cpu.vmpl"]),
        (cpu(vmpl="{not: {claim: cpu.vmpl, at_most: 5}}"), ["cpu.vmpl"]),
        (cpu(vmpl='{claim: "cpu[0].vmpl", equals: 0}'), ["cpu.vmpl"]),
        (cpu(key="{claim: cpu.key, matches: own}"), ["cpu.key"]),
        (cpu(key="{claim: cpu.key, in: {reference: keys}}"), ["cpu.key"]),
        # Whose attestation keys count is nothing that safe could know.
        (f"[{BOOT}]", ["vtpm.ak.group"]),
        (f"[{{safe: true}}, {BOOT}]", ["vtpm.ak.group"]),
        (f"[{GROUP}, {BOOT}]", []),
        ("[{claim: vtpm.ak.ca, in: [a]}, " + BOOT + "]", []),
        ("[{claim: vtpm.ak.group, in: {reference: r}}, " + BOOT + "]", []),
        ("[{claim: vtpm.ak.group, present: true}, " + BOOT + "]", ["vtpm.ak.group"]),
        ("[{not: " + GROUP + "}, " + BOOT + "]", ["vtpm.ak.group"]),
        ("[{claim: vtpm.ak.group, not_in: [x]}]", ["vtpm.ak.group"]),
        ("[{not: {claim: vtpm.ak.group, not_in: [x]}}]", []),
        ('[{claim: "vtpm[0].ak.group", equals: x}]', ["vtpm.ak.group"]),
        (
            "[{any: [" + GROUP + ", {claim: vtpm.ak.ca, equals: a}]}, " + BOOT + "]",
            [],
        ),
        ("[{every: vtpm, all: [" + GROUP + "]}]", []),
        ("[{not: {every: vtpm, all: [" + GROUP + "]}}, " + GROUP + "]", []),
        # Several items.
        ("[{every: gpu, all: [{claim: gpu.cc, equals: true}]}]", []),
        ("[{every: gpu, all: [{claim: gpu.cc, equals: false}]}]", ["gpu.cc"]),
        ("[{count: gpu, at_least: 1}]", ["gpu.cc"]),
        (
            (
                "[{not: {every: gpu, all: [{claim: gpu.cc, equals: false}]}},"
                " {count: gpu, at_least: 1}]"
            ),
            ["gpu.cc"],
        ),
        # What was set is not yet enforced.
        (f"[{GROUP}, {MEASURES}]", ["vtpm.pcr.sha256.15"]),
        (f"[{GROUP}, {MEASURES}, {BOOT}]", []),
        (f"[{GROUP}, {MEASURES}, {CPU}]", []),
        (f"[{GROUP}, {MEASURES}, {{not: {BOOT}}}]", ["vtpm.pcr.sha256.15"]),
        (
            f"[{GROUP}, {MEASURES}, {BOOT.replace('11', '00')}]",
            ["vtpm.pcr.sha256.15"],
        ),
        (
            f"[{GROUP}, {MEASURES}, {{any: [{BOOT}, {GROUP}]}}]",
            ["vtpm.pcr.sha256.15"],
        ),
        (
            f"[{GROUP}, {MEASURES}, {BOOT.replace('vtpm.', 'vtpm[1].', 1)}]".replace(
                "claim: vtpm[1]", "claim: 'vtpm[1]"
            ).replace("0, equals", "0', equals"),
            ["vtpm.pcr.sha256.15"],
        ),
        (
            (
                f"[{GROUP}, {MEASURES},"
                " {claim: vtpm.pcr.sha256.0, in: {reference: boots}}]"
            ),
            [],
        ),
        # Registers that reset.
        (
            f"[{GROUP}, {BOOT}, {{claim: vtpm.pcr.sha256.16, equals: '{'22' * 32}'}}]",
            ["vtpm.pcr.sha256.16"],
        ),
        (
            f"[{GROUP}, {MEASURES.replace('.15', '.16')}]",
            ["vtpm.pcr.sha256.16", "vtpm.pcr.sha256.16"],
        ),
    ],
)
def test_what_is_dangerous_to_leave_open_is_an_error(
    conditions: str, claims_open: list[str]
) -> None:
    assert open_claims(conditions) == claims_open


@pytest.mark.parametrize(
    ("conditions", "excuse"),
    [
        (cpu(debug="{claim: cpu.debug, equals: true}"), "cpu.debug"),
        (f"[{BOOT}]", "vtpm.ak.group"),
        (f"[{BOOT}]", "vtpm.ak.ca"),
        (f"[{GROUP}, {MEASURES}]", "vtpm.pcr.sha256.15"),
        (f"[{GROUP}, {MEASURES.replace('.15', '.16')}]", "vtpm.pcr.sha256.16"),
    ],
)
def test_a_reason_excuses(conditions: str, excuse: str) -> None:
    assert open_claims(conditions)
    assert not open_claims(conditions, f"{{{excuse}: a test bench}}")


@pytest.mark.parametrize(
    "conditions",
    [
        "[{claim: request.door, equals: v1}]",
        "[{safe: true}]",
        "[{safe: true}, {claim: cpu.svn, present: false}]",
        "[{safe: true}, {not: {claim: cpu.svn, present: true}}]",
        "[{safe: true}, {count: gpu, at_most: 3}]",
        "[{safe: true}, {count: gpu, at_least: 0}]",
        "[{safe: true}, {not: {count: gpu, at_least: 3}}]",
        "[{safe: true}, {not: {every: gpu, all: [{claim: gpu.cc, equals: true}]}}]",
        (
            "[{safe: true}, {any: [{claim: cpu.svn, equals: 1},"
            " {claim: request.door, equals: v1}]}]"
        ),
    ],
)
def test_a_way_through_without_evidence_is_an_error(conditions: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parsed(conditions)
    assert "without any evidence" in str(caught.value)


@pytest.mark.parametrize(
    "conditions",
    [
        "[{safe: true}, {claim: cpu.svn, present: true}]",
        "[{safe: true}, {not: {claim: cpu.svn, present: false}}]",
        "[{safe: true}, {count: gpu, equals: 2}]",
        "[{safe: true}, {every: gpu, any: [{claim: gpu.cc, equals: true}]}]",
    ],
)
def test_presence_and_number_are_evidence(conditions: str) -> None:
    assert parsed(conditions).policy.allow


def expanded(conditions: str, unsafe: str = "") -> list[tuple[str, str | None, object]]:
    appraisal = appraise(parsed(conditions, unsafe=unsafe), claims(), VIEW)
    safe = appraisal.rules[0].tree.children[0]
    assert isinstance(safe, Outcome)
    assert safe.op == "safe"
    return [(child.op, child.claim, child.expected) for child in safe.children]


def test_safe_expands_to_all_that_the_rule_leaves_open() -> None:
    assert expanded("[{safe: true}, {claim: cpu.svn, equals: 1}]") == [
        ("equals", "cpu.debug", False),
        ("equals", "cpu.vmpl", 0),
        ("in", "cpu.key", ["own", "own2"]),
    ]
    narrowed = "[{safe: true}, {claim: cpu.key, equals: cloud}]"
    assert expanded(narrowed) == [
        ("equals", "cpu.debug", False),
        ("equals", "cpu.vmpl", 0),
    ]
    excused = expanded(narrowed, "{cpu.debug: a test bench}")
    assert excused == [("equals", "cpu.vmpl", 0)]


def test_safe_holds_for_every_item_where_a_rule_expects_several() -> None:
    for conditions in (
        "[{safe: true}, {count: gpu, at_least: 1}]",
        "[{safe: true}, {claim: 'gpu[0].driver', equals: x}]",
        "[{safe: true}, {every: gpu, all: [{claim: gpu.driver, equals: x}]}]",
    ):
        assert expanded(conditions) == [("every", "gpu", None)]
    assert expanded("[{safe: true}, {claim: gpu.driver, equals: x}]") == [
        ("equals", "gpu.cc", True)
    ]


@pytest.mark.parametrize(
    ("conditions", "unsafe", "tail", "words"),
    [
        ("[{safe: true}, {claim: sample.svn, equals: 1}]", "", "", "development mode"),
        ("[{safe: true}, {claim: cpu.svn, equals: 1}]", "", "", "what boots"),
        (cpu(), "{cpu.svn: no reason}", "", "excuses nothing"),
        (
            f"[{GROUP}, {BOOT}]",
            "",
            "",
            "boot registers of vtpm.pcr.sha256 left open: 1",
        ),
        (cpu(), "", "revocation: {tolerate_missing: true}", "tolerate_missing"),
    ],
)
def test_what_deserves_a_second_look_is_a_warning(
    conditions: str, unsafe: str, tail: str, words: str
) -> None:
    warnings = parsed(conditions, unsafe=unsafe, tail=tail).warnings
    assert any(words in warning for warning in warnings)


def test_a_careful_policy_has_no_warning() -> None:
    assert parsed(cpu()).warnings == ()
    both = BOOT + ", " + BOOT.replace("256.0", "256.1")
    assert parsed(f"[{GROUP}, {both}]").warnings == ()


def test_the_analysis_is_conservative_about_what_it_does_not_know() -> None:
    unknown = ClaimSpec(
        name="cpu.debug",
        type=WORDS.specs["cpu.debug"].type,
        description="",
        source="",
    )
    rule = parse_release_policy(
        policy_text("[{safe: true}, {count: cpu, at_least: 1}]"), vocabulary=WORDS
    ).policy.allow[0]
    assert permitted(rule.tree, unknown) is None
    with pytest.raises(ValueError, match="not in the vocabulary"):
        name_of(Leaf(Operator.PRESENT, "a.b", True), WORDS)


@pytest.mark.parametrize(
    "condition",
    [
        "{claim: vtpm.ak.group, equals: acme/hosts}",
        "{claim: vtpm.ak.group, in: [hosts, rival/hosts]}",
        "{claim: vtpm.ak.group, equals: Hosts}",
        "{claim: vtpm.ak.ca, equals: acme/tpm-ca}",
        # An exclusion that nothing is ever equal to excludes nothing.
        "{any: [" + GROUP + ", {claim: vtpm.ak.group, not_in: [acme/retired]}]}",
        "{not: {claim: 'vtpm[0].ak.group', equals: acme/retired}}",
    ],
)
def test_a_group_or_ca_is_written_as_its_claim_is(condition: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parsed("[" + GROUP + ", " + BOOT + ", " + condition + "]")
    assert "expected NAME of the tenant's own, or shared/NAME" in str(caught.value)
    source = policy_text("[" + GROUP + ", " + BOOT + ", " + condition + "]")
    again = parse_release_policy(source, vocabulary=WORDS, registered=True)
    assert any("no claim is written so" in one for one in again.warnings)


@pytest.mark.parametrize(
    "condition",
    [
        "{claim: vtpm.ak.group, in: [hosts, shared/hosts]}",
        "{claim: vtpm.ak.group, matches: 'acme-.*'}",
        "{claim: vtpm.ak.group, present: true}",
        "{claim: vtpm.ak.ca, equals: Google EK/AK CA Root}",
    ],
)
def test_names_that_claims_can_have_are_accepted(condition: str) -> None:
    assert parsed("[" + GROUP + ", " + BOOT + ", " + condition + "]").policy.allow
