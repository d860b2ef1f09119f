from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kbs.core.claims import Claims, ClaimSpec, ClaimType, ClaimValue, ItemClaims
from kbs.core.decision import Denied, Granted
from kbs.core.ids import ScopedName
from kbs.policy.appraise import Appraisal, appraise
from kbs.policy.compare import build_test
from kbs.policy.context import Context, ReferenceSet, WorkloadDigests
from kbs.policy.evaluate import Outcome, Scene
from kbs.policy.measure import Missing, expected_register
from kbs.policy.model import (
    Leaf,
    Measured,
    Operator,
    Reference,
    Scalar,
    WorkloadStep,
)
from kbs.policy.parse import ParsedPolicy
from kbs.policy.references import mistyped_references
from tests.unit.policy.words import (
    CONTEXT,
    DIGESTS,
    OTHER,
    V1,
    VIEW,
    WORDS,
    claims,
    parsed,
    spec,
)

CPU: dict[str, ClaimValue] = {
    "cpu.measurement": "aabbccdd",
    "cpu.debug": False,
    "cpu.vmpl": 0,
    "cpu.key": "own",
    "cpu.tcb": {"boot": 3, "micro": 200},
    "cpu.svn": 5,
    "cpu.raw": "00000000000000ff",
    "cpu.build": "1.10.3",
    "cpu.blob": "00ff",
    "cpu.advisories": ("A-1", "A-2"),
    "cpu.since": "2026-11-22T08:00:00Z",
}
GPU: dict[str, ClaimValue] = {"gpu.cc": True, "gpu.driver": "550.90.07"}


def extended(*digests: str, fill: bytes = b"\0") -> str:
    register = fill * 32
    for digest in digests:
        register = hashlib.sha256(register + bytes.fromhex(digest)).digest()
    return register.hex()


VTPM: dict[str, ClaimValue] = {
    "vtpm.ak.group": "hosts",
    "vtpm.pcr.sha256.0": "11" * 32,
    "vtpm.pcr.sha256.15": extended(DIGESTS.sha256),
}


def outcome(
    condition: str,
    given: Claims,
    *,
    context: Context = CONTEXT,
    development: bool = False,
) -> Outcome:
    """The outcome of one condition, in a rule that excuses everything else."""
    view = context.view("acme")
    policy = parse(condition)
    tree = appraise(policy, given, view, development=development).rules[0].tree
    return tree.children[0]


def parse(condition: str) -> ParsedPolicy:
    """A policy of one condition that excuses everything else."""
    excuses = ", ".join(
        f"'{name}': a test"
        for name in (
            *("cpu.debug", "cpu.vmpl", "cpu.key", "gpu.cc", "vtpm.ak.group"),
            *(f"vtpm.pcr.sha256.{number}" for number in (1, 15, 16, 17)),
            "cpu.host_data",
        )
    )
    return parsed(
        f"[{condition}, {{count: cpu, at_least: 1}}]", unsafe=f"{{{excuses}}}"
    )


