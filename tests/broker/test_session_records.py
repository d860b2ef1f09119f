"""What a session proved, written and read back; only what this broker wrote is read."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.broker.ports import StoredSession
from kbs.broker.rcar.sessions import Proven, open_session, seal_session
from kbs.broker.vault import Vault
from kbs.channel.challenge import ChallengeKey
from kbs.channel.ear import public_jwk
from kbs.channel.session import mint_session
from kbs.channel.tee_key import parse_tee_key
from kbs.core.checks import Check, Status
from kbs.core.claims import Claims, ItemClaims
from kbs.core.errors import MalformedError
from kbs.keys.secret import Secret
from kbs.keys.wrap import LocalKEK

NOW = datetime(2026, 11, 22, 8, 0, 0, 123456, UTC)
VAULT = Vault(LocalKEK(Secret(bytes(range(32)))), "0" * 32)
SESSION = mint_session(ChallengeKey(1, bytes(32)), tee="snp", origin="kbs", now=NOW)
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
DIGEST = hashlib.sha256(b"message").digest()

CLAIMS = Claims(
    items=(
        ItemClaims(
            family="snp",
            item=0,
            values={
                "snp.measurement": "ab" * 48,
                "snp.guest_svn": 4,
                "snp.policy.debug_allowed": False,
                "snp.reported_tcb": {"bootloader": 3, "snp": 24},
                "snp.ä": ("one", "two"),
            },
            scoped={"acme": {"vtpm.ak.group": "hosts"}},
            trusted_in=frozenset({"acme", "shared"}),
        ),
        ItemClaims(family="nvgpu", item=1, values={}),
    ),
    request={"request.door": "rcar"},
)


def proven(claims: Claims | None) -> Proven:
    return Proven(
        decision="0" * 32,
        appraised=NOW,
        recipient=parse_tee_key({"alg": "ECDH-ES+A256KW", **public_jwk(KEY)}),
        claims=claims,
        identities=("chip:" + "ab" * 32,),
        primary=None if claims is None else "snp",
        tolerated=("snp.revocation",),
        checks=tuple(
            Check(id=f"snp.{status.value}", status=status, item=item)
            for status, item in zip(Status, (0, 1, None, None), strict=True)
        ),
        evidence=DIGEST,
        anchors="cd" * 32,
        token=None if claims is None else "a.b.c",
        expires=NOW.replace(microsecond=0) + timedelta(seconds=300),
    )


@pytest.mark.parametrize("claims", [CLAIMS, None])
def test_what_was_proven_is_read_as_it_was_written(claims: Claims | None) -> None:
    stored = seal_session(VAULT, SESSION, DIGEST, proven(claims))
    assert open_session(VAULT, stored) == (proven(claims), DIGEST)


@pytest.mark.parametrize("claims", [CLAIMS, None])
def test_every_member_has_the_type_that_it_had(claims: Claims | None) -> None:
    stored = seal_session(VAULT, SESSION, DIGEST, proven(claims))
    assert repr(open_session(VAULT, stored)[0]) == repr(proven(claims))


@pytest.mark.parametrize("record", [b"{}", b"[]", b"no JSON", b'{"claims": null}'])
def test_another_record_is_none(record: bytes) -> None:
    with pytest.raises(MalformedError):
        open_session(VAULT, _sealed(record))


def _sealed(record: bytes) -> StoredSession:
    sealed = VAULT.seal(Secret(record), purpose="session", blob_id=SESSION.digest.hex())
    return StoredSession(
        session=SESSION.digest, decision="0" * 32, sealed=sealed, expires=NOW
    )
