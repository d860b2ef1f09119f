"""Public keys of token issuers as JWKs (RFC 7517; RFC 7518, section 6; RFC 8037).

Reading is lenient about members that say nothing of the key (RFC 7517, section 4: what
is not understood is ignored) and strict about those that do: no private part, no
symmetric key, no weak RSA. What is written back has only the members that matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.core.encode import (
    b64u,
    parse_b64,
    parse_b64u,
    require_list,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.pki.certificates import MAX_CERTIFICATE_BYTES, load_der_certificate

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

MAX_KEYS = 64
"""Keys in one set; the services publish up to a dozen."""

_MAX_KID = 512
_MAX_MEMBER = 1024
_RSA_BITS = range(2048, 8193)
_EXPONENT = 65537
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVES: Mapping[str, tuple[ec.EllipticCurve, int]] = {
    "P-256": (ec.SECP256R1(), 32),
    "P-384": (ec.SECP384R1(), 48),
    "P-521": (ec.SECP521R1(), 66),
}
_CURVE_NAMES = {curve.name: name for name, (curve, _) in _CURVES.items()}
_ED25519_BYTES = 32

# RFC 7518, section 3.1, and RFC 8037: which algorithms a key can be used with. The
# symmetric ones and `none` are not here, so that no name leads to them.
_EC_ALGORITHMS = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",)}
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicJwk:
    """One public key; `alg` where the set fixes it, `kid` where it has one."""

    key: PublicKey
    kid: str | None = None
    alg: str | None = None

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The JWS algorithms that such a key can be used with at all."""
        if isinstance(self.key, rsa.RSAPublicKey):
            return _RSA_ALGORITHMS
        if isinstance(self.key, ec.EllipticCurvePublicKey):
            return _EC_ALGORITHMS[_CURVE_NAMES[self.key.curve.name]]
        return ("EdDSA",)

    @property
    def spki(self) -> bytes:
        """The key as SubjectPublicKeyInfo (DER)."""
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def to_json(self) -> dict[str, object]:
        """Return the members that matter."""
        document = _members(self.key)
        if self.kid is not None:
            document["kid"] = self.kid
        if self.alg is not None:
            document["alg"] = self.alg
        return document


def parse_jwk_set(value: object, what: str) -> tuple[PublicJwk, ...]:
    """Accept a JWK set (RFC 7517, section 5), or one key alone.

    Keys for another use than signatures are left out; an empty set is refused.

    Raises:
        MalformedError: anything else.
    """
    document = require_object(value, what)
    listed: list[object] = [document]
    if "keys" in document:
        listed = require_list(document["keys"], f"{what} keys", limit=MAX_KEYS)
    keys = tuple(
        parse_jwk(one, f"{what} key {index}")
        for index, one in enumerate(listed)
        if require_object(one, what).get("use", "sig") == "sig"
    )
    if not keys:
        raise MalformedError(what, got="no key for signatures", expected="at least one")
    return keys


def parse_jwk(value: object, what: str) -> PublicJwk:
    """Accept one public key.

    A key that is given only as a certificate (`x5c` without its numbers, as Azure
    Attestation publishes them) is taken from the first one: who imports the set
    vouches for it, not the certificate.

    Raises:
        MalformedError: a private or symmetric key, a weak one, or another shape.
    """
    members = require_object(value, what)
    if secret := sorted(_PRIVATE & members.keys()):
        raise MalformedError(
            what, got=f"secret members {', '.join(secret)}", expected="a public key"
        )
    jwk = PublicJwk(
        key=_key_of(members, what),
        kid=_optional_text(members, "kid", what),
        alg=_optional_text(members, "alg", what),
    )
    if jwk.alg is not None and jwk.alg not in jwk.algorithms:
        raise MalformedError(
            f"{what} alg", got=jwk.alg[:20], expected=" or ".join(jwk.algorithms)
        )
    return jwk


