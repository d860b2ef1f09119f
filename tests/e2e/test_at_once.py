"""Readers, administrators and guests all at once, through several server processes."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.cli.admin_client import AdminClient
from kbs.cli.authority import change_authority
from kbs.cli.authority_edits import adding
from kbs.cli.governed import (
    Listed,
    choose_active,
    list_objects,
    put,
    register,
    take_out,
)
from kbs.cli.policy_files import load_document
from kbs.core.encode import canonical_json
from kbs.core.errors import ConflictError
from kbs.core.ids import ScopedName
from kbs.governance.authority import Role, RoleGrant
from kbs.governance.contents import digest_of
from kbs.governance.objects import parse_deny
from kbs.governance.signature import spki_of
from kbs.governance.statement import Action, Kind, Statement
from tests.e2e.conftest import Brokers
from tests.fakes.rcar_client import Answer, RcarClient, open_jwe
from tests.fakes.rcar_evidence import POLICY
from tests.fakes.rotating import Asking, Connections, Seen, read_while_rotating

T = TypeVar("T")

READS = int(os.environ.get("KBS_READS", "200"))
"""Reads on each database; `make readers` asks for more."""

READERS = 6
ROUNDS = 4
EVERYWHERE = ("*",)


def at_once(runs: Sequence[Callable[[], T]]) -> list[T]:
    """Run everything in threads of its own, started together."""
    gate = threading.Barrier(len(runs))

    def run(one: Callable[[], T]) -> T:
        gate.wait(timeout=30)
        return one()

    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(run, runs))


# -- readers ---------------------------------------------------------------------------


def test_readers_of_a_key_that_is_rotated_get_a_whole_version(brokers: Brokers) -> None:
    with brokers.client() as client:
        seen, rotator = read_while_rotating(
            brokers.servers,
            client,
            brokers.response_key(),
            reads=READS,
            readers=READERS,
        )
    print(
        f"\n{READS} reads, {rotator.rotations} rotations meanwhile, slowest read"
        f" {seen.slowest:.2f} s, refused: {dict(seen.answers) or 'none'}"
    )
    assert seen.reads == READS
    # Refused is who could not be served now, which the documents tell, and rarely.
    assert {code.partition(" ")[0] for code in seen.answers} <= {"429", "503"}
    assert seen.answers.total() <= READS // 100
    _check_versions(brokers)
    brokers.must("audit", "verify")


def _check_versions(brokers: Brokers) -> None:
    """In the order of the log, every grant is of the version in force."""
    in_force: dict[object, object] = {}
    granted: Counter[object] = Counter()
    for body in brokers.entries():
        if body["kind"] in {"key.imported", "key.rotated"}:
            in_force[body["key"]] = body["version"]
        for key in _asked(body, "default/rotating/"):
            assert body["kind"] == "release.granted"
            assert key["version"] == in_force[key["id"]]
            granted[body["door"]] += 1
    assert granted.total() == READS
    assert set(granted) == {"v1", "rcar"}


def _asked(body: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    if not str(body["kind"]).startswith("release."):
        return []
    return [key for key in body["keys"] if key["id"].startswith(prefix)]


# -- one challenge ---------------------------------------------------------------------


def test_one_challenge_gives_one_release(brokers: Brokers) -> None:
    key = "default/once/v1"
    with brokers.client() as client:
        client.create_key(key, "opaque", b"once")
    with ExitStack() as stack:
        guests = [
            stack.enter_context(
                closing(Asking(brokers.servers, brokers.response_key(), Seen()))
            )
            for _ in range(8)
        ]
        offer = guests[0].challenge()
        requests = [guest.request(key, offer) for guest in guests[:4]]
        # Each request from two guests: the same bytes get the same answer.
        found = at_once(
            [
                partial(guest.post, "/v1/release", requests[number // 2].raw)
                for number, guest in enumerate(guests)
            ]
        )
    good = {n // 2 for n, answer in enumerate(found) if answer.status == 200}
    assert len(good) == 1
    assert Counter(answer.status for answer in found) == {200: 2, 401: 6}
    assert len({answer.body for answer in found if answer.status == 200}) == 1
    codes = {answer.json["code"] for answer in found if answer.status == 401}
    assert codes == {"challenge.replayed"}
    (winner,) = (answer.json for answer in found[2 * good.pop() :][:1])
    (entry,) = [body for body in brokers.entries() if _asked(body, key)]
    assert entry["kind"] == "release.granted"
    assert entry["decision"] == winner["answer"]["decision"]


def test_one_session_gives_to_one_guest(brokers: Brokers) -> None:
    """Guests that share a session attest with keys of their own, and fetch at once."""
    path = "default/once/rcar"
    with brokers.client() as client:
        client.create_key(path, "opaque", b"once")
    with ExitStack() as stack:
        wires = [
            stack.enter_context(closing(Connections(brokers.servers, 1)))
            for _ in range(8)
        ]
        first = RcarClient(wires[0])
        first.auth()
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(4)]
        guests = [
            RcarClient(wire, key=keys[n // 2], cookie=first.cookie, nonce=first.nonce)
            for n, wire in enumerate(wires)
        ]
        messages = [guest.message() for guest in guests[::2]]

        def attest_and_fetch(number: int) -> tuple[Answer, Answer]:
            guest = guests[number]
            return guest.attest(messages[number // 2]), guest.get(path)

        found = at_once([partial(attest_and_fetch, n) for n in range(len(guests))])
    attested = {n for n, (answer, _) in enumerate(found) if answer.status == 200}
    assert [answer.status for answer, _ in found].count(401) == 6
    assert len({n // 2 for n in attested}) == 1
    assert len({found[n][0].json["token"] for n in attested}) == 1
    # Whoever came with the cookie after that: it is sealed to the one that attested.
    (winner,) = {n // 2 for n in attested}
    fetched = [answer for _, answer in found if answer.status == 200]
    assert len(fetched) >= len(attested)
    assert {open_jwe(one.json, keys[winner]) for one in fetched} == {b"once"}
    entries = [body for body in brokers.entries() if _asked(body, path)]
    assert len(entries) == len(fetched)
    assert len({body["evidence"] for body in entries}) == 1
    assert len({body["recipient"] for body in entries}) == 1


# -- administrators --------------------------------------------------------------------


def _roles(*roles: Role) -> tuple[RoleGrant, ...]:
    return tuple(RoleGrant(role, EVERYWHERE) for role in roles)


@pytest.fixture(scope="module")
def administrators(brokers: Brokers) -> list[Path]:
    """Profiles of four administrators of everything."""
    found = [brokers.folders.profile]
    everything = _roles(Role.POLICY_ADMIN, Role.KEY_ADMIN, Role.AUDITOR)
    with brokers.client() as client:
        for name in ("second", "third", "fourth"):
            key = Ed25519PrivateKey.generate()
            change_authority(
                client, adding(name, spki_of(key.public_key()), everything)
            )
            found.append(brokers.profile_for(name, key))
    return found


class Office:
    """What one administrator does, as the commands do it; how each was answered."""

    def __init__(self, client: AdminClient, folder: Path) -> None:
        self.client = client
        self._folder = folder
        self.accepted: list[dict[str, Any]] = []
        self.refused: list[ConflictError] = []
        submit = client.submit

        def told(statement: Statement) -> dict[str, object]:
            try:
                accepted = submit(statement)
            except ConflictError as exc:
                self.refused.append(exc)
                raise
            self.accepted.append(accepted)
            return accepted

        # What the client sends goes through as it is; it is only written down.
        client.submit = told  # type: ignore[method-assign]

    def change_authority(self, number: int) -> None:
        spki = spki_of(Ed25519PrivateKey.generate().public_key())
        edit = adding(f"extra{number}", spki, _roles(Role.AUDITOR))
        change_authority(self.client, edit)

    def change_policy(self, number: int) -> None:
        path = self._folder / f"policy{number}.yaml"
        text = POLICY.replace("name: dev", f"name: p{number}")
        path.write_text(text.replace("default/*/*", f"acme/r{number}/*"))
        kind, subject, source, digest = load_document(path, None)
        stored, _ = register(self.client, kind, subject, source=source, digest=digest)
        put(self.client, Action.ACTIVATE, stored)

    def deny(self, number: int) -> None:
        target = {"target": "key", "value": f"acme/d/k{number}", "reason": "test"}
        content = parse_deny(target).canonical()
        subject = ScopedName("acme", f"d{number}")
        stored, _ = register(
            self.client,
            Kind.DENY,
            subject,
            source=content,
            digest=digest_of(content),
        )
        put(self.client, Action.DENY, stored)
        if number % 2:
            take_out(self.client, Action.LIFT, Kind.DENY, subject)

    def change_key(self, number: int) -> None:
        key = f"acme/kept/k{number % 2}"
        self.client.import_key(key, "opaque", b"%d" % number)
        self.client.create_key(f"acme/own/k{number}", "aes256")


def test_four_administrators_at_once_lose_nothing(
    brokers: Brokers, administrators: list[Path], tmp_path: Path
) -> None:
    before = len(_governed(brokers))
    with ExitStack() as stack:
        offices = [
            Office(stack.enter_context(brokers.client(n, folder)), tmp_path)
            for n, folder in enumerate(administrators)
        ]
        acts = [
            offices[0].change_authority,
            offices[1].change_policy,
            offices[2].deny,
            offices[3].change_key,
        ]

        def work(act: Callable[[int], None]) -> None:
            for number in range(ROUNDS):
                act(number)

        at_once([partial(work, act) for act in acts])
        accepted = sorted(one["seq"] for each in offices for one in each.accepted)
    # An authority, a policy and a denial in each round, and every other one lifted.
    assert len(accepted) == 3 * ROUNDS + ROUNDS // 2
    governed = _governed(brokers)[before:]
    assert [body["statement"]["seq"] for body in governed] == accepted
    assert accepted == list(range(accepted[0], accepted[0] + len(accepted)))
    for error in (error for each in offices for error in each.refused):
        assert error.code == "statement.sequence"
        assert "read the head again" in str(error)
    for number in range(len(brokers.servers)):
        with brokers.client(number) as client:
            _check_state(client)
    kinds = Counter(
        body["kind"]
        for body in brokers.entries()
        if str(body.get("key")).startswith(("acme/kept/", "acme/own/"))
    )
    assert kinds == {
        "key.imported": 2,
        "key.rotated": ROUNDS - 2,
        "key.created": ROUNDS,
    }
    brokers.must("audit", "verify")


def _governed(brokers: Brokers) -> list[dict[str, Any]]:
    return [body for body in brokers.entries() if "statement" in body]


def _check_state(client: AdminClient) -> None:
    authority: Any = client.get("/admin/v1/governance/head")["authority"]
    names = {one["name"] for one in authority["administrators"]}
    assert {f"extra{number}" for number in range(ROUNDS)} <= names
    assert _active(client, Kind.RELEASE_POLICY) == {f"p{n}" for n in range(ROUNDS)}
    assert _active(client, Kind.DENY) == {f"d{n}" for n in range(0, ROUNDS, 2)}
    keys: Any = client.get("/admin/v1/keys")["keys"]
    versions = {one["id"]: len(one["versions"]) for one in keys}
    assert [versions[f"acme/kept/k{n}"] for n in (0, 1)] == [ROUNDS // 2] * 2
    assert all(versions[f"acme/own/k{number}"] == 1 for number in range(ROUNDS))


def _active(client: AdminClient, kind: Kind) -> set[str]:
    found = list_objects(client, kind)
    return {one.name for one in found if one.active and one.tenant == "acme"}


def test_of_two_statements_with_one_number_one_counts(
    brokers: Brokers, administrators: list[Path]
) -> None:
    """The other is told why, and is accepted when it is signed anew."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(brokers.client(n, folder))
            for n, folder in enumerate(administrators)
        ]
        stored = [_reference_set(client, n) for n, client in enumerate(clients)]
        head = clients[0].get("/admin/v1/governance/head")
        seq, prev = head["seq"], str(head["prev"])
        assert isinstance(seq, int)

        def submit(client: AdminClient, one: Listed) -> str:
            statement = Statement(
                instance=client.profile.instance,
                seq=seq + 1,
                prev=prev,
                action=Action.ADD,
                kind=Kind.REFERENCE_SET,
                tenant=one.tenant,
                name=one.name,
                version=one.version,
                digest=one.digest,
            )
            try:
                client.submit(statement)
            except ConflictError as exc:
                return f"{exc.code}: {exc}"
            return "accepted"

        pairs = list(zip(clients, stored, strict=True))
        told = at_once([partial(submit, *pair) for pair in pairs])
        refused = [answer for answer in told if answer != "accepted"]
        assert len(refused) == 3
        assert all(answer.startswith("statement.sequence: ") for answer in refused)
        assert all("sign anew" in answer for answer in refused)
        again = [
            partial(put, client, Action.ADD, one)
            for (client, one), answer in zip(pairs, told, strict=True)
            if answer != "accepted"
        ]
        seqs = {done["seq"] for done in at_once(again)}
        assert seqs == {seq + 2, seq + 3, seq + 4}
        for one in stored:
            found = list_objects(clients[0], Kind.REFERENCE_SET, one.subject)
            assert choose_active(found, one.subject).digest == one.digest


def _reference_set(client: AdminClient, number: int) -> Listed:
    content = canonical_json({"values": [f"{number:064x}"]})
    subject = ScopedName("acme", f"set{number}")
    return register(
        client,
        Kind.REFERENCE_SET,
        subject,
        source=content,
        digest=digest_of(content),
    )[0]
