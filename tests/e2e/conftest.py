"""Brokers as processes of their own, on both databases where it matters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kbs.adapters.sql.database import SqlDatabase, connect
from kbs.cli.admin_client import AdminClient
from kbs.cli.admin_transport import AdminTransport
from kbs.cli.governed import put, register
from kbs.cli.policy_files import load_document
from kbs.cli.profile import PROFILE_FILE, load_profile
from kbs.governance.signature import key_id
from kbs.governance.statement import Action
from tests.fakes.admin_bench import write_key
from tests.fakes.databases import empty_place, postgresql_server
from tests.fakes.postgres import PostgresServer
from tests.fakes.rcar_evidence import POLICY
from tests.fakes.served import Folders, Served, kbs, made, serving

__all__ = ["empty_place", "postgresql_server"]


@dataclass(frozen=True)
class Brokers:
    """Server processes of one instance in development mode; samples get keys."""

    folders: Folders
    servers: tuple[Served, ...]

    def client(self, number: int = 0, folder: Path | None = None) -> AdminClient:
        """A client of one of them, for the first administrator or another's profile."""
        profile = load_profile(folder or self.folders.profile)
        url = self.servers[number % len(self.servers)].url
        transport = AdminTransport(url, tls_sha256=profile.tls_sha256)
        return AdminClient(profile, transport)

    def profile_for(self, name: str, key: Ed25519PrivateKey) -> Path:
        """A profile of another administrator, as they would write it themselves."""
        folder = self.folders.base / f"profile-{name}"
        folder.mkdir(mode=0o700)
        profile = load_profile(self.folders.profile)
        own = replace(profile, keyid=key_id(key.public_key()))
        (folder / PROFILE_FILE).write_text(json.dumps(own.to_json()))
        write_key(folder, key)
        return folder

    def must(self, *arguments: str) -> str:
        """Run the command line against the first of them."""
        profile = {"KBS_PROFILE": str(self.folders.profile)}
        url = ("--server", self.servers[0].url)
        done = kbs(*arguments, *url, environ=profile)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def response_key(self) -> Ed25519PublicKey:
        """What a guest pins."""
        path = Path(str(self.servers[0].line["response_key"]))
        key = load_pem_public_key(path.read_bytes())
        assert isinstance(key, Ed25519PublicKey)
        return key

    def database(self) -> closing[SqlDatabase]:
        """The database itself, for reading."""
        return closing(connect(self.folders.url, data_dir=self.folders.data))

    def entries(self) -> list[dict[str, object]]:
        """Every body of the log, in its order."""
        with self.database() as database, database.read() as tx:
            found = tx.log.read_entries(0, tx.log.head().size)
        return [json.loads(entry.body) for entry in found]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def brokers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Brokers]:
    """Three workers on SQLite, then two servers on PostgreSQL."""
    url = None
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgresql_server")
        url = server.url(server.create_database())
    folders = Folders(tmp_path_factory.mktemp("brokers"), url)
    made(folders)
    options = ("--dev", "--rate-limit", "0")
    with ExitStack() as stack:
        if url is None:
            servers = [stack.enter_context(serving(folders, *options, "--workers=3"))]
        else:
            servers = [
                stack.enter_context(serving(folders, *options, name=name))
                for name in ("1", "2")
            ]
        found = Brokers(folders, tuple(servers))
        policy = folders.base / "policy.yaml"
        policy.write_text(POLICY)
        kind, subject, source, digest = load_document(policy, None)
        with found.client() as client:
            stored, _ = register(client, kind, subject, source=source, digest=digest)
            put(client, Action.ACTIVATE, stored)
        yield found
        assert all("Traceback" not in served.errors() for served in servers)
