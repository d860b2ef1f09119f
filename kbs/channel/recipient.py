"""The recipient's public key: a JWK inside verified evidence, and the suite for it.

JSON Web Keys with exactly the members of RFC 7518, section 6.2 (EC) and RFC 8037,
section 2 (OKP), and no others, so that a key has one spelling. AKP keys (ML-KEM) have
their place in the format; they are parsed far enough to say that they come later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.core.encode import b64u, parse_b64u, require_members, require_object
from kbs.core.errors import MalformedError

RecipientKey = x25519.X25519PublicKey | ec.EllipticCurvePublicKey
RecipientPrivateKey = x25519.X25519PrivateKey | ec.EllipticCurvePrivateKey

# RFC 7748, section 5: X25519 keys are 32 bytes.
_X25519_SIZE = 32
# Nothing is ever sealed by it: it is there to try points with.
_ANY_X25519 = x25519.X25519PrivateKey.from_private_bytes(bytes(range(_X25519_SIZE)))
# RFC 7518, section 6.2.1: coordinates have the full size of the curve.
_CURVES: Mapping[str, tuple[ec.EllipticCurve, int]] = {
    "P-256": (ec.SECP256R1(), 32),
    "P-384": (ec.SECP384R1(), 48),
}
# ML-KEM-1024 joined with P-384 is the largest public key registered for HPKE.
_AKP_LIMIT = 2048


class Suite(StrEnum):
    """HPKE suites of v1: KEM-KDF-AEAD, identifiers of RFC 9180, section 7."""

    X25519 = "0020-0001-0002"
    P256 = "0010-0001-0002"
    P384 = "0011-0002-0002"


_SUITES: Mapping[str, Suite] = {suite.value: suite for suite in Suite}


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient key, its JWK members as written, and the only suite that fits it."""

    key: RecipientKey
    jwk: tuple[tuple[str, str], ...]
    suite: Suite

    def to_json(self) -> dict[str, str]:
        """Return the JWK exactly as it was parsed."""
        return dict(self.jwk)


def parse_suite(text: object) -> Suite:
    """Accept one of the suites of v1.

    Raises:
        MalformedError: anything else.
    """
    suite = _SUITES.get(text) if isinstance(text, str) else None
    if suite is None:
        raise MalformedError("suite", got=repr(text)[:40], expected=", ".join(_SUITES))
    return suite


def parse_recipient(value: object) -> Recipient:
    """Accept an OKP X25519 or an EC P-256 or P-384 public key as a JWK.

    Raises:
        MalformedError: other members, another curve, no point of the curve, a
            low-order point, or a key type that comes later.
    """
    kty = require_object(value, "recipient").get("kty")
    if kty == "OKP":
        return _parse_okp(value)
    if kty == "EC":
        return _parse_ec(value)
    if kty == "AKP":
        return _refuse_akp(value)
    raise MalformedError("recipient kty", got=repr(kty)[:40], expected="OKP or EC")


def spki_der(recipient: Recipient) -> bytes:
    """Return the key as SubjectPublicKeyInfo in DER (RFC 5280; RFC 8410 for X25519)."""
    return recipient.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def recipient_of(key: RecipientPrivateKey) -> Recipient:
    """Return the recipient that a private key made by the guest stands for."""
    if isinstance(key, x25519.X25519PrivateKey):
        x = key.public_key().public_bytes_raw()
        return parse_recipient({"kty": "OKP", "crv": "X25519", "x": b64u(x)})
    name, size = next(
        (name, size)
        for name, (curve, size) in _CURVES.items()
        if curve.name == key.curve.name
    )
    point = key.public_key().public_numbers()
    return parse_recipient(
        {
            "kty": "EC",
            "crv": name,
            "x": b64u(point.x.to_bytes(size, "big")),
            "y": b64u(point.y.to_bytes(size, "big")),
        }
    )


def generate_recipient_key(suite: Suite) -> RecipientPrivateKey:
    """Return a fresh private key for a suite; it never leaves the guest's memory."""
    if suite is Suite.X25519:
        return x25519.X25519PrivateKey.generate()
    if suite is Suite.P256:
        return ec.generate_private_key(ec.SECP256R1())
    return ec.generate_private_key(ec.SECP384R1())


def _parse_okp(value: object) -> Recipient:
    jwk = _members(value, {"crv", "kty", "x"})
    if jwk["crv"] != "X25519":
        raise MalformedError("recipient crv", got=jwk["crv"][:40], expected="X25519")
    x = _coordinate(jwk, "x", _X25519_SIZE)
    key = x25519.X25519PublicKey.from_public_bytes(x)
    _refuse_low_order(key)
    return Recipient(key, _frozen(jwk), Suite.X25519)


def _parse_ec(value: object) -> Recipient:
    jwk = _members(value, {"crv", "kty", "x", "y"})
    if jwk["crv"] not in _CURVES:
        raise MalformedError(
            "recipient crv", got=jwk["crv"][:40], expected="P-256 or P-384"
        )
    curve, size = _CURVES[jwk["crv"]]
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(_coordinate(jwk, "x", size), "big"),
        int.from_bytes(_coordinate(jwk, "y", size), "big"),
        curve,
    )
    try:
        key = numbers.public_key()
    except ValueError as exc:
        raise MalformedError(
            "recipient x, y", got="no point", expected=f"a point of {jwk['crv']}"
        ) from exc
    suite = Suite.P256 if jwk["crv"] == "P-256" else Suite.P384
    return Recipient(key, _frozen(jwk), suite)


def _refuse_akp(value: object) -> Recipient:
    jwk = _members(value, {"alg", "kty", "pub"})
    parse_b64u(jwk["pub"], "recipient pub", limit=_AKP_LIMIT)
    raise MalformedError(
        "recipient kty",
        got=f"AKP {jwk['alg'][:40]}",
        expected="OKP or EC",
        hint="post-quantum recipients come with a later version",
    )


def _members(value: object, names: set[str]) -> dict[str, str]:
    jwk: dict[str, str] = {}
    for name, member in require_members(value, "recipient", required=names).items():
        if not isinstance(member, str) or not member.isascii():
            raise MalformedError(
                f"recipient {name}", got=repr(member)[:40], expected="an ASCII string"
            )
        jwk[name] = member
    return jwk


def _coordinate(jwk: Mapping[str, str], name: str, size: int) -> bytes:
    data = parse_b64u(jwk[name], f"recipient {name}", limit=size)
    if len(data) != size:
        raise MalformedError(
            f"recipient {name}", got=f"{len(data)} bytes", expected=f"{size} bytes"
        )
    return data


def _refuse_low_order(key: x25519.X25519PublicKey) -> None:
    # RFC 7748, section 6.1: a low-order point gives the all-zero secret with every
    # private key, this one too, and then anyone could open what was sealed to it.
    try:
        _ANY_X25519.exchange(key)
    except (ValueError, InvalidKey) as exc:
        raise MalformedError(
            "recipient x", got="a point of low order", expected="an X25519 public key"
        ) from exc


def _frozen(jwk: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(jwk.items()))
