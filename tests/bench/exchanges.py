"""Prepared exchanges: what guests send, with evidence made before any time is taken.

A request is bound to its challenge, so a timed exchange first asks for a challenge as
every guest does, and then sends what was made for an earlier one. The broker does all
the work of an exchange, and none of the guest's work is measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.core.encode import b64
from tests.bench.brokers import SAMPLE_PATH, SNP_PATH, Bench
from tests.fakes.amd import item
from tests.fakes.rcar_client import Answer, RcarClient, sample
from tests.fakes.rcar_evidence import sev_fields


class Kind(StrEnum):
    """A door, and the evidence that comes through it."""

    V1_SAMPLE = "v1 sample"
    V1_SNP = "v1 snp"
    RCAR_SAMPLE = "rcar sample"
    RCAR_SNP = "rcar snp"

    @property
    def is_v1(self) -> bool:
        return self.value.startswith("v1")

    @property
    def evidence(self) -> str:
        return self.value.rpartition(" ")[2]


@dataclass(frozen=True)
class Step:
    """One request."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The request without what differs from one to the next."""
        return f"{self.method} {self.path.partition('/resource/')[0]}" + (
            "/resource" if "/resource/" in self.path else ""
        )


Exchange = tuple[Step, ...]
"""From the first request to the key in the guest's hands."""

_JSON = {"Content-Type": "application/json"}


class Chip:
    """A chip of the fake AMD whose certificate stays the same, as a real one's does."""

    def __init__(self, bench: Bench) -> None:
        amd = bench.amd
        self._amd = amd
        self._certificates = (amd.vcek(), amd.ask, amd.ark)
        self._chain = [
            {"cert_type": sort, "data": list(one.public_bytes(Encoding.DER))}
            for sort, one in zip(
                ("VCEK", "ASK", "ARK"), self._certificates, strict=True
            )
        ]

    def item(self, binding: bytes) -> dict[str, object]:
        """An item of a v1 bundle."""
        return item(self._report(binding), *self._certificates)

    def evidence(self, digest: bytes) -> dict[str, Any]:
        """Evidence of an rcar guest."""
        report = self._report(digest.ljust(64, b"\0"))
        return {"attestation_report": sev_fields(report), "cert_chain": self._chain}

    def _report(self, data: bytes) -> bytes:
        return self._amd.report(report_data=data)


def prepare(bench: Bench, kind: Kind, count: int) -> list[Exchange]:
    """Make this many exchanges; none was sent yet."""
    chip = Chip(bench) if kind.evidence == "snp" else None
    if kind.is_v1:
        return [_v1(bench, chip) for _ in range(count)]
    key = ec.generate_private_key(ec.SECP256R1())
    return [_rcar(bench, chip, key) for _ in range(count)]


def _v1(bench: Bench, chip: Chip | None) -> Exchange:
    world = bench.world
    if chip is None:
        request = world.request_by("sample", _sample_item, [SAMPLE_PATH])
    else:
        request = world.request_by("snp", chip.item, [SNP_PATH])
    return (
        Step("POST", "/v1/challenge", b"{}", _JSON),
        Step("POST", "/v1/release", request.body, _JSON),
    )


def _rcar(bench: Bench, chip: Chip | None, key: ec.EllipticCurvePrivateKey) -> Exchange:
    client = RcarClient(
        _sender(bench),
        tee="sample" if chip is None else "snp",
        evidence=sample if chip is None else chip.evidence,
        key=key,
    )
    client.auth()
    auth = {"version": "0.4.0", "tee": client.tee, "extra-params": ""}
    message = json.dumps(client.message()).encode()
    path = SAMPLE_PATH if chip is None else SNP_PATH
    headers = {**_JSON, "Cookie": f"kbs-session-id={client.cookie}"}
    return (
        Step("POST", "/kbs/v0/auth", json.dumps(auth).encode(), _JSON),
        Step("POST", "/kbs/v0/attest", message, headers),
        Step("GET", f"/kbs/v0/resource/{path}", b"", headers),
    )


def _sample_item(binding: bytes) -> dict[str, object]:
    return {"kind": "sample", "report_data": b64(binding[:48]), "claims": {"svn": 1}}


def _sender(bench: Bench) -> Any:
    client = bench.world.app.test_client(use_cookies=False)

    def send(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        found = client.open(path, method=method, data=body, headers=dict(headers))
        return Answer(found.status_code, dict(found.headers), found.get_data())

    return send
