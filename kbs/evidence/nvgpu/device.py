"""Device certificates: which of a chain signed the report, and what it says it runs.

The chain of a device is leaf (the firmware that signs), the device's own identity
(BROM), a provisioner's CA, the product's CA, the root. The leaf's DICE extension (TCG
DICE Attestation Architecture 1.1, section 6.1; NVIDIA's own form on Hopper) carries
FWIDs: digests of the firmware that its key was made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from cryptography import x509

from kbs.core.errors import MalformedError
from kbs.core.reader import Reader
from kbs.pki.certificates import describe
from kbs.pki.chain import Chain

FWID_BYTES = 48

# Hopper and LS10; Blackwell puts a DiceTcbInfo below it.
_DICE_OIDS = frozenset({"2.23.133.5.4.1", "2.23.133.5.4.1.4"})

# X.690: OBJECT IDENTIFIER, OCTET STRING, and bits of the identifier octet.
_OID, _OCTETS = 0x06, 0x04
_CONSTRUCTED, _NUMBER = 0x20, 0x1F
_LONG_LENGTH = 0x80
_MAX_LENGTH_BYTES = 2
_MAX_DEPTH = 8
# 2.16.840.1.101.3.4.2.2, SHA-384.
_SHA384 = bytes.fromhex("608648016503040202")

# The chain below the root: leaf, BROM and whatever certified those.
_DEVICE_CERTIFICATE = 1


class Architecture(StrEnum):
    """The generations whose reports are known, as NVIDIA's tools name them."""

    HOPPER = "HOPPER"
    BLACKWELL = "BLACKWELL"
    LS10 = "LS10"

    @property
    def is_switch(self) -> bool:
        """Whether it is an NVSwitch."""
        return self is Architecture.LS10


def architecture_of(chip: str) -> Architecture | None:
    """Return the generation of a chip (`GH100`, `GB100`, `LS10`), if it is known."""
    if chip.startswith("GH"):
        return Architecture.HOPPER
    if chip.startswith("GB"):
        return Architecture.BLACKWELL
    return Architecture.LS10 if chip == "LS10" else None


def select_leaf(certificates: Sequence[x509.Certificate]) -> x509.Certificate | None:
    """Return the first certificate that none of the others was issued by."""
    for one in certificates:
        name = one.subject.public_bytes()
        others = (other for other in certificates if other != one)
        if all(other.issuer.public_bytes() != name for other in others):
            return one
    return next(iter(certificates), None)


def claims_to_be_whole(certificates: Sequence[x509.Certificate]) -> bool:
    """Whether a chain ends in a self-signed certificate, right or not."""
    return any(
        one.issuer.public_bytes() == one.subject.public_bytes() for one in certificates
    )


def device_certificate(chain: Chain) -> x509.Certificate:
    """Return the device's own certificate: firmware may change, this key does not."""
    return chain.certificates[_DEVICE_CERTIFICATE]


def hardware_model(chain: Chain) -> str:
    """Return the device certificate's name: `GH100 A01 GSP BROM`."""
    return describe(device_certificate(chain).subject)


def chip_of(chain: Chain) -> str:
    """Return the chip that the chain vouches for: `GH100`, `GB100`, `LS10`."""
    return hardware_model(chain).partition(" ")[0].replace("_", "")


def parse_fwids(leaf: x509.Certificate) -> tuple[bytes, ...]:
    """Return the SHA-384 FWIDs in the leaf's DICE extension, without empty ones.

    Raises:
        MalformedError: the extension is not DER.
    """
    found: list[bytes] = []
    for extension in leaf.extensions:
        if extension.oid.dotted_string in _DICE_OIDS:
            _collect(extension.value.public_bytes(), found, depth=0)
    return tuple(dict.fromkeys(fwid for fwid in found if any(fwid)))


def _collect(data: bytes, found: list[bytes], *, depth: int) -> None:
    """Walk through DER; a sequence of SHA-384's OID and 48 bytes is an FWID."""
    if depth > _MAX_DEPTH:
        raise MalformedError("nvgpu DICE extension", got="deeper", expected="8 levels")
    reader = Reader(data, "nvgpu DICE extension")
    last: tuple[int, bytes] | None = None
    while reader.remaining:
        tag = reader.big(1, "tag")
        if tag & _NUMBER == _NUMBER:
            raise MalformedError(
                "nvgpu DICE extension", got="a tag of several bytes", expected="one"
            )
        content = reader.take(_length(reader), "content")
        if last == (_OID, _SHA384) and tag == _OCTETS and len(content) == FWID_BYTES:
            found.append(content)
        if tag & _CONSTRUCTED:
            _collect(content, found, depth=depth + 1)
        last = (tag, content)


def _length(reader: Reader) -> int:
    first = reader.big(1, "length")
    if first < _LONG_LENGTH:
        return first
    size = first - _LONG_LENGTH
    if not 0 < size <= _MAX_LENGTH_BYTES:
        raise MalformedError(
            "nvgpu DICE extension", got=f"length {first:#x}", expected="a DER length"
        )
    length = reader.big(size, "length")
    if length < _LONG_LENGTH or length >> (8 * (size - 1)) == 0:
        raise MalformedError(
            "nvgpu DICE extension", got="a long length", expected="the shortest"
        )
    return length
