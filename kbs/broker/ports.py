"""What the use cases ask of a database, one small protocol per concern.

A `Transaction` is one database transaction with every repository in it. `write()`
transactions are serialised on the head of the log: whoever holds one is the only
writer, so what it read stays true until it commits. Reading raises nothing but
`UnavailableError` (the database is away) and `IntegrityError` (a row is damaged).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from kbs.audit.log import LogStore
from kbs.keys.store import KeyStore

TRUST_AWAY = "trust.away"
"""Code of a high-water mark that cannot be read or written now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentChallenge:
    """A challenge that was used, with the answer that a retry gets again.

    `challenge` is the SHA-256 of the challenge's bytes; `answer` the signed answer or
    problem document as it was first sent, without the receipt.
    """

    challenge: bytes
    request_digest: bytes
    decision: str
    entry_index: int
    status: int
    answer: bytes
    expires: datetime


class SpentStore(Protocol):
    """Challenges that were spent, until they expire."""

    def find(self, challenge: bytes) -> SpentChallenge | None:
        """Return the spent challenge with this digest."""
        ...

    def insert(self, spent: SpentChallenge) -> None:
        """Spend a challenge.

        Raises:
            ConflictError: it is spent already.
        """
        ...

    def purge(self, before: datetime) -> int:
        """Remove those that expired before, and return how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """A session of the RCAR door that has attested, well or not, until it ends.

    `session` is the SHA-256 of its cookie; `sealed` holds what the evidence proved, and
    which message spent the session (`kbs.broker.rcar.sessions`). `has_evidence`: its
    evidence waits in it, sealed, for an entry that names it.
    """

    session: bytes
    decision: str
    sealed: bytes
    expires: datetime
    has_evidence: bool = False


class SessionStore(Protocol):
    """Attested sessions, until they end."""

    def find(self, session: bytes) -> StoredSession | None:
        """Return the session with this digest."""
        ...

    def find_decision(self, decision: str) -> StoredSession | None:
        """Return the session whose attestation had this decision id."""
        ...

    def insert(self, session: StoredSession, evidence: bytes | None = None) -> None:
        """Keep one, with evidence that waits in it if given.

        Raises:
            ConflictError: it has attested already.
        """
        ...

    def take_evidence(self, session: bytes) -> bytes | None:
        """Remove the evidence that waits in a session, and return it."""
        ...

    def drop_evidence(self, before: datetime) -> int:
        """Erase what waits in sessions that ended before, and return how many."""
        ...

    def purge(self, before: datetime) -> int:
        """Remove those that ended before, and return how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvidence:
    """One evidence bundle, encrypted, addressed by the SHA-256 of its bytes."""

    digest: bytes
    sealed: bytes
    decision: str
    created: datetime
    expires: datetime