@pytest.mark.parametrize(
    ("condition", "result"),
    [
        ("{claim: cpu.svn, equals: 5}", True),
        ("{claim: cpu.svn, equals: 6}", False),
        ("{claim: cpu.svn, in: [4, 5]}", True),
        ("{claim: cpu.svn, in: [4, 6]}", False),
        ("{claim: cpu.svn, not_in: [4, 5]}", False),
        ("{claim: cpu.svn, not_in: [4]}", True),
        ("{claim: cpu.svn, at_least: 5}", True),
        ("{claim: cpu.svn, at_least: 6}", False),
        ("{claim: cpu.svn, at_most: 5}", True),
        ("{claim: cpu.svn, at_most: 4}", False),
        ("{claim: cpu.debug, equals: false}", True),
        ("{claim: cpu.debug, not_in: [false]}", False),
        ("{claim: cpu.measurement, equals: aabbccdd}", True),
        ("{claim: cpu.measurement, in: {reference: images}}", True),
        ("{claim: cpu.measurement, not_in: {reference: images}}", False),
        ("{claim: cpu.measurement, in: {reference: acme/images}}", True),
        ("{claim: cpu.measurement, in: {reference: shared/images}}", False),
        ("{claim: cpu.measurement, in: {reference: common}}", False),
        ("{claim: cpu.measurement, not_in: {reference: common}}", True),
        ("{claim: cpu.measurement, in: {reference: nowhere}}", None),
        ("{claim: cpu.measurement, not_in: {reference: nowhere}}", None),
        ("{not: {claim: cpu.measurement, in: {reference: nowhere}}}", None),
        # 64-bit fields compare as integers, beyond what JSON numbers carry.
        ("{claim: cpu.raw, at_least: '00000000000000fe'}", True),
        ("{claim: cpu.raw, at_least: '8000000000000000'}", False),
        ("{claim: cpu.raw, equals: '00000000000000ff'}", True),
        ("{claim: cpu.raw, in: ['00000000000000ff']}", True),
        # Versions component by component.
        ("{claim: cpu.build, at_least: '1.9'}", True),
        ("{claim: cpu.build, at_least: '1.10.3.0'}", True),
        ("{claim: cpu.build, at_most: '1.10.3.0'}", True),
        ("{claim: cpu.build, at_least: '1.10.4'}", False),
        ("{claim: cpu.build, at_most: '1.9.99'}", False),
        ("{claim: cpu.build, equals: '1.10.3'}", True),
        ("{claim: cpu.build, matches: '1[.].*'}", True),
        # Anchored at both ends.
        ("{claim: cpu.key, matches: ow}", False),
        ("{claim: cpu.key, matches: wn}", False),
        ("{claim: cpu.key, matches: 'own|x'}", True),
        ("{claim: cpu.blob, matches: '00.*'}", True),
        # A text that is no number is unknown where one is needed.
        ("{claim: cpu.key, at_least: '1.0'}", None),
        ("{claim: cpu.key, at_most: '1.0'}", None),
        ("{not: {claim: cpu.key, at_least: '1.0'}}", None),
        # TCBs by named component.
        ("{claim: cpu.tcb, at_least: {micro: 200}}", True),
        ("{claim: cpu.tcb, at_least: {micro: 200, boot: 4}}", False),
        ("{claim: cpu.tcb, at_most: {micro: 200, boot: 4}}", True),
        ("{claim: cpu.tcb, equals: {boot: 3}}", True),
        ("{claim: cpu.tcb, at_least: {fmc: 0}}", None),
        ("{claim: cpu.tcb, at_least: {fmc: 0, micro: 201}}", False),
        ("{claim: cpu.tcb, at_least: {fmc: 0, micro: 200}}", None),
        ("{claim: cpu.tcb.micro, at_least: 200}", True),
        ("{claim: cpu.tcb.micro, at_least: 201}", False),
        ("{claim: cpu.tcb.fmc, at_least: 0}", None),
        # Lists: the same, only listed ones, none of the listed.
        ("{claim: cpu.advisories, equals: [A-1, A-2]}", True),
        ("{claim: cpu.advisories, equals: [A-2, A-1]}", False),
        ("{claim: cpu.advisories, equals: []}", False),
        ("{claim: cpu.advisories, in: [A-1, A-2, A-3]}", True),
        ("{claim: cpu.advisories, in: [A-1]}", False),
        ("{claim: cpu.advisories, not_in: [A-3]}", True),
        ("{claim: cpu.advisories, not_in: [A-2]}", False),
        ("{claim: cpu.advisories, in: {reference: images}}", False),
        ("{claim: cpu.advisories, not_in: {reference: images}}", True),
        # Some of the list is listed here.
        ("{not: {claim: cpu.advisories, not_in: [A-2, A-9]}}", True),
        ("{not: {claim: cpu.advisories, not_in: [A-9]}}", False),
        # Times.
        ("{claim: cpu.since, at_least: '2026-11-22T07:59:59.5Z'}", True),
        ("{claim: cpu.since, at_most: '2026-11-22T07:59:59Z'}", False),
        ("{claim: request.time, at_least: '2026-11-22T08:00:00Z'}", True),
        # Presence is always definite.
        ("{claim: cpu.svn, present: true}", True),
        ("{claim: cpu.svn, present: false}", False),
        ("{claim: cpu.host_data, present: true}", False),
        ("{claim: cpu.host_data, present: false}", True),
        ("{claim: gpu.cc, present: false}", True),
        ("{claim: 'cpu[3].svn', present: false}", True),
        ("{claim: cpu.tcb.fmc, present: false}", True),
        ("{not: {claim: cpu.svn, present: true}}", False),
        # Absent is unknown, and its negation too.
        ("{claim: gpu.cc, equals: true}", None),
        ("{not: {claim: gpu.cc, equals: true}}", None),
        ("{claim: cpu.host_data, not_in: ['" + "00" * 40 + "']}", None),
        ("{claim: 'cpu[0].svn', equals: 5}", True),
        ("{claim: 'cpu[1].svn', equals: 5}", None),
        # Kleene.
        ("{all: [{claim: cpu.svn, equals: 5}, {claim: gpu.cc, equals: true}]}", None),
        ("{all: [{claim: gpu.cc, equals: true}, {claim: cpu.svn, equals: 6}]}", False),
        ("{any: [{claim: gpu.cc, equals: true}, {claim: cpu.svn, equals: 5}]}", True),
        ("{any: [{claim: gpu.cc, equals: true}, {claim: cpu.svn, equals: 6}]}", None),
        ("{any: [{claim: cpu.svn, equals: 7}, {claim: cpu.svn, equals: 6}]}", False),
        # Nothing to check is never true.
        ("{every: gpu, all: [{claim: gpu.cc, equals: true}]}", False),
        ("{count: gpu, at_least: 1}", False),
        ("{count: gpu, at_most: 0}", True),
        ("{count: cpu, equals: 1}", True),
        ("{count: cpu, equals: 2}", False),
    ],
)
def test_each_operator_is_true_false_or_unknown(
    condition: str,
    result: bool | None,  # noqa: FBT001
) -> None:
    assert outcome(condition, claims(CPU)).result is result


