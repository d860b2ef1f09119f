"""Challenges: their bytes, and each way in which one is not accepted."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kbs.channel.challenge import (
    ChallengeKey,
    Door,
    mint_challenge,
    parse_challenge,
    verify_challenge,
)
from kbs.core.encode import b64u
from kbs.core.errors import AuthenticationError, MalformedError

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
KEY = ChallengeKey(7, bytes(range(32)))
OLD = ChallengeKey(6, bytes(range(32, 64)), retired=NOW)
ORIGIN = "kbs.example.org/log"
MINTED = mint_challenge(KEY, door=Door.V1, origin=ORIGIN, now=NOW)
TEXT = str(MINTED)


def made(
    *, key: ChallengeKey = KEY, door: int = 1, expiry: int, origin: str = ORIGIN
) -> str:
    signed = bytes((1, key.key_id, door)) + expiry.to_bytes(8, "big") + bytes(16)
    message = b"kbs.challenge/1\x00" + origin.encode() + b"\x00" + signed
    return b64u(signed + hmac.digest(key.secret, message, hashlib.sha256))


def verify(text: object, *, now: datetime = NOW, origin: str = ORIGIN) -> None:
    challenge = parse_challenge(text)
    verify_challenge(challenge, [KEY, OLD], door=Door.V1, origin=origin, now=now)


EXPIRY = int(NOW.timestamp()) + 300


def test_its_layout_is_the_one_of_the_contract() -> None:
    assert len(TEXT) == 79
    raw = MINTED.raw
    assert len(raw) == 59
    assert raw[:3] == b"\x01\x07\x01"
    assert int.from_bytes(raw[3:11], "big") == EXPIRY
    message = b"kbs.challenge/1\x00" + ORIGIN.encode() + b"\x00" + raw[:27]
    assert raw[27:] == hmac.digest(KEY.secret, message, hashlib.sha256)


def test_a_fresh_one_is_accepted_until_it_expires() -> None:
    for seconds in (0, 1, 299):
        verify(TEXT, now=NOW + timedelta(seconds=seconds))
    assert parse_challenge(TEXT) == MINTED


def test_two_are_never_the_same() -> None:
    assert str(mint_challenge(KEY, door=Door.V1, origin=ORIGIN, now=NOW)) != TEXT


def test_the_previous_key_is_good_for_one_lifetime_and_the_skew() -> None:
    for seconds, is_good in ((0, True), (359, True), (360, False)):
        now = NOW + timedelta(seconds=seconds)
        text = made(key=OLD, expiry=int(now.timestamp()) + 100)
        if is_good:
            verify(text, now=now)
        else:
            with pytest.raises(AuthenticationError) as caught:
                verify(text, now=now)
            assert caught.value.code == "challenge.mac"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "malformed"),
        (5, "malformed"),
        ("", "malformed"),
        (TEXT + "=", "malformed"),
        (TEXT + "A", "malformed"),
        (TEXT[:-1], "malformed"),
        (TEXT[:-4], "malformed"),
        (" " + TEXT, "malformed"),
        (TEXT.replace(TEXT[0], "!", 1), "malformed"),
        (b64u(b"\x02" + MINTED.raw[1:]), "malformed"),
        (made(expiry=2**64 - 1), "malformed"),
        (b64u(MINTED.raw[:-1] + bytes((MINTED.raw[-1] ^ 1,))), "mac"),
        (b64u(MINTED.raw[:20] + b"\x00" + MINTED.raw[21:-1] + b"\x00"), "mac"),
        (made(key=replace(KEY, key_id=9), expiry=EXPIRY), "mac"),
        (made(key=replace(OLD, key_id=7), expiry=EXPIRY), "mac"),
        (made(expiry=EXPIRY, origin="other.example.org"), "mac"),
        (made(expiry=EXPIRY, door=2), "door"),
        (made(expiry=EXPIRY, door=0), "door"),
        (made(expiry=EXPIRY - 300), "expired"),
        (made(expiry=0), "expired"),
        (made(expiry=EXPIRY + 61), "future"),
    ],
)
def test_what_is_wrong_has_its_code(text: object, code: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        verify(text)
    assert caught.value.code == f"challenge.{code}"


def test_a_clock_ahead_by_the_skew_is_forgiven() -> None:
    verify(made(expiry=EXPIRY + 60))


def test_every_byte_counts() -> None:
    for index in range(59):
        changed = bytearray(MINTED.raw)
        changed[index] ^= 1
        with pytest.raises(AuthenticationError):
            verify(b64u(bytes(changed)))


@pytest.mark.parametrize(("key_id", "size"), [(256, 32), (-1, 32), (1, 31), (1, 33)])
def test_what_is_no_challenge_key_is_refused(key_id: int, size: int) -> None:
    with pytest.raises(MalformedError):
        ChallengeKey(key_id, bytes(size))


def test_a_key_shows_no_secret() -> None:
    assert "x1f" not in repr(KEY)
