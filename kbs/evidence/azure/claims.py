"""What verified evidence of an Azure VM proves, and what must not stay open.

The families are `azure_snp` and `azure_tdx`, not those of the bare hardware: there
`measurement` is the guest's, here it is that of Azure's paravisor, which is the same
for every customer. A rule about bare SNP is never met by a VM of Azure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue, Safety
from kbs.evidence.azure.hcl import ReportType, RuntimeClaims
from kbs.evidence.vtpm.claims import VOCABULARY as VTPM_CLAIMS

FAMILIES: Mapping[ReportType, str] = {
    ReportType.SNP: "azure_snp",
    ReportType.TDX: "azure_tdx",
}

# Claims about the paravisor, either of which says whose it is.
_PARAVISOR = {"azure_snp": ("measurement", "id_key_digest"), "azure_tdx": ("mr_td",)}
_PARAVISOR_REASON = (
    "without it anybody's guest may play the paravisor and sign quotes of its own"
)
_PCR_REASON = (
    "the measurement is that of Azure's paravisor, the same for every customer: only "
    "the PCRs say what this VM runs"
)
# PC Client Platform TPM Profile 1.05: what software cannot reset.
_STATIC_PCRS = range(16)
_FIRST_PCR = "pcr.sha256.0"

_CONFIGURATION: Mapping[str, tuple[ClaimType, str]] = {
    "console_enabled": (ClaimType.BOOL, "The VM has a serial console"),
    "secure_boot": (ClaimType.BOOL, "Secure Boot is configured"),
    "tpm_enabled": (ClaimType.BOOL, "The VM has a vTPM"),
    "tpm_persisted": (ClaimType.BOOL, "The vTPM keeps its state across boots"),
    "unique_id": (ClaimType.TEXT, "Id of the VM"),
    "root_cert_thumbprint": (ClaimType.TEXT, "Thumbprint of the VM's root certificate"),
}


def claim_specs(
    kind: ReportType, hardware: Iterable[ClaimSpec]
) -> tuple[ClaimSpec, ...]:
    """Return the claims of one kind of VM, made of those of its hardware and a vTPM."""
    family = FAMILIES[kind]
    return (
        # A VM of Azure has one event log, that of its vTPM.
        *(
            _hardware_spec(spec, family)
            for spec in hardware
            if not _rest(spec.name).startswith("eventlog.")
        ),
        *(_configuration_spec(family, name) for name in _CONFIGURATION),
        *(
            _vtpm_spec(spec, family)
            for spec in VTPM_CLAIMS
            if not spec.name.startswith(("vtpm.ak.", "vtpm.gce."))
        ),
    )


def moved(values: Mapping[str, ClaimValue], family: str) -> dict[str, ClaimValue]:
    """Return claims of another family under the name of this one."""
    return {f"{family}.{_rest(name)}": value for name, value in values.items()}


def configuration_claims(runtime: RuntimeClaims, family: str) -> dict[str, ClaimValue]:
    """Return what the paravisor says about the VM."""
    return {f"{family}.vm.{name}": v for name, v in runtime.configuration.items()}


def _rest(name: str) -> str:
    return name.partition(".")[2]


def _hardware_spec(spec: ClaimSpec, family: str) -> ClaimSpec:
    rest = _rest(spec.name)
    first, *others = _PARAVISOR[family]
    safety = spec.safety
    if rest == first:
        alternatives = tuple(f"{family}.{other}" for other in others)
        safety = Safety(reason=_PARAVISOR_REASON, alternatives=alternatives)
    elif safety is not None:
        safety = replace(
            safety,
            alternatives=tuple(f"{family}.{_rest(one)}" for one in safety.alternatives),
        )
    # The paravisor is no choice of the customer's, and its registers are not the VM's.
    return replace(
        spec,
        name=f"{family}.{rest}",
        boot=False,
        register=None,
        resettable=False,
        safety=safety,
    )


def _vtpm_spec(spec: ClaimSpec, family: str) -> ClaimSpec:
    rest = _rest(spec.name)
    safety = None
    if rest == _FIRST_PCR:
        others = (f"{family}.pcr.sha256.{number}" for number in _STATIC_PCRS[1:])
        safety = Safety(reason=_PCR_REASON, alternatives=tuple(others))
    return replace(spec, name=f"{family}.{rest}", safety=safety)


def _configuration_spec(family: str, name: str) -> ClaimSpec:
    claim_type, description = _CONFIGURATION[name]
    return ClaimSpec(
        name=f"{family}.vm.{name}",
        type=claim_type,
        description=description,
        source="HCL report, vm-configuration",
    )