@pytest.mark.parametrize(
    ("claim", "value", "condition"),
    [
        ("cpu.svn", "5", "equals: 5"),
        ("cpu.svn", True, "in: [1]"),
        ("cpu.debug", 0, "equals: false"),
        ("cpu.measurement", 5, "not_in: [aabbccdd]"),
        ("cpu.measurement", 5, "not_in: {reference: images}"),
        ("cpu.raw", "ff", "at_least: '0000000000000000'"),
        ("cpu.raw", "zzzzzzzzzzzzzzzz", "at_least: '0000000000000000'"),
        ("cpu.raw", 7, "equals: '0000000000000007'"),
        ("cpu.build", "1.x", "at_least: '1'"),
        ("cpu.key", 1, "matches: '.*'"),
        ("cpu.key", "\ud800", "matches: '.*'"),
        ("cpu.tcb", 7, "at_least: {micro: 1}"),
        ("cpu.tcb", {"micro": True}, "at_least: {micro: 1}"),
        ("cpu.advisories", "A-1", "in: [A-1]"),
        ("cpu.advisories", "A-1", "in: {reference: images}"),
        ("cpu.advisories", "A-1", "not_in: {reference: images}"),
        ("cpu.since", "yesterday", "at_most: '2030-01-01T00:00:00Z'"),
        ("cpu.host_data", 5, "measures: {workload_policy: runtime, version: 1}"),
    ],
)
def test_a_value_of_another_type_is_unknown_and_so_is_its_negation(
    claim: str, value: ClaimValue, condition: str
) -> None:
    given = claims({**CPU, claim: value})
    leaf = f"{{claim: {claim}, {condition}}}"
    found = outcome(leaf, given)
    assert found.result is None
    assert found.detail
    assert outcome(f"{{not: {leaf}}}", given).result is None


def test_one_of_several_items_has_to_be_named() -> None:
    given = claims(CPU, GPU, {**GPU, "gpu.cc": False})
    for condition in (
        "{claim: gpu.cc, equals: true}",
        "{not: {claim: gpu.cc, equals: false}}",
        "{claim: gpu.cc, present: true}",
        "{claim: gpu.cc, present: false}",
    ):
        assert outcome(condition, given).result is None
    assert "2 gpu items" in outcome("{claim: gpu.cc, equals: true}", given).detail
    assert outcome("{claim: 'gpu[0].cc', equals: true}", given).result is True
    assert outcome("{claim: 'gpu[1].cc', equals: true}", given).result is False
    every = outcome("{every: gpu, all: [{claim: gpu.cc, equals: true}]}", given)
    assert every.result is False
    assert [child.result for child in every.children] == [True, False]
    some = "{every: gpu, any: [{claim: gpu.cc, equals: true},"
    assert (
        outcome(some + " {claim: gpu.driver, at_least: '550'}]}", given).result is True
    )


