"""`kbs collateral fetch | export`, and a file carried to a site without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kbs.cli.collateral import _age
from kbs.cli.collateral_fetch import wanted
from kbs.cli.collateral_file import FORMAT, batches, read_items
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.pki import roots
from tests.fakes import vendor
from tests.fakes.admin_bench import Bench, run
from tests.fakes.amd import FakeAmd
from tests.fakes.intel import FakeIntel
from tests.fakes.kds import der, kds, pem
from tests.fakes.nvidia import Device, FakeNvidia
from tests.fakes.pcs import pcs
from tests.fakes.vendor import VendorService, serving

pytestmark = pytest.mark.enable_socket

CRL = "https://kdsintf.amd.com/vcek/v1/Milan/crl"
CHAIN = "https://kdsintf.amd.com/vcek/v1/Milan/cert_chain"


@pytest.fixture(scope="module")
def amd() -> FakeAmd:
    return FakeAmd(now=datetime.now(UTC))


@pytest.fixture
def service(amd: FakeAmd) -> VendorService:
    return kds(amd)


@pytest.fixture
def option(service: VendorService) -> Iterator[tuple[str, str]]:
    """Whom to ask."""
    with serving(service) as url:
        yield ("--collateral-service", f"kds={url}")


@pytest.fixture
def trusted(amd: FakeAmd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that was built with the root of this AMD."""
    ((spki, name),) = amd.pins().items()
    pinned = (roots.PinnedRoot(spki, name, roots.Purpose.SNP), *roots.PINNED_ROOTS)
    monkeypatch.setattr(roots, "PINNED_ROOTS", pinned)


@pytest.mark.usefixtures("trusted")
def test_a_product_line_is_fetched_and_kept(
    bench: Bench, option: tuple[str, str]
) -> None:
    fetched = bench.must("collateral", "fetch", "Milan", *option)
    assert [one["items"] for one in fetched["fetched"]] == [2, 2, 3]
    assert (fetched["read"], fetched["added"], fetched["failed"]) == (4, 4, [])
    listed = bench.must("collateral", "list")["collateral"]
    assert {row["source"] for row in listed} == {
        CRL,
        CHAIN,
        "https://kdsintf.amd.com/vlek/v1/Milan/cert_chain",
    }
    shown = bench.run("collateral", "list").out
    assert "SOURCE" in shown.splitlines()[0]
    assert CRL in shown


@pytest.mark.usefixtures("trusted")
def test_a_file_brings_everything_to_a_site_without_a_network(
    bench: Bench, tmp_path: Path, option: tuple[str, str], amd: FakeAmd
) -> None:
    carried, exported = tmp_path / "carried.json", tmp_path / "exported.json"
    # No broker is needed to fetch.
    ran = run("collateral", "fetch", "Milan", *option, "--out", str(carried))
    assert ran.code == 0, ran.err
    assert f"{CRL}: 3 items" in ran.out
    first = bench.must("collateral", "import", str(carried))
    assert (first["read"], first["added"]) == (4, 4)
    chip = tmp_path / "vcek.der"
    chip.write_bytes(der(amd.vcek()))
    bench.must("collateral", "import", str(chip))
    assert bench.must("collateral", "export", str(exported))["items"] == 5
    document = json.loads(exported.read_bytes())
    assert document["format"] == FORMAT
    assert {"kind", "subject", "not_after", "source", "data"} <= set(
        document["items"][0]
    )
    again = bench.must("collateral", "import", str(exported), str(carried))
    assert (again["read"], again["added"]) == (5, 0)
    assert {b64(one) for one in read_items(exported.read_bytes(), "file")} == {
        item["data"] for item in document["items"]
    }


@pytest.mark.parametrize(
    "bad",
    [
        b"nothing",
        b'{"id": "NV_GPU_DRIVER_GH100_1", "rim": "PHgvPg=="}',
        b'{"tcbInfo": {}, "signature": ""}',
    ],
)
def test_one_bad_item_keeps_all_of_a_large_file_out(
    bench: Bench, tmp_path: Path, bad: bytes
) -> None:
    """It takes several requests, and the first of them were kept before the last."""
    intel = FakeIntel()
    items = [intel.tcb_info(tcbEvaluationDataNumber=n).encode() for n in range(300)]
    path = tmp_path / "large.json"
    document = {"format": FORMAT, "made": "2026-11-22T08:00:00Z"}
    listed = [{"data": b64(one)} for one in (*items, bad)]
    path.write_text(json.dumps({**document, "items": listed}))
    before = len(bench.requests)
    ran = bench.run("collateral", "import", str(path))
    assert ran.code == 2
    ran.assert_one_error_line()
    assert "301" in ran.err
    assert len(bench.requests) == before
    assert bench.must("collateral", "list")["collateral"] == []
    path.write_text(json.dumps({**document, "items": listed[:-1]}))
    assert bench.must("collateral", "import", str(path))["added"] == 300


def test_what_another_vendor_signed_does_not_come_in(
    bench: Bench, option: tuple[str, str]
) -> None:
    ran = bench.run("collateral", "fetch", CRL, CHAIN, *option, "--json")
    assert ran.code == 3
    document = ran.json
    assert [one["code"] for one in document["failed"]] == ["collateral.wrong"] * 2
    assert document["fetched"] == []
    assert ran.err.count("error: answer for ") == 2
    assert bench.must("collateral", "list")["collateral"] == []


