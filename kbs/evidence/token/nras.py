"""Tokens of NVIDIA's Remote Attestation Service (NRAS): a detached EAT set.

The overall token names each device's token by its SHA-256 (`submods`); the devices'
tokens are signed by the same service. Claims: "Attestation Cloud Service" of NVIDIA's
documentation, claims versions 2 to 4. Bound, in every token of the set, by
`eat_nonce` = hex of the first 32 bytes of D("nvgpu"). Each device gives claims of its
own, so that a policy says `every: nras` and `count: nras`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kbs.core.claims import ClaimType, ClaimValue, Safety
from kbs.evidence.token.fields import Table, read_fields, text_at
from kbs.evidence.token.service import Service, Token
from kbs.pki.issuers import Profile

BOUND_AS = "nvgpu"
"""The kind in D of a token about GPUs (binding.md)."""

NONCE_BYTES = 32

_TABLE = Table("nras", "tokens of NVIDIA's attestation service")
_ROW = _TABLE.row
_GPU = "x-nvidia-gpu-"
_SWITCH = "x-nvidia-switch-"
_REPORT = "attestation-report-"
_FLAGS = (
    (f"{_REPORT}parsed", "the report was read"),
    (f"{_REPORT}signature-verified", "the report is signed by the device"),
    (f"{_REPORT}nonce-match", "the report carries the nonce"),
    (f"{_REPORT}cert-chain-fwid-match", "the report's firmware id is the leaf's"),
    ("arch-check", "the device is of the kind that was named"),
)
_GPU_FLAGS = (
    *_FLAGS,
    ("driver-rim-signature-verified", "the driver's RIM is signed"),
    ("driver-rim-version-match", "the driver's RIM is of its version"),
    ("vbios-rim-signature-verified", "the VBIOS's RIM is signed"),
    ("vbios-rim-version-match", "the VBIOS's RIM is of its version"),
    ("vbios-index-no-conflict", "the RIMs do not contradict each other"),
)
_SWITCH_FLAGS = (
    *_FLAGS,
    ("bios-rim-signature-verified", "the BIOS's RIM is signed"),
    ("bios-rim-version-match", "the BIOS's RIM is of its version"),
)
_CHAIN = "x-nvidia-cert-status"
# The serial number of a certificate, at most 20 bytes (RFC 5280, section 4.1.2.2).
_UEID = re.compile(r"[0-9]{1,49}", re.ASCII)

OVERALL_FIELDS = (
    _ROW("iss", ClaimType.TEXT, "the service"),
    _ROW("x-nvidia-ver", ClaimType.TEXT, "version of the token's schema"),
    _ROW(
        "x-nvidia-overall-att-result",
        ClaimType.BOOL,
        "whether every device of the set was found good",
        safety=Safety(reason="the service found fault with a device", default=(True,)),
    ),
)
DEVICE_FIELDS = (
    _ROW("hwmodel", ClaimType.TEXT, "model"),
    _ROW("ueid", ClaimType.TEXT, "identity of the device, a decimal number"),
    _ROW("oemid", ClaimType.TEXT, "IANA number of the maker"),
    _ROW(
        "measres",
        ClaimType.TEXT,
        "whether the measurements are those of the RIMs",
        safety=Safety(
            reason="other firmware or another driver runs", default=("success",)
        ),
    ),
    _ROW(
        "secboot",
        ClaimType.BOOL,
        "secure boot of the device",
        safety=Safety(reason="any firmware may run", default=(True,)),
    ),
    _ROW(
        "dbgstat",
        ClaimType.TEXT,
        "debug state of the device; developer tools count",
        safety=Safety(
            reason="a debugger reads the device's memory", default=("disabled",)
        ),
    ),
    _ROW(f"{_GPU}driver-version", ClaimType.TEXT, "driver"),
    _ROW(f"{_GPU}vbios-version", ClaimType.TEXT, "VBIOS"),
    _ROW(f"{_SWITCH}bios-version", ClaimType.TEXT, "BIOS of a switch"),
    *(_ROW(f"{_GPU}{name}", ClaimType.BOOL, meaning) for name, meaning in _GPU_FLAGS),
    *(
        _ROW(f"{_SWITCH}{name}", ClaimType.BOOL, meaning)
        for name, meaning in _SWITCH_FLAGS
    ),
    *(
        _ROW((f"{kind}{_REPORT}cert-chain", name), ClaimType.TEXT, meaning)
        for kind in (_GPU, _SWITCH)
        for name, meaning in (
            (_CHAIN, "standing of the device's chain"),
            ("x-nvidia-cert-ocsp-status", "what OCSP said of the device's chain"),
        )
    ),
)
_SUBMODULE = _TABLE.spec(
    "submodule", ClaimType.TEXT, "name of the device in the set, such as GPU-0"
)
_TYPE = _TABLE.spec("device_type", ClaimType.TEXT, "gpu or switch")


def _devices(token: Token) -> tuple[dict[str, ClaimValue], ...]:
    overall = read_fields(OVERALL_FIELDS, token.claims)
    return tuple(
        {
            **overall,
            **read_fields(DEVICE_FIELDS, jws.claims),
            _SUBMODULE.name: name,
            **_device_type(jws.claims),
        }
        for name, jws in sorted(token.submodules.items(), key=_natural)
    )


def _natural(pair: tuple[str, object]) -> tuple[str, int, str]:
    # GPU-10 after GPU-2, so that nras[2] is the third device.
    stem, _, number = pair[0].rpartition("-")
    return (stem, int(number) if number.isdecimal() else -1, number)


def _device_type(claims: Mapping[str, object]) -> dict[str, ClaimValue]:
    for kind, prefix in (("gpu", _GPU), ("switch", _SWITCH)):
        if any(name.startswith(prefix) for name in claims):
            return {_TYPE.name: kind}
    return {}


def ueid(claims: Mapping[str, object]) -> str | None:
    """Return the identity of the device that a token is about, as the token writes it.

    Decimal digits only: another text would be another spelling of the same device.
    """
    text = text_at(claims, "ueid")
    if text is None or not _UEID.fullmatch(text):
        return None
    return text


def _nonce_of(token: Token) -> bytes:
    text = text_at(token.claims, "eat_nonce") or ""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return text.encode("utf-8", "replace")


def _is_bound(token: Token, binding: bytes) -> bool:
    wanted = binding[:NONCE_BYTES].hex()
    members = (token.claims, *(jws.claims for jws in token.submodules.values()))
    return all(claims.get("eat_nonce") == wanted for claims in members)


SERVICE = Service(
    profile=Profile.NRAS,
    fields=(*OVERALL_FIELDS, *DEVICE_FIELDS),
    derived=(_SUBMODULE, _TYPE),
    devices=_devices,
    bound=_nonce_of,
    is_bound=_is_bound,
    primary=False,
    bound_as=BOUND_AS,
)