CC = "{claim: gpu.cc, equals: true}"
ELSEWHERE = ItemClaims(family="gpu", item=9, values={}, elsewhere=True)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        # Two that count, and between them one whose trust is another tenant's.
        (f"{{every: gpu, all: [{CC}]}}", None),
        (f"{{not: {{every: gpu, all: [{CC}]}}}}", None),
        ("{every: gpu, all: [{claim: gpu.cc, present: false}]}", False),
        ("{claim: 'gpu[0].cc', equals: true}", True),
        ("{claim: 'gpu[1].cc', equals: true}", None),
        ("{claim: 'gpu[1].cc', present: false}", None),
        ("{claim: 'gpu[1].cc', present: true}", None),
        ("{claim: 'gpu[2].driver', equals: '550.90.08'}", True),
        ("{claim: 'gpu[3].cc', equals: true}", None),
        ("{claim: 'gpu[3].cc', present: false}", True),
        ("{claim: gpu.cc, equals: true}", None),
        ("{count: gpu, at_least: 2}", True),
        ("{count: gpu, at_least: 3}", None),
        ("{count: gpu, at_least: 4}", False),
        ("{count: gpu, at_most: 1}", False),
        ("{count: gpu, at_most: 2}", None),
        ("{count: gpu, at_most: 3}", True),
        ("{count: gpu, equals: 1}", False),
        ("{count: gpu, equals: 2}", None),
        ("{count: gpu, equals: 3}", None),
        ("{count: gpu, equals: 4}", False),
    ],
)
def test_an_item_that_counts_elsewhere_is_there_and_unknown(
    condition: str, *, expected: bool | None
) -> None:
    """It is neither passed over by `every` nor does it move the others' places."""
    cpu, first, last = claims(CPU, GPU, {**GPU, "gpu.driver": "550.90.08"}).items
    given = replace(claims(CPU), items=(cpu, first, ELSEWHERE, last))
    assert outcome(condition, given).result is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("{claim: gpu.cc, equals: true}", None),
        ("{claim: gpu.cc, present: false}", None),
        ("{count: gpu, at_least: 1}", None),
        ("{count: gpu, at_most: 0}", None),
        ("{count: gpu, equals: 1}", None),
        ("{count: gpu, at_most: 1}", True),
        (f"{{every: gpu, all: [{CC}]}}", None),
    ],
)
def test_one_that_counts_elsewhere_alone_is_neither_there_nor_absent(
    condition: str, *, expected: bool | None
) -> None:
    given = claims(CPU)
    given = replace(given, items=(*given.items, ELSEWHERE))
    assert outcome(condition, given).result is expected


def test_every_with_an_unknown_item_is_unknown() -> None:
    given = claims(CPU, GPU, {"gpu.driver": "1"})
    every = "{every: gpu, all: [{claim: gpu.cc, equals: true}]}"
    assert outcome(every, given).result is None
    assert outcome(f"{{not: {every}}}", given).result is None
    # After an every, other conditions see all items again.
    both = f"{{all: [{every}, {{claim: cpu.svn, equals: 5}}]}}"
    assert outcome(both, given).children[1].result is True


def test_what_was_not_constrained_is_reported() -> None:
    found = outcome("{claim: cpu.tcb, at_least: {micro: 1}}", claims(CPU))
    assert found.detail == "not constrained: boot, fmc"
    lacking = outcome("{claim: cpu.tcb, at_least: {fmc: 1, micro: 1}}", claims(CPU))
    assert lacking.detail == "the product lacks fmc"
    whole = outcome("{claim: cpu.tcb, at_least: {boot: 1, micro: 1, fmc: 0}}", claims())
    assert whole.detail == "the evidence has no cpu item that was verified"


RUNTIME = "{workload_policy: runtime, version: 1}"
AGENT = "{workload_policy: shared/agent, version: 2}"
LITERAL = "ab" * 32


