"""What --nonce is compared with: a bundle's runtime data, or the signed field."""

from __future__ import annotations

from dataclasses import replace

from kbs.core.checks import Check, CheckLog
from kbs.core.encode import parse_b64u
from kbs.core.errors import MalformedError
from kbs.evidence.bundle import Bundle
from kbs.evidence.registry import VERIFIERS

# AMD 56860, table 23 (REPORT_DATA); the longest nonce that most raw evidence carries.
_MAX_NONCE = 64
# AWS, attestation_process.md, section 2.2: nonce = bytes .size (0..1024).
_MAX_NONCES = {"nitro": 1024, "nitrotpm": 1024}
# Their REPORTDATA or challenge has 64 bytes; a shorter nonce leaves zeros behind it.
_REPORTS = frozenset({"snp", "tdx", "sgx", "cca"})


def parse_nonce(text: str, kind: str) -> bytes:
    """Return the bytes of --nonce for raw evidence of a kind.

    Raises:
        MalformedError: no base64url, empty, or longer than such evidence carries.
    """
    most = _MAX_NONCES.get(kind, _MAX_NONCE)
    data = parse_b64u(text, "--nonce", limit=most)
    if not data:
        # Nothing at all would match a report whose REPORT_DATA is all zero.
        raise MalformedError("--nonce", got="nothing", expected=f"1 to {most} bytes")
    return data


def check_bundle(text: str, bundle: Bundle) -> Check:
    """Say whether --nonce is that of a bundle's runtime data."""
    runtime_data = bundle.runtime_data or {}
    return _nonce_check(str(runtime_data.get("nonce", "none")), text, "runtime_data")


def check_item(text: str, bundle: Bundle, index: int) -> Check:
    """Say whether one item that was parsed before is signed over --nonce."""
    kind = bundle.kind(index)
    parsed = VERIFIERS[kind].parse(bundle.items[index], index)
    signed = parsed.bound if parsed.nonce is None else parsed.nonce
    return check_field(text, signed, kind).at(index)


def check_field(text: str, bound: bytes, kind: str) -> Check:
    """Say whether the signed field of raw evidence holds --nonce, and nothing more."""
    nonce = parse_nonce(text, kind)
    expected = nonce.ljust(len(bound), b"\0") if kind in _REPORTS else nonce
    return _nonce_check(bound.hex(), expected.hex(), "the signed field", item=0)


def _nonce_check(got: str, expected: str, where: str, item: int | None = None) -> Check:
    log = CheckLog()
    log.compared("binding.nonce", f"--nonce against {where}", got, expected)
    return replace(log.checks[0], item=item)
