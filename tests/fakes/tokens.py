"""Attestation services that sign tokens in the real formats, with keys of our own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kbs.core.encode import b64, b64u
from kbs.evidence.model import TrustedIssuer
from kbs.pki.certificates import spki_sha256
from kbs.pki.issuers import IssuerKey, Profile
from kbs.pki.jwk import PublicJwk
from tests.fakes.amd import NOW

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

ISSUERS: Mapping[Profile, str] = {
    Profile.MAA: "https://acme.weu.attest.azure.net",
    Profile.ITA: "https://portal.trustauthority.intel.com",
    Profile.NRAS: "https://nras.attestation.nvidia.com",
    Profile.GCS: "https://confidentialcomputing.googleapis.com",
    Profile.EAR: "https://verifier.example.org",
}
ALGORITHMS: Mapping[Profile, str] = {
    Profile.MAA: "RS256",
    Profile.ITA: "PS384",
    Profile.NRAS: "ES384",
    Profile.GCS: "RS256",
    Profile.EAR: "ES256",
}
AUDIENCE = "kbs"


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    """A key that fits an algorithm; the same for the same number in one run."""
    del number
    if algorithm.startswith(("RS", "PS")):
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    curve = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    return ec.generate_private_key(curve[algorithm])


@dataclass(frozen=True, kw_only=True)
class FakeIssuer:
    """One service with one key; `number` picks another key of the same kind."""

    profile: Profile
    number: int = 0
    kid: str | None = "key-1"
    algorithm: str = ""
    issuer: str | None = None
    audience: str | None = None
    tenant: str | None = "acme"

    @property
    def alg(self) -> str:
        return self.algorithm or ALGORITHMS[self.profile]

    @property
    def iss(self) -> str:
        return self.issuer or ISSUERS[self.profile]

    @property
    def key(self) -> Any:
        return private_key(self.alg, self.number)

    def jwk(self) -> dict[str, object]:
        key = PublicJwk(key=self.key.public_key(), kid=self.kid, alg=self.alg)
        return key.to_json()

    def trusted(self, **changes: Any) -> TrustedIssuer:
        """The issuer as governance would have it."""
        issuer_key = IssuerKey(
            key=self.key.public_key(), algorithm=self.alg, kid=self.kid
        )
        issuer = TrustedIssuer(
            tenant=self.tenant,
            name="service",
            profile=self.profile,
            issuer=self.iss,
            audience=self.audience,
            keys=(issuer_key,),
        )
        return replace(issuer, **changes)

    def sign(
        self,
        claims: Mapping[str, object],
        *,
        header: Mapping[str, object] | None = None,
        now: datetime = NOW,
    ) -> str:
        """A token of an hour's life; None takes a claim away."""
        begins = int(now.timestamp())
        document = {
            "iss": self.iss,
            "iat": begins,
            "nbf": begins,
            "exp": begins + 3600,
            **({} if self.audience is None else {"aud": self.audience}),
            **claims,
        }
        return jwt.encode(
            {name: value for name, value in document.items() if value is not None},
            self.key,
            algorithm=self.alg,
            headers={
                **({} if self.kid is None else {"kid": self.kid}),
                **(header or {}),
            },
        )

    def item(self, claims: Mapping[str, object], **options: Any) -> dict[str, object]:
        return {"kind": "token", "jwt": self.sign(claims, **options)}


MAA = FakeIssuer(profile=Profile.MAA)
ITA = FakeIssuer(profile=Profile.ITA)
NRAS = FakeIssuer(profile=Profile.NRAS)
GCS = FakeIssuer(profile=Profile.GCS, audience=AUDIENCE)
EAR = FakeIssuer(profile=Profile.EAR)


def maa_claims(runtime: object = None, **changes: Any) -> dict[str, object]:
    """What the SNP API says of a container group."""
    return {
        "x-ms-ver": "1.0",
        "x-ms-attestation-type": "sevsnpvm",
        "x-ms-compliance-status": "azure-signed-katacc-uvm",
        "x-ms-policy-hash": "policy",
        "x-ms-runtime": runtime,
        "x-ms-sevsnpvm-launchmeasurement": "ab" * 48,
        "x-ms-sevsnpvm-hostdata": "cd" * 32,
        "x-ms-sevsnpvm-is-debuggable": False,
        "x-ms-sevsnpvm-migration-allowed": False,
        "x-ms-sevsnpvm-vmpl": 0,
        "x-ms-sevsnpvm-guestsvn": 2,
        **changes,
    }


def ita_claims(held: bytes = b"", **changes: Any) -> dict[str, object]:
    """Version 1, of a TD."""
    return {
        "ver": "1.0.0",
        "attester_type": "TDX",
        "attester_tcb_status": "UpToDate",
        "attester_held_data": b64(held),
        "dbgstat": "disabled",
        "tdx_mrtd": "ab" * 48,
        "tdx_mrsignerseam": "0" * 96,
        "tdx_seam_attributes": "0" * 16,
        "tdx_td_attributes": "0000001000000000",
        "tdx_is_debuggable": False,
        "verifier_instance_ids": ["1"],
        "policy_ids_matched": [{"id": "p1", "version": "v1"}],
        **changes,
    }


def gcs_claims(nonce: object = "nonce-1", **changes: Any) -> dict[str, object]:
    """A production image."""
    return {
        "eat_nonce": nonce,
        "hwmodel": "GCP_INTEL_TDX",
        "swname": "CONFIDENTIAL_SPACE",
        "swversion": ["260900"],
        "secboot": True,
        "oemid": 11129,
        "dbgstat": "disabled-since-boot",
        "submods": {
            "confidential_space": {"support_attributes": ["STABLE", "USABLE"]},
            "container": {
                "image_digest": "sha256:" + "ab" * 32,
                "args": ["/run"],
                "env_override": {"B": "2", "A": "1"},
            },
            "gce": {"project_id": "acme"},
        },
        **changes,
    }