class EvidenceStore(Protocol):
    """Evidence kept apart from the log, with a retention of its own."""

    def insert(self, evidence: StoredEvidence) -> None:
        """Keep evidence; the same digest again keeps the later expiry."""
        ...

    def find(self, digest: bytes) -> StoredEvidence | None:
        """Return the evidence with this digest, if it is still kept."""
        ...

    def overflow(self, most: int, *, waiting: bool = False) -> datetime | None:
        """Return the time before which enough expires that the others fit.

        That of what is kept, or of what is `waiting` in sessions, which counts as the
        newest. None when nothing of that sort has to go so that all of it together has
        at most so many bytes.
        """
        ...

    def purge(self, before: datetime, *, limit: int) -> Sequence[bytes]:
        """Erase what expires before, the oldest first, and return the digests.

        At most `limit` of them: the caller logs them all.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingEnrolment:
    """An AK whose residence beside an EK was proven, and which nobody trusts yet.

    `ek` is SHA-256 of the EK's SubjectPublicKeyInfo; `mac` covers everything else
    (`kbs.broker.pending`).
    """

    id: str
    tenant: str
    group: str
    ak_public: bytes
    ak_name: bytes
    ek: bytes
    ek_certificate: bytes
    ca: str
    created: datetime
    expires: datetime
    mac: bytes = b""


class EnrolmentStore(Protocol):
    """Pending enrolments, until an administrator's statement or their expiry."""

    def insert(self, pending: PendingEnrolment) -> None:
        """Keep one; the same AK in the same group replaces the one before."""
        ...

    def find(self, enrolment_id: str) -> PendingEnrolment | None:
        """Return one."""
        ...

    def find_key(
        self, tenant: str, group: str, ak_name: bytes
    ) -> PendingEnrolment | None:
        """Return the one of an AK in a group of a tenant."""
        ...

    def list(self, tenants: tuple[str, ...] | None) -> Sequence[PendingEnrolment]:
        """Return those of these tenants (None: all), oldest first."""
        ...

    def count(self, *, tenant: str | None = None, ek: bytes | None = None) -> int:
        """Return how many there are, of one tenant or of one EK if given."""
        ...

    def remove(self, enrolment_id: str) -> None:
        """Forget one."""
        ...

    def purge(self, before: datetime) -> int:
        """Remove those that expired before, and return how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCollateral:
    """A vendor's certificate, list, answer, document or manifest; brings no trust.

    `der` are the bytes that prove themselves: DER, and of documents and manifests JSON.
    """

    digest: bytes
    kind: str  # "certificate", "crl", "ocsp", "rim" or the kind of a document
    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime | None
    der: bytes
    imported: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TableState:
    """Which set of rows was there after change `seq`; `mac` covers both."""

    seq: int
    digest: bytes
    mac: bytes


class CollateralStore(Protocol):
    """The local collateral table."""

    def insert(self, item: StoredCollateral) -> bool:
        """Keep one; return whether it was new."""
        ...

    def list(self) -> Sequence[StoredCollateral]:
        """Return all of them."""
        ...

    def delete(self, digests: Sequence[bytes]) -> None:
        """Take these away; the state beside them is the caller's to set."""
        ...

    def fingerprint(self) -> tuple[int, str]:
        """Return a cheap value (count, latest import) that changes with the table."""
        ...

    def state(self) -> TableState | None:
        """Return what the last import left, or None before the first one."""
        ...

    def set_state(self, state: TableState) -> None:
        """Replace it, together with the rows that it tells of."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One version of a governed object; `content` hashes to `digest` (hex SHA-256).

    `source` is the text as it was registered, for people; only `content` counts.
    """

    kind: str
    tenant: str
    name: str
    version: int
    digest: str
    content: bytes
    source: bytes
    registered: datetime


@dataclass(frozen=True, slots=True)
class StoredStatement:
    """One signed envelope of the chain, as canonical JSON, and when it was accepted."""

    seq: int
    envelope: bytes
    accepted: datetime


class GovernanceStore(Protocol):
    """Statements and the contents that they put in force."""

    def head(self) -> int:
        """Return the highest seq, 0 when there is none."""
        ...

    def statements(self, after: int = 0) -> Sequence[StoredStatement]:
        """Return the statements after a seq, in order."""
        ...

    def statements_at(self, seqs: Sequence[int]) -> Mapping[int, bytes]:
        """Return the envelopes with these numbers; missing ones are left out."""
        ...

    def append(self, statement: StoredStatement) -> None:
        """Add the next statement.

        Raises:
            ConflictError: the seq is taken.
        """
        ...

    def contents(self, digests: Sequence[str]) -> Mapping[str, bytes]:
        """Return contents by digest (hex); missing ones are left out."""
        ...

    def insert_object(self, stored: StoredObject) -> None:
        """Keep one version.

        Raises:
            ConflictError: this version of this object exists.
        """
        ...

    def objects(
        self, kind: str, tenant: str | None = None, name: str | None = None
    ) -> Sequence[StoredObject]:
        """Return versions, ordered by tenant, name, version."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBrokerKey:
    """A key of the broker's own; `sealed` is under the key-encryption key.

    `purpose`: log, response, challenge, pseudonym, state. `version` counts from 1.
    """

    purpose: str
    version: int
    public: bytes
    sealed: bytes
    created: datetime


class BrokerKeyStore(Protocol):
    """The broker's own keys."""

    def insert(self, key: StoredBrokerKey) -> None:
        """Keep one.

        Raises:
            ConflictError: this version of this purpose exists.
        """
        ...

    def list(self, purpose: str | None = None) -> Sequence[StoredBrokerKey]:
        """Return them by purpose and version."""
        ...

    def remove(self, purpose: str, version: int) -> None:
        """Erase one (an expired challenge key)."""
        ...

    def replace(self, key: StoredBrokerKey) -> None:
        """Replace the sealed bytes of one (re-wrapping)."""
        ...


