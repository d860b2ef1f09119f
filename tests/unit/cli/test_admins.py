"""`kbs admin`: signed statements change who governs, and nobody is locked out."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kbs.cli.admin_client import AdminClient
from kbs.cli.admin_transport import AdminTransport
from kbs.cli.authority import change_authority
from kbs.cli.authority_edits import (
    adding,
    meaning,
    read_roles,
    roles_text,
    spellings,
)
from kbs.cli.profile import load_profile
from kbs.core.errors import KbsError
from kbs.governance.authority import (
    Administrator,
    Authority,
    Role,
    RoleGrant,
    parse_authority,
)
from kbs.governance.contents import digest_of
from kbs.governance.signature import VerifyingKey, spki_of
from kbs.governance.statement import Action, Kind
from tests.fakes.admin_bench import Bench

pytestmark = pytest.mark.enable_socket

ROLE = (RoleGrant(Role.POLICY_ADMIN, ("*",)),)
POLICY = Path(__file__).parents[3] / "policies/sample-development/policy.yaml"


def new_key(bench: Bench, name: str) -> Path:
    """A new administrator's profile, whom the authority does not know yet."""
    folder = bench.profile.parent / name
    bench.must("admin", "key", "--out", str(folder))
    return folder


def admitted(bench: Bench, name: str, *roles: str) -> Bench:
    """The bench as it is called by a new administrator."""
    folder = new_key(bench, name)
    given = [word for role in roles for word in ("--role", role)]
    bench.must("admin", "add", name, "--public", str(folder / "admin.pub"), *given)
    return bench.by(folder)


def names(bench: Bench) -> list[str]:
    return sorted(one["name"] for one in listed(bench))


def listed(bench: Bench) -> list[Any]:
    found = bench.must("admin", "list")["administrators"]
    assert isinstance(found, list)
    return found


def public_file(folder: Path, key: VerifyingKey, encoding: Encoding) -> Path:
    path = folder / "some.pub"
    path.write_bytes(key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo))
    return path


def test_the_first_administrator_is_listed_with_everything(bench: Bench) -> None:
    found = bench.must("admin", "list")
    assert (found["version"], found["threshold"], found["shared"]) == (1, 1, ["*"])
    (root,) = found["administrators"]
    assert root["keyid"] == load_profile(bench.profile).keyid
    out = bench.run("admin", "list").out
    assert out.splitlines()[0].split() == ["NAME", "KEY", "ID", "ROLES"]
    assert root["keyid"] in out
    assert "policy-admin=* key-admin=* approver=* auditor=*" in out
    assert out.endswith("threshold: 1 key; every tenant may use shared/\n")


