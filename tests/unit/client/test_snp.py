"""Reports through configfs-tsm, from a kernel that is a program."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from kbs.client.snp import (
    CERTIFICATE_GUIDS,
    ConfigfsReports,
    SnpAttester,
    TsmEntry,
    parse_certificate_table,
)
from kbs.core.encode import parse_b64
from kbs.core.errors import KbsError, MalformedError, UnavailableError
from kbs.evidence.snp.abi import parse_report
from tests.fakes.amd import FakeAmd

BINDING = bytes(range(48))
GUIDS = {name: guid for guid, name in CERTIFICATE_GUIDS.items()}
CRL = uuid.UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")


def table(entries: list[tuple[uuid.UUID, bytes]]) -> bytes:
    """The table as a host makes it: GUID digits in the order they are written."""
    start = 24 * (len(entries) + 1)
    head, body = b"", b""
    for guid, value in entries:
        offset = (start + len(body)).to_bytes(4, "little")
        head += guid.bytes + offset + len(value).to_bytes(4, "little")
        body += value
    return head + bytes(24) + body


@dataclass
class FakeKernel:
    """Answers like Linux's configfs-tsm over a fake secure processor."""

    amd: FakeAmd = field(default_factory=FakeAmd)
    provider: str = "sev_guest"
    table: bytes = b""
    generation: int = 0
    others: int = 0
    report_data: bytes | None = None
    fails: str = ""
    entries: int = 0
    inblob: bytes = b""

    def create(self) -> TsmEntry:
        self.entries += 1
        return self

    def read(self, attribute: str) -> bytes:
        if attribute == self.fails:
            raise OSError(5, "Input/output error")
        if attribute == "generation":
            return f"{self.generation}\n".encode()
        if attribute == "provider":
            return f"{self.provider}\n".encode()
        if attribute == "auxblob":
            return self.table
        if self.others:
            self.others -= 1
            self.generation += 1
        return self.amd.report(report_data=self.report_data or self.inblob)

    def write(self, attribute: str, value: bytes) -> None:
        assert attribute == "inblob"
        self.inblob = value
        self.generation += 1

    def remove(self) -> None:
        self.entries -= 1


def test_the_report_carries_the_binding_and_zeros() -> None:
    kernel = FakeKernel()
    collected = SnpAttester(kernel).collect(BINDING)
    report = parse_b64(collected.item["report"], "report", limit=2000)
    assert parse_report(report).report_data == BINDING + bytes(16)
    assert collected.core == report
    assert kernel.entries == 0, "the request was given back"


def test_certificates_and_crl_come_from_the_hosts_table() -> None:
    amd = FakeAmd()
    vcek, ask, ark = (
        one.public_bytes(Encoding.DER) for one in (amd.vcek(), amd.ask, amd.ark)
    )
    crl = amd.crl().public_bytes(Encoding.DER)
    kernel = FakeKernel(
        amd,
        table=table(
            [
                (GUIDS["VCEK"], vcek),
                (uuid.UUID(int=7), b"of another vendor"),
                (GUIDS["ASK"], ask),
                (GUIDS["ARK"], ark),
                (CRL, crl),
            ]
        ),
    )
    item = SnpAttester(kernel).collect(BINDING).item
    certificates = item["certificates"]
    assert isinstance(certificates, list)
    decoded = [parse_b64(one, "certificate", limit=9000) for one in certificates]
    assert decoded == [vcek, ask, ark]
    assert parse_b64(item["crl"], "crl", limit=9000) == crl


def test_the_item_is_what_the_verifier_takes() -> None:
    from kbs.evidence.snp.verify import SnpVerifier

    collected = SnpAttester(FakeKernel()).collect(BINDING)
    parsed = SnpVerifier().parse(collected.item, 0)
    assert parsed.core == collected.core
    assert SnpVerifier().bound_matches(parsed, BINDING)


def test_a_report_that_others_disturbed_is_taken_again() -> None:
    kernel = FakeKernel(others=2)
    SnpAttester(kernel).collect(BINDING)
    assert kernel.others == 0


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (FakeKernel(provider="tdx_guest"), "provider"),
        (FakeKernel(others=99), "generation"),
        (FakeKernel(fails="outblob"), "Input/output error"),
        (FakeKernel(fails="provider"), "Input/output error"),
        (FakeKernel(report_data=b"other"), "REPORT_DATA"),
    ],
    ids=["provider", "busy", "report", "attribute", "other report"],
)
def test_what_the_kernel_cannot_do_is_said(kernel: FakeKernel, words: str) -> None:
    with pytest.raises(UnavailableError, match=words):
        SnpAttester(kernel).collect(BINDING)
    assert kernel.entries == 0


def test_a_generation_that_is_no_number_is_said() -> None:
    class Odd(FakeKernel):
        def read(self, attribute: str) -> bytes:
            return b"odd" if attribute == "generation" else super().read(attribute)

    with pytest.raises(UnavailableError, match="number"):
        SnpAttester(Odd()).collect(BINDING)


def test_a_binding_has_48_bytes() -> None:
    with pytest.raises(MalformedError):
        SnpAttester(FakeKernel()).collect(bytes(47))


@pytest.mark.parametrize(
    "data",
    [
        bytes(23),
        GUIDS["VCEK"].bytes + (48).to_bytes(4, "little") + bytes([1, 0, 0, 0]),
        table([(GUIDS["VCEK"], b"x")])[:-1],
        table([(uuid.UUID(int=1), b"")] * 17),
    ],
    ids=["short", "no end", "outside", "too many"],
)
def test_a_broken_table_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_certificate_table(data)


def test_a_host_without_certificates_is_fine() -> None:
    assert parse_certificate_table(b"") == ((), None)
    assert parse_certificate_table(bytes(24)) == ((), None)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_malformed(data: bytes) -> None:
    with suppress(MalformedError):
        certificates, _ = parse_certificate_table(data)
        assert all(one in data for one in certificates)


def test_the_kernels_folder_is_used_as_files(tmp_path: Path) -> None:
    entry = ConfigfsReports(tmp_path).create()
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("kbs-")
    entry.write("inblob", b"x" * 64)
    assert (folder / "inblob").read_bytes() == b"x" * 64
    (folder / "outblob").write_bytes(b"report")
    assert entry.read("outblob") == b"report"
    # In configfs the attributes go with the folder; here they are real files.
    for attribute in folder.iterdir():
        attribute.unlink()
    entry.remove()
    assert list(tmp_path.iterdir()) == []


def test_without_configfs_it_is_said_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="sev-guest") as caught:
        SnpAttester(ConfigfsReports(tmp_path / "none")).collect(BINDING)
    assert isinstance(caught.value, KbsError)
