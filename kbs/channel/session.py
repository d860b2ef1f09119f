"""RCAR sessions before they have attested: MACed state in the cookie, nothing stored.

::

    challenge (59) | TEE name | HMAC-SHA-256(K, "kbs.session/1" 0x00 origin 0x00 <both>)

K is the daily challenge key, the challenge one of door `rcar`. The nonce that the
guest attests to is SHA-256("kbs.session.nonce/1" 0x00 <all of it>): 32 bytes as that
protocol has them, and no way back from the nonce, which evidence shows, to the cookie.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from kbs.channel.challenge import (
    CHALLENGE_BYTES,
    Challenge,
    ChallengeKey,
    Door,
    mint_challenge,
    read_challenge,
    verify_challenge,
)
from kbs.core.encode import b64, b64u, parse_b64u
from kbs.core.errors import AuthenticationError, MalformedError

_CONTEXT = b"kbs.session/1\x00"
_NONCE_CONTEXT = b"kbs.session.nonce/1\x00"
_MAC_BYTES = 32
_MAX_TEE_BYTES = 32
_MAX_BYTES = CHALLENGE_BYTES + _MAX_TEE_BYTES + _MAC_BYTES

KeysOf = Callable[[int], Sequence[ChallengeKey]]
"""Returns the keys that challenges may carry now, by the id that one names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session; `raw` is what the cookie holds and is a credential."""

    challenge: Challenge
    tee: str
    raw: bytes

    @property
    def cookie(self) -> str:
        """The cookie's value."""
        return b64u(self.raw)

    @property
    def nonce(self) -> str:
        """What the evidence is bound to, standard base64 of 32 bytes."""
        return b64(hashlib.sha256(_NONCE_CONTEXT + self.raw).digest())

    @property
    def digest(self) -> bytes:
        """The name under which the session is stored; shows nothing of the cookie."""
        return hashlib.sha256(self.raw).digest()

    @property
    def expires(self) -> datetime:
        """When it ends; attesting does not prolong it."""
        return self.challenge.expires


def mint_session(key: ChallengeKey, *, tee: str, origin: str, now: datetime) -> Session:
    """Return a fresh session that ends 300 seconds after `now`."""
    challenge = mint_challenge(key, door=Door.RCAR, origin=origin, now=now)
    signed = challenge.raw + tee.encode("ascii")
    return Session(
        challenge=challenge, tee=tee, raw=signed + _mac(key.secret, origin, signed)
    )


def verify_session(
    cookie: str, keys_of: KeysOf, *, origin: str, now: datetime
) -> Session:
    """Return the session if this fleet began it and it has not ended.

    Raises:
        AuthenticationError: `session.malformed`, `session.mac`, or what is wrong with
            its challenge.
    """
    try:
        raw = parse_b64u(cookie, "session", limit=_MAX_BYTES)
        tee = raw[CHALLENGE_BYTES:-_MAC_BYTES].decode("ascii")
        challenge = read_challenge(raw[:CHALLENGE_BYTES])
    except (MalformedError, UnicodeDecodeError, AuthenticationError) as exc:
        # Whoever brings what is no session of ours has not asked for a challenge.
        raise _fault("malformed", "another value") from exc
    keys = keys_of(challenge.key_id)
    verify_challenge(challenge, keys, door=Door.RCAR, origin=origin, now=now)
    signed, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    matches = [
        hmac.compare_digest(_mac(key.secret, origin, signed), mac)
        for key in keys
        if key.key_id == challenge.key_id
    ]
    if not any(matches) or not tee:
        raise _fault("mac", "one that no key of this broker made")
    return Session(challenge=challenge, tee=tee, raw=raw)


def _mac(secret: bytes, origin: str, signed: bytes) -> bytes:
    message = _CONTEXT + origin.encode("ascii") + b"\x00" + signed
    return hmac.digest(secret, message, hashlib.sha256)


def _fault(name: str, got: str) -> AuthenticationError:
    return AuthenticationError(
        "session",
        got=got,
        expected="the cookie that /auth set",
        hint="begin again with /auth",
        code=f"session.{name}",
    )