def test_a_new_profile_has_a_key_of_its_own_and_the_same_pins(bench: Bench) -> None:
    folder = bench.profile.parent / "new folder"
    ran = bench.run("admin", "key", "--out", str(folder))
    assert ran.code == 0
    assert f"--public '{folder}/admin.pub' --role ROLE" in ran.out
    made, old = load_profile(folder), load_profile(bench.profile)
    assert replace(made, folder=old.folder, keyid=old.keyid) == old
    assert made.keyid != old.keyid
    assert (folder / "admin.key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    public = made.admin_key().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert (folder / "admin.pub").read_bytes() == pem
    assert sorted(one.name for one in folder.iterdir()) == [
        "admin.key",
        "admin.pub",
        "profile.json",
    ]


def test_a_copy_of_profile_json_is_enough_to_make_a_key(bench: Bench) -> None:
    given = bench.profile.parent / "given"
    given.mkdir()
    (given / "profile.json").write_bytes((bench.profile / "profile.json").read_bytes())
    folder = new_key(bench.by(given), "own")
    assert load_profile(folder).admin_key().public_key() is not None
    assert bench.by(given).run("admin", "key", "--out", str(given)).code == 1


@pytest.mark.parametrize("name", ["admin.key", "admin.pub", "profile.json"])
def test_a_new_key_replaces_nothing(shared_bench: Bench, name: str) -> None:
    folder = shared_bench.profile.parent / f"with-{name}"
    folder.mkdir()
    (folder / name).symlink_to("nowhere")
    ran = shared_bench.run("admin", "key", "--out", str(folder))
    assert ran.code == 1
    assert f"{name}, which exists" in ran.err
    assert [one.name for one in folder.iterdir()] == [name]


def test_a_profile_that_cannot_be_written_is_one_line(shared_bench: Bench) -> None:
    file = shared_bench.profile.parent / "file"
    file.write_bytes(b"")
    ran = shared_bench.run("admin", "key", "--out", str(file / "x"))
    assert ran.code in {1, 2}
    ran.assert_one_error_line()


def test_an_auditor_may_query_and_not_register(bench: Bench, tmp_path: Path) -> None:
    stranger = new_key(bench, "eve")
    public = str(stranger / "admin.pub")
    assert bench.by(stranger).run("audit", "query").code == 1
    auditor = admitted(bench, "olga", "auditor")
    assert auditor.must("audit", "query", "--kind", "statement")["entries"]
    assert auditor.must("audit", "export", str(tmp_path / "log.jsonl"))["entries"]
    for refused in (
        ("policy", "register", str(POLICY)),
        ("key", "create", "acme/model/k"),
        ("deny", "add", "--all", "--reason", "x"),
        ("admin", "roles", "olga", "--role", "policy-admin"),
        ("admin", "add", "x", "--role", "auditor", "--public", public),
        ("admin", "shared", "--none"),
    ):
        ran = auditor.run(*refused)
        assert ran.code == 1, refused
        ran.assert_one_error_line()
    assert names(bench) == ["olga", "root"]


def test_roles_reach_as_far_as_their_repositories(bench: Bench) -> None:
    admin = admitted(bench, "kim", "key-admin=acme,beta", "policy-admin=acme")
    assert admin.run("key", "create", "acme/model/k").code == 0
    assert admin.run("key", "create", "beta/model/k").code == 0
    assert admin.run("key", "create", "gamma/model/k").code == 1
    values = ("ref", "add", "values")
    assert admin.run(*values, "acme/set", "a").code == 0
    assert admin.run(*values, "beta/set", "a").code == 1
    (kim,) = [one for one in listed(bench) if one["name"] == "kim"]
    assert kim["roles"] == [
        {"role": "key-admin", "repositories": ["acme", "beta"]},
        {"role": "policy-admin", "repositories": ["acme"]},
    ]
    assert "key-admin=acme,beta policy-admin=acme" in bench.run("admin", "list").out
    ran = bench.run("admin", "roles", "kim", "--role", "key-admin=gamma")
    assert ran.code == 0
    assert ran.out.startswith("kim has other roles; in force is now:\nNAME")
    assert admin.run("key", "create", "gamma/model/k").code == 0
    assert admin.run("key", "rotate", "acme/model/k").code == 1
    assert admin.run(*values, "acme/set", "b").code == 1


def test_a_removed_administrator_is_unknown(bench: Bench) -> None:
    admin = admitted(bench, "kim", "auditor", "policy-admin")
    assert admin.run("key", "list").code == 0
    ran = bench.run("admin", "remove", "kim")
    assert ran.out.startswith("kim is no administrator any more")
    assert admin.run("key", "list").code == 1
    assert names(bench) == ["root"]
    assert bench.run("admin", "remove", "kim").code == 1


def test_who_comes_and_goes_never_meets_a_version_of_the_past(bench: Bench) -> None:
    """The document after a removal is the one before, and a version only rises."""
    folder = new_key(bench, "kim")
    add = ("admin", "add", "kim", "--public", str(folder / "admin.pub"))
    for _ in range(6):
        bench.must(*add, "--role", "auditor")
        bench.must("admin", "remove", "kim")
    found = bench.must("admin", "list")
    assert (found["version"], len(found["administrators"])) == (13, 1)
    roles = ["policy-admin=*", "key-admin=*", "approver=*", "auditor=*"]
    shown = bench.run("admin", "list").out.splitlines()[1].split()[2:]
    assert sorted(shown) == sorted(roles)


def test_when_every_spelling_was_in_force_it_is_said(bench: Bench) -> None:
    other = admitted(bench, "kim", "policy-admin")
    other.must("admin", "remove", "root")

    key = load_profile(other.profile).admin_key().public_key()
    wanted = Authority((Administrator("kim", spki_of(key), ROLE),), 1, ())

    def all_known(path: str, body: bytes) -> bytes | None:
        if path != "/admin/v1/objects":
            return None
        row = json.loads(body)["objects"][0]
        digests = [digest_of(one.canonical()) for one in spellings(wanted)]
        rows = [{**row, "version": 1, "digest": digest} for digest in digests]
        return json.dumps({"objects": rows}).encode()

    with bench.tampering(all_known):
        ran = other.run("admin", "shared", "--none")
    assert ran.code == 1
    assert "in every spelling" in ran.err
    ran.assert_one_error_line()


def test_another_can_take_over_and_the_last_one_stays(bench: Bench) -> None:
    other = admitted(bench, "kim", "policy-admin", "auditor")
    ran = bench.run("admin", "remove", "root")
    assert ran.code == 1
    assert "another administrator sign it" in ran.err
    assert bench.run("admin", "roles", "root", "--role", "auditor").code == 1
    other.must("admin", "remove", "root")
    assert names(other) == ["kim"]
    assert bench.run("key", "list").code == 1
    for last in (("remove", "kim"), ("roles", "kim", "--role", "policy-admin=acme")):
        ran = other.run("admin", *last)
        assert ran.code == 1
        assert "nobody left who may change it" in ran.err
        ran.assert_one_error_line()


def test_shared_is_opened_and_closed(bench: Bench) -> None:
    for arguments, shared, words in (
        (("--none",), [], "no tenant may use shared/"),
        (("acme", "beta", "acme"), ["acme", "beta"], "acme, beta may use shared/"),
        (("--all",), ["*"], "every tenant may use shared/"),
    ):
        ran = bench.run("admin", "shared", *arguments)
        assert ran.code == 0, ran.err
        assert ran.out.startswith(words)
        assert bench.must("admin", "list")["shared"] == shared
    ran = bench.run("admin", "shared", "--all")
    assert ran.code == 1
    assert "in force already" in ran.err


def test_four_administrators_at_once_lose_nothing(bench: Bench) -> None:
    signers = [bench.profile] + [
        admitted(bench, f"signer{n}", "policy-admin").profile for n in range(3)
    ]
    errors: list[BaseException] = []

    def sign(number: int, profile: Path) -> None:
        key = Ed25519PrivateKey.from_private_bytes(bytes([40 + number]) * 32)
        edit = adding(
            f"new{number}", spki_of(key.public_key()), read_roles(["auditor"])
        )
        transport = AdminTransport(bench.url)
        try:
            with AdminClient(
                load_profile(profile),
                transport,
                clock=bench.world.clock,
                sleep=lambda _: None,
            ) as client:
                change_authority(client, edit)
        except KbsError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=sign, args=pair) for pair in enumerate(signers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert names(bench) == sorted(
        ["root", *(f"signer{n}" for n in range(3)), *(f"new{n}" for n in range(4))]
    )


def test_a_change_is_made_again_from_what_somebody_else_signed(bench: Bench) -> None:
    """Between our reading and our signing, another change comes into force."""
    new_key(bench, "kim")
    raced: list[int] = []

    def race(path: str, _: bytes) -> None:
        if path == "/admin/v1/objects" and not raced:
            raced.append(1)
            root = bench.world.admin.public_key()
            grants = tuple(RoleGrant(role, ("*",)) for role in Role)
            authority = Authority(
                (Administrator("root", spki_of(root), grants),), 1, ("acme",)
            )
            bench.world.govern(
                Action.ACTIVATE,
                Kind.AUTHORITY,
                "*",
                "authority",
                authority.canonical(),
            )

    public = str(bench.profile.parent / "kim" / "admin.pub")
    with bench.tampering(race):
        bench.must("admin", "add", "kim", "--public", public, "--role", "auditor")
    found = bench.must("admin", "list")
    assert raced
    assert found["shared"] == ["acme"]
    assert names(bench) == ["kim", "root"]


def test_an_authority_of_another_digest_is_not_signed(bench: Bench) -> None:
    def more(path: str, body: bytes) -> bytes | None:
        if not path.endswith("/head"):
            return None
        head = json.loads(body)
        head["authority"]["shared"] = []
        return json.dumps(head).encode()

    with bench.tampering(more):
        ran = bench.run("admin", "shared", "acme")
        assert ran.code != 0
        ran.assert_one_error_line()
        assert bench.run("admin", "list").code != 0
    assert ("POST", "/admin/v1/governance/statements") not in bench.requests


def test_a_higher_threshold_is_said_and_nothing_is_stored(bench: Bench) -> None:
    other = admitted(bench, "kim", "policy-admin")
    members = tuple(
        Administrator(name, spki_of(key.public_key()), read_roles(["policy-admin"]))
        for name, key in (
            ("root", bench.world.admin),
            ("kim", load_profile(other.profile).admin_key()),
        )
    )
    # From threshold 1 to 2 needs both signatures at once.
    wanted = Authority(members, 2, ("*",))
    stored = bench.world.store(Kind.AUTHORITY, "*", "authority", wanted.canonical())
    answer = bench.world.sign(Action.ACTIVATE, Kind.AUTHORITY, "*", "authority", stored)
    assert answer.status_code == 403

    def two(path: str, body: bytes) -> bytes | None:
        if not path.endswith("/head"):
            return None
        head = {**json.loads(body), "authority": wanted.to_json()}
        return json.dumps({**head, "authority_digest": stored["digest"]}).encode()

    bench.requests.clear()
    with bench.tampering(two):
        ran = bench.run("admin", "shared", "acme")
        assert "threshold: 2 keys" in bench.run("admin", "list").out
    assert ran.code == 1
    assert "signs with one key" in ran.err
    assert all(method == "GET" for method, _ in bench.requests)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("add", "x", "--public", "{good}"), 2, "--role"),
        (("add", "x", "--role", "auditor"), 2, "--public"),
        (("add", "X", "--public", "{good}", "--role", "auditor"), 2, "name"),
        (("add", "x", "--public", "{good}", "--role", "king"), 2, "one of policy-ad"),
        (("add", "x", "--public", "{good}", "--role", "auditor="), 2, "--role auditor"),
        (("add", "x", "--public", "{good}", "--role", "auditor=A"), 2, "--role audito"),
        (("add", "x", "--public", "{good}", "--role", "auditor=a,a"), 2, "twice"),
        (
            ("add", "x", "--public={good}", "--role", "auditor=a", "--role=auditor=b"),
            2,
            "a role twice",
        ),
        (("add", "x", "--public", "{p256}", "--role", "auditor"), 2, "tokens"),
        (("add", "x", "--public", "{private}", "--role", "auditor"), 2, "Ed25519"),
        (("add", "x", "--public", "{missing}", "--role", "auditor"), 2, "No such file"),
        (("add", "x", "--public", "{folder}", "--role", "auditor"), 2, "regular file"),
        (("add", "x", "--public", "{root}", "--role", "auditor"), 1, "root, key id"),
        (("add", "root", "--public", "{good}", "--role", "auditor"), 1, "a new name"),
        (("roles", "nobody", "--role", "auditor"), 1, "nobody of this name"),
        (("remove", "nobody"), 1, "nobody of this name"),
        (("remove", "root"), 1, "nobody left"),
        (("shared",), 2, "exactly one of"),
        (("shared", "acme", "--all"), 2, "exactly one of"),
        (("shared", "--all", "--none"), 2, "exactly one of"),
        (("shared", "Acme"), 2, "TENANT"),
    ],
)
def test_what_is_refused_is_one_line_and_changes_nothing(
    shared_bench: Bench,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    bench = shared_bench
    good = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)
    files = {"missing": tmp_path / "missing", "folder": tmp_path}
    for name, content in {
        "good": spki_of(good.public_key()),
        "root": spki_of(bench.world.admin.public_key()),
        "p256": spki_of(ec.generate_private_key(ec.SECP256R1()).public_key()),
        "private": good.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
    }.items():
        files[name] = tmp_path / name
        files[name].write_bytes(content)
    ran = bench.run("admin", *(word.format(**files) for word in arguments))
    assert ran.code == code
    assert words in ran.err
    ran.assert_one_error_line()
    assert bench.must("admin", "list")["version"] == 1


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_public_key_is_pem_or_der(
    bench: Bench, tmp_path: Path, encoding: Encoding
) -> None:
    key = Ed25519PrivateKey.generate().public_key()
    path = public_file(tmp_path, key, encoding)
    made = bench.must("admin", "add", "kim", "--public", str(path), "--role", "auditor")
    assert made["version"] == 2
    assert made["statement"]["kind"] == "authority"


