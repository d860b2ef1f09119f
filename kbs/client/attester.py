"""What makes evidence: one attester per device, joined into a bundle.

Devices are made first and the primary last, because the primary covers the digest of
every other item (`kbs.channel.binding`). An attester sees the 48 bytes that it has to
bind and knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kbs.channel.binding import (
    RuntimeData,
    device_binding,
    device_digest,
    primary_binding,
)
from kbs.core.encode import canonical_json
from kbs.core.errors import MalformedError, UnavailableError

BUNDLE_FORMAT = "kbs.evidence/1"

MAX_BUNDLE = 1024 * 1024
"""Largest bundle that a broker takes."""


@dataclass(frozen=True, slots=True)
class Collected:
    """One item as it goes into the bundle, and its bytes that the primary covers."""

    item: Mapping[str, object]
    core: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """An evidence bundle: exactly the bytes to send and to send again, and its P."""

    raw: bytes
    primary: bytes


class Attester(Protocol):
    """One device that signs what it is given."""

    @property
    def kind(self) -> str:
        """The `kind` of its item."""
        ...

    def collect(self, binding: bytes) -> Collected:
        """Return fresh evidence over these 48 bytes.

        Raises:
            UnavailableError: the device does not answer.
        """
        ...


def collect_bundle(
    runtime_data: RuntimeData, primary: Attester, devices: Sequence[Attester] = ()
) -> Bundle:
    """Return the evidence of all devices, bound to one request.

    Raises:
        UnavailableError: a device does not answer, or says more than fits.
    """
    made = [
        device.collect(device_binding(device.kind, runtime_data)) for device in devices
    ]
    digests = [
        device_digest(device.kind, collected.core)
        for device, collected in zip(devices, made, strict=True)
    ]
    bound = primary_binding(primary.kind, runtime_data, digests)
    bundle = canonical_json(
        {
            "format": BUNDLE_FORMAT,
            "runtime_data": runtime_data.to_json(),
            "items": [
                dict(primary.collect(bound).item),
                *(dict(collected.item) for collected in made),
            ],
        }
    )
    if len(bundle) > MAX_BUNDLE:
        raise UnavailableError(
            "evidence bundle",
            got=f"{len(bundle)} bytes",
            expected=f"at most {MAX_BUNDLE}",
            hint="leave the event log out",
        )
    return Bundle(bundle, bound)


def require_binding(binding: bytes) -> bytes:
    """Return a binding if it has the one size that there is.

    Raises:
        MalformedError: it is not 48 bytes.
    """
    if len(binding) != 48:  # noqa: PLR2004 - SHA-384
        raise MalformedError(
            "binding", got=f"{len(binding)} bytes", expected="48 bytes"
        )
    return binding
