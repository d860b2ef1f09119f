"""Any bytes into key material or a blob: a value or a KbsError, nothing else."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from kbs.core.errors import IntegrityError, KbsError
from kbs.keys.blob import open_blob, seal_blob
from kbs.keys.material import import_secret, public_part
from kbs.keys.model import KeyKind
from kbs.keys.secret import Secret
from kbs.keys.wrap import LocalKEK

KEK = LocalKEK(Secret(bytes(range(32))))
MEMBERS = st.one_of(
    st.text(alphabet="ABab01-_", max_size=64), st.integers(), st.none(), st.booleans()
)
JWKS = st.dictionaries(
    st.sampled_from(["kty", "crv", "x", "y", "d", "k", "n", "e", "p", "q", "kid"]),
    st.one_of(st.sampled_from(["EC", "OKP", "RSA", "oct", "P-256", "X25519"]), MEMBERS),
)


@given(st.sampled_from(list(KeyKind)), st.binary(max_size=80))
def test_any_bytes_are_a_secret_or_an_error(kind: KeyKind, data: bytes) -> None:
    try:
        secret = import_secret(kind, data)
    except KbsError:
        return
    assert import_secret(kind, secret.reveal()) == secret
    assert (public_part(kind, secret) is None) == (kind is not KeyKind.HPKE)


@given(JWKS)
def test_any_members_are_a_jwk_or_an_error(jwk: dict[str, object]) -> None:
    try:
        secret = import_secret(KeyKind.JWK, json.dumps(jwk).encode())
    except KbsError:
        return
    assert json.loads(secret.reveal()) == jwk


@given(st.binary(min_size=1, max_size=64), st.text(max_size=8), st.text(max_size=8))
def test_blobs_come_back_only_in_their_place(
    data: bytes, blob_id: str, other: str
) -> None:
    blob = seal_blob(
        Secret(data), KEK, instance="ab" * 16, purpose="evidence", blob_id=blob_id
    )
    try:
        opened = open_blob(
            blob, KEK, instance="ab" * 16, purpose="evidence", blob_id=other
        )
    except IntegrityError:
        assert other != blob_id
    else:
        assert (other, opened.reveal()) == (blob_id, data)


@given(st.binary(max_size=120))
def test_any_bytes_are_no_blob(data: bytes) -> None:
    try:
        open_blob(data, KEK, instance="ab" * 16, purpose="evidence", blob_id="1")
    except IntegrityError:
        return
    raise AssertionError("random bytes opened")
