"""Keys released to evidence of clouds, made by fakes for the broker's challenge."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.core.encode import b64
from kbs.evidence.azure.verify import AzureVerifier
from kbs.evidence.model import ItemResult, ParsedItem, Trust, Verifier
from kbs.evidence.nitro.verify import NitroVerifier
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.vtpm.verify import VtpmVerifier
from kbs.governance.statement import Action, Kind
from tests.fakes.answers import releases, see
from tests.fakes.azure import FakeAzure, azure
from tests.fakes.databases import Place
from tests.fakes.nitro import PCRS, item, nitro
from tests.fakes.rcar_client import Answer, RcarClient
from tests.fakes.snp_world import policy
from tests.fakes.tpm_ca import FakeTpmCA, certificate_b64, instance_of
from tests.fakes.world import PinnedSnp, World

AWS = nitro()
VM = azure()
INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha256"\n\n[data]\n"aa.toml" = "x"\n'
INIT_DIGEST = hashlib.sha256(INIT_DATA.encode()).digest()
GOOGLE = FakeTpmCA("Google")
(GOOGLE_PIN,) = GOOGLE.pins
PCR0 = hashlib.sha256(bytes(32) + hashlib.sha256(b"firmware").digest())
POLICIES = {
    "nitro": policy("nitro", f'{{claim: nitro.pcrs.0, equals: "{PCRS[0].hex()}"}}'),
    "azure": policy(
        "azure",
        f'{{claim: azure_snp.measurement, equals: "{bytes(range(48)).hex()}"}}',
        f'{{claim: azure_snp.pcr.sha256.4, equals: "{VM.boot_pcr.hex()}"}}',
    ),
    # Pinned roots are named without being registered.
    "google": policy(
        "google",
        "{claim: vtpm.ak.ca, equals: Google EK/AK CA Root}",
        "{claim: vtpm.gce.project_id, equals: acme-models}",
        f'{{claim: vtpm.pcr.sha256.0, equals: "{PCR0.hexdigest()}"}}',
    ),
    # Somebody's own guests on SNP, with the measurement of the same paravisor.
    "snp": policy(
        "snp", f'{{claim: snp.measurement, equals: "{bytes(range(48)).hex()}"}}'
    ),
}


class PinnedNitro(NitroVerifier):
    """The Nitro verifier of a broker that was built with other roots."""

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        return super().verify(parsed, replace(trust, pinned_roots=AWS.pins))


class PinnedVtpm(VtpmVerifier):
    """The vTPM verifier of a broker that takes the fake maker for Google."""

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        pins = {GOOGLE_PIN: "Google EK/AK CA Root"}
        return super().verify(parsed, replace(trust, pinned_roots=pins))


def verifiers() -> Mapping[str, Verifier]:
    snp = PinnedSnp(VM.amd.pins())
    return {
        **VERIFIERS,
        "snp": snp,
        "vtpm": PinnedVtpm(),
        "nitro": PinnedNitro(),
        "azure": AzureVerifier(snp, VERIFIERS["tdx"]),
    }


@pytest.fixture
def clouds(tmp_path: Path, sqlite_place: Place) -> Iterator[World]:
    with closing(sqlite_place.connect()) as opened:
        world = World.create(tmp_path, database=opened, verifiers=verifiers())
        for name, source in POLICIES.items():
            world.activate_policy(source, name=name)
            world.create_key(f"acme/{name}/model", name.encode())
        yield world


def document(primary: bytes, **changes: Any) -> dict[str, object]:
    return item(AWS.document(user_data=primary, **changes))


def quoted(primary: bytes, **changes: Any) -> dict[str, object]:
    return VM.item(primary[:32], **changes)


@pytest.mark.parametrize(("kind", "make"), [("nitro", document), ("azure", quoted)])
def test_a_guest_of_a_cloud_gets_its_key(
    clouds: World, kind: str, make: Callable[[bytes], dict[str, object]]
) -> None:
    key = f"acme/{kind}/model"
    request = clouds.request_by(kind, make, [key])
    assert clouds.released(request) == {f"{key}@1": kind.encode()}
    (entry,) = releases(clouds)
    assert entry["kind"] == "release.granted"
    assert entry["primary"] == kind


def test_an_enclave_in_debug_mode_gets_nothing(clouds: World) -> None:
    debug = partial(document, pcrs={**PCRS, 0: bytes(48)})
    seen = see(clouds, clouds.request_by("nitro", debug, ["acme/nitro/model"]))
    assert seen.status == 403


def test_a_vm_of_azure_is_no_guest_on_bare_snp(clouds: World) -> None:
    """The paravisor's measurement is every customer's."""
    request = clouds.request_by("azure", quoted, ["acme/snp/model"])
    assert see(clouds, request).status == 403


def test_a_vm_without_a_current_list_of_amd_comes_again(clouds: World) -> None:
    make = partial(quoted, crl=...)
    seen = see(clouds, clouds.request_by("azure", make, ["acme/azure/model"]))
    assert (seen.status, seen.code) == (503, "evidence.unchecked")
    assert seen.checks == ["snp.revocation"]


@pytest.mark.parametrize(
    ("project", "status"), [("acme-models", 200), ("somebody-else", 403)]
)
def test_a_vm_of_google_is_known_by_its_project(
    clouds: World, project: str, status: int
) -> None:
    tpm = clouds.booted_tpm()
    leaf = GOOGLE.certify(
        tpm.key.public_key(), attestation=False, instance=instance_of(project)
    )
    chain = [certificate_b64(one) for one in (leaf, GOOGLE.intermediate, GOOGLE.root)]
    lists = [one.public_bytes(Encoding.DER) for one in GOOGLE.revocation_lists()]
    clouds.must("POST", "/admin/v1/collateral", {"items": [b64(der) for der in lists]})

    def make(primary: bytes) -> dict[str, object]:
        return {**tpm.quote_item(primary[:32]), "ak_certificates": chain}

    seen = see(clouds, clouds.request_by("vtpm", make, ["acme/google/model"]))
    assert seen.status == status


def test_health_misses_amds_list_for_vms_of_azure(clouds: World) -> None:
    gone = clouds.must("GET", "/admin/v1/objects/release-policy/acme/snp/1")
    clouds.sign(Action.DEACTIVATE, Kind.RELEASE_POLICY, "acme", "snp", gone)
    health = clouds.app.test_client().get("/health/ready").get_json()
    assert "Milan" in health["missing"][0]["detail"]


def rcar(world: World, **options: Any) -> RcarClient:
    crl, chain = VM.amd.crl(), (VM.amd.ask, VM.amd.ark)
    ders = [one.public_bytes(Encoding.DER) for one in (crl, *chain)]
    world.must("POST", "/admin/v1/collateral", {"items": [b64(one) for one in ders]})
    options = {"evidence": VM.evidence, **options}

    def send(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        client = world.app.test_client(use_cookies=False)
        found = client.open(path, method=method, data=body, headers=dict(headers))
        return Answer(found.status_code, dict(found.headers), found.get_data())

    return RcarClient(send, tee="az-snp-vtpm", **options)


def test_an_unchanged_guest_of_azure_gets_its_resource(clouds: World) -> None:
    client = rcar(clouds)
    assert client.fetch("acme/azure/model") == b"azure"
    claims = jwt.decode(str(client.token), options={"verify_signature": False})
    assert claims["submods"]["cpu0"]["ear.status"] == "affirming"


def test_a_digest_that_is_cut_is_not_rcars(clouds: World) -> None:
    def cut(digest: bytes) -> dict[str, Any]:
        return VM.evidence(digest[:32])

    answer = rcar(clouds, evidence=cut).handshake()
    assert answer.status == 401
    assert "binding.primary" in answer.json["detail"]


def test_init_data_stands_in_pcr_8(clouds: World) -> None:
    vm = FakeAzure()
    vm.tpm.key = VM.tpm.key
    vm.tpm.extend(8, INIT_DIGEST)
    given = {"format": "toml", "body": INIT_DATA}
    client = rcar(clouds, evidence=vm.evidence, init_data=given)
    assert client.handshake().status == 200
    liar = rcar(clouds, init_data=given)
    answer = liar.handshake()
    assert answer.status == 401
    assert "rcar.init_data" in answer.json["detail"]
