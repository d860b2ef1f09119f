"""The broker's own keys: log, response, token, challenge, pseudonym, state.

They are distinct, each sealed under the key-encryption key in the database, so that
replicas share them and a stolen database gives none. The challenge key is daily; its
predecessor is kept for as long as its challenges live.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.audit.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from kbs.audit.logkey import LogKey, LogSigner
from kbs.audit.pseudonym import Pseudonyms, pseudonym
from kbs.broker.ports import Database, StoredBrokerKey, Transaction
from kbs.broker.vault import Vault
from kbs.channel.challenge import ChallengeKey
from kbs.channel.ear import EarSigner
from kbs.channel.signing import response_key_id, serialize_response_key
from kbs.core.clock import Clock
from kbs.core.errors import (
    ConflictError,
    IntegrityError,
    MalformedError,
    VerificationError,
)
from kbs.keys.secret import Secret

LOG = "log"
RESPONSE = "response"
CHALLENGE = "challenge"
PSEUDONYM = "pseudonym"
STATE = "state"
TOKEN = "token"  # noqa: S105 - the name of a purpose, no token

PURPOSES = (LOG, RESPONSE, CHALLENGE, PSEUDONYM, STATE, TOKEN)
"""Every key that an instance has from its first day on."""

PURPOSES_SINCE_0001 = (TOKEN,)
"""Those that came with a later schema."""

_SCALAR_BYTES = 32

CHALLENGE_KEY_AGE = timedelta(days=1)

# Shorter numbers that a service gave a device would be found in any text.
_MIN_IDENTITY_DIGITS = 16

RELOAD_INTERVAL = timedelta(seconds=1)
"""Shortest time between two readings of the keys for an unknown key id."""


def log_origin(instance: str) -> str:
    """Return the name of an instance's log, which is also the audience of evidence."""
    return f"kbs.local/{instance}"


@dataclass(frozen=True, slots=True)
class _Opened:
    row: StoredBrokerKey
    secret: Secret


class Identity:
    """The broker's keys, opened once and kept in memory."""

    def __init__(
        self, database: Database, vault: Vault, clock: Clock, instance: str
    ) -> None:
        """Open every key.

        Raises:
            IntegrityError: a key is missing, or sealed for something else.
        """
        self._database = database
        self._vault = vault
        self._clock = clock
        self._lock = threading.Lock()
        self.instance = instance
        self.origin = log_origin(instance)
        with database.read() as tx:
            opened = _open_all(tx, vault)
        self._response = Ed25519PrivateKey.from_private_bytes(
            _newest(opened, RESPONSE).secret.reveal()
        )
        self._signer = LogSigner(
            self.origin,
            Ed25519PrivateKey.from_private_bytes(_newest(opened, LOG).secret.reveal()),
        )
        self._pseudonym_key = _newest(opened, PSEUDONYM).secret
        self.state_key = _newest(opened, STATE).secret
        self.token_key = _token_key(_newest(opened, TOKEN).secret)
        self.ear_signer = EarSigner(self.token_key, self.origin)
        self.log_vkey = self._signer.key.vkey
        self._challenge = _challenge_keys(opened)
        self._reloaded: datetime | None = None

    @property
    def response_key(self) -> Ed25519PrivateKey:
        """The key that signs answers."""
        return self._response

    @property
    def response_key_id(self) -> str:
        """Hex SHA-256 of the response key's SubjectPublicKeyInfo."""
        return response_key_id(self._response.public_key())

    @property
    def response_public_pem(self) -> bytes:
        """The file that guests pin."""
        return serialize_response_key(self._response.public_key())

    @property
    def log_key(self) -> LogKey:
        """The public key of the log."""
        return self._signer.key

    @property
    def log_signer(self) -> LogSigner:
        """The key that signs checkpoints and the high-water mark."""
        return self._signer

    def sign_checkpoint(self, size: int, root: bytes) -> bytes:
        """Return the signed note over this tree."""
        return sign_checkpoint(Checkpoint(self.origin, size, root), self._signer)

    def require_signed(self, size: int, root: bytes, note: bytes | None) -> None:
        """Return if the note is this log's signed checkpoint over exactly this tree.

        Raises:
            IntegrityError: it is not; the log was rewritten behind the broker.
        """
        try:
            if note is not None:
                signed, _ = verify_checkpoint(
                    note, origin=self.origin, keys=[self._signer.key]
                )
                if (signed.size, signed.root) == (size, root):
                    return
        except (MalformedError, VerificationError):
            pass
        raise IntegrityError(
            f"audit log: the tree of {size} entries",
            got=root.hex(),
            expected="the root of the checkpoint that was signed over it",
            hint="the log was rewritten in the database; restore the newest one",
            code="audit.log",
        )

    def pseudonyms(self, identities: Iterable[str]) -> Pseudonyms:
        """Return the rewriter that keeps device identities out of the log."""
        devices = [
            bytes.fromhex(value)
            for kind, _, value in (text.partition(":") for text in identities)
            if kind in {"chip", "gpu"} and len(value) >= _MIN_IDENTITY_DIGITS
        ]
        return Pseudonyms(self._pseudonym_key.reveal(), devices)

    def pseudonym(self, value: bytes) -> str:
        """Return the keyed hash of one device identity."""
        return pseudonym(self._pseudonym_key.reveal(), value)

    def challenge_keys(
        self, now: datetime, key_id: int | None = None
    ) -> tuple[ChallengeKey, ...]:
        """Return the keys that challenges may carry now, the newest first.

        A new one is made when the newest is a day old. Another replica may have made
        it already: then that one is used. A challenge with an unknown `key_id` may be
        of a replica whose day began sooner: the keys are read again first.
        """
        keys = self._challenge
        if keys[0][1] + CHALLENGE_KEY_AGE <= now:
            keys = self._renew_challenge_key(now)
        if key_id is not None and all(key.key_id != key_id for key, _ in keys):
            keys = self._reload_challenge_keys(now)
        return tuple(key for key, _ in keys)

    def _reload_challenge_keys(
        self, now: datetime
    ) -> tuple[tuple[ChallengeKey, datetime], ...]:
        with self._lock:
            # Anyone can invent key ids: they buy one reading a second.
            last = self._reloaded
            if last is None or abs(now - last) >= RELOAD_INTERVAL:
                with self._database.read() as tx:
                    opened = _open_all(tx, self._vault)
                self._challenge = _challenge_keys(opened)
                self._reloaded = now
            return self._challenge

    def _renew_challenge_key(
        self, now: datetime
    ) -> tuple[tuple[ChallengeKey, datetime], ...]:
        with self._lock:
            if self._challenge[0][1] + CHALLENGE_KEY_AGE > now:
                return self._challenge
            with self._database.write() as tx:
                rows = tx.broker_keys.list(CHALLENGE)
                newest = max(rows, key=lambda row: row.version)
                if newest.created + CHALLENGE_KEY_AGE <= now:
                    tx.broker_keys.insert(
                        new_key(self._vault, CHALLENGE, newest.version + 1, now)
                    )
                    for row in rows:
                        if row is not newest:
                            tx.broker_keys.remove(CHALLENGE, row.version)
                opened = _open_all(tx, self._vault)
            self._challenge = _challenge_keys(opened)
            return self._challenge

    def rotate_challenge_key(self, tx: Transaction, now: datetime) -> None:
        """Forget every outstanding challenge (after an accepted rollback)."""
        rows = tx.broker_keys.list(CHALLENGE)
        version = max((row.version for row in rows), default=0) + 1
        for row in rows:
            tx.broker_keys.remove(CHALLENGE, row.version)
        tx.broker_keys.insert(new_key(self._vault, CHALLENGE, version, now))
        self._challenge = _challenge_keys(_open_all(tx, self._vault))


