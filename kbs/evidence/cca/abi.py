"""The CCA attestation token: bytes to fields, no trust (Arm DEN0137, section A7.2.3).

::

    399({44234: platform token, 44241: realm token})             RMM 1.0, draft-ffm-…-00
    907({44234: [263, platform token], 44241: [263, realm token], ?"__cmwc_t": text})

Each token is a COSE_Sign1 around a CBOR map. Claims without a meaning here are allowed
and not looked at; those that are used have exactly one form each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from kbs.core.cbor import Tagged, parse_cbor
from kbs.core.errors import MalformedError
from kbs.pki.cose import Sign1, parse_sign1

MAX_TOKEN = 64 * 1024
"""Bytes of a whole token; RMM gives realms one of 4 KiB today."""

CHALLENGE_BYTES = 64
MAX_COMPONENTS = 64

# DEN0137, A7.2.3.1; draft-ietf-rats-msg-wrap for the second form.
_TAG, _TAG_CMW = 399, 907
_PLATFORM, _REALM = 44234, 44241
_CMW_TYPE = "__cmwc_t"
_CWT = 263  # CoAP content format application/eat+cwt
_PAIR = 2
_REMS = 4
_MEASUREMENT_SIZES = frozenset({32, 48, 64})
_MAX_TEXT = 256
# RFC 9053, section 7.1.1: COSE_Key of an elliptic curve.
_KTY, _CRV, _X, _Y, _EC2 = 1, -1, -2, -3, 2
_COSE_CURVES: Mapping[object, ec.EllipticCurve] = {
    1: ec.SECP256R1(),
    2: ec.SECP384R1(),
    3: ec.SECP521R1(),
}
# SEC 1, section 2.3.3: an uncompressed point, of which the length names the curve.
_UNCOMPRESSED = 4
_POINTS: Mapping[int, ec.EllipticCurve] = {
    65: ec.SECP256R1(),
    97: ec.SECP384R1(),
    133: ec.SECP521R1(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareComponent:
    """One component of the platform's firmware (A7.2.3.2.7)."""

    measurement_value: bytes
    signer_id: bytes
    component_type: str | None = None
    version: str | None = None
    hash_algo_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Realm:
    """The claims of a realm token, named as in A7.2.3.1; `public_key` as it came."""

    message: Sign1 = field(repr=False)
    profile: str | None
    challenge: bytes
    personalization_value: bytes
    initial_measurement: bytes
    extensible_measurements: tuple[bytes, ...]
    hash_algo_id: str
    public_key: bytes
    public_key_hash_algo_id: str
    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The claims of a platform token, named as in A7.2.3.2."""

    message: Sign1 = field(repr=False)
    profile: str
    challenge: bytes
    implementation_id: bytes
    instance_id: bytes
    config: bytes
    lifecycle: int
    hash_algo_id: str
    sw_components: tuple[SoftwareComponent, ...]
    verification_service: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CcaToken:
    """Both tokens, and the bytes that they came in."""

    raw: bytes = field(repr=False)
    platform: Platform
    realm: Realm


def parse_token(data: bytes) -> CcaToken:
    """Read a CCA attestation token.

    Raises:
        MalformedError: it is not exactly one, or a claim has another form.
    """
    value = parse_cbor(data, "cca token", limit=MAX_TOKEN, tags={_TAG, _TAG_CMW})
    if not isinstance(value, Tagged) or not isinstance(value.value, dict):
        raise MalformedError(
            "cca token", got=type(value).__name__, expected="tag 399 or 907 on a map"
        )
    wrapped = value.tag == _TAG_CMW
    members: dict[object, object] = value.value
    allowed = {_PLATFORM, _REALM, *((_CMW_TYPE,) if wrapped else ())}
    if not {_PLATFORM, _REALM} <= members.keys() or members.keys() - allowed:
        raise MalformedError(
            "cca token members",
            got=", ".join(str(key)[:20] for key in members)[:80],
            expected="44234 (platform) and 44241 (realm)",
        )
    platform, realm = (
        _unwrapped(members[label], wrapped=wrapped) for label in (_PLATFORM, _REALM)
    )
    return CcaToken(
        raw=data, platform=_parse_platform(platform), realm=_parse_realm(realm)
    )


def is_cca_token(data: bytes) -> bool:
    """Whether bytes begin as a CCA token does: tag 399 or 907 on a map."""
    heads = (b"\xd9\x01\x8f", b"\xd9\x03\x8b")
    # RFC 8949, section 3.1: A0h to BBh is a map of definite length.
    return data[:3] in heads and 0xA0 <= data[3:4].ljust(1, b"\0")[0] <= 0xBB  # noqa: PLR2004


def _unwrapped(value: object, *, wrapped: bool) -> bytes:
    if wrapped:
        if not isinstance(value, list) or len(value) != _PAIR or value[0] != _CWT:
            raise MalformedError(
                "cca token member", got=repr(value)[:40], expected="[263, a token]"
            )
        value = value[1]
    if not isinstance(value, bytes):
        raise MalformedError(
            "cca token member", got=type(value).__name__, expected="a byte string"
        )
    return value


def _parse_realm(data: bytes) -> Realm:
    message = parse_sign1(data, "cca realm token", limit=MAX_TOKEN)
    claims = _Claims(message.payload, "cca realm")
    initial = claims.octets(44238, "initial measurement", _MEASUREMENT_SIZES)
    public_key = claims.octets(44237, "public key")
    return Realm(
        message=message,
        profile=claims.optional_text(265, "profile"),
        challenge=claims.octets(10, "challenge", {CHALLENGE_BYTES}),
        personalization_value=claims.octets(44235, "personalization value", {64}),
        initial_measurement=initial,
        extensible_measurements=_extensible(claims, len(initial)),
        hash_algo_id=claims.text(44236, "hash algorithm"),
        public_key=public_key,
        public_key_hash_algo_id=claims.text(44240, "public key hash algorithm"),
        key=_parse_key(public_key),
    )


def _parse_platform(data: bytes) -> Platform:
    message = parse_sign1(data, "cca platform token", limit=MAX_TOKEN)
    claims = _Claims(message.payload, "cca platform")
    return Platform(
        message=message,
        profile=claims.text(265, "profile"),
        challenge=claims.octets(10, "challenge", _MEASUREMENT_SIZES),
        implementation_id=claims.octets(2396, "implementation id", {32}),
        instance_id=claims.octets(256, "instance id", {33}),
        config=claims.octets(2401, "config"),
        lifecycle=claims.number(2395, "lifecycle"),
        hash_algo_id=claims.text(2402, "hash algorithm"),
        sw_components=_components(claims.listed(2399, "software components")),
        verification_service=claims.optional_text(2400, "verification service"),
    )


def _extensible(claims: _Claims, size: int) -> tuple[bytes, ...]:
    listed = claims.listed(44239, "extensible measurements")
    values = tuple(one for one in listed if isinstance(one, bytes))
    if len(listed) != _REMS or [len(one) for one in values] != [size] * _REMS:
        raise MalformedError(
            "cca realm extensible measurements",
            got=f"{len(listed)} values",
            expected=f"{_REMS} of {size} bytes, as the initial measurement",
        )
    return values


def _components(listed: list[object]) -> tuple[SoftwareComponent, ...]:
    if not 0 < len(listed) <= MAX_COMPONENTS:
        raise MalformedError(
            "cca platform software components",
            got=str(len(listed)),
            expected=f"1 to {MAX_COMPONENTS}",
        )
    components = []
    for index, one in enumerate(listed):
        claims = _Claims(one, f"cca platform software component {index}")
        components.append(
            SoftwareComponent(
                measurement_value=claims.octets(2, "measurement", _MEASUREMENT_SIZES),
                signer_id=claims.octets(5, "signer id", _MEASUREMENT_SIZES),
                component_type=claims.optional_text(1, "type"),
                version=claims.optional_text(4, "version"),
                hash_algo_id=claims.optional_text(6, "hash algorithm"),
            )
        )
    return tuple(components)


def _parse_key(data: bytes) -> ec.EllipticCurvePublicKey:
    """Read the realm's key: an uncompressed point, or a COSE_Key in CBOR."""
    curve = _POINTS.get(len(data)) if data[:1] == bytes([_UNCOMPRESSED]) else None
    try:
        if curve is not None:
            return ec.EllipticCurvePublicKey.from_encoded_point(curve, data)
        claims = _Claims(data, "cca realm public key")
        if claims.number(_KTY, "kty") != _EC2:
            raise MalformedError("cca realm public key kty", expected="2 (EC2)")
        curve = _COSE_CURVES.get(claims.number(_CRV, "crv"))
        if curve is None:
            raise MalformedError("cca realm public key crv", expected="1, 2 or 3")
        size = (curve.key_size + 7) // 8
        x, y = (claims.octets(label, "coordinate", {size}) for label in (_X, _Y))
        numbers = ec.EllipticCurvePublicNumbers(
            int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve
        )
        return numbers.public_key()
    except ValueError as exc:
        raise MalformedError(
            "cca realm public key", got="no point of its curve"
        ) from exc


