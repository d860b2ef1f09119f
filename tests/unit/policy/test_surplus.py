"""What a rule leaves unmentioned is reported; and GPUs have to be safe by default."""

from __future__ import annotations

import pytest

from kbs.core.claims import Claims, ClaimValue, ItemClaims
from kbs.evidence.registry import vocabulary
from kbs.policy.appraise import Appraisal, appraise
from kbs.policy.explain import explain_json
from kbs.policy.parse import ParsedPolicy, PolicyError, parse_release_policy
from tests.unit.policy.words import VIEW

REQUEST: dict[str, ClaimValue] = {
    "request.door": "v1",
    "request.freshness": "challenge",
}
UNSAFE_MODE = "{nvgpu.cc_mode: a test rack, nvgpu.debug: a test rack}"


def policy(*leaves: str, unsafe: str = "") -> ParsedPolicy:
    rules = "".join(f"      - {leaf}\n" for leaf in leaves)
    excuse = f"    unsafe: {unsafe}\n" if unsafe else ""
    source = (
        'kind: ReleasePolicy\nname: p\nreleases: ["acme/a/*"]\n'
        f"allow:\n  - rule: only\n{excuse}    all:\n{rules}"
    )
    return parse_release_policy(source.encode(), vocabulary=vocabulary(), what="p")


def gpu(item: int, **values: ClaimValue) -> ItemClaims:
    found: dict[str, ClaimValue] = {
        "arch": "HOPPER",
        "cc_mode": "on",
        "debug": False,
        "driver_version": "580.95.05",
        **values,
    }
    return ItemClaims(
        family="nvgpu",
        item=item,
        values={f"nvgpu.{name}": value for name, value in found.items()},
    )


def judged(parsed: ParsedPolicy, *items: ItemClaims) -> Appraisal:
    return appraise(parsed, Claims(items=items, request=REQUEST), VIEW)


def surplus(appraisal: Appraisal) -> list[object]:
    rules = explain_json(appraisal)["rules"]
    assert isinstance(rules, list)
    return list(rules[0]["surplus"])


FIRST = "{claim: 'nvgpu[0].arch', equals: HOPPER}"


@pytest.mark.parametrize(
    ("leaves", "left"),
    [
        (["{claim: nvswitch.arch, equals: LS10}"], ["nvgpu[0]", "nvgpu[1]"]),
        ([FIRST], ["nvgpu[1]"]),
        ([FIRST, "{claim: 'nvgpu[1].arch', present: true}"], []),
        (["{count: nvgpu, at_least: 1}"], []),
        (["{every: nvgpu, all: [{claim: nvgpu.arch, equals: HOPPER}]}"], []),
    ],
)
def test_items_that_a_rule_does_not_speak_of(
    leaves: list[str], left: list[str]
) -> None:
    found = judged(policy("{safe: true}", *leaves), gpu(1), gpu(2))
    assert surplus(found) == left


def test_one_gpu_by_its_index_and_all_of_them() -> None:
    old = gpu(2, driver_version="550.54.15")
    one = policy("{safe: true}", FIRST)
    assert judged(one, gpu(1), old).granted
    every = policy(
        "{safe: true}",
        "{every: nvgpu, all: [{claim: nvgpu.driver_version, at_least: '580'}]}",
    )
    assert not judged(every, gpu(1), old).granted
    assert judged(every, gpu(1), gpu(2)).granted
    assert not judged(every).granted
    counted = policy("{safe: true}", "{count: nvgpu, equals: 2}")
    assert judged(counted, gpu(1), gpu(2)).granted
    assert not judged(counted, gpu(1)).granted
    unnamed = policy("{safe: true}", "{claim: nvgpu.arch, equals: HOPPER}")
    assert judged(unnamed, gpu(1)).granted
    assert not judged(unnamed, gpu(1), gpu(2)).granted


def test_a_rule_about_gpus_says_what_mode_they_are_in() -> None:
    with pytest.raises(PolicyError) as caught:
        policy(FIRST)
    told = " ".join(map(str, caught.value.problems))
    assert "nvgpu.cc_mode" in told
    assert "nvgpu.debug" in told


@pytest.mark.parametrize(
    "leaf",
    [
        "{claim: nvgpu.cc_mode, equals: ppcie}",
        "{claim: nvgpu.cc_mode, in: ['on', ppcie]}",
        "{claim: nvgpu.cc_mode, present: true}",
    ],
)
def test_gpus_outside_confidential_mode_need_an_excuse(leaf: str) -> None:
    with pytest.raises(PolicyError, match=r"nvgpu\.cc_mode"):
        policy("{claim: nvgpu.debug, equals: false}", leaf)
    excused = policy(leaf, unsafe=UNSAFE_MODE)
    plain = gpu(1, cc_mode="ppcie")
    assert judged(excused, plain).granted is True


def test_safe_refuses_other_modes_and_what_is_not_known() -> None:
    safe = policy("{safe: true}", "{count: nvgpu, at_least: 1}")
    assert judged(safe, gpu(1)).granted
    for changed in ({"cc_mode": "ppcie"}, {"debug": True}):
        assert not judged(safe, gpu(1), gpu(2, **changed)).granted
    unknown = gpu(2)
    values = {k: v for k, v in unknown.values.items() if k != "nvgpu.debug"}
    absent = ItemClaims(family="nvgpu", item=2, values=values)
    assert not judged(safe, gpu(1), absent).granted
