"""`kbs deny`: entries come into force, are listed, and are lifted."""

from __future__ import annotations

import shlex

import pytest

from tests.fakes.admin_bench import Bench

pytestmark = pytest.mark.enable_socket

AK = "000b" + "ab" * 32


@pytest.mark.parametrize(
    ("arguments", "tenant", "target", "value"),
    [
        (("--policy", "acme/chat"), "acme", "policy", "acme/chat"),
        (("--key", "acme/model/a@2"), "acme", "key", "acme/model/a@2"),
        (("--ak", AK), "*", "ak", AK),
        (("--chip", "ab" * 64), "*", "chip", "ab" * 64),
        (("--gpu", "ab" * 32), "*", "gpu", "ab" * 32),
        (("--measurement", "cd" * 48), "*", "measurement", "cd" * 48),
        (("--measurement", "ef" * 48, "--tenant", "acme"), "acme", "measurement", None),
        (("--key", "acme/model/b", "--tenant", "*"), "*", "key", "acme/model/b"),
        (("--all",), "*", "all", ""),
    ],
)
def test_an_entry_is_put_in_force_and_lifted(
    shared_bench: Bench,
    arguments: tuple[str, ...],
    tenant: str,
    target: str,
    value: str | None,
) -> None:
    bench = shared_bench
    made = bench.must("deny", "add", *arguments, "--reason", "a reason")
    assert (made["tenant"], made["active"]) == (tenant, True)
    name = f"{tenant}/{made['name']}"
    (row,) = [
        one
        for one in bench.must("deny", "list")["entries"]
        if one["name"] == made["name"]
    ]
    assert (row["target"], row["reason"]) == (target, "a reason")
    assert value is None or row["value"] == value
    assert name in bench.run("deny", "list").out
    assert bench.run("deny", "lift", name).out == f"{name} is lifted\n"
    assert name not in bench.run("deny", "list").out
    assert name in bench.run("deny", "list", "--lifted").out
    assert bench.run("deny", "lift", name).code == 1


def test_the_emergency_stop_says_how_to_end_it(shared_bench: Bench) -> None:
    ran = shared_bench.run(
        "deny", "add", "--all", "--reason", "stop", "--name", "emergency"
    )
    assert ran.code == 0
    words = "everything is denied by */emergency; lift it: kbs deny lift '*/emergency'"
    assert ran.out == words + "\n"
    _, _, command = ran.out.partition("lift it: kbs ")
    assert shared_bench.must(*shlex.split(command))["active"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "--reason", "x"),
        ("add", "--all"),
        ("add", "--all", "--key", "a/b/c", "--reason", "x"),
        ("add", "--key", "a/b", "--reason", "x"),
        ("add", "--policy", "a", "--reason", "x"),
        ("add", "--chip", "XY", "--reason", "x"),
        ("add", "--chip", "", "--reason", "x"),
        ("add", "--gpu", "ab" * 31, "--reason", "x"),
        ("add", "--all", "--reason", " "),
        ("add", "--all", "--reason", "x", "--name", "Bad Name"),
        ("add", "--chip", "ab", "--reason", "x", "--tenant", "A"),
        ("lift", "nothing"),
        ("lift", "*/Bad Name"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(
    shared_bench: Bench, arguments: tuple[str, ...]
) -> None:
    ran = shared_bench.run("deny", *arguments)
    assert ran.code == 2
    ran.assert_one_error_line()


def test_a_tenant_cannot_deny_what_is_anothers(shared_bench: Bench) -> None:
    ran = shared_bench.run(
        "deny", "add", "--key", "acme/model/a", "--tenant", "beta", "--reason", "x"
    )
    assert ran.code != 0
    ran.assert_one_error_line()
