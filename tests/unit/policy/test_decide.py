from __future__ import annotations

import pytest

from kbs.core.claims import ClaimValue
from kbs.core.decision import Denied, Granted
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_key_id
from kbs.policy.decide import ActivePolicy, appraise_key
from kbs.policy.match import KeyGlob, governing
from kbs.policy.parse import parse_release_policy
from tests.unit.policy.words import VIEW, WORDS, claims


def active(name: str, glob: str, svn: int) -> ActivePolicy:
    source = (
        f"kind: ReleasePolicy\nname: {name}\nreleases: ['{glob}']\nallow:\n"
        f"  - rule: r\n    all: [{{safe: true}}, {{claim: cpu.svn, at_least: {svn}}}]\n"
    )
    parsed = parse_release_policy(source.encode(), vocabulary=WORDS)
    return ActivePolicy(parsed=parsed, version=svn)


CPU: dict[str, ClaimValue] = {
    "cpu.debug": False,
    "cpu.vmpl": 0,
    "cpu.key": "own",
    "cpu.svn": 5,
}
KEY = parse_key_id("acme/model/chat")
LOW = active("low", "acme/model/*", 1)
HIGH = active("high", "acme/*/chat", 9)
OTHER = active("other", "acme/data/*", 1)


@pytest.mark.parametrize(
    ("glob", "key", "result"),
    [
        ("acme/model/*", "acme/model/chat", True),
        ("acme/model/*", "acme/model/a.b-c_d", True),
        ("acme/model/chat", "acme/model/chat", True),
        ("acme/model/chat", "acme/model/chat2", False),
        ("acme/*/*", "acme/model/chat", True),
        ("acme/*/*", "acme2/model/chat", False),
        ("acme/mod*/c*t", "acme/model/chat", True),
        ("acme/mod*/c*t", "acme/model/chart5", False),
        ("acme/m.del/*", "acme/model/x", False),
        ("acme/*/x", "acme/model/chat", False),
    ],
)
def test_a_star_stays_within_its_segment(
    glob: str,
    key: str,
    result: bool,  # noqa: FBT001
) -> None:
    assert KeyGlob.parse(glob).matches(parse_key_id(key)) is result


def test_a_glob_with_many_stars_takes_linear_time() -> None:
    glob = KeyGlob.parse("acme/model/" + "a*" * 30 + "b")
    assert not glob.matches(parse_key_id("acme/model/" + "a" * 64))


@pytest.mark.parametrize("text", ["acme/model", "a*/b/c", "acme/**/c", "acme//c", ""])
def test_a_glob_has_three_segments_and_a_literal_tenant(text: str) -> None:
    with pytest.raises(MalformedError):
        KeyGlob.parse(text)


def test_no_policy_is_a_denial() -> None:
    result = appraise_key([OTHER], KEY, claims(CPU), VIEW)
    assert isinstance(result.decision, Denied)
    assert [reason.id for reason in result.decision.reasons] == ["policy.none"]
    assert result.appraisals == ()


def test_every_matching_policy_has_to_grant() -> None:
    alone = appraise_key([LOW, OTHER], KEY, claims(CPU), VIEW)
    assert isinstance(alone.decision, Granted)
    assert [(ref.name, rule) for ref, rule in alone.decision.by] == [("low", "r")]
    both = appraise_key([LOW, HIGH], KEY, claims(CPU), VIEW)
    assert isinstance(both.decision, Denied)
    assert [ref.name for ref in both.decision.policies] == ["low", "high"]
    assert {reason.policy for reason in both.decision.reasons} == {"high"}
    stronger = appraise_key([LOW, HIGH], KEY, claims({**CPU, "cpu.svn": 9}), VIEW)
    assert isinstance(stronger.decision, Granted)
    assert [ref.version for ref, _ in stronger.decision.by] == [1, 9]


def test_a_policy_governs_the_keys_of_its_own_tenant_alone() -> None:
    other = active("else", "rival/model/*", 1)
    assert governing([LOW, other, HIGH], KEY) == (LOW, HIGH)
    assert governing([other], KEY) == ()
