"""`kbs policy`: local checks and explanations, and what is in force at a broker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbs.core.encode import b64
from tests.conftest import ROOT
from tests.fakes.admin_bench import Bench, run
from tests.fakes.tpm import FakeTpm

pytestmark = pytest.mark.enable_socket

POLICY = """\
kind: ReleasePolicy
name: {name}
releases: ["acme/{name}/*"]
allow:
  - rule: host
    all:
      - {{safe: true}}
      - {{claim: vtpm.ak.group, equals: hosts}}
      - {{claim: vtpm.reset_count, at_least: {resets}}}
"""


def policy(name: str = "chat", resets: int = 0) -> str:
    return POLICY.format(name=name, resets=resets)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    def write(text: str | bytes, name: str = "policy.yaml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


# -- check


def test_check_says_what_would_be_registered(written: Callable[..., str]) -> None:
    path = written(policy())
    ran = run("policy", "check", path, "--json")
    assert ran.code == 0
    assert ran.json["valid"] is True
    assert (ran.json["tenant"], ran.json["name"]) == ("acme", "chat")
    assert ran.json["rules"] == ["host"]
    assert len(ran.json["digest"]) == 64
    human = run("policy", "check", path)
    assert "acme/chat, 1 rule, digest " in human.out
    assert human.out.startswith("warning: ")


def test_check_names_line_and_column_of_every_problem(
    written: Callable[..., str],
) -> None:
    text = policy().replace("at_least", "atleast").replace("name: chat", "name: Chat")
    path = written(text)
    ran = run("policy", "check", path)
    assert ran.code == 2
    lines = ran.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"error: {path} line ") for line in lines)
    assert "line 2 column " in lines[0]
    assert "line 9 column " in lines[1]
    document = run("policy", "check", path, "--json")
    assert document.code == 2
    assert document.json["valid"] is False
    assert len(document.json["problems"]) == 2


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_check_of_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    ran = run("policy", "check", str(tmp_path / name))
    assert ran.code == 2
    ran.assert_one_error_line()


def test_check_with_a_context_finds_names_that_do_not_exist(
    written: Callable[..., str],
) -> None:
    path = written(policy())
    context = written("ak_groups: {}\n", "context.yaml")
    ran = run("policy", "check", path, "--context", context, "--json")
    assert ran.code == 1
    assert ran.json["problems"] == ["AK group hosts does not exist"]
    assert "AK group hosts" in run("policy", "check", path, "--context", context).err
    good = written("ak_groups: {hosts: []}\n", "good.yaml")
    assert run("policy", "check", path, "--context", good).code == 0
    broken = written("nothing: 1\n", "broken.yaml")
    assert run("policy", "check", path, "--context", broken).code == 2


def test_check_with_a_context_finds_values_that_the_broker_refuses(
    written: Callable[..., str],
) -> None:
    leaf = "      - {claim: vtpm.pcr.sha256.4, in: {reference: loaders}}\n"
    path = written(policy() + leaf)
    for value, words in (("AB" * 32, "lower-case hex"), ("ab" * 31, "32 bytes")):
        text = f"references: {{loaders: ['{value}']}}\nak_groups: {{hosts: []}}\n"
        context = written(text, "context.yaml")
        ran = run("policy", "check", path, "--context", context, "--json")
        assert (ran.code, ran.json["valid"]) == (1, False)
        (problem,) = ran.json["problems"]
        assert problem.startswith("reference loaders: the value ")
        assert words in problem


def test_check_measures_a_workload_policy(written: Callable[..., str]) -> None:
    path = written("abc")
    ran = run("policy", "check", "--workload", path, "--json")
    assert ran.json["sha256"].startswith("ba7816bf")
    assert ran.json["size"] == 3
    assert "sha384: cb00753f" in run("policy", "check", "--workload", path).out
    wrong = run("policy", "check", "--workload", path, "--context", path)
    assert wrong.code == 2


# -- test


def test_the_example_policies_pass_their_own_cases() -> None:
    ran = run("policy", "test", str(ROOT / "policies"), "--json")
    assert ran.code == 0
    assert ran.json["passed"] is True
    assert len(ran.json["folders"]) >= 4
    one = run("policy", "test", str(ROOT / "policies" / "vtpm-host"))
    assert one.code == 0
    assert one.out.rstrip().endswith("0 failed")


def test_a_case_that_fails_is_exit_1(written: Callable[..., str]) -> None:
    path = Path(written(policy(), "one/policy.yaml"))
    case = {"claims": {}, "request": {"keys": ["acme/chat/a"]}}
    written("ak_groups: {hosts: []}\n", "one/context.yaml")
    written(json.dumps(case), "one/allow/none.json")
    written(json.dumps(case), "one/deny/none.json")
    ran = run("policy", "test", str(path.parent.parent), "--json")
    assert ran.code == 1
    (folder,) = ran.json["folders"]
    assert [case["passed"] for case in folder["cases"]] == [False, True]
    human = run("policy", "test", str(path.parent))
    assert human.code == 1
    assert human.out.rstrip().endswith("1 passed, 1 failed")


def test_a_folder_that_cannot_be_read_is_exit_2(written: Callable[..., str]) -> None:
    path = Path(written("kind: x\n", "one/policy.yaml"))
    ran = run("policy", "test", str(path.parent), "--json")
    assert ran.code == 2
    assert ran.json["folders"][0]["problems"]
    assert run("policy", "test", str(path.parent)).out.endswith("1 failed\n")
    empty = run("policy", "test", str(path.parent.parent / "nowhere"))
    assert empty.code == 2
    empty.assert_one_error_line()


# -- explain, here


def recorded(tpm: FakeTpm) -> str:
    item = tpm.quote_item(b"x" * 32)
    return json.dumps({"format": "kbs.evidence/1", "items": [item]})


def context_of(tpm: FakeTpm) -> str:
    return f'ak_groups: {{hosts: ["{b64(tpm.ak_public)}"]}}\n'


def explain(written: Callable[..., str], tpm: FakeTpm, text: str, *more: str) -> Any:
    return run(
        *("policy", "explain", written(text)),
        *("--evidence", written(recorded(tpm), "bundle.json")),
        *("--context", written(context_of(tpm), "context.yaml")),
        *more,
        "--json",
    )


def test_explain_grants_what_the_context_trusts(written: Callable[..., str]) -> None:
    ran = explain(written, FakeTpm(), policy())
    assert ran.code == 0
    document = ran.json
    assert document["decision"] == "granted"
    assert document["policy"] == "chat"
    assert [rule["result"] for rule in document["rules"]] == [True]
    assert set(document["rules"][0]["tree"]) >= {
        *("op", "claim", "got", "expected", "result", "children")
    }
    assert document["assumed_request"] is True


def test_explain_denies_with_the_reason_first(written: Callable[..., str]) -> None:
    ran = explain(written, FakeTpm(), policy(resets=1_000_000))
    assert ran.code == 1
    assert ran.json["decision"] == "denied"
    assert ran.json["reasons"][0]["id"] == "vtpm.reset_count"
    assert ran.json["nearest"]["rule"] == "host"


def test_explain_of_evidence_that_does_not_hold_names_the_checks(
    written: Callable[..., str],
) -> None:
    tpm = FakeTpm()
    arguments = [
        *("policy", "explain", written(policy())),
        *("--evidence", written(recorded(FakeTpm()), "bundle.json")),
        *("--context", written(context_of(tpm), "context.yaml")),
    ]
    ran = run(*arguments, "--json")
    assert ran.code == 1
    assert ran.json["decision"] == "denied"
    assert ran.json["reasons"][0]["id"] == "vtpm.ak.trust"
    human = run(*arguments)
    assert "check fail: vtpm.ak.trust" in human.out
    assert "note: no --request" in human.out


@pytest.mark.parametrize(
    "bundle",
    [
        "{",
        '{"format": "kbs.evidence/1", "items": [{"kind": "snp"}]}',
        '{"format": "kbs.evidence/1", "items": [{"kind": "snp"}], "runtime_data": {}}',
    ],
)
def test_explain_of_malformed_evidence_is_exit_2(
    written: Callable[..., str], bundle: str
) -> None:
    ran = run(
        *("policy", "explain", written(policy())),
        *("--evidence", written(bundle, "bundle.json")),
        *("--context", written("{}", "context.yaml"), "--json"),
    )
    assert ran.code == 2
    assert ran.json["decision"] == "denied"


def test_explain_takes_the_request_from_a_file(written: Callable[..., str]) -> None:
    request = written(
        json.dumps(
            {
                "keys": ["acme/other/x"],
                "door": "kms",
                "freshness": "token_age",
                "time": "2026-01-01T00:00:00Z",
                "token_age": 5,
            }
        ),
        "request.json",
    )
    ran = explain(written, FakeTpm(), policy(), "--request", request)
    assert ran.code == 1
    ids = [reason["id"] for reason in ran.json["reasons"]]
    assert ids[:2] == ["request.door", "request.freshness"]
    assert ran.json["assumed_request"] is False
    assert ran.json["request"]["request.token_age"] == 5


@pytest.mark.parametrize(
    "request_text",
    ["[]", '{"x": 1}', '{"door": 1}', '{"development": 1}', '{"keys": ["a"]}'],
)
def test_explain_refuses_a_request_without_shape(
    written: Callable[..., str], request_text: str
) -> None:
    request = written(request_text, "request.json")
    ran = explain(written, FakeTpm(), policy(), "--request", request)
    assert ran.code == 2
    ran.assert_one_error_line()


def test_explain_says_which_keys_a_policy_does_not_cover(
    written: Callable[..., str],
) -> None:
    tpm = FakeTpm()
    ran = run(
        *("policy", "explain", written(policy())),
        *("--evidence", written(recorded(tpm), "bundle.json")),
        *("--context", written(context_of(tpm), "context.yaml")),
        *("--request", written('{"keys": ["acme/other/x"]}', "request.json")),
    )
    assert "note: the policy does not cover key acme/other/x" in ran.out


def test_sample_evidence_counts_only_in_a_development_request(
    written: Callable[..., str],
) -> None:
    text = (ROOT / "policies" / "sample-development" / "policy.yaml").read_text()
    item = {"kind": "sample", "report_data": b64(bytes(48)), "claims": {"svn": 3}}
    arguments = [
        *("policy", "explain", written(text)),
        *(
            "--evidence",
            written(
                json.dumps({"format": "kbs.evidence/1", "items": [item]}), "bundle.json"
            ),
        ),
        *("--context", written("{}", "context.yaml")),
    ]
    assert run(*arguments).code == 1
    development = written('{"development": true}', "request.json")
    assert run(*arguments, "--request", development).code == 0


# -- at the broker


def test_register_puts_in_force_and_again_changes_nothing(
    shared_bench: Bench, written: Callable[..., str]
) -> None:
    shared_bench.world.enrol(FakeTpm())
    path = written(policy("one"))
    first = shared_bench.must("policy", "register", path)
    assert (first["version"], first["active"]) == (1, True)
    assert first["statement"]["digest"] == first["digest"]
    again = shared_bench.must("policy", "register", path)
    assert (again["version"], again["statement"]) == (1, None)
    stored = shared_bench.must("policy", "register", path, "--no-activate")
    assert (stored["version"], stored["active"]) == (1, True)
    human = shared_bench.run("policy", "register", path)
    assert "acme/one version 1 is in force" in human.out


def test_versions_are_stored_activated_compared_and_rolled_back(
    shared_bench: Bench, written: Callable[..., str]
) -> None:
    bench = shared_bench
    bench.world.enrol(FakeTpm())
    bench.must("policy", "register", written(policy("two")))
    second = written(
        policy("two", resets=7).replace('"acme/two/*"', '"acme/two/a*"'), "b.yaml"
    )
    stored = bench.must("policy", "register", second, "--no-activate")
    assert (stored["version"], stored["active"]) == (2, False)
    against_file = bench.must("policy", "diff", "acme/two", second)
    assert against_file["rules"]["changed"] == ["host"]
    assert against_file["releases"] == {
        "added": ["acme/two/a*"],
        "removed": ["acme/two/*"],
        "changed": [],
    }
    newest = bench.must("policy", "diff", "acme/two", "--from", "1", "--to", "2")
    assert newest["diff"][2:] == against_file["diff"][2:]
    assert "may widen access" in bench.run("policy", "diff", "acme/two").out
    same = bench.run("policy", "diff", "acme/two", "--to", "1")
    assert "no difference" in same.out
    assert bench.must("policy", "activate", "acme/two")["version"] == 2
    shown = bench.must("policy", "show", "acme/two")
    assert shown["version"] == 2
    assert shown["policy"]["allow"][0]["rule"] == "host"
    assert shown["source"] == Path(second).read_text()
    rolled = bench.must("policy", "rollback", "acme/two", "--to", "1")
    assert (rolled["version"], rolled["active"]) == (1, True)
    human = bench.run("policy", "show", "acme/two")
    assert human.out.startswith("# acme/two version 1, in force")
    assert bench.run("policy", "rollback", "acme/two", "--to", "1").code == 2
    assert bench.run("policy", "activate", "acme/two", "--version", "9").code == 1
    listed = bench.must("policy", "list", "--tenant", "acme")["policies"]
    assert [one["active"] for one in listed if one["name"] == "two"] == [True, False]
    assert "acme/two" in bench.run("policy", "list").out
    gone = bench.must("policy", "deactivate", "acme/two")
    assert gone["active"] is False
    assert bench.run("policy", "deactivate", "acme/two").code == 1
    assert bench.must("policy", "show", "acme/two")["version"] == 2


def test_workload_policies_are_registered_by_their_exact_bytes(
    shared_bench: Bench, written: Callable[..., str]
) -> None:
    bench = shared_bench
    first = bench.must(
        "policy", "register", written(b"\x00one"), "--workload", "acme/w"
    )
    assert first["kind"] == "workload-policy"
    bench.must("policy", "register", written(b"two"), "--workload", "acme/w")
    # Versions stand beside each other: which one is meant has to be said.
    both = bench.run("policy", "deactivate", "acme/w")
    assert both.code == 1
    assert "--version" in both.err
    gone = bench.must("policy", "deactivate", "acme/w", "--version", "1")
    assert gone["version"] == 1
    shown = bench.must("policy", "show", "acme/w", "--workload", "--version", "1")
    assert shown["source_base64"] == b64(b"\x00one")
    text = bench.must("policy", "diff", "acme/w", "--from", "1", "--to", "2")
    assert "+two" in text["diff"]


def test_a_bare_name_means_the_only_policy_of_that_name(
    shared_bench: Bench, written: Callable[..., str]
) -> None:
    bench = shared_bench
    tpm = FakeTpm()
    bench.world.enrol(tpm)
    bench.must("policy", "register", written(policy("bare")))
    bench.must("policy", "register", written(policy("bare", resets=3)))
    bundle = written(recorded(tpm), "bundle.json")
    explained = bench.run("policy", "explain", "bare", "--evidence", bundle, "--json")
    assert explained.json["policy"] == "bare"
    listed = bench.must("policy", "list", "bare")["policies"]
    assert [one["version"] for one in listed] == [1, 2]
    assert bench.must("policy", "list", "acme/bare")["policies"] == listed
    assert bench.must("policy", "list", "other/bare")["policies"] == []
    assert bench.must("policy", "show", "bare")["version"] == 2
    assert bench.must("policy", "diff", "bare", "--from", "1")["name"] == "acme/bare"
    assert bench.must("policy", "rollback", "bare", "--to", "1")["version"] == 1
    assert bench.must("policy", "activate", "bare")["version"] == 2
    assert bench.must("policy", "deactivate", "bare")["active"] is False


def test_a_bare_name_in_several_tenants_is_refused_with_their_names(
    shared_bench: Bench, written: Callable[..., str]
) -> None:
    bench = shared_bench
    for tenant in ("acme", "other"):
        bench.must(
            *("policy", "register", written(b"x"), "--workload", f"{tenant}/twin")
        )
    ran = bench.run("policy", "deactivate", "twin", "--workload")
    assert ran.code == 1
    assert "several: acme/twin, other/twin" in ran.err
    ran.assert_one_error_line()
    gone = bench.must("policy", "deactivate", "other/twin", "--workload")
    assert gone["tenant"] == "other"


@pytest.mark.parametrize("target", ["missing.yaml", "/no/missing.yaml", "a/missing"])
def test_explain_of_neither_a_file_nor_a_stored_policy(
    shared_bench: Bench, written: Callable[..., str], target: str
) -> None:
    ran = shared_bench.run(
        "policy", "explain", target, "--evidence", written("{}", "e.json")
    )
    assert ran.code == 1
    assert "got no such file, and no tenant has a policy of this name" in ran.err
    ran.assert_one_error_line()


def test_nothing_of_that_name(shared_bench: Bench, written: Callable[..., str]) -> None:
    for command in ("show", "activate", "deactivate", "diff"):
        ran = shared_bench.run("policy", command, "acme/none")
        assert ran.code == 1
        ran.assert_one_error_line()
    assert shared_bench.run("policy", "show", "acme/a/b").code == 2
    bare = shared_bench.run("policy", "show", "none")
    assert bare.code == 1
    assert "policy none: got no tenant has" in bare.err
    both = ("policy", "diff", "acme/none", written(policy()), "--to", "1")
    assert shared_bench.run(*both).code == 2


def test_diff_says_what_else_lets_more_requests_in(
    shared_bench: Bench, written: Callable[..., str]
) -> None:
    bench = shared_bench
    bench.must("policy", "register", written(policy("six")))
    wider = policy("six") + (
        "accept: {doors: [v1, kms], freshness: token_age, max_age: 300}\n"
        "revocation: {tolerate_missing: true}\n"
    )
    arguments = ("policy", "diff", "acme/six", written(wider, "wider.yaml"))
    document = bench.must(*arguments)
    assert document["doors"]["added"] == ["kms"]
    assert document["doors"]["removed"] == ["rcar"]
    assert document["rules"]["changed"] == []
    said = bench.run(*arguments).out
    assert "doors accepted in addition (may widen access): kms" in said
    assert "freshness changed: challenge → token_age up to 300 s" in said
    assert "a current list is needed → a missing list is tolerated" in said


def test_explain_by_the_broker(
    shared_bench: Bench, written: Callable[..., str]
) -> None:
    tpm = FakeTpm()
    shared_bench.world.enrol(tpm)
    path = written(policy("three", resets=1_000_000))
    shared_bench.must("policy", "register", path)
    bundle = written(recorded(tpm), "bundle.json")
    for target in ("acme/three", path):
        ran = shared_bench.run(
            "policy", "explain", target, "--evidence", bundle, "--json"
        )
        assert ran.code == 1
        assert ran.json["reasons"][0]["id"] == "vtpm.reset_count"
        assert ran.err == ""
    request = written('{"door": "v1"}', "request.json")
    granted = shared_bench.run(
        *("policy", "explain", written(policy("three"), "good.yaml")),
        *("--evidence", bundle, "--request", request),
    )
    assert granted.code == 0
    unknown = shared_bench.run(
        "policy", "explain", "acme/nowhere", "--evidence", bundle
    )
    assert unknown.code == 1
    refused = written(recorded(FakeTpm()), "other.json")
    ran = shared_bench.run("policy", "explain", path, "--evidence", refused)
    assert ran.code == 1
    assert "vtpm.ak.trust" in ran.err


def test_here_and_at_the_broker_the_same_is_said(
    shared_bench: Bench, written: Callable[..., str]
) -> None:
    tpm = FakeTpm()
    shared_bench.world.enrol(tpm)
    since = "      - {claim: request.time, at_least: '2026-06-01T00:00:00Z'}\n"
    arguments = [
        *("policy", "explain", written(policy("five") + since)),
        *("--evidence", written(recorded(tpm), "bundle.json"), "--json"),
    ]
    names = ("--context", written(context_of(tpm), "context.yaml"))
    for members, granted in (
        ({}, True),
        ({"keys": ["acme/five/a"], "door": "rcar"}, True),
        ({"keys": ["acme/other/x"], "token_age": 5, "freshness": "token_age"}, False),
        ({"time": "2026-01-01T00:00:00Z", "development": True}, False),
    ):
        request = written(json.dumps(members), "request.json")
        at = ("--request", request, "--at", "2026-11-22T08:00:00Z")
        here = run(*arguments, *at, *names)
        there = shared_bench.run(*arguments, *at)
        assert (here.code, there.code) == ((0, 0) if granted else (1, 1))
        same = ("decision", "digest", "rules", "reasons", "request", "not_covered")
        assert {name: here.json[name] for name in same} == {
            name: there.json[name] for name in same
        }
        assert there.err == ""


def test_a_broker_that_understands_something_else_gets_no_signature(
    bench: Bench, written: Callable[..., str]
) -> None:
    def other_digest(path: str, body: bytes) -> bytes | None:
        if path != "/admin/v1/objects":
            return None
        return json.dumps({**json.loads(body), "digest": "00" * 32}).encode()

    bench.world.enrol(FakeTpm())
    with bench.tampering(other_digest):
        ran = bench.run("policy", "register", written(policy()))
    assert ran.code == 1
    assert "nothing was signed" in ran.err
    ran.assert_one_error_line()
    assert ("POST", "/admin/v1/governance/statements") not in bench.requests


def test_a_content_that_is_not_what_is_listed_is_not_signed(
    bench: Bench, written: Callable[..., str]
) -> None:
    def other_content(path: str, body: bytes) -> bytes | None:
        if not path.startswith("/admin/v1/objects/"):
            return None
        return json.dumps({**json.loads(body), "content": b64(b"{}")}).encode()

    bench.world.enrol(FakeTpm())
    bench.must("policy", "register", written(policy()), "--no-activate")
    with bench.tampering(other_content):
        ran = bench.run("policy", "activate", "acme/chat")
    assert ran.code != 0
    ran.assert_one_error_line()
    assert ("POST", "/admin/v1/governance/statements") not in bench.requests


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "nowhere"),
        ("check", "nowhere", "--workload"),
        ("check", "."),
        ("test", "nowhere"),
        ("explain", "nowhere", "--evidence", "nowhere", "--context", "nowhere"),
        ("register", "nowhere"),
    ],
)
def test_an_unreadable_file_is_one_line_and_no_document(
    arguments: tuple[str, ...],
) -> None:
    ran = run("policy", *arguments, "--json")
    assert (ran.code, ran.out) == (2, "")
    ran.assert_one_error_line()


def test_each_module_of_the_policy_commands_can_be_imported_first() -> None:
    for module in ("policy", "policy_store", "policy_files"):
        done = subprocess.run(
            [sys.executable, "-c", f"import kbs.cli.{module}"], check=False
        )
        assert done.returncode == 0, module