class TokenStore(Protocol):
    """Identifiers of administrators' tokens that were used for a write."""

    def use(self, jti: str, expires: datetime) -> None:
        """Spend one.

        Raises:
            ConflictError: it was used before.
        """
        ...

    def purge(self, before: datetime) -> int:
        """Remove those that expired before, and return how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Who this database belongs to.

    `mode` is `undecided` until the first `serve`, then `development` or `production`.
    """

    instance: str
    origin: str
    created: datetime
    mode: str


class InstanceStore(Protocol):
    """The one row that names the broker."""

    def read(self) -> Instance | None:
        """Return it, or None in an empty database."""
        ...

    def create(self, instance: Instance) -> None:
        """Write it once.

        Raises:
            ConflictError: there is one already.
        """
        ...

    def set_mode(self, mode: str) -> None:
        """Change the mode of the one row."""
        ...


class Transaction(Protocol):
    """One database transaction, with every repository."""

    @property
    def log(self) -> LogStore:
        """The audit log."""
        ...

    @property
    def keys(self) -> KeyStore:
        """Secrets, encrypted."""
        ...

    @property
    def governance(self) -> GovernanceStore:
        """Statements and governed objects."""
        ...

    @property
    def spent(self) -> SpentStore:
        """Spent challenges."""
        ...

    @property
    def sessions(self) -> SessionStore:
        """Attested sessions."""
        ...

    @property
    def evidence(self) -> EvidenceStore:
        """Encrypted evidence."""
        ...

    @property
    def enrolments(self) -> EnrolmentStore:
        """Pending enrolments."""
        ...

    @property
    def collateral(self) -> CollateralStore:
        """Vendor collateral."""
        ...

    @property
    def broker_keys(self) -> BrokerKeyStore:
        """The broker's own keys."""
        ...

    @property
    def tokens(self) -> TokenStore:
        """Used administrators' tokens."""
        ...

    @property
    def instance(self) -> InstanceStore:
        """Who this database belongs to."""
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """Run a part that is rolled back alone when it raises."""
        ...

    def require_whole(self) -> None:
        """Return if everything done so far will be kept together, or not at all.

        Raises:
            UnavailableError: the database gave the transaction up after an error.
        """
        ...


class Database(Protocol):
    """Gives transactions; safe to use from several threads."""

    def read(self) -> AbstractContextManager[Transaction]:
        """Open a consistent snapshot that cannot write."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """Open the one write transaction; leaving commits durably, raising rolls back.

        Raises:
            UnavailableError: the database is away, locked for too long, or full.
        """
        ...


class Highwater(Protocol):
    """The signed mark outside the database, bytes in and out."""

    def read(self) -> bytes | None:
        """Return the mark, or None before the first one."""
        ...

    def stamp(self) -> object:
        """Return a value that changes whenever the mark does; cheap to ask for."""
        ...

    def locked(self) -> AbstractContextManager[None]:
        """Keep other threads and processes from writing meanwhile."""
        ...

    def write(self, mark: bytes) -> None:
        """Replace the mark atomically and durably."""
        ...
