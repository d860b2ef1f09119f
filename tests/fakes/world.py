"""A whole broker in one process: real database, real keys, fake hardware that signs.

`World.create(folder)` makes an instance; methods act as its administrator and as guests
do, through the Flask application, so that a test says what happens and not how.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask import Flask
from sqlalchemy import Connection
from werkzeug.test import TestResponse

from kbs.adapters.files import FileHighwater
from kbs.adapters.sql.database import SqlDatabase, connect
from kbs.adapters.sql.migrate import upgrade
from kbs.app import Parts, create_app_with
from kbs.broker.identity import Identity
from kbs.broker.initialise import (
    create_instance,
    genesis_authority,
    sign_first_checkpoint,
)
from kbs.broker.mark import MarkKeeper
from kbs.broker.ports import Database
from kbs.broker.service import Broker
from kbs.broker.vault import Vault
from kbs.channel.answer import ReleasedKey
from kbs.channel.binding import (
    DeviceDigest,
    Mode,
    ReleaseRequest,
    RuntimeData,
    device_binding,
    device_digest,
    primary_binding,
)
from kbs.channel.opening import OpenedAnswer, open_answer
from kbs.channel.recipient import (
    RecipientPrivateKey,
    Suite,
    generate_recipient_key,
    recipient_of,
)
from kbs.channel.token import SignedRequest, mint_token
from kbs.core.encode import b64, canonical_json
from kbs.core.ids import InstanceId, parse_key_ref
from kbs.evidence.model import ItemResult, ParsedItem, Trust, Verifier
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.snp.verify import SnpVerifier
from kbs.governance.signature import sign_statement, spki_of
from kbs.governance.statement import (
    Action,
    Envelope,
    Kind,
    Statement,
)
from kbs.keys.secret import Secret
from kbs.keys.wrap import LocalKEK
from kbs.settings import Settings
from tests.fakes.tpm import FakeTpm

START = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
INSTANCE = InstanceId("0123456789abcdef" * 2)
KEK = LocalKEK(Secret(bytes(range(32))))
WORKLOAD = b"kind: container-policy\nimages: [chat@sha256:1]\n"

BOOT_POLICY = """\
kind: ReleasePolicy
name: chat
releases: ["acme/model/*"]
allow:
  - rule: enrolled-host
    all:
      - {safe: true}
      - {claim: vtpm.ak.group, equals: hosts}
      - {claim: vtpm.pcr.sha256.0, equals: "%s"}
      - {claim: vtpm.pcr.sha256.15, measures: {workload_policy: runtime, version: 1}}
