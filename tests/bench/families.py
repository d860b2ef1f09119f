"""What evidence of each family costs: verifications beside the bare signatures.

The first verification, in a process that has seen nothing of the vendor, checks chains
and collateral too; the next ones, of other evidence by the same device, find them
known. Everything is in the vendor's format, signed by a fake one with keys of the real
sizes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from kbs.core.checks import Verdict, verdict
from kbs.core.encode import b64
from kbs.evidence.azure.verify import AzureVerifier
from kbs.evidence.cca.verify import CcaVerifier
from kbs.evidence.model import EnrolledKey, Trust, Verifier
from kbs.evidence.nitro.verify import NitroVerifier
from kbs.evidence.nvgpu.verify import NvGpuVerifier
from kbs.evidence.sgx.verify import SgxVerifier
from kbs.evidence.snp.verify import SnpVerifier
from kbs.evidence.tdx.verify import TdxVerifier
from kbs.evidence.token.verify import TokenVerifier
from kbs.evidence.vtpm.verify import VtpmVerifier
from tests.bench.floor import P256, P384, RSA2048, Costs
from tests.bench.tables import Cell, Section, progress
from tests.bench.unit import cpu_seconds, in_units
from tests.fakes import amd, intel, nitro, nvidia, tpm_ca
from tests.fakes.amd import FakeAmd
from tests.fakes.azure import FakeAzure
from tests.fakes.cca import FakeCca
from tests.fakes.intel import FakeIntel
from tests.fakes.nvidia import Device, FakeNvidia
from tests.fakes.tokens import EAR, MAA, NRAS, FakeSet, ear_claims, maa_claims
from tests.fakes.tpm import FakeTpm

Item = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Evidence of one device of a family, bound to as many values as are asked for.

    `bare`: the signatures over the evidence itself, which nothing can save.
    """

    name: str
    verifier: Verifier
    make: Callable[[bytes], Item]
    trust: Trust
    bare: Mapping[str, int] = field(default_factory=dict)

    def verify(self, item: Item) -> None:
        """Verify one item, from its JSON members to its claims."""
        parsed = self.verifier.parse(item, 0)
        result = self.verifier.verify(parsed, self.trust)
        if verdict(result.checks) is not Verdict.VERIFIED or result.claims is None:
            raise RuntimeError(f"{self.name}: {result.checks}")

    def works(self, count: int) -> list[Callable[[], None]]:
        """Verifications of so many different items, ready to be run."""
        bindings = [struct.pack("<I", number) * 12 for number in range(count)]
        return [partial(self.verify, self.make(binding)) for binding in bindings]


def families(vendor: FakeAmd) -> list[Family]:
    """Every family, in the order of `docs/evidence.md`."""
    return [
        _snp(vendor),
        *_intel(),
        _nvgpu(),
        _vtpm(),
        _azure(vendor),
        _nitro(),
        _cca(),
        *_tokens(),
    ]