class _Claims:
    """A CBOR map with integer labels, read label by label."""

    __slots__ = ("_members", "_what")

    def __init__(self, encoded: object, what: str) -> None:
        value = encoded
        if isinstance(encoded, bytes):
            value = parse_cbor(encoded, what, limit=MAX_TOKEN)
        if not isinstance(value, dict):
            raise MalformedError(what, got=type(value).__name__, expected="a map")
        self._members: dict[object, object] = value
        self._what = what

    def octets(
        self, label: int, name: str, sizes: frozenset[int] | set[int] | None = None
    ) -> bytes:
        value = self._members.get(label)
        if not isinstance(value, bytes):
            raise self._fault(label, name, "a byte string")
        if sizes is not None and len(value) not in sizes:
            wanted = " or ".join(str(size) for size in sorted(sizes))
            raise self._fault(label, name, f"{wanted} bytes")
        return value

    def text(self, label: int, name: str) -> str:
        value = self._members.get(label)
        if isinstance(value, str) and len(value) <= _MAX_TEXT:
            return value
        raise self._fault(label, name, f"a string of at most {_MAX_TEXT} characters")

    def optional_text(self, label: int, name: str) -> str | None:
        return self.text(label, name) if label in self._members else None

    def number(self, label: int, name: str) -> int:
        value = self._members.get(label)
        if type(value) is not int or abs(value) > 0xFFFF:  # noqa: PLR2004 - a small field
            raise self._fault(label, name, "an integer of 16 bits")
        return value

    def listed(self, label: int, name: str) -> list[object]:
        value = self._members.get(label)
        if not isinstance(value, list):
            raise self._fault(label, name, "an array")
        return value

    def _fault(self, label: int, name: str, expected: str) -> MalformedError:
        value = self._members.get(label)
        got = "none" if value is None else repr(value)[:40]
        if isinstance(value, bytes):
            got = f"{len(value)} bytes"
        return MalformedError(
            f"{self._what} {name} ({label})", got=got, expected=expected
        )
