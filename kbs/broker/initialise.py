"""Making a new instance in an empty database, and what must hold at every start."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kbs.audit import merkle
from kbs.audit.announcement import spki_text
from kbs.audit.entry import prepare
from kbs.audit.events import InstanceInit
from kbs.audit.kinds import Purpose
from kbs.audit.log import StoredCheckpoint, append_batch
from kbs.broker.identity import (
    LOG,
    RESPONSE,
    TOKEN,
    Identity,
    create_keys,
    log_origin,
)
from kbs.broker.ports import Database, Instance, StoredObject, Transaction
from kbs.broker.vault import Vault
from kbs.core.clock import Clock
from kbs.core.encode import b64u
from kbs.core.errors import ConfigurationError, ConflictError
from kbs.core.ids import InstanceId
from kbs.governance.authority import Administrator, Authority, Role, RoleGrant
from kbs.governance.contents import digest_of
from kbs.governance.rules import AUTHORITY_NAME
from kbs.governance.statement import EVERY_TENANT, Kind

UNDECIDED = "undecided"
DEVELOPMENT = "development"
PRODUCTION = "production"


@dataclass(frozen=True, slots=True)
class NewInstance:
    """What must be pinned outside the database."""

    instance: InstanceId
    genesis_digest: str


def genesis_authority(name: str, spki: bytes) -> Authority:
    """Return an authority with one administrator who may do everything.

    A second administrator, separate roles and a higher threshold are statements away.
    """
    grants = tuple(RoleGrant(role, (EVERY_TENANT,)) for role in Role)
    return Authority((Administrator(name, spki, grants),), 1, (EVERY_TENANT,))


def require_unused(database: Database) -> None:
    """Return if no instance lives in the database.

    Raises:
        ConflictError: one does.
    """
    with database.read() as tx:
        _require_unused(tx)


def create_instance(
    database: Database,
    vault: Vault,
    clock: Clock,
    *,
    instance: InstanceId,
    authority: Authority,
) -> NewInstance:
    """Write a new instance: its keys, its genesis authority, its first entry.

    Raises:
        ConflictError: the database has an instance already.
    """
    now = clock.now()
    content = authority.canonical()
    digest = digest_of(content)
    with database.write() as tx:
        _require_unused(tx)
        tx.instance.create(
            Instance(
                instance=instance,
                origin=log_origin(instance),
                created=now,
                mode=UNDECIDED,
            )
        )
        tx.governance.insert_object(
            StoredObject(
                kind=Kind.AUTHORITY.value,
                tenant=EVERY_TENANT,
                name=AUTHORITY_NAME,
                version=1,
                digest=digest,
                content=content,
                source=content,
                registered=now,
            )
        )
        create_keys(tx, vault, now)
        publics = {row.purpose: row.public for row in tx.broker_keys.list()}
        entry = prepare(
            InstanceInit(
                instance=instance,
                log=log_origin(instance),
                authority=digest,
                public_keys={
                    Purpose.LOG.value: _spki(publics[LOG]),
                    Purpose.RESPONSE.value: _spki(publics[RESPONSE]),
                    Purpose.TOKEN.value: b64u(publics[TOKEN]),
                },
            ),
            time=now,
        )
        append_batch(tx.log, [entry])
    return NewInstance(instance, digest)


def sign_first_checkpoint(database: Database, identity: Identity) -> None:
    """Sign the checkpoint over the first entry, whose keys did not exist before it."""
    with database.write() as tx:
        if tx.log.latest_checkpoint() is None:
            size = tx.log.head().size
            note = identity.sign_checkpoint(size, merkle.root(tx.log, size))
            tx.log.store_checkpoint(StoredCheckpoint(size, note))


def require_instance(database: Database, *, instance: str) -> Instance:
    """Return the row of the pinned instance.

    Raises:
        ConfigurationError: the database is empty, or another's.
    """
    with database.read() as tx:
        found = tx.instance.read()
    if found is None:
        raise ConfigurationError(
            "database",
            got="an empty one beside a trust folder in use",
            expected=f"that of instance {instance}",
            hint="restore the database; a new one needs a new trust folder",
            code="database.empty",
        )
    if found.instance != instance:
        raise ConfigurationError(
            "database instance",
            got=found.instance,
            expected=f"{instance}, as pinned in the trust folder",
            hint="data folder and trust folder belong to different brokers",
            code="database.instance",
        )
    return found


def settle_mode(database: Database, found: Instance, *, development: bool) -> None:
    """Keep development and production apart, for ever.

    Raises:
        ConfigurationError: development mode beside a production database.
    """
    wanted = DEVELOPMENT if development else PRODUCTION
    if development and found.mode == PRODUCTION:
        raise ConfigurationError(
            "--dev",
            got="a database that was served in production",
            expected="an empty one, or one of development",
            hint="use another --data folder for development",
            code="mode.production",
        )
    if found.mode != wanted:
        with database.write() as tx:
            tx.instance.set_mode(wanted)


def _spki(public: bytes) -> str:
    return spki_text(Ed25519PublicKey.from_public_bytes(public))


def _require_unused(tx: Transaction) -> None:
    if tx.instance.read() is not None:
        raise ConflictError("database", got="an instance", expected="an empty one")
