"""Targets: keys that strangers name (JWK), what is sealed to them, secrets given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kbs.channel.answer import parse_answer
from kbs.channel.binding import parse_runtime_data
from kbs.channel.hpke import seal
from kbs.channel.jwe import encrypt_jwe
from kbs.channel.opening import parse_keys
from kbs.channel.recipient import (
    Suite,
    generate_recipient_key,
    parse_recipient,
    recipient_of,
)
from kbs.channel.signing import (
    parse_response_key,
    parse_signature,
    serialize_response_key,
)
from kbs.channel.tee_key import parse_tee_key
from kbs.core.binding import binding
from kbs.core.encode import b64, b64u, parse_json, parse_json_object
from kbs.core.errors import ForbiddenError, MalformedError
from kbs.governance.signature import parse_public_key
from kbs.governance.sshsig import NAMESPACE, verify_ssh_signature
from kbs.keys.jwk import generate_jwk, parse_private_jwk
from kbs.keys.material import MAX_SECRET_BYTES, import_secret, public_part
from kbs.keys.model import KeyKind
from tests.fakes.rcar_client import jwk_of
from tests.fuzz.target import KIB, Shape, Target

RSA = rsa.generate_private_key(65537, 2048)
MAX_JWK = 8 * KIB


def _tee_key(data: bytes) -> None:
    key = parse_tee_key(parse_json_object(data, "tee-pubkey", limit=MAX_JWK))
    encrypt_jwe(key, b"a secret")


def _tee_key_seeds() -> Iterable[bytes]:
    for key in (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP521R1()),
        RSA,
    ):
        yield json.dumps(jwk_of(key)).encode()


def _recipient(data: bytes) -> None:
    recipient = parse_recipient(parse_json(data, "recipient", limit=MAX_JWK))
    seal(recipient.suite, recipient, b"a secret", info=b"")


def _recipient_seeds() -> Iterable[bytes]:
    for suite in Suite:
        yield json.dumps(recipient_of(generate_recipient_key(suite)).to_json()).encode()


def _private_seeds() -> Iterable[bytes]:
    numbers = RSA.private_numbers()
    public = numbers.public_numbers
    parts = {"n": public.n, "e": public.e, "d": numbers.d, "p": numbers.p}
    parts |= {"q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1}
    parts |= {"qi": numbers.iqmp}
    written = {
        name: b64u(value.to_bytes((value.bit_length() + 7) // 8, "big"))
        for name, value in parts.items()
    }
    edward = ed25519.Ed25519PrivateKey.generate()
    okp = {
        "x": b64u(edward.public_key().public_bytes_raw()),
        "d": b64u(edward.private_bytes_raw()),
    }
    yield generate_jwk()
    yield json.dumps({"kty": "RSA", **written}).encode()
    yield json.dumps({"kty": "OKP", "crv": "Ed25519", **okp}).encode()
    yield b'{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAA","kid":"a"}'


def _secret(data: bytes) -> None:
    for kind in KeyKind:
        try:
            secret = import_secret(kind, data)
        except MalformedError:
            continue
        public_part(kind, secret)


def _public_seeds() -> Iterable[bytes]:
    for key in (
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
        RSA,
    ):
        yield key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        yield key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    yield serialize_response_key(ed25519.Ed25519PrivateKey.generate().public_key())


def _ssh(blob: bytes) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    verify_ssh_signature(blob, b"message", key)


def _ssh_seeds() -> Iterable[bytes]:
    def text(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    key = text(b"ssh-ed25519") + text(bytes(32))
    signature = text(b"ssh-ed25519") + text(bytes(64))
    yield (
        b"SSHSIG\x00\x00\x00\x01"
        + text(key)
        + text(NAMESPACE)
        + text(b"")
        + text(b"sha512")
        + text(signature)
    )


def _runtime_data(data: bytes) -> None:
    parsed = parse_runtime_data(parse_json(data, "runtime_data", limit=64 * KIB))
    binding(parsed.to_json())


def _runtime_seeds() -> Iterable[bytes]:
    for suite in Suite:
        recipient = recipient_of(generate_recipient_key(suite))
        request = {
            "keys": ["acme/model/chat", "acme/model/chat@2"],
            "mode": "release",
            "partial": False,
            "suite": suite.value,
        }
        document = {
            "audience": "kbs.example.org",
            "nonce": "A" * 79,
            "recipient": recipient.to_json(),
            "request": request,
        }
        yield json.dumps(document).encode()


def _answer(data: bytes) -> None:
    answer, _, signature = data.partition(b"\n")
    parse_answer(parse_json(answer, "answer", limit=64 * KIB))
    parse_signature(parse_json(signature, "signature", limit=64 * KIB))


def _answer_seeds() -> Iterable[bytes]:
    answer = {
        "format": "kbs.answer/1",
        "audience": "kbs.example.org",
        "nonce": "A" * 79,
        "decision": "0" * 32,
        "time": "2026-11-22T08:00:00Z",
        "outcome": "granted",
        "suite": "0020-0001-0002",
        "keys": [{"id": "acme/model/chat", "version": 1}],
        "denied": [{"key": "acme/model/x", "reasons": ["policy.none"]}],
        "sealed": b64u(bytes(80)),
    }
    signature = {"sig": b64u(bytes(64)), "keyid": "0" * 64}
    yield b"\n".join(json.dumps(one).encode() for one in (answer, signature))


TARGETS: Sequence[Target] = (
    Target(
        name="jwk.tee_key",
        run=_tee_key,
        seeds=_tee_key_seeds,
        shape=Shape.JSON,
        most_bytes=MAX_JWK,
    ),
    Target(
        name="jwk.recipient",
        run=_recipient,
        seeds=_recipient_seeds,
        shape=Shape.JSON,
        most_bytes=MAX_JWK,
    ),
    Target(
        name="jwk.private",
        run=parse_private_jwk,
        seeds=_private_seeds,
        shape=Shape.JSON,
        most_bytes=MAX_SECRET_BYTES,
    ),
    Target(
        name="key.secret",
        run=_secret,
        seeds=lambda: (bytes(32), b"a passphrase of words", generate_jwk()),
        most_bytes=MAX_SECRET_BYTES,
    ),
    Target(
        name="key.public",
        run=parse_public_key,
        seeds=_public_seeds,
        most_bytes=MAX_JWK,
    ),
    Target(
        name="key.response",
        run=parse_response_key,
        seeds=_public_seeds,
        most_bytes=MAX_JWK,
    ),
    Target(
        name="key.ssh_signature",
        run=_ssh,
        seeds=_ssh_seeds,
        allowed=(MalformedError, ForbiddenError),
        most_bytes=MAX_JWK,
    ),
    Target(
        name="channel.runtime_data",
        run=_runtime_data,
        seeds=_runtime_seeds,
        shape=Shape.JSON,
    ),
    Target(name="channel.answer", run=_answer, seeds=_answer_seeds, shape=Shape.JSON),
    Target(
        name="channel.released_keys",
        run=parse_keys,
        seeds=lambda: (
            json.dumps(
                {"keys": [{"id": "a/b/c", "version": 1, "value": b64u(b"secret")}]}
            ).encode(),
            b64(b"no JSON").encode(),
        ),
        shape=Shape.JSON,
    ),
)