@pytest.mark.parametrize(
    ("register", "measures", "result"),
    [
        (extended(DIGESTS.sha256), RUNTIME, True),
        (extended(OTHER.sha256), RUNTIME, False),
        # The right digest after a wrong one, before one, twice, or never extended.
        (extended(OTHER.sha256, DIGESTS.sha256), RUNTIME, False),
        (extended(DIGESTS.sha256, OTHER.sha256), RUNTIME, False),
        (extended(DIGESTS.sha256, DIGESTS.sha256), RUNTIME, False),
        (DIGESTS.sha256, RUNTIME, False),
        ("00" * 32, RUNTIME, False),
        (
            extended(LITERAL, DIGESTS.sha256, OTHER.sha256),
            f"{{sequence: [{{digest: {LITERAL}}}, {RUNTIME}, {AGENT}]}}",
            True,
        ),
        (
            extended(LITERAL, OTHER.sha256, DIGESTS.sha256),
            f"{{sequence: [{{digest: {LITERAL}}}, {RUNTIME}, {AGENT}]}}",
            False,
        ),
        (
            extended(LITERAL, DIGESTS.sha256),
            f"{{sequence: [{{digest: {LITERAL}}}, {RUNTIME}, {AGENT}]}}",
            False,
        ),
        (extended(DIGESTS.sha256), f"{{sequence: [{RUNTIME}]}}", True),
        (extended(DIGESTS.sha256), "{workload_policy: runtime, version: 2}", None),
        (extended(DIGESTS.sha256), "{workload_policy: other, version: 1}", None),
    ],
)
def test_a_register_holds_exactly_what_was_measured(
    register: str,
    measures: str,
    result: bool | None,  # noqa: FBT001
) -> None:
    given = claims(CPU, {**VTPM, "vtpm.pcr.sha256.15": register})
    leaf = f"{{claim: vtpm.pcr.sha256.15, measures: {measures}}}"
    assert outcome(leaf, given).result is result


def test_late_registers_start_as_ones() -> None:
    leaf = f"{{claim: vtpm.pcr.sha256.17, measures: {RUNTIME}}}"
    for fill, result in ((b"\xff", True), (b"\0", False)):
        value = extended(DIGESTS.sha256, fill=fill)
        given = claims(CPU, {**VTPM, "vtpm.pcr.sha256.17": value})
        assert outcome(leaf, given).result is result
    early = f"{{claim: vtpm.pcr.sha256.16, measures: {RUNTIME}}}"
    given = claims(CPU, {**VTPM, "vtpm.pcr.sha256.16": extended(DIGESTS.sha256)})
    assert outcome(early, given).result is True


def test_a_register_that_is_set_holds_the_padded_digest() -> None:
    leaf = f"{{claim: cpu.host_data, measures: {RUNTIME}}}"
    padded = DIGESTS.sha256 + "00" * 8
    assert outcome(leaf, claims({**CPU, "cpu.host_data": padded})).result is True
    other = OTHER.sha256 + "00" * 8
    found = outcome(leaf, claims({**CPU, "cpu.host_data": other}))
    assert found.result is False
    assert found.expected == {
        "measures": {"workload_policy": "runtime", "version": 1},
        "register": padded,
    }


def test_a_register_of_an_unknown_hash_is_unknown() -> None:
    spec = WORDS.specs["vtpm.pcr.sha256.15"]
    measured = Measured((WorkloadStep("runtime", 1),))
    for wrong in (replace(spec, register="sm3"), replace(spec, register=None)):
        assert isinstance(expected_register(wrong, measured, VIEW), Missing)
    assert DIGESTS.by("sha384") == hashlib.sha384(b"package agent_policy\n").hexdigest()
    assert WorkloadDigests.of(b"").by("sha512") == hashlib.sha512().hexdigest()


def test_an_expired_reference_set_is_unknown() -> None:
    def at(expires: datetime, request: dict[str, ClaimValue]) -> Outcome:
        known = ReferenceSet(values=("aabbccdd",), expires=expires)
        context = Context(references={ScopedName("acme", "images"): known})
        return outcome(
            "{claim: cpu.measurement, in: {reference: images}}",
            claims(CPU, request=request),
            context=context,
        )

    good = datetime(2026, 11, 22, 8, 0, 1, tzinfo=UTC)
    past = datetime(2026, 11, 22, 8, tzinfo=UTC)
    assert at(good, dict(V1)).result is True
    expired = at(past, dict(V1))
    assert expired.result is None
    assert expired.detail == "reference images expired on 2026-11-22T08:00:00Z"
    timeless = at(good, {"request.door": "v1", "request.freshness": "challenge"})
    assert timeless.result is None
    assert "no time" in timeless.detail


