"""What a rule about evidence of a cloud must fix, or excuse under `unsafe:`."""

from __future__ import annotations

import pytest

from kbs.evidence.registry import vocabulary
from kbs.policy.parse import PolicyError, parse_release_policy
from tests.unit.policy.words import policy_text

WORDS = vocabulary()
PCR = "'" + "11" * 48 + "'"


def open_claims(conditions: str, unsafe: str = "") -> list[str]:
    """Return the claims that stand open in the errors; none if it registers."""
    text = policy_text(f"[{conditions}]", unsafe=f"{{{unsafe}}}" if unsafe else "")
    try:
        parse_release_policy(text, vocabulary=WORDS)
    except PolicyError as exc:
        return [str(each).split(": ")[1].split()[2] for each in exc.problems]
    return []


@pytest.mark.parametrize(
    ("conditions", "unsafe", "found"),
    [
        (f"{{claim: nitro.pcrs.0, equals: {PCR}}}", "", ["nitro.debug"]),
        (f"{{claim: nitro.pcrs.0, equals: {PCR}}}, {{safe: true}}", "", []),
        (
            f"{{claim: nitro.pcrs.0, equals: {PCR}}}, "
            "{claim: nitro.debug, equals: false}",
            "",
            [],
        ),
        ("{claim: nitro.debug, equals: true}", "", ["nitro.debug"]),
        ("{claim: nitro.debug, equals: true}", "nitro.debug: a laboratory", []),
        ("{claim: nitrotpm.module_id, equals: x}", "", ["nitrotpm.pcrs.4"]),
        (
            "{claim: nitrotpm.module_id, equals: x}, {safe: true}",
            "",
            ["nitrotpm.pcrs.4"],
        ),
        (f"{{claim: nitrotpm.pcrs.4, equals: {PCR}}}", "", []),
        (f"{{claim: nitrotpm.pcrs.7, equals: {PCR}}}", "", []),
        (f"{{claim: nitrotpm.pcrs.0, equals: {PCR}}}", "", ["nitrotpm.pcrs.4"]),
        (
            f"{{claim: nitrotpm.pcrs.4, equals: {PCR}}}, "
            f"{{claim: nitrotpm.pcrs.16, equals: {PCR}}}",
            "",
            ["nitrotpm.pcrs.16"],
        ),
    ],
)
def test_a_rule_fixes_what_is_dangerous_or_excuses_it(
    conditions: str, unsafe: str, found: list[str]
) -> None:
    assert open_claims(conditions, unsafe) == found
