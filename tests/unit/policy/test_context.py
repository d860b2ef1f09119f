from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kbs.core.errors import MalformedError
from kbs.core.ids import ScopedName
from kbs.policy.context import (
    Context,
    ReferenceSet,
    WorkloadDigests,
    candidates,
    missing_names,
)
from kbs.policy.contextfile import load_context, read_file
from kbs.policy.located import PolicyError
from kbs.policy.model import Dependencies
from tests.unit.policy.words import CONTEXT, DIGESTS, OTHER, VIEW


@pytest.mark.parametrize(
    ("name", "tenant", "shared", "full"),
    [
        ("x", "acme", True, ["acme/x", "shared/x"]),
        ("x", "acme", False, ["acme/x"]),
        ("x", "shared", True, ["shared/x"]),
        ("acme/x", "acme", True, ["acme/x"]),
        ("shared/x", "acme", True, ["shared/x"]),
        ("shared/x", "acme", False, []),
        ("rival/x", "acme", True, []),
    ],
)
def test_a_name_stands_for_the_tenants_own_or_a_shared_one(
    name: str,
    tenant: str,
    shared: bool,  # noqa: FBT001
    full: list[str],
) -> None:
    assert [str(each) for each in candidates(name, tenant, shared=shared)] == full


def test_the_own_name_hides_the_shared_one() -> None:
    own = VIEW.reference("images")
    assert own is not None
    assert own.values[0] == "aabbccdd"
    assert VIEW.reference("rival/images") is None
    assert VIEW.workload_policy("runtime", 1) == DIGESTS
    assert VIEW.workload_policy("agent", 2) == OTHER
    assert VIEW.workload_policy("agent", 1) is None
    assert CONTEXT.view("rival").workload_policy("runtime", 1) is None


def test_what_a_policy_names_and_nobody_has_is_listed() -> None:
    needs = Dependencies(
        references=frozenset({"images", "gone"}),
        workload_policies=frozenset({("runtime", 1), ("runtime", 2)}),
        ak_groups=frozenset({"hosts", "strangers"}),
        cas=frozenset({"shared/tpm-ca", "tpm-ca", "no-ca"}),
    )
    assert missing_names(needs, VIEW) == (
        "reference gone does not exist",
        "workload policy runtime version 2 does not exist",
        "AK group strangers does not exist",
        "CA no-ca does not exist",
        "CA tpm-ca does not exist",
    )


PEM = "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n"


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "run.rego").write_bytes(b"package a\n")
    (tmp_path / "old.rego").write_bytes(b"package b\n")
    (tmp_path / "ca.pem").write_text(PEM)
    path = tmp_path / "context.yaml"
    path.write_text(text)
    return path


def test_a_context_file_is_read(tmp_path: Path) -> None:
    text = """
references:
  images: [aa, 5]
  lasting: {values: [cc]}
  shared/images: {values: [bb], expires: "2027-01-01T00:00:00Z"}
workload_policies:
  one: run.rego
  listed: [old.rego, run.rego]
  chosen: {7: run.rego}
ak_groups:
  acme/hosts: ["AAEC"]
  empty: []
cas:
  from-file: ca.pem
  inline: |
    -----BEGIN CERTIFICATE-----
    MAo=
    -----END CERTIFICATE-----
"""
    context = load_context(write(tmp_path, text), tenant="acme")
    run = WorkloadDigests.of(b"package a\n")
    assert context == Context(
        references={
            ScopedName("acme", "images"): ReferenceSet(values=("aa", 5)),
            ScopedName("acme", "lasting"): ReferenceSet(values=("cc",)),
            ScopedName("shared", "images"): ReferenceSet(
                values=("bb",), expires=datetime(2027, 1, 1, tzinfo=UTC)
            ),
        },
        workload_policies={
            (ScopedName("acme", "one"), 1): run,
            (ScopedName("acme", "listed"), 1): WorkloadDigests.of(b"package b\n"),
            (ScopedName("acme", "listed"), 2): run,
            (ScopedName("acme", "chosen"), 7): run,
        },
        ak_groups={
            ScopedName("acme", "hosts"): (b"\x00\x01\x02",),
            ScopedName("acme", "empty"): (),
        },
        cas={
            ScopedName("acme", "from-file"): PEM.encode(),
            ScopedName("acme", "inline"): PEM.encode(),
        },
    )
    assert context.view("acme").has_ak_group("hosts")
    assert context.view("acme").has_ca("inline")


def test_an_empty_context_file_is_an_empty_context(tmp_path: Path) -> None:
    assert load_context(write(tmp_path, "{}\n"), tenant="acme") == Context()
    assert load_context(write(tmp_path, "~\n"), tenant="acme") == Context()


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("[]", "1 column 1", "a mapping"),
        ("refs: {}", "1 column 1", "unknown member"),
        ("references: [x]", "1 column 13", "a mapping"),
        ("references: {a/b/c: [x]}", "1 column 14", "TENANT/NAME"),
        ("references: {a: []}", "1 column 17", "1 to"),
        ("references: {a: [[x]]}", "1 column 18", "a string or an integer"),
        ("references: {a: [true]}", "1 column 18", "a string or an integer"),
        ("references: {a: {values: [x], expires: soon}}", "1 column 40", "RFC 3339"),
        ("references: {a: {values: [x], until: 1}}", "1 column 31", "unknown member"),
        ("workload_policies: {a: none.rego}", "1 column 24", "No such file"),
        ("workload_policies: {a: ../run.rego}", "1 column 24", "below the context"),
        ("workload_policies: {a: /etc/passwd}", "1 column 24", "below the context"),
        ("workload_policies: {a: 5}", "1 column 24", "a mapping"),
        ("workload_policies: {a: {v1: run.rego}}", "1 column 25", "1, 2, 3"),
        ("workload_policies: {a: [5]}", "1 column 25", "a string"),
        ("ak_groups: {a: x}", "1 column 16", "a list"),
        ("ak_groups: {a: ['!']}", "1 column 17", "padded base64"),
        ("cas: {a: none.pem}", "1 column 10", "No such file"),
    ],
)
def test_a_wrong_context_is_named_with_its_place(
    tmp_path: Path, text: str, place: str, words: str
) -> None:
    with pytest.raises(MalformedError) as caught:
        load_context(write(tmp_path, text), tenant="acme")
    assert str(caught.value).startswith(f"context.yaml line {place}")
    assert words in str(caught.value)


def test_all_problems_of_a_context_are_found(tmp_path: Path) -> None:
    text = "references: {a: [], b: []}\ncas: {c: none.pem}\n"
    with pytest.raises(PolicyError) as caught:
        load_context(write(tmp_path, text), tenant="acme")
    assert len(caught.value.problems) == 3


def test_a_file_has_a_size_limit(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(bytes(11))
    with pytest.raises(MalformedError, match="more than 10 bytes"):
        read_file(path, "big", limit=10)
    assert read_file(path, "big", limit=11) == bytes(11)
