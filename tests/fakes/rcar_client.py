"""A guest of the RCAR protocol, written from the protocol's description alone.

Nothing of kbs is used: hashes, JOSE and JSON are made here, so that the two sides
agree by the description or not at all. `send` is how it reaches a server.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

SIZES = {"P-256": 32, "P-521": 66}
CURVES: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-521": ec.SECP521R1(),
}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The last part of an error's type."""
        return str(self.json["type"]).rpartition("/")[2]


Send = Callable[[str, str, bytes, Mapping[str, str]], Answer]
Evidence = Callable[[bytes], dict[str, Any]]
"""Makes evidence over a SHA-384 digest."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64u(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def jcs(value: object) -> bytes:
    """All strings are ASCII and there are no floats: this is RFC 8785 then."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def sample(digest: bytes) -> dict[str, Any]:
    return {"svn": "1", "report_data": b64(digest)}


def sample_device(digest: bytes) -> dict[str, Any]:
    return {"svn": "2", "report_data": b64(digest)}


def jwk_of(key: PrivateKey) -> dict[str, str]:
    """The public key, as `tee-pubkey` has it."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return {
            "kty": "RSA",
            "alg": "RSA-OAEP-256",
            "n": b64u(numbers.n.to_bytes(key.key_size // 8, "big")),
            "e": b64u(numbers.e.to_bytes(3, "big")),
        }
    name = "P-256" if key.curve.name == "secp256r1" else "P-521"
    point = key.public_key().public_numbers()
    return {
        "kty": "EC",
        "crv": name,
        "alg": "ECDH-ES+A256KW",
        "x": b64u(point.x.to_bytes(SIZES[name], "big")),
        "y": b64u(point.y.to_bytes(SIZES[name], "big")),
    }


def open_jwe(document: Mapping[str, str], key: PrivateKey) -> bytes:
    """Open a flattened JWE the way the guest does: the header is written anew."""
    assert set(document) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}
    header = json.loads(unb64u(document["protected"]))
    rest = {k: header[k] for k in sorted(header) if k not in ("alg", "enc")}
    rewritten = {"alg": header["alg"], "enc": header["enc"]}
    for name, value in rest.items():
        rewritten[name] = dict(sorted(value.items()))
    protected = b64u(json.dumps(rewritten, separators=(",", ":")).encode())
    encrypted_key = unb64u(document["encrypted_key"])
    if isinstance(key, rsa.RSAPrivateKey):
        assert header == {"alg": "RSA-OAEP-256", "enc": "A256GCM"}
        sha = hashes.SHA256()
        content_key = key.decrypt(
            encrypted_key, padding.OAEP(padding.MGF1(sha), sha, None)
        )
    else:
        assert header["alg"] == "ECDH-ES+A256KW"
        epk = header["epk"]
        numbers = ec.EllipticCurvePublicNumbers(
            int.from_bytes(unb64u(epk["x"]), "big"),
            int.from_bytes(unb64u(epk["y"]), "big"),
            CURVES[epk["crv"]],
        )
        shared = key.exchange(ec.ECDH(), numbers.public_key())
        name = b"ECDH-ES+A256KW"
        info = len(name).to_bytes(4, "big") + name + bytes(8) + (256).to_bytes(4, "big")
        wrapping = ConcatKDFHash(hashes.SHA256(), 32, info).derive(shared)
        content_key = aes_key_unwrap(wrapping, encrypted_key)
    return AESGCM(content_key).decrypt(
        unb64u(document["iv"]),
        unb64u(document["ciphertext"]) + unb64u(document["tag"]),
        protected.encode(),
    )


@dataclass
class RcarClient:
    """One guest process: one key pair, one cookie jar."""

    send: Send
    tee: str = "sample"
    evidence: Evidence = sample
    devices: Mapping[str, Evidence] = field(default_factory=dict)
    init_data: object = None
    key: PrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    cookie: str | None = None
    nonce: str = ""
    token: str | None = None
    requests: list[str] = field(default_factory=list)

    def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        bearer: str | None = None,
        cookie: bool = True,
    ) -> Answer:
        headers = {"Content-Type": "application/json"}
        if cookie and self.cookie is not None:
            headers["Cookie"] = f"kbs-session-id={self.cookie}"
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        answer = self.send(method, "/kbs/v0" + path, body, headers)
        self.requests.append(f"{method} {path} {answer.status}")
        found = answer.headers.get("Set-Cookie")
        if found is not None:
            name, _, value = found.partition(";")[0].partition("=")
            assert name == "kbs-session-id"
            self.cookie = value
        return answer

    def auth(self) -> Answer:
        extra = {"supported-hash-algorithms": ["sha256", "sha384", "sha512", "sm3"]}
        body = {"version": "0.4.0", "tee": self.tee, "extra-params": extra}
        answer = self.call("POST", "/auth", json.dumps(body).encode())
        if answer.status == 200:
            assert answer.json["extra-params"] == ""
            self.nonce = answer.json["nonce"]
            assert len(base64.b64decode(self.nonce, validate=True)) == 32
        return answer

    def message(self, **changes: object) -> dict[str, object]:
        """The body of /attest for the nonce that was given."""
        common = {"nonce": self.nonce, "tee-pubkey": jwk_of(self.key)}
        device_digest = hashlib.sha384(jcs(common)).digest()
        devices = {name: make(device_digest) for name, make in self.devices.items()}
        additional = json.dumps(devices) if devices else ""
        return {
            "init-data": self.init_data,
            "runtime-data": common,
            "tee-evidence": {
                "primary_evidence": self.bound_to(additional),
                "additional_evidence": additional,
            },
            **changes,
        }

    def bound_to(self, additional: str) -> dict[str, Any]:
        """Primary evidence for the nonce that was given, and this text of devices."""
        common = {"nonce": self.nonce, "tee-pubkey": jwk_of(self.key)}
        bound = {"additional-evidence": additional, **common}
        return self.evidence(hashlib.sha384(jcs(bound)).digest())

    def attest(self, message: object = None) -> Answer:
        body = json.dumps(message if message is not None else self.message()).encode()
        answer = self.call("POST", "/attest", body)
        if answer.status == 200:
            self.token = answer.json["token"]
            assert len(self.token.split(".")) == 3
        return answer

    def handshake(self) -> Answer:
        begun = self.auth()
        return begun if begun.status != 200 else self.attest()

    def get(self, path: str, **options: Any) -> Answer:
        return self.call("GET", f"/resource/{path}", **options)

    def fetch(self, path: str) -> bytes:
        """Fetch as the stock client does: first without anything, then three times."""
        answer = self.get(path)
        for _ in range(3):
            if answer.status == 200:
                return open_jwe(answer.json, self.key)
            if answer.status == 404:
                break
            done = self.handshake()
            if done.status == 200:
                answer = self.get(path)
        raise LookupError(answer.body.decode())
