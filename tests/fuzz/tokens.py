"""Targets: tokens, cookies and challenges, as strangers write them and signed.

A stranger's token ends at its signature. What is behind that is reached with targets
that sign whatever they are given: one line is the header, the rest are the claims.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kbs.channel import challenge as challenges
from kbs.channel import session as sessions
from kbs.channel.challenge import (
    ChallengeKey,
    Door,
    mint_challenge,
    parse_challenge,
    verify_challenge,
)
from kbs.channel.ear import EarSigner, Submodule, verify_ear
from kbs.channel.session import mint_session, verify_session
from kbs.channel.signing import response_key_id
from kbs.channel.token import SignedRequest, mint_token, verify_token
from kbs.channel.upload_token import verify_upload_token
from kbs.core.encode import b64u
from kbs.core.errors import AuthenticationError
from tests.fuzz.target import KIB, Shape, Target

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
ADMIN = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ADMIN_ID = response_key_id(ADMIN.public_key())
ISSUER = ec.derive_private_key(7, ec.SECP256R1())
KEY = ChallengeKey(key_id=3, secret=bytes(range(32)))
REQUEST = SignedRequest("POST", "/admin/v1/keys", b"{}")
INSTANCE = "0123456789abcdef" * 2
ORIGIN = "kbs.example.org"
MAX_HEADER = 64 * KIB

Sign = Callable[[bytes], bytes]
Run = Callable[[bytes], object]


def _admin(text: str) -> None:
    verify_token(
        text,
        REQUEST,
        instance=INSTANCE,
        find_key=lambda keyid: ADMIN.public_key() if keyid == ADMIN_ID else None,
        now=NOW,
    )


def _upload(text: str) -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    keys = {"0" * 64: other, ADMIN_ID: ADMIN.public_key()}
    verify_upload_token(text, keys, now=NOW)


def _ear(text: str) -> None:
    verify_ear(text, ISSUER.public_key(), issuer=ORIGIN, now=NOW)


def _session(text: str) -> None:
    verify_session(text, lambda _: (KEY,), origin=ORIGIN, now=NOW)


def _challenge(text: str) -> None:
    verify_challenge(
        parse_challenge(text), (KEY,), door=Door.V1, origin=ORIGIN, now=NOW
    )


def _as_header(verify: Callable[[str], object]) -> Run:
    # WSGI hands header values over as latin-1 text (PEP 3333).
    return lambda data: verify(data.decode("latin-1"))


def _signed(verify: Callable[[str], object], sign: Sign, data: bytes) -> None:
    header, _, claims = data.partition(b"\n")
    text = f"{b64u(header)}.{b64u(claims)}"
    verify(f"{text}.{b64u(sign(text.encode()))}")


def _es256(data: bytes) -> bytes:
    r, s = decode_dss_signature(ISSUER.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _maced(context: bytes, verify: Callable[[str], object], data: bytes) -> None:
    message = context + ORIGIN.encode() + b"\x00" + data
    mac = hmac.digest(KEY.secret, message, hashlib.sha256)
    verify(b64u(data + mac))


def _lines(token: str) -> bytes:
    header, claims, _ = token.split(".")
    return b"\n".join(
        base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        for part in (header, claims)
    )


# -- seeds -----------------------------------------------------------------------------


def _admin_token() -> str:
    return mint_token(ADMIN, REQUEST, instance=INSTANCE, now=NOW)


def _upload_token() -> str:
    seconds = int(NOW.timestamp())
    claims = f'{{"iat":{seconds},"exp":{seconds + 7200},"nbf":{seconds}}}'
    text = b64u(b'{"alg":"EdDSA","typ":"JWT"}') + "." + b64u(claims.encode())
    return f"{text}.{b64u(ADMIN.sign(text.encode()))}"


def _ear_token() -> str:
    return EarSigner(ISSUER, ORIGIN).token(
        [Submodule(name="cpu0", genuine=True, annotated={"snp": {"a": 1}})],
        decision=INSTANCE,
        policy="default",
        now=NOW,
        expires=NOW + timedelta(seconds=300),
    )


def _cookie() -> str:
    return mint_session(KEY, tee="snp", origin=ORIGIN, now=NOW).cookie


def _minted() -> str:
    return str(mint_challenge(KEY, door=Door.V1, origin=ORIGIN, now=NOW))


_TOKENS = (_admin_token, _upload_token, _ear_token)
_ODD = (
    b"",
    b"..",
    b"Bearer x",
    # PyJWT's header parser meets these before anything is verified.
    b64u(b'{"alg":"none"}').encode() + b".e30.",
    b64u(b'{"alg":"EdDSA","crit":["b64"],"b64":false}').encode() + b".e30.AA",
    b64u(b"[" * 2900).encode() + b".e30.AA",
    b64u(b'{"alg":"HS256","kid":null}').encode() + b".e30.AA",
)


def _raw(make: Callable[[], str]) -> Iterable[bytes]:
    yield make().encode()
    yield from _ODD


def _text_target(name: str, verify: Callable[[str], object], seed: str) -> Target:
    makers = {"admin": _admin_token, "upload": _upload_token, "ear": _ear_token}
    makers |= {"session": _cookie, "challenge": _minted}
    return Target(
        name=f"token.{name}",
        run=_as_header(verify),
        seeds=partial(_raw, makers[seed]),
        allowed=(AuthenticationError,),
        recorded=("tokens/*.jwt",),
        most_bytes=MAX_HEADER,
    )


def _claims_target(name: str, verify: Callable[[str], object], sign: Sign) -> Target:
    return Target(
        name=f"token.{name}.signed",
        run=partial(_signed, verify, sign),
        seeds=lambda: (_lines(make()) for make in _TOKENS),
        allowed=(AuthenticationError,),
        shape=Shape.JSON,
        most_bytes=MAX_HEADER,
    )


TARGETS: Sequence[Target] = (
    _text_target("admin", _admin, "admin"),
    _claims_target("admin", _admin, ADMIN.sign),
    _text_target("upload", _upload, "upload"),
    _claims_target("upload", _upload, ADMIN.sign),
    _text_target("ear", _ear, "ear"),
    _claims_target("ear", _ear, _es256),
    _text_target("session", _session, "session"),
    Target(
        name="token.session.signed",
        run=partial(_maced, sessions._CONTEXT, _session),
        seeds=lambda: (
            mint_session(KEY, tee="snp", origin=ORIGIN, now=NOW).raw[:-32],
            mint_session(KEY, tee="x" * 64, origin=ORIGIN, now=NOW).raw[:-32],
        ),
        allowed=(AuthenticationError,),
        most_bytes=KIB,
    ),
    _text_target("challenge", _challenge, "challenge"),
    Target(
        name="token.challenge.signed",
        run=partial(_maced, challenges._CONTEXT, _challenge),
        seeds=lambda: (
            mint_challenge(KEY, door=Door.V1, origin=ORIGIN, now=NOW).raw[:-32],
        ),
        allowed=(AuthenticationError,),
        most_bytes=KIB,
    ),
)
