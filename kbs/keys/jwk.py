"""Secret JSON Web Keys: strict members, a private part, and parts that fit together.

RFC 7517; RFC 7518, section 6 (EC, RSA, oct); RFC 8037 (OKP). Messages never show the
values of members.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from kbs.core.encode import (
    b64u,
    canonical_json,
    parse_b64u,
    parse_json,
    require_members,
    require_object,
)
from kbs.core.errors import MalformedError

_MAX_JWK = 64 * 1024
_MAX_MEMBER = 2048
_MIN_RSA_BITS = 2048
_MIN_SYMMETRIC = 16
# RFC 7517, section 4: parameters that any key may carry; they are kept as they are.
_COMMON = frozenset({"alg", "key_ops", "kid", "use"})
_CURVES: Mapping[str, tuple[ec.EllipticCurve, int]] = {
    "P-256": (ec.SECP256R1(), 32),
    "P-384": (ec.SECP384R1(), 48),
    "P-521": (ec.SECP521R1(), 66),
}
# What is wrong with the text of a key, by the subject of the parser's complaint, which
# itself quotes the text.
_FAULTS: Mapping[str, str] = {
    "JSON object": "a member twice",
    "JSON number": "a number that is no integer",
    "JSON integer": "an integer beyond ±2^53",
}
_RSA = ("n", "e", "d", "p", "q", "dp", "dq", "qi")


def generate_jwk() -> bytes:
    """Return a fresh P-256 key pair as canonical JSON."""
    numbers = ec.generate_private_key(ec.SECP256R1()).private_numbers()
    members = {
        "crv": "P-256",
        "d": _scalar(numbers.private_value),
        "kty": "EC",
        "x": _scalar(numbers.public_numbers.x),
        "y": _scalar(numbers.public_numbers.y),
    }
    return canonical_json(members)


def parse_private_jwk(data: bytes) -> bytes:
    """Accept one private or symmetric key; return it as canonical JSON.

    Raises:
        MalformedError: anything else, or parts that do not belong together.
    """
    jwk = _parse_object(data)
    checks = {"EC": _check_ec, "OKP": _check_okp, "RSA": _check_rsa, "oct": _check_oct}
    kty = jwk.get("kty")
    if not isinstance(kty, str) or kty not in checks:
        raise MalformedError("jwk kty", got="another", expected="EC, OKP, RSA or oct")
    try:
        checks[kty](jwk)
    except (ValueError, UnsupportedAlgorithm):
        # `from None`: the cause may show secret numbers.
        raise MalformedError(
            f"jwk {kty}", got="parts that do not fit", expected="one whole key"
        ) from None
    return canonical_json(jwk)


def _parse_object(data: bytes) -> dict[str, object]:
    try:
        return require_object(parse_json(data, "jwk", limit=_MAX_JWK), "jwk")
    except MalformedError as exc:
        # `from None`, and no words that the parser took from the text: both would
        # quote the secret.
        what, got = _fault_of(exc)
        raise MalformedError(what, got=got, expected="one JSON object") from None


def _fault_of(error: MalformedError) -> tuple[str, str | None]:
    cause = error.__cause__
    if isinstance(cause, MalformedError):
        return "jwk", _FAULTS.get(cause.what, "another text")
    # The place, the kind of fault, a type or a size.
    return error.what, error.got


def _check_ec(jwk: dict[str, object]) -> None:
    _require(jwk, {"crv", "x", "y", "d"})
    crv = jwk["crv"]
    if not isinstance(crv, str) or crv not in _CURVES:
        raise MalformedError("jwk crv", got="another", expected=", ".join(_CURVES))
    curve, size = _CURVES[crv]
    x, y, d = (int.from_bytes(_sized(jwk, name, size), "big") for name in "xyd")
    public = ec.EllipticCurvePublicNumbers(x, y, curve)
    ec.EllipticCurvePrivateNumbers(d, public).private_key()


def _check_okp(jwk: dict[str, object]) -> None:
    _require(jwk, {"crv", "x", "d"})
    x, d = _sized(jwk, "x", 32), _sized(jwk, "d", 32)
    private: x25519.X25519PrivateKey | ed25519.Ed25519PrivateKey
    if jwk["crv"] == "X25519":
        private = x25519.X25519PrivateKey.from_private_bytes(d)
    elif jwk["crv"] == "Ed25519":
        private = ed25519.Ed25519PrivateKey.from_private_bytes(d)
    else:
        raise MalformedError("jwk crv", got="another", expected="X25519 or Ed25519")
    if private.public_key().public_bytes_raw() != x:
        raise ValueError("x is not the public part of d")


def _check_rsa(jwk: dict[str, object]) -> None:
    _require(jwk, set(_RSA))
    n, e, d, p, q, dp, dq, qi = (_integer(jwk, name) for name in _RSA)
    if n.bit_length() < _MIN_RSA_BITS:
        raise MalformedError(
            "jwk n", got=f"{n.bit_length()} bits", expected=f"{_MIN_RSA_BITS} or more"
        )
    public = rsa.RSAPublicNumbers(e, n)
    rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key()


def _check_oct(jwk: dict[str, object]) -> None:
    _require(jwk, {"k"})
    size = len(_bytes(jwk, "k"))
    if size < _MIN_SYMMETRIC:
        raise MalformedError(
            "jwk k", got=f"{size} bytes", expected=f"{_MIN_SYMMETRIC} or more"
        )


def _require(jwk: dict[str, object], names: set[str]) -> None:
    require_members(jwk, "jwk", required=names | {"kty"}, optional=_COMMON)


def _bytes(jwk: dict[str, object], name: str) -> bytes:
    try:
        return parse_b64u(jwk[name], f"jwk {name}", limit=_MAX_MEMBER)
    except MalformedError:
        # The general message would quote the member, which may be secret.
        raise MalformedError(f"jwk {name}", expected="unpadded base64url") from None


def _sized(jwk: dict[str, object], name: str, size: int) -> bytes:
    data = _bytes(jwk, name)
    if len(data) != size:
        raise MalformedError(
            f"jwk {name}", got=f"{len(data)} bytes", expected=f"{size} bytes"
        )
    return data


def _integer(jwk: dict[str, object], name: str) -> int:
    data = _bytes(jwk, name)
    # RFC 7518, section 2 (Base64urlUInt): no leading zero octets.
    if not data or data[0] == 0:
        raise MalformedError(f"jwk {name}", expected="a positive integer, no zeros")
    return int.from_bytes(data, "big")


def _scalar(value: int) -> str:
    return b64u(value.to_bytes(32, "big"))
