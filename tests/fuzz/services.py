"""Fuzz targets of tokens: those of attestation services, Arm CCA's, and their keys."""

from __future__ import annotations

import json
from collections.abc import Iterable

from kbs.core.cbor import parse_cbor
from kbs.core.encode import b64, parse_json, parse_json_object
from kbs.evidence.cca.abi import MAX_TOKEN as MAX_CCA_TOKEN
from kbs.evidence.cca.abi import is_cca_token
from kbs.evidence.model import Trust
from kbs.evidence.token.item import is_token_file, item_from_file
from kbs.governance.objects import MAX_OBJECT_BYTES
from kbs.governance.token_issuer import parse_token_issuer
from kbs.pki.cose import parse_sign1
from kbs.pki.jwk import parse_jwk_set
from tests.fakes.amd import NOW
from tests.fakes.cca import FakeCca, cca_key, sign1
from tests.fakes.tokens import (
    EAR,
    GCS,
    ITA,
    MAA,
    NRAS,
    FakeSet,
    ear_claims,
    gcs_claims,
    ita_claims,
    maa_claims,
)
from tests.fuzz.clouds import appraised
from tests.fuzz.target import KIB, Shape, Target

REALM = FakeCca()
ISSUERS = (EAR, GCS, ITA, MAA, NRAS)
TRUST = Trust(now=NOW, issuers=(*(one.trusted() for one in ISSUERS), REALM.trusted()))


def _token(data: bytes) -> None:
    is_token_file(data)
    appraised("token", item_from_file(data), TRUST)


def _token_seeds() -> Iterable[bytes]:
    for issuer, claims in (
        (MAA, maa_claims()),
        (ITA, ita_claims()),
        (GCS, gcs_claims()),
        (EAR, ear_claims()),
    ):
        yield str(issuer.item(claims)["jwt"]).encode()


def _set(data: bytes) -> None:
    appraised("token", parse_json_object(data, "item", limit=256 * KIB), TRUST)


def _cca(data: bytes) -> None:
    is_cca_token(data)
    appraised("cca", {"kind": "cca", "token": b64(data)}, TRUST)


def _issuer(data: bytes) -> None:
    parse_token_issuer(parse_json(data, "issuer", limit=MAX_OBJECT_BYTES))


def _keys(data: bytes) -> None:
    parse_jwk_set(parse_json(data, "keys", limit=MAX_OBJECT_BYTES), "keys")


def _cbor(data: bytes) -> None:
    for indefinite in (True, False):
        parse_cbor(
            data, "item", limit=64 * KIB, tags={18, 399, 907}, indefinite=indefinite
        )


TARGETS = (
    Target(
        name="token.evidence",
        run=_token,
        seeds=_token_seeds,
        recorded=("tokens/*.jwt", "tokens/nras-*3.json", "tokens/nras-switch.json"),
    ),
    Target(
        name="token.set",
        run=_set,
        seeds=lambda: (json.dumps(FakeSet(nonce="ab" * 32).item()).encode(),),
        shape=Shape.JSON,
        most_bytes=256 * KIB,
    ),
    Target(
        name="token.issuer",
        run=_issuer,
        seeds=lambda: (json.dumps(REALM.document()).encode(),),
        shape=Shape.JSON,
        most_bytes=MAX_OBJECT_BYTES,
    ),
    Target(
        name="token.keys",
        run=_keys,
        seeds=lambda: (json.dumps({"keys": [one.jwk() for one in ISSUERS]}).encode(),),
        recorded=("tokens/*.jwks.json",),
        shape=Shape.JSON,
        most_bytes=MAX_OBJECT_BYTES,
    ),
    Target(
        name="cca.token",
        run=_cca,
        seeds=lambda: (
            REALM.token(bytes(64)),
            FakeCca(draft=False).token(bytes(64)),
            FakeCca(wrapped=True).token(bytes(64)),
        ),
        recorded=("cca/*.cbor",),
        most_bytes=MAX_CCA_TOKEN,
    ),
    Target(
        name="cbor.item",
        run=_cbor,
        seeds=lambda: (REALM.token(bytes(64)), sign1(b"\xa0", cca_key(1))),
        recorded=("cca/*.cbor", "nitro/*.cbor"),
    ),
    Target(
        name="cose.sign1",
        run=lambda data: parse_sign1(data, "message", limit=64 * KIB).signed,
        seeds=lambda: (sign1(b"\xa0", cca_key(1)),),
        recorded=("nitro/*.cbor",),
    ),
)
