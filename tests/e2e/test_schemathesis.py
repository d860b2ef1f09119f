"""schemathesis over the three OpenAPI documents, against a `kbs serve` that listens.

Every operation, with data that the document allows and data that it does not: the
status is one that the document has, of the content type and the shape that it says.
`KBS_SCHEMA_EXAMPLES` makes it longer (`make fuzz`); examples are the same in each run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from requests.auth import AuthBase
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from kbs.api.openapi import openapi
from kbs.api.openapi_admin import admin_document
from kbs.api.openapi_rcar import rcar_document
from kbs.channel.token import SignedRequest, mint_token
from tests.fakes.served import Folders, Served, made, serving

EXAMPLES = int(os.environ.get("KBS_SCHEMA_EXAMPLES", "4"))
CHECKS = (
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
SECONDS = 20


def _operations(document: dict[str, object]) -> dict[str, Any]:
    schema = schemathesis.openapi.from_dict(document)
    # Tokens are made below, one for each request.
    schema.config.generation.update(with_security_parameters=False)
    found: dict[str, Any] = {}
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        found[operation.label] = operation
    return found


OPERATIONS = {
    name: operation
    for document in (openapi(), rcar_document(), admin_document())
    for name, operation in _operations(document).items()
}


class Signed(AuthBase):
    """An administrator's token for each request as it is sent."""

    def __init__(self, key: Ed25519PrivateKey, instance: str) -> None:
        self.key = key
        self.instance = instance

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        asked = SignedRequest(
            str(request.method),
            request.path_url,
            body.encode() if isinstance(body, str) else body,
        )
        now = datetime.now(UTC)
        token = mint_token(self.key, asked, instance=self.instance, now=now)
        request.headers["Authorization"] = f"Bearer {token}"
        return request


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Signed]]:
    folders = Folders(tmp_path_factory.mktemp("schemathesis"))
    instance = str(made(folders)["instance"])
    key = load_pem_private_key((folders.profile / "admin.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    with serving(folders, "--dev", "--rate-limit", "0") as broker:
        yield broker, Signed(key, instance)


@pytest.fixture(scope="module")
def session(served: tuple[Served, Signed]) -> Iterator[requests.Session]:
    broker, signed = served
    with requests.Session() as found:
        found.trust_env = False
        found.verify = str(Path(broker.stderr).parent / "data" / "tls.crt")
        made_key = found.post(
            f"{broker.url}/admin/v1/keys",
            data=b'{"id":"acme/model/chat","kind":"hpke"}',
            headers={"Content-Type": "application/json"},
            auth=signed,
            timeout=SECONDS,
        )
        assert made_key.status_code == 201, made_key.text
        yield found


KNOWN: Mapping[str, str] = {
    "repository": "acme",
    "type": "model",
    "tag": "chat",
    "tenant": "%2A",
    "name": "authority",
    "version": "1",
    "path": "0/000",
}
"""What there is: an answer other than "no such thing" needs it."""


def _name_what_there_is(case: Case[Any]) -> None:
    known = {**KNOWN, "kind": "authority" if "/objects/" in case.path else "model"}
    case.path_parameters = {
        name: known.get(name, value) for name, value in case.path_parameters.items()
    }


def _check(
    case: Case[Any],
    broker: Served,
    session: requests.Session,
    auth: Signed | None,
    checks: tuple[Any, ...] = CHECKS,
) -> None:
    # No redirect is followed: none is documented.
    response = case.call(
        base_url=broker.url,
        session=session,
        auth=auth,
        timeout=SECONDS,
        verify=session.verify,
        allow_redirects=False,
    )
    case.validate_response(response, checks=[*checks])
    if response.status_code == 503:
        # Documented, but not as the name of a bug.
        assert response.json().get("code") != "internal", broker.errors()


def _can_be_wrong(operation: Any) -> bool:
    # A tile's path may be any text.
    is_tile = operation.label.startswith("GET /v1/log/tile/")
    return bool(operation.body or operation.path_parameters or operation.query) and (
        not is_tile
    )


@pytest.mark.parametrize("label", OPERATIONS, ids=[*OPERATIONS])
@pytest.mark.parametrize("mode", [*GenerationMode], ids=lambda mode: mode.value)
def test_every_answer_is_a_documented_one(
    served: tuple[Served, Signed],
    session: requests.Session,
    label: str,
    mode: GenerationMode,
) -> None:
    broker, signed = served
    operation = OPERATIONS[label]
    is_negative = mode is GenerationMode.NEGATIVE
    if is_negative and not _can_be_wrong(operation):
        pytest.skip("nothing can be said wrongly there")

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode), st.booleans(), st.booleans())
    def answers(case: Case[Any], is_known: bool, is_signed: bool) -> None:  # noqa: FBT001
        if is_known:
            _name_what_there_is(case)
        rejected = (negative_data_rejection,) if is_negative and not is_known else ()
        auth = signed if is_signed else None
        _check(case, broker, session, auth, (*CHECKS, *rejected))

    answers()


def test_an_answer_that_is_not_documented_is_found(
    served: tuple[Served, Signed], session: requests.Session
) -> None:
    """The checks of a library are no better than how they are called."""
    told = json.loads(json.dumps(rcar_document()))
    del told["paths"]["/kbs/v0/auth"]["post"]["responses"]["401"]
    found = _operations(told)["POST /kbs/v0/auth"]
    case = found.Case(body={"version": "9", "tee": "snp", "extra-params": {}})
    with pytest.raises(FailureGroup):
        _check(case, served[0], session, None)