@pytest.mark.parametrize("op", ["in", "not_in"])
@pytest.mark.parametrize(
    ("claim", "values", "named"),
    [
        ("measurement", ("AABBCCDD",), "'AABBCCDD'"),
        ("measurement", ("aabbccdd", "0xaabbccdd"), "'0xaabbccdd'"),
        ("measurement", ("aabbccdd00",), "4 bytes"),
        ("measurement", ("aabbccdd", 3), "the value 3 "),
        ("blob", ("",), "lower-case hex"),
        ("svn", (7, "3"), "'3'"),
        ("raw", ("7",), "16 lower-case hex digits"),
        ("build", ("one",), "dot-separated"),
        ("key", ("own", 5), "a string"),
        ("advisories", ("A-9", 5), "a string"),
        ("debug", ("true",), "true or false"),
    ],
)
def test_a_reference_value_of_another_type_decides_nothing(
    op: str, claim: str, values: tuple[Scalar, ...], named: str
) -> None:
    """A banned value with a typing error in it must not let everything pass."""
    references = {ScopedName("acme", "set"): ReferenceSet(values=values)}
    leaf = f"{{claim: cpu.{claim}, {op}: {{reference: set}}}}"
    context = Context(references=references)
    found = outcome(leaf, claims(CPU), context=context)
    assert found.result is None
    assert found.detail.startswith("reference set: the value ")
    assert named in found.detail
    policy = parse(leaf).policy
    complaints = mistyped_references(policy, context.view("acme"), WORDS)
    assert complaints == (found.detail,)


def test_references_that_fit_or_do_not_exist_are_not_called_mistyped() -> None:
    view = CONTEXT.view("acme")
    for name in ("images", "nowhere"):
        other = "{claim: cpu.svn, equals: 5}"
        leaf = f"{{claim: cpu.measurement, in: {{reference: {name}}}}}"
        leaf = f"{{all: [{other}, {leaf}]}}"
        assert mistyped_references(parse(leaf).policy, view, WORDS) == ()


def test_a_set_that_changes_is_read_again() -> None:
    condition = build_test(
        Leaf(Operator.NOT_IN, "cpu.svn", Reference("set")),
        spec("cpu.svn", ClaimType.INT),
    )

    def result(*values: Scalar) -> bool | None:
        references = {ScopedName("acme", "set"): ReferenceSet(values=values)}
        view = Context(references=references).view("acme")
        scene = Scene(claims(CPU), view, development=False)
        return condition(7, scene).result

    assert [result(7), result(8), result("7"), result(7)] == [False, True, None, False]


def test_an_empty_reference_set_is_unknown() -> None:
    context = Context(
        references={ScopedName("acme", "images"): ReferenceSet(values=())}
    )
    leaf = "{claim: cpu.measurement, not_in: {reference: images}}"
    assert outcome(leaf, claims(CPU), context=context).result is None


@pytest.mark.parametrize(
    "condition",
    [
        "{claim: sample.svn, equals: 1}",
        "{not: {claim: sample.svn, equals: 2}}",
        "{claim: sample.svn, present: true}",
        "{claim: 'sample[0].svn', equals: 1}",
        "{count: sample, at_least: 1}",
        "{every: sample, all: [{claim: sample.svn, equals: 1}]}",
    ],
)
def test_sample_evidence_counts_in_development_mode_only(condition: str) -> None:
    given = claims(CPU, {"sample.svn": 1})
    production = outcome(condition, given)
    assert production.result is None
    assert outcome(condition, given, development=True).result is True


def test_a_claim_that_a_request_lacks_time_for_is_unknown() -> None:
    given = claims(CPU, request={"request.door": "v1"})
    leaf = "{claim: request.time, at_most: '2030-01-01T00:00:00Z'}"
    assert outcome(leaf, given).result is None


RULES = (
    "[{safe: true}, {claim: cpu.measurement, in: {reference: images}},"
    " {claim: cpu.svn, at_least: 5}]"
)


def appraised(given: Claims, tail: str = "") -> Appraisal:
    return appraise(parsed(RULES, tail=tail), given, VIEW, version=7)


def reason_ids(appraisal: Appraisal) -> list[str]:
    assert isinstance(appraisal.decision, Denied)
    return [reason.id for reason in appraisal.decision.reasons]


def test_a_true_rule_grants_and_says_which() -> None:
    appraisal = appraised(claims(CPU))
    assert isinstance(appraisal.decision, Granted)
    ((ref, rule),) = appraisal.decision.by
    assert (ref.name, ref.version, rule) == ("test", 7, "only")
    assert ref.digest == parsed(RULES).digest


