"""The report of an NVIDIA device: an SPDM request and the signed response to it.

DMTF DSP0274, SPDM 1.1, section 10.11 (GET_MEASUREMENTS, MEASUREMENTS) and table 44
(DMTF measurement block); NVIDIA nvtrust, local GPU verifier, for the signature (ECDSA
P-384, r and s big-endian) and the opaque data. The caller's nonce is the one in the
request, which the signature covers. Numbers are little-endian. Nothing is believed.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbs.core.errors import MalformedError
from kbs.core.reader import Reader
from kbs.evidence.nvgpu.opaque import OpaqueData, parse_opaque, serialize_opaque

MAX_REPORT_BYTES = 0x2000
"""NVML_CC_GPU_ATTESTATION_REPORT_SIZE: what the driver has room for."""

NONCE_BYTES = 32
SIGNATURE_BYTES = 96
DIGEST_BYTES = 48
MAX_OPAQUE_BYTES = 1024
"""DSP0274, table 43: OpaqueLength."""

_SPDM_1_1 = 0x11
_GET_MEASUREMENTS = 0xE0
_MEASUREMENTS = 0x60
_SIGNATURE_REQUESTED = 0x01
_DMTF = 0x01
_BLOCK_HEADER_BYTES = 3
_MAX_RECORD_BYTES = MAX_REPORT_BYTES


@dataclass(frozen=True, slots=True)
class Block:
    """One measurement block: `index` from 1, `type` as DSP0274 table 45 has it."""

    index: int
    type: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Request and response, field by field; `trailing` is signed by nobody."""

    request_params: tuple[int, int]
    nonce: bytes
    slot_id: int
    response_params: tuple[int, int]
    blocks: tuple[Block, ...]
    responder_nonce: bytes
    opaque: OpaqueData
    signature: bytes
    trailing: bytes

    @property
    def signature_r(self) -> int:
        """The first half of the signature."""
        return int.from_bytes(self.signature[:DIGEST_BYTES], "big")

    @property
    def signature_s(self) -> int:
        """The second half of the signature."""
        return int.from_bytes(self.signature[DIGEST_BYTES:], "big")

    def measurement(self, index: int) -> bytes | None:
        """Return the value of the block with this index, from 1."""
        return next((one.value for one in self.blocks if one.index == index), None)


def parse_report(raw: bytes) -> Report:
    """Read a request and the response to it.

    Raises:
        MalformedError: another version or message, no signature asked for, blocks or
            opaque data that do not fill their lengths, or an index twice.
    """
    if len(raw) > MAX_REPORT_BYTES:
        raise MalformedError(
            "nvgpu report",
            got=f"{len(raw)} bytes",
            expected=f"at most {MAX_REPORT_BYTES} bytes",
        )
    reader = Reader(raw, "nvgpu report")
    request_params = _read_header(reader, "request", _GET_MEASUREMENTS)
    if not request_params[0] & _SIGNATURE_REQUESTED:
        raise MalformedError(
            "nvgpu report request Param1",
            got=f"{request_params[0]:#x}",
            expected="bit 0 set: a signature is asked for",
        )
    nonce = reader.take(NONCE_BYTES, "request Nonce")
    slot_id = reader.little(1, "request SlotIDParam")
    response_params = _read_header(reader, "response", _MEASUREMENTS)
    blocks = _read_blocks(reader)
    responder_nonce = reader.take(NONCE_BYTES, "response Nonce")
    opaque = _read_sized(reader, 2, MAX_OPAQUE_BYTES, "OpaqueLength")
    return Report(
        request_params=request_params,
        nonce=nonce,
        slot_id=slot_id,
        response_params=response_params,
        blocks=blocks,
        responder_nonce=responder_nonce,
        opaque=parse_opaque(opaque),
        signature=reader.take(SIGNATURE_BYTES, "Signature"),
        # Some tools leave a byte behind; what follows the signature means nothing.
        trailing=reader.take(reader.remaining, "what follows"),
    )


def serialize_report(report: Report) -> bytes:
    """Write a report back, byte for byte as it was parsed."""
    record = b"".join(_block_bytes(block) for block in report.blocks)
    opaque = serialize_opaque(report.opaque)
    return b"".join(
        (
            bytes((_SPDM_1_1, _GET_MEASUREMENTS, *report.request_params)),
            report.nonce,
            bytes((report.slot_id,)),
            bytes((_SPDM_1_1, _MEASUREMENTS, *report.response_params)),
            bytes((len(report.blocks),)),
            len(record).to_bytes(3, "little"),
            record,
            report.responder_nonce,
            len(opaque).to_bytes(2, "little"),
            opaque,
            report.signature,
            report.trailing,
        )
    )


def is_report(data: bytes) -> bool:
    """Whether bytes begin as a GET_MEASUREMENTS request of SPDM 1.1 does."""
    return data[:2] == bytes((_SPDM_1_1, _GET_MEASUREMENTS))


def _read_header(reader: Reader, which: str, code: int) -> tuple[int, int]:
    version = reader.little(1, f"{which} SPDMVersion")
    found = reader.little(1, f"{which} RequestResponseCode")
    if (version, found) != (_SPDM_1_1, code):
        raise MalformedError(
            f"nvgpu report {which}",
            got=f"version {version:#04x}, code {found:#04x}",
            expected=f"version {_SPDM_1_1:#04x}, code {code:#04x}",
        )
    return reader.little(1, f"{which} Param1"), reader.little(1, f"{which} Param2")


def _read_blocks(reader: Reader) -> tuple[Block, ...]:
    count = reader.little(1, "NumberOfBlocks")
    record = _read_sized(reader, 3, _MAX_RECORD_BYTES, "MeasurementRecordLength")
    inner = Reader(record, "nvgpu report measurement record")
    blocks = tuple(_read_block(inner) for _ in range(count))
    inner.end()
    if not blocks:
        raise MalformedError("nvgpu report blocks", got="none", expected="at least one")
    indices = [block.index for block in blocks]
    if len(set(indices)) != len(indices):
        raise MalformedError(
            "nvgpu report blocks", got="an index twice", expected="every index once"
        )
    return blocks


def _read_block(reader: Reader) -> Block:
    index = reader.little(1, "Index")
    specification = reader.little(1, "MeasurementSpecification")
    if specification != _DMTF or index == 0:
        raise MalformedError(
            "nvgpu report block",
            got=f"index {index}, specification {specification:#x}",
            expected="an index from 1 and specification 0x1 (DMTF)",
        )
    body = _read_sized(reader, 2, _MAX_RECORD_BYTES, "MeasurementSize")
    inner = Reader(body, f"nvgpu report block {index}")
    kind = inner.little(1, "DMTFSpecMeasurementValueType")
    value = _read_sized(inner, 2, _MAX_RECORD_BYTES, "DMTFSpecMeasurementValueSize")
    inner.end()
    return Block(index, kind, value)


def _read_sized(reader: Reader, width: int, limit: int, field: str) -> bytes:
    size = reader.little(width, field)
    if size > limit:
        raise MalformedError(
            f"nvgpu report {field}", got=str(size), expected=f"at most {limit}"
        )
    return reader.take(size, f"{field} bytes")


def _block_bytes(block: Block) -> bytes:
    size = len(block.value)
    return b"".join(
        (
            bytes((block.index, _DMTF)),
            (size + _BLOCK_HEADER_BYTES).to_bytes(2, "little"),
            bytes((block.type,)),
            size.to_bytes(2, "little"),
            block.value,
        )
    )
