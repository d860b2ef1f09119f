"""The guest's machine: a software TPM that boots, and the maker who certified it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from kbs.client.measure import policy_digests
from kbs.client.tpm import Tpm, open_tpm
from kbs.client.tpm_keys import EkKind
from kbs.evidence.vtpm.abi import PcrSelection
from kbs.evidence.vtpm.algorithms import Algorithm, parse_bank
from kbs.evidence.vtpm.pcrs import pcrs_to_json
from kbs.evidence.vtpm.public import parse_public
from tests.fakes.eventlog import FakeEventLog, typical_log
from tests.fakes.swtpm import SoftwareTpm
from tests.fakes.tpm_ca import FakeTpmCA


class Machine:
    """One machine with a TPM of its own; `reboot` is a power cycle."""

    def __init__(self, folder: Path) -> None:
        """Power on a TPM whose state lies in `folder`."""
        folder.mkdir(parents=True)
        self.folder = folder
        self.tpm = SoftwareTpm(folder)
        self.event_log = folder / "binary_bios_measurements"
        os.environ["TSS2_LOG"] = "all+none"

    @property
    def tcti(self) -> str:
        """How the guest names its TPM."""
        return self.tpm.tcti

    def reboot(self) -> None:
        """Cycle the power and boot: firmware plays its log into PCRs 0 to 7."""
        self.tpm.stop()
        self.tpm.start()
        with open_tpm(self.tcti) as tpm:
            log = boot_log(tpm)
            for pcr, digests in log.extends:
                tpm.extend(
                    pcr,
                    {
                        Algorithm(parse_bank(bank, "bank")): value
                        for bank, value in digests.items()
                    },
                )
        self.event_log.write_bytes(log.to_bytes())

    def measure(self, policy: bytes) -> None:
        """Extend a policy into PCR 15, without the guard of `kbs guest measure`."""
        with open_tpm(self.tcti) as tpm:
            tpm.extend(15, policy_digests(tpm.banks(), policy))

    def certify(self, maker: FakeTpmCA, target: Path) -> None:
        """Let the maker certify the endorsement key, as it does in the factory."""
        with open_tpm(self.tcti) as tpm, tpm.primary(EkKind.ECC.template) as ek:
            certificate = maker.certify(parse_public(ek.public).key, signs=False)
        target.write_bytes(certificate.public_bytes(Encoding.DER))

    def pcr_values(self) -> dict[str, str]:
        """Return PCRs 0 to 7 of the SHA-256 bank."""
        with open_tpm(self.tcti) as tpm:
            selection = PcrSelection(Algorithm.SHA256, tuple(range(8)))
            return dict(pcrs_to_json(tpm.read_pcrs([selection]))["sha256"])


def boot_log(tpm: Tpm) -> FakeEventLog:
    """Return a small made-up boot log, in every bank that the TPM has."""
    known = [bank.name.lower() for bank in tpm.banks()]
    return typical_log(tuple(known))


@contextmanager
def powered(folder: Path) -> Iterator[Machine]:
    """A machine that is switched off in the end."""
    machine = Machine(folder)
    try:
        yield machine
    finally:
        machine.tpm.stop()