"""


@dataclass
class FakeClock:
    """A clock that moves when it is told to."""

    time: datetime = START

    def now(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class PinnedSnp(SnpVerifier):
    """The SNP verifier of a broker that was built with other roots."""

    def __init__(self, pins: Mapping[str, str]) -> None:
        super().__init__()
        self._pins = pins

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        return super().verify(parsed, replace(trust, pinned_roots=self._pins))


def trusting(pins: Mapping[str, str]) -> Mapping[str, Verifier]:
    """All verifiers, with these roots for SNP (`FakeAmd.pins`)."""
    return {**VERIFIERS, "snp": PinnedSnp(pins)}


@dataclass(frozen=True)
class Request:
    """A request ready to send, with what the guest keeps to itself."""

    body: bytes
    runtime_data: RuntimeData
    primary: bytes
    private_key: RecipientPrivateKey = field(repr=False)


@dataclass(repr=False)
class World:
    """One broker, its administrator, and the hardware of its guests."""

    folder: Path
    app: Flask
    parts: Parts
    admin: Ed25519PrivateKey
    clock: FakeClock
    settings: Settings

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        database: Database | None = None,
        development: bool = False,
        steps: Callable[[str], None] = lambda _: None,
        verifiers: Mapping[str, Verifier] = VERIFIERS,
        instance: InstanceId = INSTANCE,
        **settings: object,
    ) -> World:
        """Make a new instance in `folder` (SQLite unless a database is given).

        Who gives none closes the world.
        """
        data, trust = folder / "data", folder / "trust"
        for path in (data, trust):
            path.mkdir(parents=True, exist_ok=True)
        close: Callable[[], None] | None = None
        if database is None:
            opened = connect(None, data_dir=data)
            upgrade(opened.engine)
            database, close = opened, opened.close
        clock = FakeClock()
        kek = KEK
        admin = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
        vault = Vault(kek, instance)
        made = create_instance(
            database,
            vault,
            clock,
            instance=instance,
            authority=genesis_authority("root", spki_of(admin.public_key())),
        )
        identity = Identity(database, vault, clock, instance)
        sign_first_checkpoint(database, identity)
        highwater = FileHighwater(trust)
        MarkKeeper(
            database, highwater, identity, genesis_digest=made.genesis_digest
        ).write()
        parts = Parts(
            database=database,
            highwater=highwater,
            kek=kek,
            instance=instance,
            genesis_digest=made.genesis_digest,
            clock=clock,
            steps=steps,
            verifiers=verifiers,
            close=close or (lambda: None),
        )
        chosen = Settings(
            data=data,
            trust=trust,
            development=development,
            rate_limit=0,
            **settings,  # type: ignore[arg-type]
        )
        app = create_app_with(parts, chosen)
        return cls(folder, app, parts, admin, clock, chosen)

    def restarted(self, **changes: object) -> World:
        """The same instance in a new process: nothing remembered but the database."""
        parts = replace(self.parts, **changes)  # type: ignore[arg-type]
        app = create_app_with(parts, self.settings)
        return replace(self, app=app, parts=parts)

    def restarted_with(
        self, *, monotonic: Callable[[], float] = time.monotonic, **settings: object
    ) -> World:
        """The same instance with other settings."""
        chosen = replace(self.settings, **settings)  # type: ignore[arg-type]
        return replace(self, settings=chosen).restarted(monotonic=monotonic)

    def close(self) -> None:
        """Close the database that it opened; worlds restarted from it share that."""
        self.parts.close()

    @property
    def broker(self) -> Broker:
        broker = self.app.extensions["kbs"]
        assert isinstance(broker, Broker)
        return broker

    # -- the administrator ---------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: Ed25519PrivateKey | None = None,
    ) -> TestResponse:
        """Call the administrators' door with a signed token."""
        data = b"" if body is None else json.dumps(body).encode()
        token = mint_token(
            key or self.admin,
            SignedRequest(method, path, data),
            instance=self.parts.instance,
            now=self.clock.now(),
        )
        return self.app.test_client().open(
            path,
            method=method,
            data=data,
            content_type="application/json",
            headers={"Authorization": f"Bearer {token}"},
        )

    def must(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """Call and expect success."""
        response = self.call(method, path, body)
        assert response.status_code < 300, response.get_data(as_text=True)
        document = response.get_json()
        assert isinstance(document, dict)
        return document

    def store(
        self, kind: Kind, tenant: str, name: str, source: bytes
    ) -> dict[str, object]:
        """Store a version of a governed object."""
        return self.must(
            "POST",
            "/admin/v1/objects",
            {"kind": kind.value, "tenant": tenant, "name": name, "source": b64(source)},
        )

    def sign(
        self,
        action: Action,
        kind: Kind,
        tenant: str,
        name: str,
        stored: Mapping[str, object],
        *,
        key: Ed25519PrivateKey | None = None,
    ) -> TestResponse:
        """Sign the next statement and submit it."""
        head = self.must("GET", "/admin/v1/governance/head")
        seq, version = head["seq"], stored["version"]
        assert isinstance(seq, int)
        assert isinstance(version, int)
        statement = Statement(
            instance=self.parts.instance,
            seq=seq + 1,
            prev=str(head["prev"]),
            action=action,
            kind=kind,
            tenant=tenant,
            name=name,
            version=version,
            digest=str(stored["digest"]),
        )
        signature = sign_statement(statement, key or self.admin)
        envelope = Envelope(statement, (signature,))
        return self.call(
            "POST", "/admin/v1/governance/statements", {"envelope": envelope.to_json()}
        )

    def govern(
        self, action: Action, kind: Kind, tenant: str, name: str, source: bytes
    ) -> dict[str, object]:
        """Store a version and put it in force."""
        stored = self.store(kind, tenant, name, source)
        response = self.sign(action, kind, tenant, name, stored)
        assert response.status_code == 201, response.get_data(as_text=True)
        return stored

    def govern_workload(
        self, tenant: str = "acme", name: str = "runtime", source: bytes = WORKLOAD
    ) -> dict[str, object]:
        """Put a workload policy in force."""
        return self.govern(Action.ACTIVATE, Kind.WORKLOAD_POLICY, tenant, name, source)

    def activate_policy(
        self, source: str, name: str = "chat", tenant: str = "acme"
    ) -> dict[str, object]:
        """Register and activate a release policy."""
        return self.govern(
            Action.ACTIVATE, Kind.RELEASE_POLICY, tenant, name, source.encode()
        )

    def enrol(self, tpm: FakeTpm, group: str = "hosts", tenant: str = "acme") -> str:
        """Trust a TPM's AK by hand, and return the object's name."""
        name = f"{group}-{tpm.ak_name.hex()[4:16]}"
        document = {
            "group": group,
            "name": tpm.ak_name.hex(),
            "public": b64(tpm.ak_public),
            "how": "manual",
        }
        self.govern(Action.ADD, Kind.AK, tenant, name, json.dumps(document).encode())
        return name

    def create_key(self, key_id: str, value: bytes | None = None) -> None:
        """Create a key, from `value` if given."""
        body: dict[str, object] = {"id": key_id, "kind": "opaque"}
        if value is not None:
            body["value"] = b64(value)
        self.must("POST", "/admin/v1/keys", body)

    # -- a guest -------------------------------------------------------------------

    def booted_tpm(self, workload: bytes = WORKLOAD) -> FakeTpm:
        """A TPM whose host booted and measured a workload policy into PCR 15."""
        tpm = FakeTpm()
        tpm.extend(0, hashlib.sha256(b"firmware").digest())
        tpm.extend(15, hashlib.sha256(workload).digest())
        return tpm

    def standard(self) -> FakeTpm:
        """The usual set-up: host enrolled, policies active, one key; its TPM."""
        tpm = self.booted_tpm()
        self.enrol(tpm)
        self.govern(Action.ACTIVATE, Kind.WORKLOAD_POLICY, "acme", "runtime", WORKLOAD)
        pcr0 = hashlib.sha256(bytes(32) + hashlib.sha256(b"firmware").digest())
        self.activate_policy(BOOT_POLICY % pcr0.hexdigest())
        self.create_key("acme/model/chat", b"the model key")
        return tpm

    def challenge(self) -> str:
        """Ask for a challenge."""
        response = self.app.test_client().post("/v1/challenge", json={})
        assert response.status_code == 200, response.get_data(as_text=True)
        return str(response.get_json()["answer"]["challenge"])

    def runtime_data(
        self,
        keys: Sequence[str] = ("acme/model/chat",),
        *,
        mode: Mode = Mode.RELEASE,
        partial: bool = False,
        suite: Suite = Suite.X25519,
        challenge: str | None = None,
    ) -> tuple[RuntimeData, RecipientPrivateKey]:
        """What the evidence of one request has to be bound to."""
        private = generate_recipient_key(suite)
        data = RuntimeData(
            audience=self.broker.identity.origin,
            nonce=challenge or self.challenge(),
            recipient=recipient_of(private),
            request=ReleaseRequest(
                keys=tuple(parse_key_ref(key) for key in keys),
                mode=mode,
                partial=partial,
                suite=suite,
            ),
        )
        return data, private

    def request(
        self,
        tpm: FakeTpm,
        keys: Sequence[str] = ("acme/model/chat",),
        **options: object,
    ) -> Request:
        """A complete request of a guest whose vTPM is the primary."""
        data, private = self.runtime_data(keys, **options)  # type: ignore[arg-type]
        primary = primary_binding("vtpm", data, [])
        item = tpm.quote_item(primary[:32])
        return request_of(data, private, primary, [item])

    def request_by(
        self,
        kind: str,
        item: Callable[[bytes], dict[str, object]],
        keys: Sequence[str] = ("acme/model/chat",),
        **options: object,
    ) -> Request:
        """A complete request whose one item is made for the primary's binding."""
        data, private = self.runtime_data(keys, **options)  # type: ignore[arg-type]
        primary = primary_binding(kind, data, [])
        return request_of(data, private, primary, [item(primary)])

    def composite(
        self,
        primary_kind: str,
        primary_item: Callable[[bytes], dict[str, object]],
        tpm: FakeTpm,
        keys: Sequence[str] = ("acme/model/chat",),
        **options: object,
    ) -> Request:
        """A CPU report with a vTPM beside it."""
        data, private = self.runtime_data(keys, **options)  # type: ignore[arg-type]
        device = tpm.quote_item(device_binding("vtpm", data)[:32])
        devices = [_digest_of("vtpm", device)]
        primary = primary_binding(primary_kind, data, devices)
        return request_of(data, private, primary, [primary_item(primary), device])

    def send(self, request: Request | bytes) -> TestResponse:
        """Send a request to the v1 door."""
        body = request if isinstance(request, bytes) else request.body
        return self.app.test_client().post(
            "/v1/release", data=body, content_type="application/json"
        )

    def open(self, request: Request, response: TestResponse) -> OpenedAnswer:
        """Verify and open an answer as the guest does."""
        document = response.get_json()
        return open_answer(
            document["answer"],
            {"keyid": document["keyid"], "sig": document["signature"]},
            response_key=self.broker.identity.response_key.public_key(),
            runtime_data=request.runtime_data,
            primary=request.primary,
            private_key=request.private_key,
        )

    def released(self, request: Request) -> dict[str, bytes]:
        """Send, open, and return the keys by id."""
        response = self.send(request)
        assert response.status_code == 200, response.get_data(as_text=True)
        opened: tuple[ReleasedKey, ...] = self.open(request, response).keys
        return {str(one.ref): one.value for one in opened}

    # -- the log -------------------------------------------------------------------

    def entries(self, kind: str | None = None) -> list[dict[str, object]]:
        """Return the log's bodies, of one kind if given."""
        path = "/admin/v1/audit/entries?limit=1000"
        if kind is not None:
            path += f"&kind={kind}"
        listed = self.must("GET", path)["entries"]
        assert isinstance(listed, list)
        return [entry["body"] for entry in listed]


def request_of(
    data: RuntimeData,
    private: RecipientPrivateKey,
    primary: bytes,
    items: Sequence[Mapping[str, object]],
) -> Request:
    """Put a bundle together."""
    bundle = {
        "format": "kbs.evidence/1",
        "runtime_data": data.to_json(),
        "items": [dict(item) for item in items],
    }
    return Request(canonical_json(bundle), data, primary, private)


def _digest_of(kind: str, item: Mapping[str, object]) -> DeviceDigest:
    parsed = VERIFIERS[kind].parse(item, 1)
    return device_digest(kind, parsed.core)


@contextmanager
def writer(world: World) -> Iterator[Connection]:
    """Somebody who can write the database past the broker."""
    database = world.parts.database
    assert isinstance(database, SqlDatabase)
    with database.engine.begin() as connection:
        yield connection