def test_every_spelling_means_the_same_and_is_another_document() -> None:
    keys = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2)]
    members = tuple(
        Administrator(f"a{n}", spki_of(key.public_key()), read_roles(roles))
        for n, (key, roles) in enumerate(
            zip(keys, (["auditor=a,b", "policy-admin"], []), strict=True)
        )
    )
    authority = Authority(members, 1, ("acme", "beta", "gamma"))
    found = list(spellings(authority))
    assert found[0] == authority
    assert len({one.canonical() for one in found}) == len(found) == 2 * 3 * 2 * 15
    for one in found:
        assert meaning(one) == meaning(authority)
        assert parse_authority(one.to_json()) == one
    padded = next(one for one in found if len(one.administrators[0].roles) == 3)
    assert next(spellings(padded)).administrators[0].roles == members[0].roles
    assert roles_text(padded.administrators[0]) == "auditor=a,b policy-admin=*"


@pytest.mark.parametrize(
    "changed",
    [
        lambda one: replace(one, shared=("acme",)),
        lambda one: replace(one, threshold=2),
        lambda one: replace(one, administrators=()),
    ],
)
def test_another_authority_means_something_else(
    changed: Callable[[Authority], Authority],
) -> None:
    key = Ed25519PrivateKey.generate().public_key()
    one = Authority((Administrator("kim", spki_of(key), ROLE),), 1, ("*",))
    assert meaning(changed(one)) != meaning(one)