def ear_claims(
    nonce: object = "nonce-1", *, status: str = "affirming", **changes: Any
) -> dict[str, object]:
    """What Trustee says of a CPU."""
    return {
        "eat_profile": "tag:github.com,2024:confidential-containers/Trustee",
        "eat_nonce": nonce,
        "ear.verifier-id": {"developer": "somebody", "build": "1"},
        "submods": {
            "cpu0": {
                "ear.status": status,
                "ear.appraisal-policy-id": "default",
                "ear.trustworthiness-vector": {"hardware": 2, "executables": 3},
            }
        },
        **changes,
    }


def gpu_claims(nonce: str, number: int = 1, **changes: Any) -> dict[str, object]:
    """What NVIDIA says of one GPU."""
    return {
        "eat_nonce": nonce,
        "ueid": str(4000 + number),
        "hwmodel": "GH100 A01 GSP BROM",
        "oemid": "5703",
        "measres": "success",
        "secboot": True,
        "dbgstat": "disabled",
        "x-nvidia-gpu-driver-version": "550.90.07",
        "x-nvidia-gpu-attestation-report-signature-verified": True,
        **changes,
    }


@dataclass(frozen=True, kw_only=True)
class FakeSet:
    """A detached EAT set; `signers` sign other devices' tokens in its place."""

    nonce: str
    count: int = 1
    issuer: FakeIssuer = NRAS
    signers: Mapping[str, FakeIssuer] = field(default_factory=dict)
    device: Mapping[str, object] = field(default_factory=dict)
    ueids: Mapping[str, str] = field(default_factory=dict)
    overall: Mapping[str, object] = field(default_factory=dict)

    def tokens(self) -> dict[str, str]:
        return {
            name: self.signers.get(name, self.issuer).sign(
                {**gpu_claims(self.nonce, index, **self.device), **self._ueid(name)}
            )
            for index in range(self.count)
            for name in (f"GPU-{index}",)
        }

    def _ueid(self, name: str) -> dict[str, object]:
        return {"ueid": self.ueids[name]} if name in self.ueids else {}

    def item(self) -> dict[str, object]:
        tokens = self.tokens()
        claims = {
            "sub": "NVIDIA-PLATFORM-ATTESTATION",
            "x-nvidia-ver": "3.0",
            "x-nvidia-overall-att-result": True,
            "eat_nonce": self.nonce,
            "submods": {
                name: ["DIGEST", ["SHA-256", hashlib.sha256(one.encode()).hexdigest()]]
                for name, one in tokens.items()
            },
            **self.overall,
        }
        return {
            "kind": "token",
            "jwt": self.issuer.sign(claims),
            "submodules": tokens,
        }


class FakeGooglePKI:
    """Root, intermediate and leaf of PKI tokens."""

    def __init__(
        self, now: datetime = NOW, leaf_days: int = 1, leaf_key: Any = None
    ) -> None:
        self.root_key, self.middle_key = (
            private_key("RS256", 100 + index) for index in range(2)
        )
        self.leaf_key = leaf_key or private_key("RS256", 102)
        span = (now - timedelta(hours=1), now + timedelta(days=365))
        self.root = _certificate("root", "root", self.root_key, self.root_key, span)
        self.middle = _certificate(
            "middle", "root", self.middle_key, self.root_key, span
        )
        self.leaf = _certificate(
            "leaf",
            "middle",
            self.leaf_key,
            self.middle_key,
            (span[0], now + timedelta(days=leaf_days)),
            ca=False,
        )

    def x5c(self, *certificates: x509.Certificate) -> list[str]:
        given = certificates or (self.leaf, self.middle, self.root)
        return [b64(one.public_bytes(Encoding.DER)) for one in given]

    def lists(
        self, *revoked: x509.Certificate
    ) -> tuple[x509.CertificateRevocationList, ...]:
        """Current lists of both issuers."""
        return tuple(
            _list(issuer, key, revoked)
            for issuer, key in (
                (self.root, self.root_key),
                (self.middle, self.middle_key),
            )
        )

    def trusted(self) -> TrustedIssuer:
        return GCS.trusted(keys=(), roots=frozenset({spki_sha256(self.root)}))

    def sign(
        self, claims: Mapping[str, object], chain: list[str] | None = None
    ) -> dict[str, object]:
        begins = int(NOW.timestamp())
        document = {
            "iss": GCS.iss,
            "aud": AUDIENCE,
            "iat": begins,
            "nbf": begins,
            "exp": begins + 3600,
            **claims,
        }
        token = jwt.encode(
            document,
            self.leaf_key,
            algorithm="RS256",
            headers={"x5c": self.x5c() if chain is None else chain},
        )
        return {"kind": "token", "jwt": token}


def _certificate(
    subject: str,
    issuer: str,
    key: Any,
    signer: Any,
    span: tuple[datetime, datetime],
    *,
    ca: bool = True,
) -> x509.Certificate:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CS {text}")])

    usage = x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(signer, hashes.SHA256())
    )


def _list(
    issuer: x509.Certificate, key: Any, revoked: tuple[x509.Certificate, ...]
) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(NOW - timedelta(hours=1))
        .next_update(NOW + timedelta(days=7))
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(NOW).build())
    return builder.sign(key, hashes.SHA256())


def unsigned(header: Mapping[str, object], claims: Mapping[str, object]) -> str:
    """A token that says `none`, or whatever its header says, without a signature."""
    parts = (b64u(json.dumps(dict(one)).encode()) for one in (header, claims))
    return ".".join(parts) + "."
