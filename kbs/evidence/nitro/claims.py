"""What a verified document of the Nitro system proves, claim by claim.

Registers of an enclave: AWS Nitro Enclaves User Guide, "Where to get an enclave's
measurements"; of a NitroTPM: Amazon EC2 User Guide, "NitroTPM Attestation Document
contents".
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue, Safety
from kbs.core.clock import format_time
from kbs.evidence.nitro.document import ENCLAVE, MAX_PCRS, PCR_BYTES, TPM, Document

_DEBUG = Safety(
    reason="the host reads the console of an enclave in debug mode, and its registers "
    "are all zero whatever it runs",
    default=(False,),
)
_BOOT = Safety(
    reason="every EC2 instance with a NitroTPM gets such documents: what boots is "
    "known by register 4 (the binaries) or 7 (the Secure Boot policy) only",
    alternatives=("nitrotpm.pcrs.7",),
)

_ENCLAVE_PCRS = {
    0: "Enclave image file",
    1: "Linux kernel and bootstrap",
    2: "Application, without the boot ramfs",
    3: "IAM role of the parent instance (its ARN); zero without one",
    4: "Id of the parent instance",
    8: "Certificate that signed the enclave image file",
}
_ENCLAVE_BOOT = frozenset({0, 1, 2, 8})
_TPM_PCRS = {
    0: "Firmware of the instance; a constant",
    1: "Firmware data of the instance; a constant",
    4: "Binaries that UEFI started",
    7: "Secure Boot policy",
    12: "Command line handed to the boot binary",
}
_TPM_BOOT = frozenset({4, 7})
# PC Client Platform TPM Profile 1.05, table 4: registers that software can reset; a TPM
# has 24 of them.
_TPM_RESETTABLE = range(16, 24)
_TPM_COUNT = 24


def claim_specs(kind: str) -> tuple[ClaimSpec, ...]:
    """Return every claim that documents of a kind can give."""
    source = "attestation document"
    specs = [
        _spec(kind, "module_id", ClaimType.TEXT, "Instance, and enclave or TPM in it"),
        _spec(kind, "timestamp", ClaimType.TIME, "When the document was made"),
        _spec(kind, "public_key", ClaimType.BYTES, "Public key that the guest gave"),
        _spec(
            kind, "user_data", ClaimType.BYTES, "Data that the guest gave: the binding"
        ),
        _spec(kind, "nonce", ClaimType.BYTES, "Nonce that the guest gave"),
    ]
    if kind == ENCLAVE:
        debug = _spec(
            kind, "debug", ClaimType.BOOL, "The enclave runs in debug mode", _DEBUG
        )
        specs.append(debug)
    count = MAX_PCRS if kind == ENCLAVE else _TPM_COUNT
    return (*specs, *(_pcr_spec(kind, index, source) for index in range(count)))


def claims_of(document: Document) -> dict[str, ClaimValue]:
    """Return the claims of a document whose every check passed."""
    kind = document.kind
    values: dict[str, ClaimValue] = {
        f"{kind}.module_id": document.module_id,
        f"{kind}.timestamp": format_time(document.timestamp),
    }
    for name, value in _given(document).items():
        values[f"{kind}.{name}"] = value.hex()
    if kind == ENCLAVE and 0 in document.pcrs:
        values[f"{kind}.debug"] = not any(document.pcrs[0])
    known = MAX_PCRS if kind == ENCLAVE else _TPM_COUNT
    for index, register in document.pcrs.items():
        if index < known:
            values[f"{kind}.pcrs.{index}"] = register.hex()
    return values


def _given(document: Document) -> Mapping[str, bytes]:
    given = {
        "public_key": document.public_key,
        "user_data": document.user_data,
        "nonce": document.nonce,
    }
    return {name: value for name, value in given.items() if value is not None}


def _spec(
    kind: str,
    field: str,
    claim_type: ClaimType,
    description: str,
    safety: Safety | None = None,
) -> ClaimSpec:
    source = f"attestation document, {field}"
    if field == "debug":
        source = "attestation document, pcrs: PCR0 is all zero"
    return ClaimSpec(
        name=f"{kind}.{field}",
        type=claim_type,
        description=description,
        source=source,
        safety=safety,
    )


def _pcr_spec(kind: str, index: int, source: str) -> ClaimSpec:
    is_tpm = kind == TPM
    named = _TPM_PCRS if is_tpm else _ENCLAVE_PCRS
    meaning = named.get(index, f"PCR {index}, if it is in the document")
    member = "nitrotpm_pcrs" if is_tpm else "pcrs"
    return ClaimSpec(
        name=f"{kind}.pcrs.{index}",
        type=ClaimType.BYTES,
        size=PCR_BYTES,
        description=meaning,
        source=f"{source}, {member}",
        boot=index in (_TPM_BOOT if is_tpm else _ENCLAVE_BOOT),
        # How an enclave's registers are extended is not documented.
        register="sha384" if is_tpm else None,
        resettable=is_tpm and index in _TPM_RESETTABLE,
        safety=_BOOT if is_tpm and index == min(_TPM_BOOT) else None,
    )
