"""Token issuers as governed objects: whose tokens count, with keys pinned by value.

::

    {"profile": "maa", "issuer": "https://….attest.azure.net", "keys": [JWK, …],
     "audience"?: "…", "roots"?: [hex SHA-256 of a SubjectPublicKeyInfo, …]}
    {"profile": "cca", "platforms": [{"key": JWK, "instance_id": hex,
                                      "implementation_id"?: hex}, …]}

The first is a service that signs JWTs; `roots` are for PKI tokens of Confidential Space
only. The second holds attestation keys of Arm CCA platforms (CPAKs), each for one
instance. Keys are never fetched from where a token or a discovery document points to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kbs.core.encode import (
    canonical_json,
    parse_hex,
    require_list,
    require_members,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.pki.issuers import CERTIFIED, IssuerKey, Profile, issuer_key
from kbs.pki.jwk import PublicJwk, parse_jwk

MAX_KEYS = 64
MAX_PLATFORMS = 4096
MAX_ROOTS = 8

_MAX_NAME = 512
_SPKI_SHA256_BYTES = 32
# RMM specification (DEN0137), A7.2.3.2.3: a UEID of type RAND, 01h and 32 bytes.
INSTANCE_ID_BYTES = 33
_UEID_RAND = 1
IMPLEMENTATION_ID_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIssuer:
    """One issuer; what it does not have is empty or None."""

    profile: Profile
    issuer: str | None = None
    audience: str | None = None
    keys: tuple[IssuerKey, ...] = ()
    roots: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the JSON form, with the members that its profile has."""
        if self.profile is Profile.CCA:
            platforms = [_platform_json(key) for key in self.keys]
            return {"profile": self.profile.value, "platforms": platforms}
        document: dict[str, object] = {
            "profile": self.profile.value,
            "issuer": self.issuer,
        }
        if self.keys:
            document["keys"] = [_key_json(key) for key in self.keys]
        if self.audience is not None:
            document["audience"] = self.audience
        if self.roots:
            document["roots"] = list(self.roots)
        return document

    def canonical(self) -> bytes:
        """Return the content."""
        return canonical_json(self.to_json())


def parse_token_issuer(value: object) -> TokenIssuer:
    """Accept an issuer.

    Raises:
        MalformedError: another shape, nothing to verify with, a key twice, or a key
            that its profile does not sign with.
    """
    members = require_object(value, "token issuer")
    known = [profile.value for profile in Profile]
    profile = members.get("profile")
    if not isinstance(profile, str) or profile not in known:
        raise MalformedError(
            "token issuer profile", got=repr(profile)[:40], expected=", ".join(known)
        )
    if profile == Profile.CCA:
        return _parse_platforms(members)
    return _parse_service(members, Profile(profile))


def _parse_service(members: dict[str, object], profile: Profile) -> TokenIssuer:
    certified = profile in CERTIFIED
    require_members(
        members,
        f"token issuer of profile {profile}",
        required={"profile", "issuer"},
        optional={"keys", "audience", *(("roots",) if certified else ())},
    )
    listed = require_list(members.get("keys", []), "token issuer keys", limit=MAX_KEYS)
    keys = tuple(
        issuer_key(parse_jwk(one, f"key {index}"), profile, f"key {index}")
        for index, one in enumerate(listed)
    )
    roots = tuple(
        parse_hex(one, "token issuer root", size=_SPKI_SHA256_BYTES).hex()
        for one in require_list(
            members.get("roots", []), "token issuer roots", limit=MAX_ROOTS
        )
    )
    _require_distinct(keys, roots)
    audience = members.get("audience")
    return TokenIssuer(
        profile=profile,
        issuer=_name(members["issuer"], "token issuer"),
        audience=None if audience is None else _name(audience, "audience"),
        keys=keys,
        roots=roots,
    )


def _parse_platforms(members: dict[str, object]) -> TokenIssuer:
    require_members(
        members, "token issuer of profile cca", required={"profile", "platforms"}
    )
    listed = require_list(members["platforms"], "cca platforms", limit=MAX_PLATFORMS)
    keys = tuple(_parse_platform(one) for one in listed)
    _require_distinct(keys, ())
    return TokenIssuer(profile=Profile.CCA, keys=keys)


def _parse_platform(value: object) -> IssuerKey:
    what = "cca platform"
    members = require_members(
        value, what, required={"key", "instance_id"}, optional={"implementation_id"}
    )
    instance = parse_hex(
        members["instance_id"], f"{what} instance_id", size=INSTANCE_ID_BYTES
    )
    if instance[0] != _UEID_RAND:
        raise MalformedError(
            f"{what} instance_id", got=f"type {instance[0]:02x}", expected="type 01"
        )
    implementation = None
    if "implementation_id" in members:
        implementation = parse_hex(
            members["implementation_id"],
            f"{what} implementation_id",
            size=IMPLEMENTATION_ID_BYTES,
        )
    key = issuer_key(parse_jwk(members["key"], f"{what} key"), Profile.CCA, what)
    return replace(
        key, kid=None, instance_id=instance, implementation_id=implementation
    )


def _require_distinct(keys: tuple[IssuerKey, ...], roots: tuple[str, ...]) -> None:
    # Two entries for one key could fix two algorithms for it.
    named = [(key.instance_id, PublicJwk(key=key.key).spki) for key in keys]
    if not (keys or roots):
        raise MalformedError(
            "token issuer", got="no key and no root", expected="at least one"
        )
    if len(set(named)) != len(named) or len(set(roots)) != len(roots):
        raise MalformedError("token issuer", got="a key twice", expected="each once")


def _name(value: object, what: str) -> str:
    text = require_text(value, what, limit=_MAX_NAME)
    if not text or not text.isprintable():
        raise MalformedError(
            what, got=repr(text)[:80], expected="its name, as tokens say"
        )
    return text


def _key_json(key: IssuerKey) -> dict[str, object]:
    return PublicJwk(key=key.key, kid=key.kid, alg=key.algorithm).to_json()


def _platform_json(key: IssuerKey) -> dict[str, object]:
    document: dict[str, object] = {
        "key": _key_json(key),
        "instance_id": (key.instance_id or b"").hex(),
    }
    if key.implementation_id is not None:
        document["implementation_id"] = key.implementation_id.hex()
    return document
