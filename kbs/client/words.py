"""What a refusal means, in words for the person at the guest.

A workload is told ids only (`kbs.wire.problem`); these words say what an id is about,
never what was expected, which only an administrator may see.
"""

from __future__ import annotations

_NOT_ALL = (
    "another key of the request is refused and the request was all or nothing: "
    "try --partial"
)

# The first prefix that fits; longer ones stand before shorter ones.
_WORDS: tuple[tuple[str, str], ...] = (
    ("azure_snp.pcr.", "a PCR of the VM does not hold what the policy names"),
    ("azure_snp.measurement", "another paravisor was launched than the policy names"),
    ("azure_snp.", "the VM's report does not fit the policy"),
    ("azure_tdx.pcr.", "a PCR of the VM does not hold what the policy names"),
    ("azure_tdx.mr_td", "another paravisor was launched than the policy names"),
    ("azure_tdx.", "the VM's quote does not fit the policy"),
    ("azure.runtime_data", "the hardware report does not vouch for the vTPM's key"),
    ("azure.", "the VM's HCL report does not fit"),
    ("binding.devices", "the devices were not made for this request by this machine"),
    ("binding.duplicate", "one device stands in the evidence twice"),
    ("binding.", "the evidence was made for another request"),
    ("challenge.", "the challenge is not good any more"),
    ("deny.", "an administrator denied it"),
    ("key.not_found", "the key is granted, and does not exist"),
    ("key.", "the key is in no state to be released"),
    ("nitro.chain", "the document's certificate does not lead to AWS's root"),
    ("nitro.debug", "the enclave runs in debug mode"),
    ("nitro.document.signature", "the document's signature does not hold"),
    ("nitro.pcrs.", "a register of the enclave does not hold what the policy names"),
    ("nitro.validity", "the document is too old, or not valid yet"),
    ("nitro.", "the enclave's document does not fit"),
    ("nitrotpm.pcrs.", "a PCR of the instance does not hold what the policy names"),
    ("nitrotpm.validity", "the document is too old, or not valid yet"),
    ("nitrotpm.", "the NitroTPM's document does not fit"),
    ("policy.none", "no policy covers this key"),
    ("policy.", "the policy for this key does not allow it"),
    ("request.not_all", _NOT_ALL),
    ("request.", "the policy does not allow this kind of request"),
    ("sample.development", "sample evidence counts in development mode only"),
    ("sample.", "the sample evidence does not fit the policy"),
    ("sgx.tcb", "the platform's TCB is not known to be good enough"),
    ("sgx.revocation", "whether Intel revoked the platform is not known, or it did"),
    ("sgx.mr_", "another enclave runs than the policy names"),
    ("sgx.", "the enclave's quote does not fit"),
    ("snp.chain", "the chip's certificate does not lead to AMD's root"),
    ("snp.measurement", "another image was launched than the policy names"),
    ("snp.policy.", "the guest's launch policy is not allowed"),
    ("snp.reported_tcb", "the platform's firmware is too old"),
    ("snp.report.signature", "the report's signature does not hold"),
    ("snp.revocation", "whether AMD revoked the certificate is not known, or it did"),
    ("snp.", "the SNP report does not fit"),
    ("tdx.tcb", "the platform's TCB is not known to be good enough"),
    ("tdx.revocation", "whether Intel revoked the platform is not known, or it did"),
    ("tdx.eventlog.", "the event log does not lead to the quoted RTMRs"),
    ("tdx.mr_td", "another firmware was launched than the policy names"),
    ("tdx.rtmr", "an RTMR does not hold what the policy names"),
    ("tdx.", "the TD's quote does not fit"),
    ("vtpm.ak.attributes", "the attestation key is not a restricted TPM key"),
    ("vtpm.ak.", "the attestation key is not enrolled: kbs guest enroll"),
    ("vtpm.chain", "the attestation key's certificate leads to no known root"),
    ("vtpm.eventlog.", "the boot log does not lead to the quoted PCRs"),
    ("vtpm.pcr.", "a PCR does not hold what the policy names"),
    ("vtpm.quote.pcr_digest", "the PCR values are not those that were signed"),
    ("vtpm.quote.", "the TPM's quote does not hold"),
    ("vtpm.", "the TPM's evidence does not fit"),
)


def words_for(check_id: str) -> str:
    """Return words for a check or claim id; ids that we do not know stand alone."""
    for prefix, words in _WORDS:
        if check_id.startswith(prefix):
            return f"{words} ({check_id})"
    return check_id


def explain(check_ids: tuple[str, ...]) -> str:
    """Return one line about several ids, each once, in order."""
    return "; ".join(words_for(check_id) for check_id in dict.fromkeys(check_ids))
