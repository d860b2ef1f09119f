"""A fake guest of Compute Engine: attestations as go-tpm-tools writes them.

The messages are written by a few lines of protocol buffers of our own; fields are
those of attest.proto, sevsnp.proto and tdx.proto, written down here a second time.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from tests.fakes.amd import FIELDS, FakeAmd
from tests.fakes.intel import FakeIntel
from tests.fakes.tpm import FakeTpm

HASHES = {"sha1": 4, "sha256": 11, "sha384": 12}
SIZES = {"sha1": 20, "sha256": 32, "sha384": 48}

# Field number in sevsnp.Report, by our name for the bytes of the report.
_NUMBERS = {
    "version": 1,
    "guest_svn": 2,
    "policy": 3,
    "vmpl": 6,
    "signature_algo": 7,
    "current_tcb": 8,
    "platform_info": 9,
    "key_info": 10,
    "reported_tcb": 18,
    "committed_tcb": 20,
    "launch_tcb": 27,
    "launch_mit_vector": 30,
    "current_mit_vector": 31,
}
_OCTETS = {
    "family_id": 4,
    "image_id": 5,
    "report_data": 11,
    "measurement": 12,
    "host_data": 13,
    "id_key_digest": 14,
    "author_key_digest": 15,
    "report_id": 16,
    "report_id_ma": 17,
    "chip_id": 19,
}
_BUILDS = {"current_build": 21, "committed_build": 24}
_TD_BODY = (16, 48, 48, 8, 8, 8, 48, 48, 48, 48)


def varint(value: int) -> bytes:
    """A number as the format writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def number(field: int, value: int) -> bytes:
    """A field that is a number; proto3 leaves 0 out."""
    return varint(field << 3) + varint(value) if value else b""


def octets(field: int, value: bytes) -> bytes:
    """A field of bytes, or a message in one; proto3 leaves empty bytes out."""
    return varint(field << 3 | 2) + varint(len(value)) + value if value else b""


def attestation(
    tpm: FakeTpm,
    extra_data: bytes,
    *,
    banks: Iterable[str] = ("sha1", "sha256", "sha384"),
    event_log: bytes = b"",
    certificates: Iterable[bytes] = (),
    more: bytes = b"",
) -> bytes:
    """An Attestation with a quote over all PCRs of each bank."""
    leaf, *issuers = (*certificates, b"")
    return b"".join(
        (
            # TPM2B_PUBLIC without its size.
            octets(1, tpm.ak_public[2:]),
            *(octets(2, quote(tpm, extra_data, bank)) for bank in banks),
            octets(3, event_log),
            octets(6, leaf),
            *(octets(7, one) for one in issuers),
            more,
        )
    )


def quote(tpm: FakeTpm, extra_data: bytes, bank: str) -> bytes:
    """A Quote over all PCRs of a bank; they come in no order."""
    message, signature = tpm.quote(extra_data, range(24), (bank,))
    item: Any = tpm.quote_item(extra_data, range(24), (bank,))
    pairs = [
        number(1, int(pcr)) + octets(2, bytes.fromhex(value))
        for pcr, value in reversed(item["pcrs"][bank].items())
    ]
    pcrs = number(1, HASHES[bank]) + b"".join(octets(2, pair) for pair in pairs)
    return octets(1, message) + octets(2, signature) + octets(3, pcrs)


def snp_attestation(amd: FakeAmd, report_data: bytes, **fields: Any) -> bytes:
    """A sevsnp.Attestation with the chip's chain."""
    raw = base64.b64decode(str(amd.bundle_item(report_data, **fields)["report"]))

    def at(name: str) -> bytes:
        offset, size = FIELDS[name]
        return raw[offset : offset + size]

    report = [
        *(
            number(n, int.from_bytes(at(name), "little"))
            for name, n in _NUMBERS.items()
        ),
        *(octets(n, at(name)) for name, n in _OCTETS.items()),
        *(number(n + i, at(name)[i]) for name, n in _BUILDS.items() for i in range(3)),
        octets(28, raw[0x2A0:]),
    ]
    family, model, stepping = at("cpuid")
    if raw[0] >= 3:
        eax = (family - 0xF) << 20 | 0xF00 | (model >> 4) << 16 | (model & 0xF) << 4
        report.append(number(29, eax | stepping))
    chain = [(1, amd.vcek()), (2, amd.ask), (3, amd.ark)]
    certificates = b"".join(octets(field, _der(one)) for field, one in chain)
    product = number(1, 1)
    return octets(1, b"".join(report)) + octets(2, certificates) + octets(3, product)


def td_quote(intel: FakeIntel, report_data: bytes, **changes: Any) -> bytes:
    """A tdx.QuoteV4."""
    raw = intel.quote(report_data=report_data, **changes)
    header = (
        number(1, int.from_bytes(raw[0:2], "little"))
        + number(2, int.from_bytes(raw[2:4], "little"))
        + number(3, int.from_bytes(raw[4:8], "little"))
        + octets(5, raw[8:10])
        + octets(4, raw[10:12])
        + octets(6, raw[12:28])
        + octets(7, raw[28:48])
    )
    body, offset = b"", 48
    for field, size in enumerate(_TD_BODY, 1):
        body += octets(field, raw[offset : offset + size])
        offset += size
    for _ in range(4):
        body += octets(11, raw[offset : offset + 48])
        offset += 48
    body += octets(12, raw[offset : offset + 64])
    size = int.from_bytes(raw[632:636], "little")
    signed, extra = raw[636 : 636 + size], raw[636 + size :]
    return (
        octets(1, header)
        + octets(2, body)
        + number(3, size)
        + octets(4, _auth_data(signed))
        + octets(5, extra)
    )


def _auth_data(signed: bytes) -> bytes:
    inner = signed[134:]
    qe, signature = inner[:384], inner[384:448]
    size = int.from_bytes(inner[448:450], "little")
    auth, chain = inner[450 : 450 + size], inner[450 + size :]
    report = (
        octets(1, qe[0:16])
        + number(2, int.from_bytes(qe[16:20], "little"))
        + octets(3, qe[20:48])
        + octets(4, qe[48:64])
        + octets(5, qe[64:96])
        + octets(6, qe[96:128])
        + octets(7, qe[128:160])
        + octets(8, qe[160:256])
        + number(9, int.from_bytes(qe[256:258], "little"))
        + number(10, int.from_bytes(qe[258:260], "little"))
        + octets(11, qe[260:320])
        + octets(12, qe[320:384])
    )
    pck = number(1, 5) + number(2, len(chain) - 6) + octets(3, chain[6:])
    certification = (
        octets(1, report)
        + octets(2, signature)
        + octets(3, number(1, size) + octets(2, auth))
        + octets(4, pck)
    )
    data = number(1, 6) + number(2, len(inner)) + octets(3, certification)
    return octets(1, signed[:64]) + octets(2, signed[64:128]) + octets(3, data)


def _der(certificate: Any) -> bytes:
    data: bytes = certificate.public_bytes(Encoding.DER)
    return data
