"""Challenges: stateless nonces under a daily fleet key, good for one door and 300 s.

::

    0x01 | key id (1) | door (1) | expiry u64 | random (16) |
    HMAC-SHA-256(K, "kbs.challenge/1" 0x00 origin 0x00 <the preceding 27 bytes>)

59 bytes, 79 characters of base64url. Nothing in a challenge is secret, so it is a MAC,
not a ciphertext. That a challenge is used once is the release transaction's business.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from kbs.core.encode import b64u, parse_b64u
from kbs.core.errors import AuthenticationError, MalformedError

CHALLENGE_LIFETIME_SECONDS = 300
CLOCK_SKEW_SECONDS = 60
"""How far the clocks of two replicas may be apart."""

_CONTEXT = b"kbs.challenge/1\x00"
_FORMAT = 1
_RANDOM_SIZE = 16
_MAC_SIZE = 32
CHALLENGE_BYTES = 59
"""Size of a challenge."""

_FIELDS = struct.Struct(">BBBQ")
_SIGNED_SIZE = CHALLENGE_BYTES - _MAC_SIZE
_KEY_SIZE = 32
_LAST_YEAR_SECONDS = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


class Door(IntEnum):
    """The front door that a challenge is for."""

    V1 = 1
    RCAR = 2
    KMS = 3
    SKR = 4


@dataclass(frozen=True, slots=True)
class ChallengeKey:
    """One daily MAC key; `retired` is when its successor took over."""

    key_id: int
    secret: bytes = field(repr=False)
    retired: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse an id that is no byte and a key of another size."""
        if self.key_id not in range(256) or len(self.secret) != _KEY_SIZE:
            raise MalformedError(
                "challenge key",
                got=f"id {self.key_id}, {len(self.secret)} bytes",
                expected=f"an id of one byte and {_KEY_SIZE} bytes",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """The fields of a challenge; `raw` are its 59 bytes."""

    key_id: int
    door: int
    expires: datetime
    raw: bytes

    def __str__(self) -> str:
        """Return the 79 characters."""
        return b64u(self.raw)


def mint_challenge(
    key: ChallengeKey, *, door: Door, origin: str, now: datetime
) -> Challenge:
    """Return a fresh challenge that expires 300 seconds after `now`."""
    expiry = int(now.timestamp()) + CHALLENGE_LIFETIME_SECONDS
    signed = (
        bytes((_FORMAT, key.key_id, door))
        + expiry.to_bytes(8, "big")
        + secrets.token_bytes(_RANDOM_SIZE)
    )
    return read_challenge(signed + _mac(key, origin, signed))


def parse_challenge(text: object) -> Challenge:
    """Read the text of a challenge; proves nothing.

    Raises:
        AuthenticationError: `challenge.malformed`.
    """
    try:
        raw = parse_b64u(text, "challenge", limit=CHALLENGE_BYTES)
    except MalformedError as exc:
        raise _fault("malformed", str(exc)) from exc
    return read_challenge(raw)


def read_challenge(raw: bytes) -> Challenge:
    """Read the bytes of a challenge; proves nothing.

    Raises:
        AuthenticationError: `challenge.malformed`.
    """
    if len(raw) != CHALLENGE_BYTES:
        raise _fault("malformed", f"{len(raw)} bytes, expected {CHALLENGE_BYTES}")
    version, key_id, door, expiry = _FIELDS.unpack_from(raw)
    if version != _FORMAT or expiry > _LAST_YEAR_SECONDS:
        raise _fault("malformed", f"format {version}, expiry {expiry}")
    return Challenge(
        key_id=key_id,
        door=door,
        expires=datetime.fromtimestamp(expiry, UTC),
        raw=raw,
    )


def verify_challenge(
    challenge: Challenge,
    keys: Sequence[ChallengeKey],
    *,
    door: Door,
    origin: str,
    now: datetime,
) -> None:
    """Return if this fleet minted the challenge for this door and it is current.

    Raises:
        AuthenticationError: `challenge.mac`, `.door`, `.expired` or `.future`.
    """
    signed, mac = challenge.raw[:_SIGNED_SIZE], challenge.raw[_SIGNED_SIZE:]
    usable = [key for key in keys if _is_usable(key, now)]
    matches = [
        hmac.compare_digest(_mac(key, origin, signed), mac)
        for key in usable
        if key.key_id == challenge.key_id
    ]
    if not any(matches):
        raise _fault("mac", f"no current key with id {challenge.key_id} made it")
    if challenge.door != door:
        raise _fault("door", f"door {challenge.door}, expected {int(door)}")
    if now >= challenge.expires:
        raise _fault("expired", f"expired at {challenge.expires.isoformat()}")
    latest = now + timedelta(seconds=CHALLENGE_LIFETIME_SECONDS + CLOCK_SKEW_SECONDS)
    if challenge.expires > latest:
        raise _fault("future", f"expires at {challenge.expires.isoformat()}")


def _is_usable(key: ChallengeKey, now: datetime) -> bool:
    # The previous key is kept for one lifetime, and the skew between two replicas.
    kept = timedelta(seconds=CHALLENGE_LIFETIME_SECONDS + CLOCK_SKEW_SECONDS)
    return key.retired is None or now < key.retired + kept


def _mac(key: ChallengeKey, origin: str, signed: bytes) -> bytes:
    message = _CONTEXT + origin.encode("ascii") + b"\x00" + signed
    return hmac.digest(key.secret, message, hashlib.sha256)


def _fault(name: str, got: str) -> AuthenticationError:
    return AuthenticationError(
        f"challenge.{name}",
        got=got,
        hint="ask for a new challenge",
        code=f"challenge.{name}",
    )