@pytest.mark.usefixtures("trusted")
def test_what_fails_leaves_the_rest(
    bench: Bench, option: tuple[str, str], service: VendorService
) -> None:
    service.faults = [vendor.status(404)]
    ran = bench.run("collateral", "fetch", CRL, CHAIN, *option)
    assert ran.code == 3
    assert (
        f"error: {option[1].partition('=')[2]}/vcek/v1/Milan/crl: got status 404"
        in (ran.err)
    )
    assert "2 items read, 2 of them new" in ran.out


@pytest.mark.parametrize("how", ["option", "environment"])
def test_offline_asks_nobody_and_says_what_to_do(
    option: tuple[str, str],
    service: VendorService,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = ("--offline",) if how == "option" else ()
    if not more:
        monkeypatch.setenv("KBS_OFFLINE", "1")
    ran = run("collateral", "fetch", CRL, *option, *more, "--out", "/dev/null")
    assert ran.code == 3
    ran.assert_one_error_line()
    assert "offline mode" in ran.err
    assert "kbs collateral fetch --out" in ran.err
    assert service.asked == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Rome",), "expected a URL, Milan, Genoa, Turin, intel, an FMSPC, or the id"),
        ((), "got nothing, expected a URL"),
        (("--status-of", "/nowhere"), "/nowhere: got No such file"),
        (("https://example.org/x",), "expected a URL below https://"),
        ((CRL, "--collateral-service", "kds"), "expected NAME=URL"),
        ((CRL, "--collateral-service", "amd=https://x"), "expected kds, pcs"),
        ((CRL, "--collateral-service", "kds=ftp://x"), "URL of a service"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...], said: str) -> None:
    ran = run("collateral", "fetch", *arguments)
    assert ran.code == 2
    ran.assert_one_error_line()
    assert said in ran.err


@pytest.mark.parametrize(
    "document",
    [
        {"format": "kbs.collateral/2", "made": "x", "items": []},
        {"format": FORMAT, "items": []},
        {"format": FORMAT, "made": "x", "items": [{}]},
        {"format": FORMAT, "made": "x", "items": [{"data": "?"}]},
        {"format": FORMAT, "made": "x", "items": [{"data": "", "trusted": True}]},
    ],
)
def test_a_file_of_another_form_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        read_items(json.dumps(document).encode(), "file")


def test_a_request_holds_what_the_broker_takes() -> None:
    many = [bytes([place % 256, place // 256]) for place in range(600)]
    assert [len(batch) for batch in batches([*many, *many])] == [256, 256, 88]
    large = [bytes([place]) * 600_000 for place in range(3)]
    assert [len(batch) for batch in batches(large)] == [1, 1, 1]


def test_names_stand_for_sources(tmp_path: Path) -> None:
    chain = FakeNvidia().device_chain(Device())
    file = tmp_path / "chain.pem"
    file.write_bytes(pem(*chain))
    sources, known = wanted(["intel", "00F0A0000000", "NV_GPU_DRIVER_X_1"], [file])
    urls = [one.url for one in sources]
    intel = "https://api.trustedservices.intel.com"
    assert urls[:8] == [
        f"{intel}/sgx/certification/v4/qe/identity",
        f"{intel}/tdx/certification/v4/qe/identity",
        f"{intel}/sgx/certification/v4/pckcrl?ca=processor&encoding=der",
        f"{intel}/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
        f"{intel}/sgx/certification/v4/tcb?fmspc=00f0a0000000",
        f"{intel}/tdx/certification/v4/tcb?fmspc=00f0a0000000",
        "https://rim.attestation.nvidia.com/v1/rim/NV_GPU_DRIVER_X_1",
    ]
    # The status of each authority below the root; the leaf is the device's own.
    assert len(urls[8:]) == 3
    assert known.certificates() == chain


def test_everything_of_a_platform_of_intels_is_carried(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents are JSON, and go through a file as they came."""
    intel = FakeIntel(now=datetime.now(UTC).replace(microsecond=0))
    ((spki, name),) = intel.pins().items()
    pinned = (roots.PinnedRoot(spki, name, roots.Purpose.DCAP), *roots.PINNED_ROOTS)
    monkeypatch.setattr(roots, "PINNED_ROOTS", pinned)
    carried = tmp_path / "intel.json"
    platform = "https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl"
    with serving(pcs(intel)) as url:
        ran = run(
            *(
                "collateral",
                "fetch",
                intel.fmspc,
                f"{platform}?ca=platform&encoding=der",
            ),
            *("--collateral-service", f"pcs={url}", "--out", str(carried)),
        )
    assert ran.code == 0, ran.err
    assert bench.must("collateral", "import", str(carried))["added"] == 6
    kinds = [row["kind"] for row in bench.must("collateral", "list")["collateral"]]
    assert sorted(kinds) == [*["certificate"] * 3, "crl", *["intel.tcb_info"] * 2]


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(5, "now"), (61, "1 min"), (7200, "2 h"), (86400 * 40, "40 d")],
)
def test_ages_are_for_people(seconds: int, age: str) -> None:
    row: dict[str, object] = {"imported": "2026-11-22T08:00:00Z"}
    now = datetime(2026, 11, 22, 8, 0, tzinfo=UTC) + timedelta(seconds=seconds)
    assert _age(row, now) == age
    assert _age({}, now) is None


def test_a_file_that_is_too_large_for_a_vendors_own(tmp_path: Path) -> None:
    path = tmp_path / "large.der"
    path.write_bytes(bytes(4 * 1024 * 1024 + 1))
    ran = run("collateral", "import", str(path))
    assert ran.code == 2
    assert "expected at most 4194304" in ran.err
    assert list(batches([])) == []
