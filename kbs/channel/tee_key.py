"""The public key that RCAR evidence is bound to: `tee-pubkey`, a JWK with `alg`.

Only the members of its type count, for the binding too, as in `kbs-types` 0.18.0.
RSA1_5 is in the protocol and refused here: its padding is not safe to open with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs.core.encode import parse_b64u, require_text
from kbs.core.errors import MalformedError

ECDH = "ECDH-ES+A256KW"
RSA_OAEP = "RSA-OAEP-256"

# RFC 7518, section 6.2.1: coordinates have the full size of the curve.
_CURVES: Mapping[str, tuple[ec.EllipticCurve, int]] = {
    "P-256": (ec.SECP256R1(), 32),
    "P-521": (ec.SECP521R1(), 66),
}
_EC_MEMBERS = ("alg", "crv", "x", "y")
_RSA_MEMBERS = ("alg", "e", "n")
_RSA_BYTES = (256, 384, 512)
_RSA_EXPONENT = 65537
_MAX_MEMBER = 1024
_REMEMBERED = 512

TeePublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class TeeKey:
    """A key with the members that count, as they were written."""

    key: TeePublicKey
    jwk: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, str]:
        """Return the JWK with its counting members."""
        return dict(self.jwk)


def parse_tee_key(value: Mapping[str, object]) -> TeeKey:
    """Accept an EC key on P-256 or P-521, or an RSA key, with its algorithm.

    Raises:
        MalformedError: anything else.
    """
    kty = value.get("kty")
    if kty == "EC":
        return _parse_ec(tuple(_texts(value, _EC_MEMBERS, "EC").items()))
    if kty == "RSA":
        return _parse_rsa(_texts(value, _RSA_MEMBERS, "RSA"))
    raise MalformedError("tee-pubkey kty", got=repr(kty)[:40], expected="EC or RSA")


def _texts(
    value: Mapping[str, object], names: tuple[str, ...], kty: str
) -> dict[str, str]:
    jwk = {"kty": kty}
    for name in names:
        jwk[name] = require_text(
            value.get(name), f"tee-pubkey {name}", limit=_MAX_MEMBER
        )
    return jwk


# Proving that a point lies on its curve takes as long as verifying a signature, and a
# guest's process has one key, which comes with each of its messages.
@lru_cache(_REMEMBERED)
def _parse_ec(members: tuple[tuple[str, str], ...]) -> TeeKey:
    jwk = dict(members)
    _require_alg(jwk, ECDH)
    if jwk["crv"] not in _CURVES:
        raise MalformedError(
            "tee-pubkey crv", got=repr(jwk["crv"])[:40], expected="P-256 or P-521"
        )
    curve, size = _CURVES[jwk["crv"]]
    x, y = (_number(jwk, name, (size,)) for name in ("x", "y"))
    try:
        key = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except (ValueError, InvalidKey) as exc:
        raise MalformedError(
            "tee-pubkey", got="no point of the curve", expected=jwk["crv"]
        ) from exc
    return TeeKey(key, members)


def _parse_rsa(jwk: dict[str, str]) -> TeeKey:
    _require_alg(jwk, RSA_OAEP)
    modulus = _number(jwk, "n", _RSA_BYTES)
    exponent = _number(jwk, "e", (3,))
    if exponent != _RSA_EXPONENT:
        raise MalformedError(
            "tee-pubkey e", got=str(exponent), expected=str(_RSA_EXPONENT)
        )
    try:
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as exc:
        raise MalformedError("tee-pubkey n", got="no RSA modulus") from exc
    if key.key_size not in {8 * size for size in _RSA_BYTES} or not modulus % 2:
        raise MalformedError(
            "tee-pubkey n",
            got=f"{key.key_size} bits, {'odd' if modulus % 2 else 'even'}",
            expected="2048, 3072 or 4096 bits, odd",
        )
    return TeeKey(key, tuple(jwk.items()))


def _require_alg(jwk: Mapping[str, str], expected: str) -> None:
    if jwk["alg"] != expected:
        raise MalformedError(
            "tee-pubkey alg", got=repr(jwk["alg"])[:40], expected=expected
        )


def _number(jwk: Mapping[str, str], name: str, sizes: tuple[int, ...]) -> int:
    data = parse_b64u(jwk[name], f"tee-pubkey {name}", limit=max(_RSA_BYTES))
    if len(data) not in sizes:
        raise MalformedError(
            f"tee-pubkey {name}",
            got=f"{len(data)} bytes",
            expected=" or ".join(str(size) for size in sizes),
        )
    return int.from_bytes(data, "big")
