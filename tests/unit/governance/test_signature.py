"""Signatures over statements: three algorithms, and every way of being wrong."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kbs.core.errors import ForbiddenError, KbsError, MalformedError
from kbs.governance.signature import (
    key_id,
    parse_public_key,
    sign_statement,
    spki_of,
    verify_signature,
)
from kbs.governance.statement import (
    Action,
    Kind,
    SignatureAlgorithm,
    StatementSignature,
)
from tests.fakes.governors import Chain, ed25519_key

STATEMENT = Chain().draft(Kind.RELEASE_POLICY, Action.ACTIVATE, b"{}")
OTHER = replace(STATEMENT, seq=2)
ED25519 = ed25519_key(9)
P256 = ec.derive_private_key(9, ec.SECP256R1())


def test_ed25519_signs_context_zero_jcs() -> None:
    signature = sign_statement(STATEMENT, ED25519)
    message = b"kbs.statement/1\x00" + STATEMENT.canonical()
    ED25519.public_key().verify(signature.value, message)
    verify_signature(STATEMENT, signature, ED25519.public_key())
    assert signature.algorithm is SignatureAlgorithm.EDDSA


def test_es256_is_raw_r_and_s_over_the_same() -> None:
    signature = sign_statement(STATEMENT, P256)
    assert signature.algorithm is SignatureAlgorithm.ES256
    assert len(signature.value) == 64
    r, s = (int.from_bytes(part, "big") for part in _halves(signature.value))
    P256.public_key().verify(
        utils.encode_dss_signature(r, s),
        b"kbs.statement/1\x00" + STATEMENT.canonical(),
        ec.ECDSA(hashes.SHA256()),
    )
    verify_signature(STATEMENT, signature, P256.public_key())


def _halves(value: bytes) -> tuple[bytes, bytes]:
    return value[:32], value[32:]


def flipped(signature: StatementSignature) -> StatementSignature:
    value = signature.value
    return replace(signature, value=value[:-1] + bytes((value[-1] ^ 1,)))


@pytest.mark.parametrize("key", [ED25519, P256], ids=["EdDSA", "ES256"])
def test_a_signature_covers_one_statement_by_one_key(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    signature = sign_statement(STATEMENT, key)
    public = key.public_key()
    stranger = ed25519_key(10)
    by_stranger = sign_statement(STATEMENT, stranger)
    for statement, wrong in (
        (OTHER, signature),
        (STATEMENT, flipped(signature)),
        (STATEMENT, replace(signature, value=b"")),
        (STATEMENT, replace(signature, value=bytes(64))),
        (STATEMENT, replace(signature, value=signature.value + b"\x00")),
        (STATEMENT, by_stranger),
        (STATEMENT, replace(by_stranger, keyid=key_id(public))),
    ):
        with pytest.raises(ForbiddenError) as caught:
            verify_signature(statement, wrong, public)
        assert caught.value.code == "statement.signature"


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ED25519, SignatureAlgorithm.ES256),
        (P256, SignatureAlgorithm.EDDSA),
        (P256, SignatureAlgorithm.SSHSIG),
    ],
)
def test_the_algorithm_is_that_of_the_key(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    algorithm: SignatureAlgorithm,
) -> None:
    signature = replace(sign_statement(STATEMENT, key), algorithm=algorithm)
    with pytest.raises(ForbiddenError):
        verify_signature(STATEMENT, signature, key.public_key())


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def ssh_blob(
    *,
    namespace: bytes = b"kbs-statement@v1",
    hash_name: bytes = b"sha512",
    magic: bytes = b"SSHSIG",
    version: int = 1,
    reserved: bytes = b"",
    key_type: bytes = b"ssh-ed25519",
    public: bytes | None = None,
    tail: bytes = b"",
    size: int = 64,
) -> StatementSignature:
    """An SSH signature, written down from PROTOCOL.sshsig a second time."""
    digest = hashlib.new(
        hash_name.decode() if hash_name in {b"sha256", b"sha512"} else "sha512",
        STATEMENT.canonical(),
    ).digest()
    inner = string(namespace) + string(reserved) + string(hash_name)
    value = ED25519.sign(b"SSHSIG" + inner + string(digest))[:size]
    raw = ED25519.public_key().public_bytes_raw() if public is None else public
    blob = (
        magic
        + version.to_bytes(4, "big")
        + string(string(key_type) + string(raw))
        + inner
        + string(string(b"ssh-ed25519") + string(value))
        + tail
    )
    keyid = key_id(ED25519.public_key())
    return StatementSignature(keyid, SignatureAlgorithm.SSHSIG, blob)


@pytest.mark.parametrize("hash_name", [b"sha256", b"sha512"])
def test_an_ssh_signature_verifies(hash_name: bytes) -> None:
    signature = ssh_blob(hash_name=hash_name)
    verify_signature(STATEMENT, signature, ED25519.public_key())
    with pytest.raises(ForbiddenError):
        verify_signature(OTHER, signature, ED25519.public_key())


@pytest.mark.parametrize(
    "signature",
    [
        ssh_blob(namespace=b"file"),
        ssh_blob(namespace=b"kbs-statement@v2"),
        ssh_blob(hash_name=b"sha1"),
        ssh_blob(magic=b"SSHSIX"),
        ssh_blob(version=2),
        ssh_blob(reserved=b"x"),
        ssh_blob(key_type=b"ssh-rsa"),
        ssh_blob(public=bytes(31)),
        ssh_blob(tail=b"\x00"),
        ssh_blob(size=63),
        replace(ssh_blob(), value=ssh_blob().value[:-1]),
        replace(ssh_blob(), value=b""),
        replace(ssh_blob(), value=b"-----BEGIN SSH SIGNATURE-----"),
    ],
)
def test_an_ssh_signature_of_another_shape_is_refused(
    signature: StatementSignature,
) -> None:
    with pytest.raises(MalformedError):
        verify_signature(STATEMENT, signature, ED25519.public_key())


def test_an_ssh_signature_by_another_key_is_refused() -> None:
    with pytest.raises(ForbiddenError) as caught:
        verify_signature(STATEMENT, ssh_blob(public=bytes(32)), ED25519.public_key())
    assert caught.value.code == "statement.signature"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_what_ssh_keygen_signs_verifies(tmp_path: Path) -> None:
    key_file, message = tmp_path / "key", tmp_path / "statement"
    key_file.write_bytes(
        ED25519.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    key_file.chmod(0o600)
    message.write_bytes(STATEMENT.canonical())
    subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", key_file, "-n", "kbs-statement@v1", message],
        check=True,
        capture_output=True,
    )
    armored = (tmp_path / "statement.sig").read_text().splitlines()
    blob = _decoded("".join(armored[1:-1]))
    signature = replace(ssh_blob(), value=blob)
    verify_signature(STATEMENT, signature, ED25519.public_key())


def _decoded(text: str) -> bytes:
    import base64

    return base64.b64decode(text, validate=True)


P384 = ec.derive_private_key(9, ec.SECP384R1())


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30\x00",
        spki_of(ED25519.public_key()) + b"\x00",
        P384.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        ed448.Ed448PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        spki_of(P256.public_key())[:-64] + bytes(64),
    ],
)
def test_other_public_keys_are_refused(der: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_public_key(der)


def test_a_compressed_point_is_another_spelling_and_refused() -> None:
    point = P256.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    with pytest.raises(MalformedError):
        parse_public_key(head + point)


def test_public_keys_come_back() -> None:
    for key in (ED25519.public_key(), P256.public_key()):
        assert spki_of(parse_public_key(spki_of(key))) == spki_of(key)


def test_a_key_on_another_curve_signs_nothing() -> None:
    with pytest.raises(KbsError):
        sign_statement(STATEMENT, P384)
