"""The OpenAPI document: whole, true to the routes, and true to the answers."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.channel.binding import Mode
from kbs.core.encode import b64, parse_b64
from kbs.governance.statement import Action, Kind
from tests.fakes.schemas import KEYWORDS, SILENT, problems_of, resolve
from tests.fakes.tpm import FakeTpm
from tests.fakes.tpm_ca import FakeTpmCA, certificate_b64
from tests.fakes.world import World

Document = dict[str, object]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with closing(World.create(tmp_path_factory.mktemp("openapi"))) as made:
        yield made


DOCUMENTS = {
    "v1": "/v1/openapi.json",
    "rcar": "/v1/openapi/rcar.json",
    "admin": "/v1/openapi/admin.json",
}
DOORS = {"v1": ("/v1/", "/health"), "rcar": ("/kbs/v0/",), "admin": ("/admin/v1/",)}


@pytest.fixture(scope="module")
def documents(served: World) -> dict[str, Document]:
    found = {}
    for name, path in DOCUMENTS.items():
        answer = served.app.test_client().get(path)
        assert answer.status_code == 200
        assert isinstance(answer.get_json(), dict)
        found[name] = answer.get_json()
    return found


@pytest.fixture(scope="module")
def document(documents: dict[str, Document]) -> Document:
    return documents["v1"]


@pytest.fixture(params=DOCUMENTS)
def each(request: pytest.FixtureRequest, documents: dict[str, Document]) -> Document:
    return documents[request.param]


def _operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    paths = document["paths"]
    assert isinstance(paths, dict)
    for path, methods in paths.items():
        for method, operation in methods.items():
            yield path, method, operation


def _nodes(value: object) -> Iterator[dict[str, object]]:
    if isinstance(value, dict):
        yield value
    for element in value.values() if isinstance(value, dict) else _list(value):
        yield from _nodes(element)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def test_a_document_is_whole(each: Document) -> None:
    document = each
    assert document["openapi"] == "3.1.0"
    info = document["info"]
    assert isinstance(info, dict)
    assert info["title"]
    assert info["version"]
    for node in _nodes(document):
        if "$ref" in node:
            resolve(node["$ref"], document)
    names = [str(operation["operationId"]) for _, _, operation in _operations(document)]
    assert len(set(names)) == len(names)
    for path, _, operation in _operations(document):
        responses = operation["responses"]
        assert isinstance(responses, dict)
        assert any(status.startswith("2") for status in responses)
        assert all(re.fullmatch(r"[1-5]\d\d", status) for status in responses)
        named = set(re.findall(r"\{(\w+)\}", path))
        parameters = operation.get("parameters", [])
        assert isinstance(parameters, list)
        assert {one["name"] for one in parameters if one["in"] == "path"} == named
        assert path.startswith(tuple(itertools.chain(*DOORS.values())))


def test_every_schema_is_one_that_we_check(each: Document) -> None:
    document = each
    components = document["components"]
    assert isinstance(components, dict)
    used = {
        str(node["$ref"]).rpartition("/")[2]
        for node in _nodes(document)
        if "$ref" in node
    }
    assert set(components["schemas"]) <= used
    for schema in components["schemas"].values():
        for node in _nodes(schema):
            if "type" in node and isinstance(node["type"], str):
                assert set(node) <= set(KEYWORDS) | SILENT, node


def _shape(path: str) -> str:
    # Parameters are called otherwise in routes, where one of the names is Python's.
    return re.sub(r"\{\w+\}", "{}", path)


def _routed(served: World, prefixes: tuple[str, ...]) -> set[tuple[str, str]]:
    found = set()
    for rule in served.app.url_map.iter_rules():
        if rule.rule.startswith(prefixes):
            choice = re.search(r"<any\(([\w,]+)\):\w+>", rule.rule)
            for word in choice[1].split(",") if choice else [""]:
                path = re.sub(r"<any\([\w,]+\):\w+>", word, rule.rule)
                path = re.sub(r"<(?:\w+:)?\w+>", "{}", path)
                methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
                found |= {(path, one) for one in methods}
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_routes_and_documents_agree(
    served: World, documents: dict[str, Document], name: str
) -> None:
    operations = _operations(documents[name])
    told = {(_shape(path), method.upper()) for path, method, _ in operations}
    routed = _routed(served, DOORS[name])
    if name == "rcar":
        # What is behind its other paths is a refusal, whatever the method.
        assert told <= routed
        return
    # Documents do not describe themselves.
    assert told | {(path, "GET") for path in DOCUMENTS.values()} == routed | {
        (path, "GET") for path in DOCUMENTS.values()
    }


def _check(document: Document, name: str, value: object) -> None:
    schema = {"$ref": f"#/components/schemas/{name}"}
    assert list(problems_of(value, schema, document)) == []


def test_a_body_is_required_where_none_is_refused(
    served: World, document: Document
) -> None:
    for path, method, operation in _operations(document):
        body = operation.get("requestBody")
        if isinstance(body, dict):
            answer = served.app.test_client().open(
                path, method=method.upper(), content_type="application/json"
            )
            assert (answer.status_code == 400) is body["required"], path


def test_real_requests_and_answers_fit(served: World, document: Document) -> None:
    world = served
    tpm = world.standard()
    client = world.app.test_client()
    _check(
        document, "ChallengeAnswer", client.post("/v1/challenge", json={}).get_json()
    )
    _check(document, "Broker", client.get("/v1/broker").get_json())
    for request in (world.request(tpm), world.request(tpm, mode=Mode.CHECK)):
        _check(document, "EvidenceBundle", json.loads(request.body))
        answer = world.send(request)
        assert answer.status_code == 200
        _check(document, "ReleaseAnswer", answer.get_json())
    partial = world.request(tpm, ["acme/model/chat", "acme/prompt/none"], partial=True)
    _check(document, "ReleaseAnswer", world.send(partial).get_json())


def test_real_refusals_fit(world: World, document: Document) -> None:
    tpm = world.standard()
    request = world.request(tpm)
    assert world.send(request).status_code == 200
    stale = world.challenge()
    world.clock.advance(3600)
    client = world.app.test_client()
    refusals = [
        (400, client.post("/v1/release", data=b"{", content_type="application/json")),
        (401, world.send(world.request(tpm, challenge=stale))),
        (403, world.send(world.request(FakeTpm()))),
        (403, world.send(world.request(tpm, ["other/model/x"]))),
        (404, world.send(world.request(tpm, ["acme/model/none"]))),
        (404, client.get("/v1/nothing")),
        (405, client.get("/v1/release")),
    ]
    for status, answer in refusals:
        assert answer.status_code == status, answer.get_data(as_text=True)
        assert answer.mimetype == "application/problem+json"
        _check(document, "Problem", answer.get_json())


def test_an_enrolment_fits(world: World, document: Document) -> None:
    maker, tpm = FakeTpmCA(), FakeTpm()
    ca = {"purpose": "ek", "certificate": certificate_b64(maker.root)}
    world.govern(Action.ADD, Kind.CA, "acme", "maker", json.dumps(ca).encode())
    certificate = maker.certify(tpm.endorsement_key.public_key(), signs=False)
    asked = {
        "group": "acme/hosts",
        "ak": b64(tpm.ak_public),
        "ek": b64(tpm.ek_public),
        "ek_certificate": b64(certificate.public_bytes(Encoding.DER)),
        "ek_chain": [certificate_b64(maker.intermediate)],
    }
    _check(document, "EnrolmentRequest", asked)
    client = world.app.test_client()
    begun = client.post("/v1/enrolments", json=asked).get_json()
    _check(document, "EnrolmentCredential", begun)
    secret = tpm.activate_credential(
        parse_b64(begun["credential_blob"], "blob", limit=1024),
        parse_b64(begun["encrypted_secret"], "secret", limit=1024),
    )
    body = {"enrolment": begun["enrolment"], "secret": b64(secret)}
    _check(document, "ActivationRequest", body)
    answer = client.post("/v1/enrolments/activate", json=body)
    assert answer.status_code == 201
    _check(document, "PendingEnrolment", answer.get_json())


def test_the_checker_checks(document: Document) -> None:
    for name, value in (
        ("ActivationRequest", {"enrolment": "a"}),
        ("ActivationRequest", {"enrolment": "a", "secret": "b", "more": 1}),
        ("ActivationRequest", {"enrolment": 1, "secret": "b"}),
        ("Recipient", {"kty": "OKP", "crv": "X448", "x": ""}),
        ("PendingEnrolment", {"id": "x", "status": "done", "group": "", "ak_name": ""}),
    ):
        schema = {"$ref": f"#/components/schemas/{name}"}
        assert list(problems_of(value, schema, document)) != []
