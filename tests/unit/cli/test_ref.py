"""`kbs ref`: values, attestation keys and CAs come into force and leave it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.broker.pending import PendingSeal
from kbs.broker.ports import PendingEnrolment
from kbs.cli.enrolment import by_hand, object_name
from kbs.cli.reference_values import read
from kbs.governance.statement import Action, Kind
from kbs.pki.certificates import spki_sha256
from tests.fakes.admin_bench import Bench
from tests.fakes.tpm import FakeTpm
from tests.fakes.tpm_ca import FakeTpmCA

pytestmark = pytest.mark.enable_socket


def values_of(bench: Bench, name: str) -> list[object]:
    shown = bench.must("ref", "show", "values", name)
    found = shown["content"]["values"]
    assert isinstance(found, list)
    return found


def test_values_are_added_replaced_expired_and_removed(
    shared_bench: Bench, tmp_path: Path
) -> None:
    bench = shared_bench
    first = bench.must("ref", "add", "values", "acme/v", "aa", "bb", "aa")
    assert (first["version"], first["active"]) == (1, True)
    listed = tmp_path / "values"
    listed.write_text("cc\n\n dd \n")
    bench.must("ref", "add", "values", "acme/v", "--file", str(listed))
    assert values_of(bench, "acme/v") == ["aa", "bb", "cc", "dd"]
    bench.must("ref", "expire", "acme/v", "--at", "2030-01-01T00:00:00Z")
    bench.must("ref", "add", "values", "acme/v", "ee")
    shown = bench.must("ref", "show", "values", "acme/v")
    assert shown["content"]["expires"] == "2030-01-01T00:00:00Z"
    bench.must("ref", "add", "values", "acme/v", "ff", "--replace")
    assert values_of(bench, "acme/v") == ["ff"]
    human = bench.run("ref", "show", "values", "acme/v", "--version", "1")
    assert "  values: aa, bb\n" in human.out
    rows = bench.must("ref", "list", "--kind", "values")["references"]
    mine = [one for one in rows if one["name"] == "v"]
    assert [one["version"] for one in mine if one["active"]] == [5]
    assert "acme/v" in bench.run("ref", "list").out
    assert "is removed" in bench.run("ref", "remove", "values", "acme/v").out
    assert bench.run("ref", "remove", "values", "acme/v").code == 1
    assert (
        bench.run("ref", "expire", "acme/v", "--at", "2031-01-01T00:00:00Z").code == 1
    )


def test_integers_are_integers(shared_bench: Bench) -> None:
    shared_bench.must("ref", "add", "values", "acme/n", "7", "0", "--integers")
    assert values_of(shared_bench, "acme/n") == [7, 0]
    assert read(("-3",), None, integers=True) == (-3,)
    assert read(("3",), None, integers=False) == ("3",)


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "values", "acme/x"),
        ("add", "values", "acme", "a"),
        ("add", "values", "acme/x", "07", "--integers"),
        ("add", "values", "acme/x", "1.5", "--integers"),
        ("add", "values", "acme/x", "a", "--expires", "soon"),
        ("add", "values", "acme/x", "--file", "/nowhere"),
        ("add", "values", "acme/x", "--file", "/proc/self/exe"),
        ("add", "values", "acme/x", "x" * 2000),
        ("add", "ak"),
        ("add", "ak", "acme/hosts"),
        ("add", "ak", "acme/hosts", "--pending", "0" * 32),
        ("add", "ak", "--pending", "short"),
        ("add", "ak", "acme/hosts", "--public", "/nowhere"),
        ("add", "ca", "acme/x", "/nowhere", "--purpose", "ek"),
        ("list", "--pending", "--kind", "ca"),
        ("show", "thing", "acme/x"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(
    shared_bench: Bench, arguments: tuple[str, ...]
) -> None:
    ran = shared_bench.run("ref", *arguments)
    assert ran.code == 2
    ran.assert_one_error_line()


def test_values_that_are_not_text_are_refused(
    shared_bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "values"
    path.write_bytes(b"\xff\xfe")
    ran = shared_bench.run("ref", "add", "values", "acme/x", "--file", str(path))
    assert ran.code == 2
    assert "UTF-8" in ran.err


def test_a_key_by_hand_is_trusted_with_a_warning(
    shared_bench: Bench, tmp_path: Path
) -> None:
    tpm = FakeTpm()
    path = tmp_path / "ak.pub"
    path.write_bytes(tpm.ak_public)
    ran = shared_bench.run("ref", "add", "ak", "acme/hosts", "--public", str(path))
    assert ran.code == 0
    assert ran.out.startswith("warning: this key is enrolled by hand")
    name = f"acme/hosts-{tpm.ak_name.hex()[4:16]}"
    shown = shared_bench.must("ref", "show", "ak", name)
    assert shown["content"]["how"] == "manual"
    assert shown["content"]["name"] == tpm.ak_name.hex()
    named = FakeTpm()
    path.write_bytes(named.ak_public)
    arguments = ("acme/hosts", "--public", str(path), "--name", "mine")
    assert shared_bench.must("ref", "add", "ak", *arguments)["name"] == "mine"
    path.write_bytes(b"-----BEGIN PUBLIC KEY-----")
    pem = shared_bench.run("ref", "add", "ak", "acme/hosts", "--public", str(path))
    assert pem.code == 2
    assert "TPM2B_PUBLIC" in pem.err


def test_a_pending_enrolment_becomes_trust(shared_bench: Bench) -> None:
    bench, tpm = shared_bench, FakeTpm()
    authority = FakeTpmCA()
    now = bench.world.clock.now()
    pending = PendingEnrolment(
        id="ab" * 16,
        tenant="acme",
        group="hosts",
        ak_public=tpm.ak_public,
        ak_name=tpm.ak_name,
        ek=bytes.fromhex(spki_sha256(authority.root)),
        ek_certificate=authority.root.public_bytes(Encoding.DER),
        ca="acme/maker",
        created=now,
        expires=now + timedelta(days=1),
    )
    seal = PendingSeal(bench.world.broker.identity.state_key)
    changed = replace(seal.seal(pending), id="cd" * 16, group="bosses")
    with bench.world.parts.database.write() as tx:
        tx.enrolments.insert(seal.seal(pending))
        tx.enrolments.insert(changed)
    listed = bench.must("ref", "list", "--pending")["enrolments"]
    assert [one["id"] for one in listed] == ["ab" * 16]
    out = bench.run("ref", "list", "--pending").out
    assert "acme/maker" in out
    assert f"TAMPERED {changed.id}: " in out
    assert bench.run("ref", "add", "ak", "--pending", changed.id).code == 3
    assert bench.run("ref", "forget", "x").code == 2
    assert bench.run("ref", "forget", changed.id).out == (
        f"enrolment {changed.id} is forgotten\n"
    )
    assert bench.run("ref", "forget", changed.id).code == 1
    assert "TAMPERED" not in bench.run("ref", "list", "--pending").out

    def another_name(path: str, body: bytes) -> bytes | None:
        if "/enrolments/" not in path:
            return None
        document = json.loads(body)
        return json.dumps({**document, "ak_name": FakeTpm().ak_name.hex()}).encode()

    with bench.tampering(another_name):
        assert bench.run("ref", "add", "ak", "--pending", "ab" * 16).code == 2
    made = bench.must("ref", "add", "ak", "--pending", "ab" * 16)
    assert made["name"] == f"hosts-{tpm.ak_name.hex()[4:16]}"
    assert made["warnings"] == []
    assert bench.must("ref", "list", "--pending")["enrolments"] == []
    assert bench.run("ref", "add", "ak", "--pending", "ab" * 16).code == 1


def test_a_ca_is_registered_for_one_purpose(
    shared_bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(FakeTpmCA().root.public_bytes(Encoding.PEM))
    arguments = ("ref", "add", "ca", "acme/maker", str(path), "--purpose")
    assert shared_bench.run(*arguments, "other").code == 2
    assert shared_bench.must(*arguments, "ek")["kind"] == "ca"
    shown = shared_bench.must("ref", "show", "ca", "acme/maker")
    assert shown["content"]["purpose"] == "ek"
    path.write_bytes(path.read_bytes() * 2)
    assert shared_bench.run(*arguments, "ek").code == 2


def test_a_name_fits_however_long_the_group_is() -> None:
    tpm = FakeTpm()
    assert len(object_name(by_hand("g" * 64, tpm.ak_public))) == 64
    assert object_name(by_hand("hosts", tpm.ak_public)).startswith("hosts-")


def test_values_that_have_ended_are_told(shared_bench: Bench) -> None:
    add = ("ref", "add", "values", "acme/ended", "a", "--expires")
    past = shared_bench.must(*add, "2020-01-01T00:00:00Z")
    assert "ended at 2020-01-01T00:00:00Z" in past["warnings"][-1]
    assert shared_bench.must(*add, "2999-01-01T00:00:00Z")["warnings"] == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("add", "values", "acme/race", "cc"), ["aa", "bb", "cc"]),
        (("expire", "acme/race", "--at", "2027-01-01T00:00:00Z"), ["aa", "bb"]),
        (("add", "values", "acme/race", "cc", "--replace"), ["cc"]),
    ],
)
def test_values_that_somebody_else_added_meanwhile_stay(
    bench: Bench, command: tuple[str, ...], expected: list[str]
) -> None:
    """In a list of what is banned, a value that is lost is a grant."""
    bench.must("ref", "add", "values", "acme/race", "aa")
    raced: list[int] = []

    def race(path: str, _: bytes) -> None:
        if path == "/admin/v1/objects" and not raced:
            raced.append(1)
            content = json.dumps({"values": ["aa", "bb"]}).encode()
            bench.world.govern(Action.ADD, Kind.REFERENCE_SET, "acme", "race", content)

    with bench.tampering(race):
        bench.must("ref", *command)
    assert raced
    found = bench.must("ref", "show", "values", "acme/race")
    assert found["content"]["values"] == expected
