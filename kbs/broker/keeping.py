"""Keys: created, imported, rotated, retired, destroyed; each change is an entry."""

from __future__ import annotations

from collections.abc import Mapping

from kbs.audit.events import KeyChange
from kbs.audit.kinds import KeyOrigin, Kind
from kbs.broker.actors import Actor
from kbs.broker.commit import Committed, Work
from kbs.broker.journal import Journal
from kbs.broker.key_ledger import KeyLedger
from kbs.broker.mark import MarkKeeper
from kbs.broker.ports import Database, Transaction
from kbs.broker.reading import read_latest
from kbs.broker.vault import Vault
from kbs.core.clock import Clock
from kbs.core.encode import parse_b64, require_integer, require_members
from kbs.core.errors import ConflictError, NotFoundError
from kbs.core.ids import KeyId, parse_key_id
from kbs.governance.authority import Role
from kbs.keys.material import (
    MAX_SECRET_BYTES,
    generate_secret,
    import_secret,
    public_part,
)
from kbs.keys.model import MAX_VERSION, KeyKind, KeyState, Origin, parse_kind
from kbs.keys.secret import Secret
from kbs.keys.store import StoredKeyVersion
from kbs.keys.versions import first_version, next_version


class Keeping:
    """The use cases of key administrators."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        journal: Journal,
        clock: Clock,
        *,
        ledger: KeyLedger,
        mark: MarkKeeper,
    ) -> None:
        """Use what the composition root made."""
        self._ledger = ledger
        self._mark = mark
        self._database = database
        self._vault = vault
        self._journal = journal
        self._clock = clock

    def list(self, actor: Actor) -> dict[str, object]:
        """Return every key of the tenants that the caller's roles reach."""
        actor.require_any()
        tenants = actor.tenants(*Role)

        def read(tx: Transaction) -> list[dict[str, object]]:
            # A key that somebody took away whole would be missing without a word.
            self._ledger.check(tx)
            names = (
                tx.keys.list_keys()
                if tenants is None
                else [key for name in tenants for key in tx.keys.list_keys(name)]
            )
            return [
                self._summary(self._ledger.versions(tx, key_id)) for key_id in names
            ]

        return {"keys": read_latest(self._database, read)}

    def show(self, actor: Actor, key_id: KeyId) -> dict[str, object]:
        """Return the versions of one key; never a secret.

        Raises:
            NotFoundError: there is none, or no role reaches it.
        """
        actor.require_any()
        with self._database.read() as tx:
            rows = self._rows(tx, actor, key_id, writing=False)
            newest = rows[-1]
            document = self._summary(rows)
            if newest.envelope is not None:
                public = public_part(newest.key.kind, self._vault.open_key(newest))
                if public is not None:
                    document["public"] = public
        return document

    def create(self, actor: Actor, body: dict[str, object]) -> dict[str, object]:
        """Create version 1 of a key, from generated or given bytes.

        Raises:
            ConflictError: the key exists; rotate it instead.
        """
        members = require_members(
            body, "key", required={"id", "kind"}, optional={"value"}
        )
        key_id = parse_key_id(members["id"])
        actor.require(Role.KEY_ADMIN, key_id.tenant)
        kind = parse_kind(members["kind"])
        secret, origin = _secret(kind, members)
        now = self._clock.now()
        key = first_version(key_id, kind=kind, origin=origin, now=now)
        row = self._vault.seal_key(secret, key)

        def run(work: Work) -> StoredKeyVersion:
            if self._ledger.versions(work.tx, key_id, writing=True):
                raise ConflictError(
                    f"key {key_id}",
                    got="a key of this id",
                    expected="a new id",
                    hint="rotate it to give it another version",
                    code="key.exists",
                )
            work.tx.keys.insert_version(row)
            self._ledger.changed(work.tx, [row])
            self._note(work, actor, row, _CREATED[origin])
            return row

        return self._changed(self._journal.change(run))

    def rotate(
        self, actor: Actor, key_id: KeyId, body: dict[str, object]
    ) -> dict[str, object]:
        """Add an enabled version and retire the one that was enabled, in one step.

        Raises:
            NotFoundError: there is no such key.
        """
        actor.require(Role.KEY_ADMIN, key_id.tenant)
        members = require_members(body, "rotation", required=set(), optional={"value"})
        now = self._clock.now()

        def run(work: Work) -> StoredKeyVersion:
            rows = self._rows(work.tx, actor, key_id)
            secret, origin = _secret(rows[-1].key.kind, members)
            changed = []
            for row in rows:
                if row.key.state is KeyState.ENABLED:
                    retired = self._vault.change_key(row, KeyState.RETIRED, now)
                    work.tx.keys.replace(retired, revision=row.key.revision)
                    changed.append(retired)
            key = next_version(rows[-1].key, origin=origin, now=now)
            added = self._vault.seal_key(secret, key)
            work.tx.keys.insert_version(added)
            self._ledger.changed(work.tx, [*changed, added])
            self._note(work, actor, added, Kind.KEY_ROTATED)
            return added

        return self._changed(self._journal.change(run))

    def retire(
        self, actor: Actor, key_id: KeyId, body: dict[str, object]
    ) -> dict[str, object]:
        """Retire one version: it opens old data and is not given out unnamed."""
        return self._move(actor, key_id, body, KeyState.RETIRED, Kind.KEY_RETIRED)

    def destroy(
        self, actor: Actor, key_id: KeyId, body: dict[str, object]
    ) -> dict[str, object]:
        """Erase one version's ciphertext; its tombstone stays."""
        return self._move(actor, key_id, body, KeyState.DESTROYED, Kind.KEY_DESTROYED)

    def _move(
        self,
        actor: Actor,
        key_id: KeyId,
        body: dict[str, object],
        state: KeyState,
        kind: Kind,
    ) -> dict[str, object]:
        actor.require(Role.KEY_ADMIN, key_id.tenant)
        members = require_members(body, "change", required={"version"})
        version = require_integer(
            members["version"], "version", least=1, most=MAX_VERSION
        )
        now = self._clock.now()

        def run(work: Work) -> StoredKeyVersion:
            row = _version(self._rows(work.tx, actor, key_id), version)
            moved = self._vault.change_key(row, state, now)
            work.tx.keys.replace(moved, revision=row.key.revision)
            self._ledger.changed(work.tx, [moved])
            self._note(work, actor, moved, kind)
            return moved

        return self._changed(self._journal.change(run))

    def _rows(
        self, tx: Transaction, actor: Actor, key_id: KeyId, *, writing: bool = True
    ) -> tuple[StoredKeyVersion, ...]:
        rows = self._ledger.versions(tx, key_id, writing=writing)
        if not rows or not actor.may_see(key_id.tenant):
            raise NotFoundError(f"key {key_id}", got="no such key", code="key.none")
        return rows

    def _note(
        self, work: Work, actor: Actor, row: StoredKeyVersion, kind: Kind
    ) -> None:
        created = kind not in {Kind.KEY_RETIRED, Kind.KEY_DESTROYED}
        event = KeyChange(
            kind=kind,
            key=str(row.key.key_id),
            version=row.key.version,
            actor=actor.administrator.keyid,
            key_kind=row.key.kind.value if created else None,
            origin=KeyOrigin(row.key.origin.value) if created else None,
        )
        work.append(self._journal.entry(event))

    def _changed(self, done: Committed[StoredKeyVersion]) -> dict[str, object]:
        # What is destroyed stays so even if the database is taken back right away.
        self._mark.write()
        return {**done.value.key.to_json(), "entry": done.placed[0].entry.id}

    def _summary(self, rows: tuple[StoredKeyVersion, ...]) -> dict[str, object]:
        for row in rows:
            self._vault.verify(row)
        newest = rows[-1].key
        return {
            "id": str(newest.key_id),
            "kind": newest.kind.value,
            "versions": [row.key.to_json() for row in rows],
        }


_CREATED = {
    Origin.GENERATED: Kind.KEY_CREATED,
    Origin.IMPORTED: Kind.KEY_IMPORTED,
}


def _secret(kind: KeyKind, members: Mapping[str, object]) -> tuple[Secret, Origin]:
    if "value" not in members:
        return generate_secret(kind), Origin.GENERATED
    data = parse_b64(members["value"], "key value", limit=MAX_SECRET_BYTES)
    return import_secret(kind, data), Origin.IMPORTED


def _version(rows: tuple[StoredKeyVersion, ...], version: int) -> StoredKeyVersion:
    for row in rows:
        if row.key.version == version:
            return row
    raise NotFoundError(
        f"key {rows[0].key.key_id} version {version}",
        got="no such version",
        expected=f"1 to {rows[-1].key.version}",
        code="key.version",
    )