@pytest.mark.parametrize(
    ("change", "ids"),
    [
        ({"cpu.debug": True}, ["cpu.debug"]),
        ({"cpu.vmpl": 1}, ["cpu.vmpl"]),
        ({"cpu.key": "cloud"}, ["cpu.key"]),
        ({"cpu.measurement": "ffffffff"}, ["cpu.measurement"]),
        ({"cpu.svn": 4}, ["cpu.svn"]),
        ({"cpu.svn": 4, "cpu.debug": True}, ["cpu.debug", "cpu.svn"]),
        ({"cpu.svn": None}, ["cpu.svn"]),
    ],
)
def test_every_mismatch_is_a_reason(
    change: dict[str, ClaimValue | None], ids: list[str]
) -> None:
    values = {
        name: value for name, value in {**CPU, **change}.items() if value is not None
    }
    assert reason_ids(appraised(claims(values))) == ids


@pytest.mark.parametrize(
    ("tail", "request_claims", "ids"),
    [
        ("", {"request.door": "rcar", "request.freshness": "challenge"}, []),
        ("", {"request.door": "kms", "request.freshness": "challenge"}, ["door"]),
        ("", {"request.freshness": "challenge"}, ["door"]),
        ("", {"request.door": "v1", "request.freshness": "none"}, ["freshness"]),
        ("", {"request.door": "v1"}, ["freshness"]),
        ("", {}, ["door", "freshness"]),
        ("TOKEN", {"request.door": "v1", "request.freshness": "challenge"}, ["door"]),
        (
            "TOKEN",
            {
                "request.door": "kms",
                "request.freshness": "token_age",
                "request.token_age": 300,
            },
            [],
        ),
        (
            "TOKEN",
            {
                "request.door": "kms",
                "request.freshness": "token_age",
                "request.token_age": 301,
            },
            ["token_age"],
        ),
        (
            "TOKEN",
            {"request.door": "kms", "request.freshness": "token_age"},
            ["token_age"],
        ),
        (
            "TOKEN",
            {
                "request.door": "kms",
                "request.freshness": "token_age",
                "request.token_age": -1,
            },
            ["token_age"],
        ),
        ("TOKEN", {"request.door": "kms", "request.freshness": "none"}, ["freshness"]),
        ("TOKEN", {"request.door": "kms", "request.freshness": "challenge"}, []),
        ("NONE", {"request.door": "v1", "request.freshness": "none"}, []),
        ("NONE", {"request.door": "v1", "request.freshness": "token_age"}, []),
        ("NONE", {"request.door": "v1", "request.freshness": "made up"}, ["freshness"]),
    ],
)
def test_the_request_has_to_be_acceptable_too(
    tail: str, request_claims: dict[str, ClaimValue], ids: list[str]
) -> None:
    tails = {
        "": "",
        "TOKEN": "accept: {doors: [kms], freshness: token_age, max_age: 300}\n",
        "NONE": "accept: {freshness: none}\nunsafe: {request.freshness: test bench}\n",
    }
    appraisal = appraised(claims(CPU, request=request_claims), tail=tails[tail])
    if ids:
        assert reason_ids(appraisal) == [f"request.{each}" for each in ids]
    else:
        assert appraisal.granted


def test_the_nearest_rule_speaks_first() -> None:
    tail = (
        "  - rule: near\n"
        "    all: [{safe: true}, {claim: cpu.svn, at_least: 9}]\n"
        "  - rule: split\n"
        "    all:\n"
        "      - {safe: true}\n"
        "      - any:\n"
        "          - all:\n"
        "              - {claim: cpu.svn, equals: 1}\n"
        "              - {claim: cpu.key, equals: x}\n"
        "          - {not: {claim: cpu.svn, equals: 5}}\n"
        "      - {every: gpu, all: [{claim: gpu.cc, equals: true}]}\n"
        "    unsafe: {cpu.key: a test}\n"
    )
    given = claims({**CPU, "cpu.measurement": "ffffffff", "cpu.svn": 5, "cpu.vmpl": 1})
    policy = parsed(RULES, tail=tail)
    appraisal = appraise(policy, given, VIEW)
    assert appraisal.nearest.rule == "only"
    assert [each.distance for each in appraisal.rules] == [2, 2, 3]
    assert isinstance(appraisal.decision, Denied)
    reasons = [(each.rule, each.id) for each in appraisal.decision.reasons]
    assert reasons == [
        ("only", "cpu.vmpl"),
        ("only", "cpu.measurement"),
        ("near", "cpu.vmpl"),
        ("near", "cpu.svn"),
        ("split", "cpu.vmpl"),
        ("split", "cpu.svn"),
        ("split", "cpu.svn"),
        ("split", "cpu.key"),
        ("split", "gpu.count"),
    ]
    negated = appraisal.decision.reasons[5]
    assert (negated.got, negated.expected) == ("5", "not equals 5")
    assert "could not be decided" not in negated.detail
    absent = appraise(policy, claims(), VIEW).decision
    assert isinstance(absent, Denied)
    assert absent.reasons[0].got == "absent"
    assert "could not be decided: the evidence has no cpu" in absent.reasons[0].detail


