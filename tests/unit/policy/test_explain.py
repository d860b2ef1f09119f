from __future__ import annotations

import json

from kbs.core.claims import ClaimValue
from kbs.policy.appraise import appraise
from kbs.policy.explain import explain_json
from tests.unit.policy.words import VIEW, claims, parsed

POLICY = parsed(
    "[{safe: true}, {claim: cpu.measurement, in: {reference: images}},"
    " {claim: cpu.tcb, at_least: {micro: 3}}, {every: gpu, all:"
    " [{claim: gpu.driver, at_least: '550'}]}, {not: {claim: cpu.svn, equals: 1}}]"
)
CPU: dict[str, ClaimValue] = {
    "cpu.debug": False,
    "cpu.vmpl": 0,
    "cpu.key": "own",
    "cpu.measurement": "aabbccdd",
    "cpu.tcb": {"micro": 3},
    "cpu.svn": 2,
}
GPU: dict[str, ClaimValue] = {"gpu.cc": True, "gpu.driver": "560.1"}


def test_the_json_form_is_the_contracts() -> None:
    document = explain_json(appraise(POLICY, claims(CPU, GPU), VIEW))
    assert document["decision"] == "granted"
    assert document["policy"] == "test"
    assert document["digest"] == POLICY.digest
    assert document["reasons"] == []
    text = json.dumps(document)
    (rule,) = json.loads(text)["rules"]
    assert rule["rule"] == "only"
    assert rule["result"] is True
    tree = rule["tree"]
    assert (tree["op"], tree["claim"], tree["result"]) == ("all", None, True)
    safe, measurement, tcb, every, negated = tree["children"]
    assert safe["op"] == "safe"
    assert [child["claim"] for child in safe["children"]] == [
        "cpu.debug",
        "cpu.vmpl",
        "cpu.key",
        "gpu",
    ]
    assert measurement == {
        "op": "in",
        "claim": "cpu.measurement",
        "got": "aabbccdd",
        "expected": {"reference": "images", "values": ["aabbccdd", "00112233"]},
        "result": True,
        "children": [],
    }
    assert tcb["got"] == {"micro": 3}
    assert tcb["detail"] == "not constrained: boot, fmc"
    assert (every["op"], every["claim"], every["got"]) == ("every", "gpu", 1)
    assert negated["children"][0]["result"] is False


def test_a_denial_says_first_what_to_mend_first() -> None:
    appraisal = appraise(POLICY, claims({**CPU, "cpu.svn": 1}), VIEW)
    document = json.loads(json.dumps(explain_json(appraisal)))
    assert document["decision"] == "denied"
    assert document["rules"][0]["result"] is False
    assert document["nearest"] == {"rule": "only", "changes": 3}
    assert [each["id"] for each in document["reasons"]] == [
        "gpu.count",
        "cpu.svn",
    ]


def test_a_list_claim_is_a_list() -> None:
    policy = parsed("[{safe: true}, {claim: cpu.advisories, in: [a]}]")
    given = claims({**CPU, "cpu.advisories": ("a",)})
    document = explain_json(appraise(policy, given, VIEW))
    assert '"got": ["a"]' in json.dumps(document)
