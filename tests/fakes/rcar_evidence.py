"""Evidence in the forms that RCAR guests send it in, made by the fake hardware.

The SNP form is that of the `sev` crate's serde structures; offsets are those of AMD
56860, table 23, read here a second time.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.evidence.vtpm.public import parse_public
from tests.fakes.amd import FakeAmd
from tests.fakes.cca import FakeCca
from tests.fakes.nvidia import Device, FakeNvidia, pem
from tests.fakes.tpm import FakeTpm

# A policy for samples, and a resource under it.
POLICY = """\
kind: ReleasePolicy
name: dev
releases: ["default/*/*"]
allow:
  - rule: any-sample
    all:
      - {safe: true}
      - {claim: sample.svn, equals: 1}
"""
PATH = "default/test/key"
SECRET = b"test content"

Evidence = Callable[[bytes], dict[str, Any]]


def sev_fields(raw: bytes) -> dict[str, Any]:
    """A report as the `sev` crate serializes it."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(raw[at : at + size], "little")

    def octets(at: int, size: int) -> list[int]:
        return list(raw[at : at + size])

    version = number(0, 4)
    turin = version > 2 and raw[0x188] == 0x1A

    def tcb(at: int) -> dict[str, int | None]:
        if turin:
            names = ("fmc", "bootloader", "tee", "snp", "", "", "", "microcode")
        else:
            names = ("bootloader", "tee", "", "", "", "", "snp", "microcode")
        found: dict[str, int | None] = {"fmc": None}
        found |= {name: raw[at + i] for i, name in enumerate(names) if name}
        return found

    def version_at(at: int) -> dict[str, int]:
        return {"build": raw[at], "minor": raw[at + 1], "major": raw[at + 2]}

    cpuid = [raw[0x188 + i] if version > 2 else None for i in range(3)]
    mitigations = [number(0x1F8, 8), number(0x200, 8)] if version > 4 else [None, None]
    return {
        "version": version,
        "guest_svn": number(4, 4),
        "policy": number(8, 8),
        "family_id": octets(0x10, 16),
        "image_id": octets(0x20, 16),
        "vmpl": number(0x30, 4),
        "sig_algo": number(0x34, 4),
        "current_tcb": tcb(0x38),
        "plat_info": number(0x40, 8),
        "key_info": number(0x48, 4),
        "report_data": octets(0x50, 64),
        "measurement": octets(0x90, 48),
        "host_data": octets(0xC0, 32),
        "id_key_digest": octets(0xE0, 48),
        "author_key_digest": octets(0x110, 48),
        "report_id": octets(0x140, 32),
        "report_id_ma": octets(0x160, 32),
        "reported_tcb": tcb(0x180),
        "cpuid_fam_id": cpuid[0],
        "cpuid_mod_id": cpuid[1],
        "cpuid_step": cpuid[2],
        "chip_id": octets(0x1A0, 64),
        "committed_tcb": tcb(0x1E0),
        "current": version_at(0x1E8),
        "committed": version_at(0x1EC),
        "launch_tcb": tcb(0x1F0),
        "launch_mit_vector": mitigations[0],
        "current_mit_vector": mitigations[1],
        "signature": {"r": octets(0x2A0, 72), "s": octets(0x2E8, 72)},
    }


def snp_evidence(amd: FakeAmd, **fields: Any) -> Evidence:
    """Reports of a fake AMD with their chain."""

    def make(digest: bytes) -> dict[str, Any]:
        item = amd.bundle_item(digest.ljust(64, b"\0"), **fields)
        raw = base64.b64decode(str(item["report"]))
        chain = [("VCEK", amd.vcek()), ("ASK", amd.ask), ("ARK", amd.ark)]
        return {
            "attestation_report": sev_fields(raw),
            "cert_chain": [
                {"cert_type": sort, "data": list(one.public_bytes(Encoding.DER))}
                for sort, one in chain
            ],
        }

    return make


def tpm_evidence(tpm: FakeTpm) -> Evidence:
    """Quotes of a fake TPM; all 24 PCRs come, whatever was quoted."""

    def make(digest: bytes) -> dict[str, Any]:
        item: Any = tpm.quote_item(digest[:32])
        key = parse_public(tpm.ak_public).key
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        quoted = item["pcrs"]["sha256"]
        return {
            "ak_public": base64.b64encode(spki).decode(),
            "tpm_quote": {
                **item["quote"],
                "pcrs": [quoted.get(str(pcr), "00" * 32) for pcr in range(24)],
            },
        }

    return make


def nvidia_evidence(
    nvidia: FakeNvidia, *devices: Device, hexed: bool = False
) -> Evidence:
    """Reports of GPUs and switches, in the one list that they share."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    def make(digest: bytes) -> dict[str, Any]:
        listed = []
        for device in devices:
            report = nvidia.report(device, digest[:32])
            listed.append(
                {
                    "arch": "LS10" if device.is_switch else "HOPPER",
                    "uuid": "unknown",
                    "evidence": report.hex() if hexed else text(report),
                    "certificate": text(pem(*nvidia.device_chain(device)).encode()),
                }
            )
        return {"device_evidence_list": listed}

    return make


def cca_evidence(fake: FakeCca) -> Evidence:
    """Tokens of a fake Arm platform, as an array of numbers."""

    def make(digest: bytes) -> dict[str, Any]:
        return {"token": list(fake.token(digest.ljust(64, b"\0")))}

    return make