def test_negated_trees_count_what_has_to_change() -> None:
    both = "[{claim: cpu.svn, equals: 5}, {claim: cpu.vmpl, equals: 0}]"
    tail = (
        "  - rule: other\n"
        "    all:\n"
        "      - {safe: true}\n"
        f"      - not: {{all: {both}}}\n"
        f"      - not: {{any: {both}}}\n"
        "    unsafe: {cpu.vmpl: a test}\n"
    )
    given = claims({**CPU, "cpu.measurement": "ffffffff", "cpu.svn": 5})
    appraisal = appraise(parsed(RULES, tail=tail), given, VIEW)
    assert [each.distance for each in appraisal.rules] == [1, 3]


def test_a_grant_lists_the_first_rule_that_holds() -> None:
    tail = "  - rule: second\n    all: [{safe: true}, {claim: cpu.svn, equals: 5}]\n"
    appraisal = appraise(parsed(RULES, tail=tail), claims(CPU), VIEW)
    assert isinstance(appraisal.decision, Granted)
    assert appraisal.decision.by[0][1] == "only"


def test_a_scene_without_a_time_has_none() -> None:
    bare = Claims(items=(), request={"request.time": 5})
    assert Scene(bare, VIEW).now is None


def test_an_order_without_a_number_is_unknown() -> None:
    spec = ClaimSpec(name="a.b", type=ClaimType.TEXT, description="", source="")
    test = build_test(Leaf(Operator.AT_LEAST, "a.b", "x"), spec)
    assert test("1.0", Scene(Claims(items=(), request={}), VIEW)).result is None


def test_appraisal_leaves_the_claims_alone() -> None:
    item = ItemClaims(family="cpu", item=0, values=dict(CPU))
    given = Claims(items=(item,), request=dict(V1))
    appraised(given)
    assert item.values == CPU
    assert given.request == V1


def test_a_set_of_groups_has_names_as_claims_write_them() -> None:
    """Whoever is banned as `acme/retired` would not be banned at all."""
    leaf = "{claim: vtpm.ak.group, not_in: {reference: banned}}"
    for value, expected in (("acme/retired", None), ("shared/retired", True)):
        context = Context(
            references={ScopedName("acme", "banned"): ReferenceSet(values=(value,))}
        )
        found = outcome(leaf, claims({"vtpm.ak.group": "retired"}), context=context)
        assert found.result is expected


@pytest.mark.parametrize(
    ("condition", "result"),
    [
        ("{claim: cpu.advisories, in: [A-1]}", None),
        ("{not: {claim: cpu.advisories, in: [A-1]}}", None),
        ("{claim: cpu.advisories, in: {reference: images}}", None),
        ("{claim: cpu.advisories, not_in: [A-1]}", True),
        ("{claim: cpu.advisories, not_in: {reference: images}}", True),
        ("{claim: cpu.advisories, equals: []}", True),
        ("{claim: cpu.advisories, equals: [A-1]}", False),
    ],
)
def test_nothing_in_an_empty_list_is_one_of_those_asked_for(
    condition: str,
    result: bool | None,  # noqa: FBT001 - what is expected
) -> None:
    """A VM without any service account has not the one that a rule asks for."""
    found = outcome(condition, claims({**CPU, "cpu.advisories": ()}))
    assert found.result is result
    leaf = found.children[0] if found.children else found
    assert ("the list is empty" in leaf.detail) is (result is None)
