"""Administrators' tokens speak for one request, once, for a minute."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from kbs.channel.ear import verify_ear
from kbs.channel.signing import response_key_id
from kbs.channel.token import SignedRequest, mint_token, verify_token
from kbs.channel.upload_token import verify_upload_token
from kbs.core.encode import b64u
from kbs.core.errors import AuthenticationError

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = ed25519.Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key()
EAR_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
KEYID = response_key_id(PUBLIC)
INSTANCE = "0123456789abcdef" * 2
REQUEST = SignedRequest("POST", "/admin/v1/keys?x=1", b'{"id":"acme/model/chat"}')
TOKEN = mint_token(KEY, REQUEST, instance=INSTANCE, now=NOW)
ISSUED = int(NOW.timestamp())
CLAIMS: dict[str, Any] = {
    "aud": INSTANCE,
    "iss": KEYID,
    "sub": KEYID,
    "iat": ISSUED,
    "exp": ISSUED + 60,
    "jti": "ab" * 16,
    "m": "POST",
    "p": REQUEST.path,
    "b": REQUEST.body_digest,
}
HEADER = {"typ": "kbs-admin+jwt", "kid": KEYID}


def find(keyid: str) -> ed25519.Ed25519PublicKey | None:
    return KEY.public_key() if keyid == KEYID else None


def verify(token: str, *, request: SignedRequest = REQUEST, now: datetime = NOW) -> str:
    verified = verify_token(token, request, instance=INSTANCE, find_key=find, now=now)
    assert verified.keyid == KEYID
    assert verified.expires > now
    return verified.jti


def made(key: Any = KEY, header: dict[str, Any] | None = None, **changes: Any) -> str:
    claims = {**CLAIMS, **changes}
    present = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(present, key, algorithm="EdDSA", headers=header or HEADER)


def test_a_fresh_token_is_accepted_for_its_minute() -> None:
    jti = verify(TOKEN)
    assert verify(TOKEN, now=NOW + timedelta(seconds=59)) == jti
    assert verify(TOKEN, now=NOW - timedelta(seconds=5)) == jti
    assert verify(mint_token(KEY, REQUEST, instance=INSTANCE, now=NOW)) != jti


@pytest.mark.parametrize("offset", [-60, -6, 60, 119])
def test_a_token_is_not_accepted_before_or_after_its_minute(offset: int) -> None:
    """A token made for later would live on after an administrator lost the key."""
    with pytest.raises(AuthenticationError) as caught:
        verify(TOKEN, now=NOW + timedelta(seconds=offset))
    assert caught.value.code == "token.time"


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("", "malformed"),
        ("a.b", "malformed"),
        ("é" * 10, "malformed"),
        ("A" * 5000, "malformed"),
        (made(header={**HEADER, "typ": "JWT"}), "malformed"),
        (made(header={**HEADER, "jku": "https://evil"}), "malformed"),
        (made(header={**HEADER, "kid": "ab"}), "malformed"),
        (made(header={"typ": HEADER["typ"]}), "malformed"),
        (
            jwt.encode(CLAIMS, "k" * 64, algorithm="HS256", headers=HEADER),
            "malformed",
        ),
        (jwt.encode(CLAIMS, "", algorithm="none", headers=HEADER), "malformed"),
        (made(header={**HEADER, "kid": "ab" * 32}), "key"),
        (made(key=OTHER), "signature"),
        (made(key=ed448.Ed448PrivateKey.generate()), "signature"),
        (TOKEN[:-6] + "AAAAAA", "signature"),
        (made(aud="f" * 32), "malformed"),
        (made(aud=[INSTANCE]), "malformed"),
        (made(iss="ab" * 32), "malformed"),
        (made(sub="ab" * 32), "malformed"),
        *((made(**{name: None}), "malformed") for name in CLAIMS),
        (made(nbf=ISSUED), "malformed"),
        (made(jti="x"), "malformed"),
        (made(iat=float(ISSUED)), "malformed"),
        (made(exp="soon"), "malformed"),
        (made(exp=True), "malformed"),
        (made(exp=ISSUED + 61), "time"),
        (made(exp=ISSUED), "time"),
        (made(iat=ISSUED - 60, exp=ISSUED), "time"),
        (made(iat=ISSUED + 6, exp=ISSUED + 30), "time"),
        (made(m="DELETE"), "request"),
        (made(p="/admin/v1/keys"), "request"),
        (made(b="0" * 64), "request"),
        (made(m=["POST"]), "request"),
    ],
)
def test_what_is_wrong_has_its_code(token: str, code: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        verify(token)
    assert caught.value.code == f"token.{code}"


@pytest.mark.parametrize(
    "request_",
    [
        replace(REQUEST, method="PUT"),
        replace(REQUEST, path="/admin/v1/keys"),
        replace(REQUEST, body=b""),
    ],
)
def test_a_token_does_not_speak_for_another_request(request_: SignedRequest) -> None:
    with pytest.raises(AuthenticationError) as caught:
        verify(TOKEN, request=request_)
    assert caught.value.code == "token.request"


READERS: dict[str, Callable[[str], object]] = {
    "administrator": verify,
    "upload": lambda token: verify_upload_token(token, {KEYID: PUBLIC}, now=NOW),
    "ear": lambda token: verify_ear(token, EAR_KEY, issuer="kbs", now=NOW),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_a_token_says_is_not_repeated_as_it_is(reader: str) -> None:
    """Libraries quote what they refuse: lines of a log, or a terminal's escapes."""
    typ = HEADER["typ"] if reader == "administrator" else "JWT"
    header = {"alg": "EdDSA", "typ": typ, "crit": ["\nforged\x1b[31m"], "kid": KEYID}
    parts = (json.dumps(header).encode(), b"{}", bytes(64))
    with pytest.raises(AuthenticationError) as caught:
        READERS[reader](".".join(map(b64u, parts)))
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert "forged" in str(caught.value)
