"""The policies that ship with the broker decide their cases as their folders say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kbs.evidence.registry import vocabulary
from kbs.policy.cases import run_folder
from kbs.policy.model import Door, Freshness, Operator
from kbs.policy.parse import parse_release_policy

POLICIES = Path(__file__).resolve().parents[3] / "policies"
FOLDERS = sorted(path.parent for path in POLICIES.glob("*/policy.yaml"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_decides_its_cases(folder: Path) -> None:
    result = run_folder(folder, vocabulary())
    assert result.problems == ()
    assert {case.name: case.detail for case in result.cases if not case.passed} == {}
    assert result.policy.policy.name in {folder.name, "chat-inference"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_examples_canonical_form_is_the_same_policy(folder: Path) -> None:
    source = (folder / "policy.yaml").read_bytes()
    parsed = parse_release_policy(source, vocabulary=vocabulary())
    again = parse_release_policy(parsed.canonical, vocabulary=vocabulary())
    assert again.policy == parsed.policy
    assert again.digest == parsed.digest


def test_there_are_examples_for_every_use() -> None:
    assert len(FOLDERS) >= 5
    denials = [case for folder in FOLDERS for case in (folder / "deny").glob("*.json")]
    assert all("reasons" in json.loads(case.read_bytes()) for case in denials)


def test_the_schema_knows_every_word_of_the_language() -> None:
    schema = json.loads((POLICIES / "schema.json").read_bytes())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    leaf = schema["$defs"]["leaf"]
    assert set(leaf["properties"]) == {"claim", *(op.value for op in Operator)}
    accept = schema["$defs"]["accept"]["properties"]
    assert set(accept["doors"]["items"]["enum"]) == {door.value for door in Door}
    assert set(accept["freshness"]["enum"]) == {each.value for each in Freshness}
    assert set(schema["properties"]) == {
        "kind",
        "name",
        "description",
        "releases",
        "allow",
        "accept",
        "revocation",
        "unsafe",
    }
    heads = {
        name
        for each in schema["$defs"]["condition"]["oneOf"]
        for name in schema["$defs"][each["$ref"].rpartition("/")[2]]["required"]
    }
    assert heads == {"claim", "all", "any", "not", "every", "count", "safe"}
