"""A fake of NVIDIA's RIM service: the manifests of fake devices by their ids."""

from __future__ import annotations

import json

from kbs.core.encode import b64
from tests.fakes.nvidia import Device, FakeNvidia, rim_id
from tests.fakes.vendor import Served, VendorService


def rims(nvidia: FakeNvidia, *devices: Device) -> VendorService:
    """A service that has what these devices need."""
    service = VendorService()
    for device in devices:
        for role in ("driver", "vbios"):
            publish(service, rim_id(device, role), nvidia.rim(device, role))
    return service


def publish(
    service: VendorService, name: str, document: bytes, said: str | None = None
) -> None:
    """Put a manifest under an id; `said` is the id that the answer has."""
    answer = {"id": said or name, "rim": b64(document), "rim_format": "SWIDTAG"}
    service.answers[f"/v1/rim/{name}"] = Served(json.dumps(answer).encode())
