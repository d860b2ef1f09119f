"""RCAR against the values of its description, and real reports in its form."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.channel.jwe import derive_wrapping_key, encrypt_jwe
from kbs.channel.rcar_binding import RcarBinding
from kbs.channel.tee_key import parse_tee_key
from kbs.core.encode import b64, parse_b64
from kbs.core.errors import MalformedError
from kbs.evidence.forms import item_of
from kbs.evidence.snp.abi import REPORT_BYTES, parse_report
from kbs.evidence.snp.fields import report_of_fields
from kbs.wire.rcar import parse_attestation
from tests.fakes.rcar_client import jwk_of, open_jwe, unb64u
from tests.fakes.rcar_evidence import sev_fields

# The private scalar, and bytes 0 to 31 as the nonce.
KEY = ec.derive_private_key(0xA11CE, ec.SECP256R1())
NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
JWK = {
    "kty": "EC",
    "crv": "P-256",
    "alg": "ECDH-ES+A256KW",
    "x": "cmiHbhnbfXplHVXV880IsPFPDy2ZrDg9VucFzFiy3gk",
    "y": "Jy80YNEIRNnYp3wPb1dUyOHH-jpYxmcfkZnYcQr0OHg",
}
DEVICE = (
    "c1e96332cceefdfdceaa6895a573fb59f1c2063582d163843c4caab7f78b24b7"
    "d31e253b02d82e419ac3136d41450c31"
)
PRIMARY = (
    "3e9002759e4b54b7cc38bbdbf2fb69b3294049dac5d56992da7d7f5d39e38cba"
    "18be0fc06b1845904bbd861399e9ad66"
)
WITH_DEVICE = (
    "c0bbb45074b962c1b1a476e17fa42c9422719a20a445be0d17d87e94230408158f601208"
    "c4ccf01896752232e3d78ae4"
)
JWE = {
    "protected": (
        "eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0y"
        "NTYiLCJrdHkiOiJFQyIsIngiOiIyc3dsbUdsdGotX3hhVG9BT2pNazI1cGdCZHBxazltOWUzZ01v"
        "RmdfVExzIiwieSI6Ik92SkhpbklLZGlwdjVIOHlRLTA2WWg1NVN1NVZNanFpcDZsZ1NLQnJ2VHci"
        "fX0"
    ),
    "encrypted_key": "GEhBBlwLdE4eiLXLJT1ejhzi8Ip7MvnXu0B9dOQ1XHxD2N_kQ6HlEw",
    "iv": "AAAAAAAAAAAAAAAA",
    "ciphertext": "etnGqpVP7NN8zcdB",
    "tag": "YLmty2e1vJJF301cRMdkcw",
}
INIT_DATA = 'algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n"k" = "v"\n'


def test_the_bindings_of_the_description() -> None:
    assert jwk_of(KEY) == JWK
    binding = RcarBinding(NONCE, parse_tee_key(JWK), "")
    assert binding.device("sampledevice").hex() == DEVICE
    assert binding.primary("sample", []).hex() == PRIMARY
    report_data = b64(bytes.fromhex(DEVICE))
    additional = '{"sampledevice":{"svn":"2","report_data":"' + report_data + '"}}'
    binding = RcarBinding(NONCE, parse_tee_key(JWK), additional)
    assert binding.primary("sample", []).hex() == WITH_DEVICE


def test_members_that_do_not_count_do_not_change_the_binding() -> None:
    more = JWK | {"kid": "x", "use": "enc", "key_ops": "y"}
    plain = RcarBinding(NONCE, parse_tee_key(JWK), "")
    assert RcarBinding(NONCE, parse_tee_key(more), "") == plain


def test_the_wrapping_key_of_the_description() -> None:
    found = derive_wrapping_key(bytes(range(32))).hex()
    assert found == "ead36a3ab953bb6e5a6709471c0fd35fcc62cf920994cede2f3aa2544e9f47ac"


def test_the_independent_opener_opens_the_example_and_ours() -> None:
    assert open_jwe(JWE, KEY) == b"test content"
    ours = encrypt_jwe(parse_tee_key(JWK), b"test content")
    assert open_jwe(ours, KEY) == b"test content"
    # The order that the guest writes the header in, without spaces.
    header = unb64u(ours["protected"]).decode()
    assert header.startswith('{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-')
    assert list(json.loads(header)["epk"]) == ["crv", "kty", "x", "y"]
    assert " " not in header
    assert len(unb64u(ours["encrypted_key"])) == 40


def test_init_data_is_hashed_as_it_is() -> None:
    message = {
        "init-data": {"format": "toml", "body": INIT_DATA},
        "runtime-data": {"nonce": NONCE, "tee-pubkey": JWK},
        "tee-evidence": {"primary_evidence": {}, "additional_evidence": ""},
    }
    found = parse_attestation(json.dumps(message).encode()).init_data
    assert found is not None
    digest = "c37feb39feb8f2ea860c00509b92e42046823c3da4626fb716e465dacc1c1ffa"
    assert found.digest().hex() == digest
    extended = hashlib.sha256(bytes(32) + found.digest()).hexdigest()
    assert (
        extended == "947b0521e918ef778ed465cbc1fae3eea5b3db6e73b79722556f9195699b7ca8"
    )


@pytest.mark.vectors
def test_every_real_report_is_put_together_again(vectors: Path) -> None:
    seen = 0
    for path in sorted((vectors / "snp").glob("*.bin")):
        raw = path.read_bytes()
        try:
            parse_report(raw)
        except MalformedError:
            continue  # the folder has broken ones too
        assert report_of_fields(sev_fields(raw)) == raw, path.name
        item = item_of("snp", {"attestation_report": sev_fields(raw)})
        assert parse_b64(item["report"], "report", limit=REPORT_BYTES) == raw
        seen += 1
    assert seen >= 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": -1}, "version"),
        ({"policy": 2**64}, "policy"),
        ({"vmpl": True}, "vmpl"),
        ({"report_data": [0] * 63}, "report_data: got 63 bytes"),
        ({"report_data": [256] * 64}, "report_data: got an element"),
        ({"report_data": "AAAA"}, "report_data"),
        ({"current_tcb": {}}, "current_tcb.bootloader"),
        ({"signature": {"r": [0] * 72}}, "signature.s"),
        ({"current": {"major": 1, "minor": 2, "build": 256}}, "current.build"),
        ({"measurement": None}, "measurement"),
    ],
)
def test_fields_out_of_their_range_are_named(
    change: dict[str, object], words: str
) -> None:
    fields = sev_fields(bytes(REPORT_BYTES))
    with pytest.raises(MalformedError, match=words):
        report_of_fields({**fields, **change})


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        JWK | {"kty": "ec"},
        JWK | {"kty": "OKP"},
        JWK | {"crv": "P-384"},
        JWK | {"alg": "RSA1_5"},
        JWK | {"x": JWK["x"] + "="},
        JWK | {"x": "AA"},
        JWK | {"x": JWK["y"]},
        {"kty": "RSA", "alg": "RSA1_5", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "alg": "RSA-OAEP-256", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "alg": "RSA-OAEP-256", "n": "_" * 342, "e": "AAAD"},
        # An even modulus, and 2^2047.
        {"kty": "RSA", "alg": "RSA-OAEP-256", "n": "_" * 340 + "_g", "e": "AQAB"},
        {"kty": "RSA", "alg": "RSA-OAEP-256", "n": "gAAA" + "A" * 338, "e": "AQAB"},
    ],
)
def test_other_keys_are_refused(jwk: dict[str, object]) -> None:
    with pytest.raises(MalformedError, match="tee-pubkey"):
        parse_tee_key(jwk)