def check_public_key(key: object, what: str) -> PublicKey:
    """Return a key that is fit to verify tokens with.

    Raises:
        MalformedError: it is weak, or of another kind.
    """
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size in _RSA_BITS and key.public_numbers().e == _EXPONENT:
            return key
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name in _CURVE_NAMES:
            return key
    elif isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise MalformedError(
        what,
        got=type(key).__name__,
        expected="RSA of 2048 to 8192 bits with e 65537, P-256, P-384, P-521, Ed25519",
    )


def _key_of(members: dict[str, object], what: str) -> PublicKey:
    kty = members.get("kty")
    if kty == "RSA" and "n" not in members and "x5c" in members:
        return _certified(members["x5c"], what)
    try:
        if kty == "RSA":
            modulus, exponent = (_integer(members, one, what) for one in "ne")
            numbers = rsa.RSAPublicNumbers(exponent, modulus)
            return check_public_key(numbers.public_key(), what)
        if kty == "EC":
            return _point(members, what)
        if kty == "OKP" and members.get("crv") == "Ed25519":
            data = _sized(members, "x", _ED25519_BYTES, what)
            return ed25519.Ed25519PublicKey.from_public_bytes(data)
    except ValueError as exc:
        raise MalformedError(what, got="numbers that make no key") from exc
    raise MalformedError(
        f"{what} kty", got=repr(kty)[:40], expected="RSA, EC or OKP with Ed25519"
    )


def _point(members: dict[str, object], what: str) -> ec.EllipticCurvePublicKey:
    crv = members.get("crv")
    if not isinstance(crv, str) or crv not in _CURVES:
        raise MalformedError(
            f"{what} crv", got=repr(crv)[:40], expected=", ".join(_CURVES)
        )
    curve, size = _CURVES[crv]
    x, y = (int.from_bytes(_sized(members, one, size, what), "big") for one in "xy")
    return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()


def _certified(value: object, what: str) -> PublicKey:
    listed = require_list(value, f"{what} x5c", limit=MAX_KEYS)
    if not listed:
        raise MalformedError(f"{what} x5c", got="nothing", expected="a certificate")
    der = parse_b64(listed[0], f"{what} x5c", limit=MAX_CERTIFICATE_BYTES)
    certificate = load_der_certificate(der, f"{what} x5c")
    return check_public_key(certificate.public_key(), what)


def _members(key: PublicKey) -> dict[str, object]:
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        size = (numbers.n.bit_length() + 7) // 8
        return {
            "kty": "RSA",
            "n": b64u(numbers.n.to_bytes(size, "big")),
            "e": b64u(numbers.e.to_bytes(3, "big")),
        }
    if isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_numbers()
        name = _CURVE_NAMES[key.curve.name]
        size = _CURVES[name][1]
        return {
            "kty": "EC",
            "crv": name,
            "x": b64u(point.x.to_bytes(size, "big")),
            "y": b64u(point.y.to_bytes(size, "big")),
        }
    return {"kty": "OKP", "crv": "Ed25519", "x": b64u(key.public_bytes_raw())}


def _integer(members: dict[str, object], name: str, what: str) -> int:
    data = parse_b64u(members.get(name), f"{what} {name}", limit=_MAX_MEMBER)
    # RFC 7518, section 2 (Base64urlUInt): no leading zero octets. Some publishers
    # write one all the same, as DER does; the number is what counts.
    if not data.lstrip(b"\0"):
        raise MalformedError(f"{what} {name}", got="zero", expected="a number")
    return int.from_bytes(data, "big")


def _sized(members: dict[str, object], name: str, size: int, what: str) -> bytes:
    data = parse_b64u(members.get(name), f"{what} {name}", limit=size)
    if len(data) != size:
        raise MalformedError(
            f"{what} {name}", got=f"{len(data)} bytes", expected=f"{size} bytes"
        )
    return data


def _optional_text(members: dict[str, object], name: str, what: str) -> str | None:
    if members.get(name) is None:
        return None
    return require_text(members[name], f"{what} {name}", limit=_MAX_KID)
