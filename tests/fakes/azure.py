"""A fake VM of Azure: a paravisor that puts its vTPM's key into an SNP report.

The structure of an HCL report is written down here a second time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.core.encode import b64
from kbs.evidence.vtpm.algorithms import Algorithm
from tests.fakes.amd import FakeAmd
from tests.fakes.tpm import FakeTpm

SNP, TDX = 2, 4
BOOT_PCR = 4
USER_DATA = "00" * 64


class FakeAzure:
    """One VM, with a chip of the fake AMD and a vTPM whose key is RSA-2048."""

    def __init__(self) -> None:
        """Make the keys."""
        self.amd = FakeAmd()
        self.tpm = FakeTpm("rsassa", "sha256")
        self.tpm.extend(BOOT_PCR, hashlib.sha256(b"a boot manager").digest())

    @property
    def boot_pcr(self) -> bytes:
        """What says which boot manager the VM started."""
        return self.tpm.pcrs[Algorithm.SHA256, BOOT_PCR]

    def jwk(self, kid: str = "HCLAkPub", **changes: Any) -> dict[str, Any]:
        """Return the vTPM's key as the paravisor writes it."""
        key = self.tpm.key
        assert isinstance(key, rsa.RSAPrivateKey)
        numbers = key.public_key().public_numbers()
        return {
            "kid": kid,
            "key_ops": ["sign"],
            "kty": "RSA",
            "e": _number(numbers.e),
            "n": _number(numbers.n),
            **changes,
        }

    def claims(self, **changes: Any) -> bytes:
        """Return the runtime claims; a change to `...` leaves a member out."""
        members: dict[str, Any] = {
            "keys": [self.jwk(), {"kid": "HCLEkPub", "kty": "RSA"}],
            "vm-configuration": {
                "console-enabled": True,
                "secure-boot": True,
                "tpm-enabled": True,
                "vmUniqueId": "BAEFD3E1-184B-4C4C-AB88-0BDAD260505F",
            },
            "user-data": USER_DATA,
            **changes,
        }
        kept = {name: value for name, value in members.items() if value is not ...}
        return json.dumps(kept, separators=(",", ":")).encode()

    def hcl(
        self,
        claims: bytes | None = None,
        *,
        padding: int = 64,
        report_data: bytes | None = None,
        **fields: Any,
    ) -> bytes:
        """Return an HCL report with an SNP report that is bound to the claims."""
        data = self.claims() if claims is None else claims
        if report_data is None:
            report_data = hashlib.sha256(data).digest()
        report = self.amd.report(report_data=report_data, **fields)
        return wrap(report, data, padding=padding)

    def item(
        self, extra_data: bytes = b"", hcl: bytes | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Return a bundle's item; a change to `...` leaves a member out."""
        quote = self.tpm.quote_item(extra_data)
        members: dict[str, Any] = {
            "kind": "azure",
            "hcl_report": b64(self.hcl() if hcl is None else hcl),
            "vtpm": {"quote": quote["quote"], "pcrs": quote["pcrs"]},
            "certificates": self.amd.bundle_item()["certificates"],
            "crl": self.amd.bundle_item()["crl"],
            **changes,
        }
        return {name: value for name, value in members.items() if value is not ...}

    def evidence(self, digest: bytes, *, version: int = 2) -> dict[str, Any]:
        """Return evidence as RCAR carries it; all 24 PCRs come."""
        message, signature = self.tpm.quote(digest, range(24))
        quoted: Any = self.tpm.quote_item(digest, range(24))["pcrs"]
        vcek = self.amd.vcek()
        return {
            "version": version,
            "tpm_quote": {
                # TPMT_SIGNATURE without its six bytes of scheme, hash and size.
                "signature": signature[6:].hex(),
                "message": message.hex(),
                "pcrs": [quoted["sha256"][str(pcr)] for pcr in range(24)],
            },
            "hcl_report": base64.urlsafe_b64encode(
                self.hcl(self.claims(**{"user-data": digest.hex()}))
            ).decode(),
            "vcek": base64.urlsafe_b64encode(der(vcek)).decode(),
        }


def wrap(
    report: bytes,
    claims: bytes,
    *,
    kind: int = SNP,
    padding: int = 64,
    header: tuple[int, ...] = (1, 2, 0, 0, 0, 0),
    variable: tuple[int, ...] = (1, 1),
) -> bytes:
    """Put a hardware report and claims into an HCL report.

    `header` is version, request type and four zeros, `variable` version and hash type.
    """
    size = 32 + 1184 + 20 + len(claims)
    return (
        b"HCLA"
        + struct.pack("<III", header[0], size, header[1])
        + struct.pack("<IIII", *header[2:])
        + report.ljust(1184, b"\0")
        + struct.pack(
            "<IIIII", len(claims) + 20, variable[0], kind, variable[1], len(claims)
        )
        + claims
        + bytes(padding)
    )


@cache
def azure() -> FakeAzure:
    """Return one that all tests share."""
    return FakeAzure()


def der(certificate: Any) -> bytes:
    """Return the DER of a certificate."""
    data: bytes = certificate.public_bytes(Encoding.DER)
    return data


def _number(value: int) -> str:
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