def new_key(vault: Vault, purpose: str, version: int, now: datetime) -> StoredBrokerKey:
    """Return a fresh key for one purpose, sealed."""
    public = b""
    if purpose in {LOG, RESPONSE}:
        private = Ed25519PrivateKey.generate()
        secret = private.private_bytes_raw()
        public = private.public_key().public_bytes_raw()
    elif purpose == TOKEN:
        scalar = ec.generate_private_key(ec.SECP256R1())
        secret = scalar.private_numbers().private_value.to_bytes(_SCALAR_BYTES, "big")
        public = scalar.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
    else:
        secret = secrets.token_bytes(32)
    return StoredBrokerKey(
        purpose=purpose,
        version=version,
        public=public,
        sealed=vault.seal(
            Secret(secret), purpose=f"broker-key.{purpose}", blob_id=str(version)
        ),
        created=now,
    )


def create_keys(tx: Transaction, vault: Vault, now: datetime) -> None:
    """Make version 1 of every key of a new instance.

    Raises:
        ConflictError: they exist.
    """
    if tx.broker_keys.list():
        raise ConflictError("broker keys", got="some", expected="none yet")
    for purpose in PURPOSES:
        tx.broker_keys.insert(new_key(vault, purpose, 1, now))


def add_missing_keys(database: Database, vault: Vault, now: datetime) -> None:
    """Make version 1 of what an instance of an earlier schema does not have."""
    with database.read() as tx:
        known = {row.purpose for row in tx.broker_keys.list()}
    missing = [one for one in PURPOSES_SINCE_0001 if known and one not in known]
    if missing:
        with database.write() as tx:
            for purpose in missing:
                tx.broker_keys.insert(new_key(vault, purpose, 1, now))


def _open_all(tx: Transaction, vault: Vault) -> dict[str, list[_Opened]]:
    opened: dict[str, list[_Opened]] = {}
    for row in tx.broker_keys.list():
        secret = vault.open(
            row.sealed, purpose=f"broker-key.{row.purpose}", blob_id=str(row.version)
        )
        opened.setdefault(row.purpose, []).append(_Opened(row, secret))
    return opened


def _newest(opened: dict[str, list[_Opened]], purpose: str) -> _Opened:
    found = opened.get(purpose)
    if not found:
        raise IntegrityError(
            f"broker key {purpose}", got="none", expected="one", code="broker.key"
        )
    return max(found, key=lambda one: one.row.version)


def _token_key(secret: Secret) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(secret.reveal(), "big"), ec.SECP256R1())


def _challenge_keys(
    opened: dict[str, list[_Opened]],
) -> tuple[tuple[ChallengeKey, datetime], ...]:
    _newest(opened, CHALLENGE)
    rows = sorted(opened[CHALLENGE], key=lambda one: -one.row.version)
    keys: list[tuple[ChallengeKey, datetime]] = []
    retired: datetime | None = None
    for one in rows[:2]:
        key = ChallengeKey(one.row.version % 256, one.secret.reveal(), retired)
        keys.append((key, one.row.created))
        retired = one.row.created
    return tuple(keys)