def section(vendor: FakeAmd, floors: Costs, count: int) -> Section:
    """Measure every family; `count` verifications after the first."""
    rows: list[tuple[Cell, ...]] = []
    for family in families(vendor):
        progress(f"evidence: {family.name}")
        first, *others = family.works(1 + count)
        cold = _in_child(first)
        first()
        cost, units = in_units(others, block=max(1, count // 10))
        bare = sum(floors[name][0] * times for name, times in family.bare.items())
        rows.append(
            (
                family.name,
                cold * 1e6,
                cost * 1e6,
                units,
                1 / cost,
                1 / bare,
                cost / bare,
                " + ".join(
                    f"{times} {name.split(' verification')[0]}"
                    for name, times in family.bare.items()
                ),
            )
        )
    return Section(
        "evidence",
        "Verifications of evidence, in process",
        (
            "family",
            "first us",
            "again us",
            "P-256",
            "a second",
            "bare a second",
            "times bare",
            "bare",
        ),
        rows,
    )


def _in_child(work: Callable[[], None]) -> float:
    """CPU seconds of a work in a copy of this process, which then forgets it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(writing, struct.pack("<d", cpu_seconds(work)))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    try:
        _, status = os.waitpid(pid, 0)
        if status != 0:
            raise RuntimeError(f"the first verification ended with {status}")
        (cost,) = struct.unpack("<d", os.read(reading, 8))
    finally:
        os.close(reading)
    return float(cost)


def _snp(vendor: FakeAmd) -> Family:
    chain = (vendor.vcek(), vendor.ask, vendor.ark)
    return Family(
        name="snp",
        verifier=SnpVerifier(),
        make=lambda binding: amd.item(vendor.report(report_data=binding), *chain),
        trust=Trust(
            now=vendor.now, collateral=vendor.collateral(), pinned_roots=vendor.pins()
        ),
        bare={P384: 1},
    )


def _intel() -> Sequence[Family]:
    vendor = FakeIntel()

    def family(name: str, verifier: Verifier) -> Family:
        return Family(
            name=name,
            verifier=verifier,
            make=lambda binding: vendor.bundle_item(
                binding.ljust(64, b"\0"), tee=name, collateral=False
            ),
            trust=Trust(
                now=intel.NOW,
                collateral=vendor.collateral(name),
                pinned_roots=vendor.pins(),
            ),
            bare={P256: 2},
        )

    return family("tdx", TdxVerifier()), family("sgx", SgxVerifier())


def _nvgpu() -> Family:
    vendor, device = FakeNvidia(), Device()
    first = vendor.item(device, rims=False, status=False)
    return Family(
        name="nvgpu",
        verifier=NvGpuVerifier(),
        make=lambda binding: {
            **first,
            "report": b64(vendor.report(device, binding[:32])),
        },
        trust=Trust(
            now=nvidia.NOW,
            collateral=vendor.collateral(device),
            pinned_roots=vendor.pins(),
        ),
        bare={P384: 1},
    )


def _vtpm() -> Family:
    tpm = FakeTpm()
    key = EnrolledKey(
        tenant="acme", group="hosts", name=tpm.ak_name, public=tpm.ak_public
    )
    return Family(
        name="vtpm",
        verifier=VtpmVerifier(),
        make=lambda binding: tpm.quote_item(binding[:32]),
        trust=Trust(now=tpm_ca.NOW, enrolled_keys={tpm.ak_name: (key,)}),
        bare={P256: 1},
    )


def _azure(vendor: FakeAmd) -> Family:
    machine = FakeAzure()
    machine.amd = vendor
    first = machine.item(crl=...)
    return Family(
        name="azure",
        verifier=AzureVerifier(SnpVerifier(), TdxVerifier()),
        make=lambda binding: {
            **first,
            "vtpm": _quoted(machine.tpm, binding[:32]),
        },
        trust=Trust(
            now=vendor.now, collateral=vendor.collateral(), pinned_roots=vendor.pins()
        ),
        bare={P384: 1, RSA2048: 1},
    )


def _quoted(tpm: FakeTpm, binding: bytes) -> Item:
    quote = tpm.quote_item(binding)
    return {name: quote[name] for name in ("quote", "pcrs")}


def _nitro() -> Family:
    vendor = nitro.FakeNitro()
    return Family(
        name="nitro",
        verifier=NitroVerifier(),
        make=lambda binding: nitro.item(vendor.document(user_data=binding)),
        trust=Trust(now=nitro.NOW, pinned_roots=vendor.pins),
        bare={P384: 1},
    )


def _cca() -> Family:
    vendor = FakeCca()
    return Family(
        name="cca",
        verifier=CcaVerifier(),
        make=lambda binding: vendor.item(binding.ljust(64, b"\0")),
        trust=Trust(now=amd.NOW, issuers=(vendor.trusted(),)),
        bare={P384: 2},
    )


def _tokens() -> Sequence[Family]:
    issuers = tuple(one.trusted() for one in (MAA, NRAS, EAR))

    def family(
        name: str, make: Callable[[bytes], Item], bare: Mapping[str, int]
    ) -> Family:
        return Family(
            name=f"token {name}",
            verifier=TokenVerifier(),
            make=make,
            trust=Trust(now=amd.NOW, issuers=issuers),
            bare=bare,
        )

    return (
        family(
            "maa",
            lambda binding: MAA.item(maa_claims({"nonce": binding.hex()})),
            {RSA2048: 1},
        ),
        family(
            "nras, 2 GPUs",
            lambda binding: FakeSet(nonce=binding[:32].hex(), count=2).item(),
            {P384: 3},
        ),
        family("ear", lambda binding: EAR.item(ear_claims(binding.hex())), {P256: 1}),
    )
