"""`kbs key`: a key's whole life, and that no secret is ever printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.admin_bench import Bench

pytestmark = pytest.mark.enable_socket


def test_a_key_lives_from_creation_to_destruction(shared_bench: Bench) -> None:
    bench = shared_bench
    made = bench.must("key", "create", "acme/model/life", "--kind", "aes256")
    assert (made["version"], made["kind"], made["state"]) == (1, "aes256", "enabled")
    assert bench.run("key", "create", "acme/model/life").code == 1
    assert bench.must("key", "rotate", "acme/model/life")["version"] == 2
    shown = bench.must("key", "show", "acme/model/life")
    assert [one["state"] for one in shown["versions"]] == ["retired", "enabled"]
    gone = bench.must("key", "destroy", "acme/model/life", "--version", "1", "--yes")
    assert gone["state"] == "destroyed"
    retired = bench.must("key", "retire", "acme/model/life", "--version", "2")
    assert retired["state"] == "retired"
    human = bench.run("key", "show", "acme/model/life")
    assert "destroyed" in human.out
    assert bench.run(
        "key", "destroy", "acme/model/life", "--version", "7", "--yes"
    ).code


def test_bytes_are_imported_exactly_and_never_shown(
    shared_bench: Bench, tmp_path: Path
) -> None:
    bench = shared_bench
    secret = b"\x00 exact\r\n\xff"
    path = tmp_path / "secret"
    path.write_bytes(secret)
    from_file = bench.run("key", "import", "acme/model/file", str(path), "--json")
    assert from_file.code == 0
    assert from_file.json["origin"] == "imported"
    piped = bench.run("key", "import", "acme/model/pipe", "-", stdin=secret)
    assert piped.code == 0
    assert "imported" in piped.out
    rotated = bench.run("key", "rotate", "acme/model/pipe", "-", stdin=b"next")
    assert "version 2 rotated" in rotated.out
    for ran in (from_file, piped, rotated, bench.run("key", "list", "--json")):
        assert "exact" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        (("import", "acme/model/e", "-"), b"", 2),
        (("import", "acme/model/e", "-"), b"x" * 65537, 2),
        (("import", "acme/model/e", "/nowhere/at/all"), b"", 2),
        (("import", "acme/model", "-"), b"x", 2),
        (("create", "acme/model/e", "--kind", "rsa"), b"", 2),
        (("import", "acme/model/e", "-", "--kind", "aes256"), b"short", 2),
        (("show", "acme/model/none"), b"", 1),
        (("rotate", "acme/model/none"), b"", 1),
        (("destroy", "acme/model/none", "--version", "1"), b"", 2),
        (("retire", "acme/model/none", "--version", "1"), b"", 1),
    ],
)
def test_what_is_wrong_is_one_line(
    shared_bench: Bench, arguments: tuple[str, ...], stdin: bytes, code: int
) -> None:
    ran = shared_bench.run("key", *arguments, stdin=stdin)
    assert ran.code == code
    assert ran.out == ""
    ran.assert_one_error_line()


def test_keys_are_listed_by_tenant(shared_bench: Bench) -> None:
    bench = shared_bench
    bench.must("key", "create", "acme/list/a")
    bench.must("key", "create", "beta/list/b")
    only = bench.must("key", "list", "--tenant", "beta")["keys"]
    assert [one["id"] for one in only] == ["beta/list/b"]
    human = bench.run("key", "list").out
    assert human.startswith("KEY ")
    assert "acme/list/a" in human


def test_a_public_part_is_shown(shared_bench: Bench) -> None:
    shared_bench.must("key", "create", "acme/prompt/k", "--kind", "hpke")
    assert "kty: OKP" in shared_bench.run("key", "show", "acme/prompt/k").out


def test_explain_says_who_governs_and_what_stands_against(
    shared_bench: Bench, tmp_path: Path
) -> None:
    bench = shared_bench
    path = tmp_path / "policy.yaml"
    path.write_text(
        'kind: ReleasePolicy\nname: p\nreleases: ["gamma/model/*"]\nallow:\n'
        "  - rule: one\n    all: [{claim: sample.svn, at_least: 1}]\n"
    )
    bench.must("policy", "register", str(path))
    bench.must("deny", "add", "--key", "gamma/model/k", "--reason", "leaked")
    document = bench.must("key", "explain", "gamma/model/k")
    assert document["policies"][0]["name"] == "gamma/p"
    human = bench.run("key", "explain", "gamma/model/k").out
    assert "the key does not exist" in human
    assert "policy gamma/p version 1" in human
    assert "sample.svn" in human
    assert "leaked" in human


def test_destroy_asks_on_a_terminal(shared_bench: Bench) -> None:
    shared_bench.must("key", "create", "acme/model/ask")
    destroy = ("key", "destroy", "acme/model/ask", "--version", "1")
    no = shared_bench.run(*destroy, stdin=b"n\n", terminal=True)
    assert no.code == 3
    assert "interrupted" in no.err
    yes = shared_bench.run(*destroy, stdin=b"y\n", terminal=True)
    assert yes.code == 0
    assert "destroyed" in yes.out
