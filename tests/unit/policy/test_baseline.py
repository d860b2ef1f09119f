"""Baseline policies ask for what the bulletins of vendors do, each with its source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

POLICIES = Path(__file__).resolve().parents[3] / "policies"
DOCUMENT = yaml.safe_load((POLICIES / "baseline" / "advisories.yaml").read_bytes())
VENDORS = {
    "AMD": (r"AMD-SB-\d+", "https://www.amd.com/en/resources/product-security/"),
    "Intel": (r"INTEL-SA-\d{5}|TCB-\d+", "https://"),
    "NVIDIA": (r"NVIDIA-\d+", "https://github.com/NVIDIA/product-security/"),
}


def _floors() -> Iterator[Any]:
    for advisory in DOCUMENT["advisories"]:
        for floor in advisory["floors"]:
            name = f"{advisory['id']}-{floor['policy']}-{floor['rule']}"
            yield pytest.param(floor, id=name)


def _leaves(policy: str, rule: str) -> list[dict[str, Any]]:
    document = yaml.safe_load((POLICIES / policy / "policy.yaml").read_bytes())
    (found,) = [one for one in document["allow"] if one["rule"] == rule]
    flat: list[dict[str, Any]] = []
    waiting = list(found["all"])
    while waiting:
        leaf = waiting.pop()
        if "claim" in leaf:
            flat.append(leaf)
        elif "all" in leaf:  # of `every`, or by itself
            waiting += leaf["all"]
    return flat


def _at_least(asked: Any, floor: Any) -> bool:
    if isinstance(floor, dict):
        return all(_at_least(asked.get(name, -1), floor[name]) for name in floor)
    if isinstance(floor, str):
        return [int(part) for part in asked.split(".")] >= [
            int(part) for part in floor.split(".")
        ]
    return bool(asked >= floor)


@pytest.mark.parametrize("advisory", DOCUMENT["advisories"], ids=lambda one: one["id"])
def test_an_advisory_has_its_source(advisory: dict[str, Any]) -> None:
    pattern, base = VENDORS[advisory["vendor"]]
    assert re.fullmatch(pattern, advisory["id"])
    assert advisory["source"].startswith(base)
    assert advisory["read"] in {"vendor", "quoted"}
    assert advisory["about"].endswith(".")
    assert all(re.fullmatch(r"CVE-\d{4}-\d+", cve) for cve in advisory["cves"])
    assert advisory["floors"]


@pytest.mark.parametrize("floor", list(_floors()))
def test_a_policy_asks_for_at_least_the_floor(floor: dict[str, Any]) -> None:
    leaves = _leaves(floor["policy"], floor["rule"])
    mine = [leaf for leaf in leaves if leaf["claim"] == floor["claim"]]
    if "equals" in floor:
        assert any(leaf.get("equals") == floor["equals"] for leaf in mine)
    else:
        asked = [leaf["at_least"] for leaf in mine if "at_least" in leaf]
        assert any(_at_least(one, floor["at_least"]) for one in asked)
