"""Keys of token issuers in files that somebody names on the command line.

A JWK set, one JWK or a PEM key, as services publish them; for Arm CCA also a list of
trust anchors, `[{"pkey": JWK, "instance-id": hex, "implementation-id": hex}, …]`, as
Veraison's tools write them. Whoever names a file vouches for what is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kbs.cli.inputs import read_input
from kbs.cli.x509_files import read_certificates
from kbs.core.encode import (
    parse_hex,
    parse_json,
    require_list,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.evidence.model import TrustedIssuer
from kbs.pki.certificates import load_der_certificate, spki_sha256
from kbs.pki.issuers import ALGORITHMS, IssuerKey, Profile, issuer_key
from kbs.pki.jwk import PublicJwk, check_public_key, parse_jwk, parse_jwk_set

_PEM_KEY = b"-----BEGIN PUBLIC KEY-----"
_MARKS = (b'"kty"', b'"keys"', b'"pkey"')

MAX_FILE = 4 * 1024 * 1024
_MAX_ANCHORS = 4096
_MAX_ID = 256


def is_keys_file(data: bytes) -> bool:
    """Whether a file is a PEM key, or JSON that speaks of keys.

    Other JSON may be collateral of a vendor; what it is, its own reader says.
    """
    start = data.lstrip(b" \t\r\n")
    if start.startswith(_PEM_KEY):
        return True
    return start[:1] in {b"{", b"["} and any(mark in data for mark in _MARKS)


def read_keys(path: Path, what: str) -> list[dict[str, object]]:
    """Return the keys of a file as the members of a governed issuer.

    `{"key": JWK}` for each, with `instance_id` and `implementation_id` where the file
    names a platform.

    Raises:
        MalformedError: it cannot be read, or holds something else.
    """
    return keys_in(read_input(path, what, limit=MAX_FILE), f"{what} {path}")


def keys_in(data: bytes, label: str) -> list[dict[str, object]]:
    """Return the same of bytes.

    Raises:
        MalformedError: they hold something else.
    """
    if data.startswith(_PEM_KEY):
        return [{"key": _pem_key(data, label).to_json()}]
    value = parse_json(data, label, limit=MAX_FILE)
    if not isinstance(value, list):
        return [{"key": jwk.to_json()} for jwk in parse_jwk_set(value, label)]
    anchors = require_list(value, label, limit=_MAX_ANCHORS)
    return [_anchor(one, f"{label}[{index}]") for index, one in enumerate(anchors)]


def inspect_keys(data: bytes) -> dict[str, object]:
    """Return the keys of a file for people; which can be registered for which service.

    Raises:
        MalformedError: it holds something else.
    """
    shown = []
    for index, one in enumerate(keys_in(data, "keys")):
        jwk = parse_jwk(one["key"], f"key {index}")
        services = [profile.value for profile in Profile if _signs(jwk, profile)]
        shown.append(
            {
                "kid": jwk.kid,
                "alg": jwk.alg,
                "spki_sha256": hashlib.sha256(jwk.spki).hexdigest(),
                "services": services,
                **{name: one[name] for name in one if name != "key"},
            }
        )
    return {"keys": shown}


def _signs(jwk: PublicJwk, profile: Profile) -> bool:
    try:
        issuer_key(jwk, profile, "key")
    except MalformedError:
        return False
    return True


def issuer_document(
    profile: str,
    *,
    issuer: str | None,
    audience: str | None,
    keys: tuple[Path, ...],
    roots: tuple[Path, ...],
) -> dict[str, object]:
    """Return the JSON of a governed issuer from the options of `kbs ref add issuer`.

    Raises:
        MalformedError: a file cannot be read or holds something else, or an option has
            no meaning for the profile.
    """
    given = [one for path in keys for one in read_keys(path, "--keys")]
    document: dict[str, object] = {"profile": profile}
    if profile == Profile.CCA:
        if issuer is not None or audience is not None or roots:
            raise MalformedError(
                "kbs ref add issuer --service cca",
                got="--issuer, --audience or --root",
                expected="--keys only",
                code="usage",
            )
        if any("instance_id" not in one for one in given):
            raise MalformedError(
                "--keys",
                got="a key that names no platform",
                expected='[{"pkey": JWK, "instance-id": hex, '
                '"implementation-id"?: hex}, …]',
                hint="kbs evidence inspect shows the instance_id of a token",
                code="usage",
            )
        return {**document, "platforms": given}
    if issuer is None:
        raise MalformedError(
            "--issuer", got="none", expected="what tokens say in `iss`", code="usage"
        )
    document |= {"issuer": issuer, "keys": [one["key"] for one in given]}
    if audience is not None:
        document["audience"] = audience
    if roots:
        certificates = read_certificates(roots, "--root")
        document["roots"] = [
            spki_sha256(load_der_certificate(der, "--root")) for der in certificates
        ]
    return document


def vouched(path: Path, what: str) -> tuple[TrustedIssuer, ...]:
    """Return issuers of every profile with the keys of a file, for one verification.

    Raises:
        MalformedError: it cannot be read, or holds no key.
    """
    found = [(parse_jwk(one["key"], what), one) for one in read_keys(path, what)]
    issuers = []
    for profile in Profile:
        keys = tuple(_usable(found, profile))
        if keys:
            issuers.append(
                TrustedIssuer(
                    tenant=None, name=f"a key of {what}", profile=profile, keys=keys
                )
            )
    if not issuers:
        raise MalformedError(
            f"{what} {path}",
            got="no key",
            expected="JWKs, a PEM key or trust anchors",
        )
    return tuple(issuers)


def _usable(
    found: list[tuple[PublicJwk, dict[str, object]]], profile: Profile
) -> Iterator[IssuerKey]:
    for jwk, one in found:
        # A key that does not name its algorithm (PEM never does) counts with each that
        # the service signs with: it is trusted for one command, and none is symmetric.
        algorithms = jwk.algorithms if jwk.alg is None else (jwk.alg,)
        for algorithm in algorithms:
            if algorithm in ALGORITHMS[profile]:
                yield IssuerKey(
                    key=jwk.key,
                    algorithm=algorithm,
                    kid=jwk.kid,
                    instance_id=_octets(one, "instance_id"),
                    implementation_id=_octets(one, "implementation_id"),
                )


def _pem_key(data: bytes, what: str) -> PublicJwk:
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedError(what, got="unreadable PEM", expected="a key") from exc
    return PublicJwk(key=check_public_key(key, what))


def _octets(one: Mapping[str, object], name: str) -> bytes | None:
    return None if one.get(name) is None else parse_hex(one[name], name)


def _anchor(value: object, what: str) -> dict[str, object]:
    members = require_object(value, what)
    found: dict[str, object] = {
        "key": parse_jwk(members.get("pkey"), f"{what} pkey").to_json()
    }
    for name in ("instance-id", "implementation-id"):
        if members.get(name) is not None:
            text = require_text(members[name], f"{what} {name}", limit=_MAX_ID)
            found[name.replace("-", "_")] = parse_hex(
                text.lower(), f"{what} {name}"
            ).hex()
    return found
