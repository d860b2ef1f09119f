"""What the v1 door answered, as the guest and as an auditor may read it.

`Seen.of` checks what holds for every answer, whatever it says: media type, status and
code agree, the signature is the broker's, and the receipt verifies offline.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from werkzeug.test import TestResponse

from kbs.audit.receipt import VerifiedReceipt, read_receipt, verify_receipt
from kbs.channel.signing import ANSWER_CONTEXT, parse_signature, verify_document
from tests.fakes.world import Request, World

Document = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """One answer of the v1 door."""

    status: int
    document: Document
    receipt: VerifiedReceipt | None

    @classmethod
    def of(cls, world: World, response: TestResponse) -> Seen:
        """Check and read an answer."""
        document = response.get_json()
        refused = response.status_code >= 400
        media_type = "application/problem+json" if refused else "application/json"
        assert response.content_type.split(";")[0] == media_type
        assert response.headers["Cache-Control"] == "no-store"
        if refused:
            assert document["status"] == response.status_code
            assert document["type"] == f"urn:kbs:problem:{document['code']}"
        identity = world.broker.identity
        if "answer" in document:
            signature = {"keyid": document["keyid"], "sig": document["signature"]}
            verify_document(
                identity.response_key.public_key(),
                ANSWER_CONTEXT,
                document["answer"],
                parse_signature(signature),
            )
        receipt = None
        if "receipt" in document:
            receipt = verify_receipt(
                read_receipt(document["receipt"]),
                keys=[identity.log_key],
                origin=identity.origin,
            )
        return cls(response.status_code, document, receipt)

    @property
    def code(self) -> str:
        """The code of a problem document."""
        return str(self.document["code"])

    @property
    def checks(self) -> list[str]:
        """Ids of the checks that failed or stayed open."""
        for check in self.document.get("checks", []):
            assert set(check) == {"id", "item", "status"}
        return [check["id"] for check in self.document.get("checks", [])]

    @property
    def denied(self) -> dict[str, list[str]]:
        """Each key that did not leave, with the ids of its reasons."""
        answer = self.document["answer"]
        return {one["key"]: one["reasons"] for one in answer["denied"]}

    def entry(self, world: World) -> Document:
        """The body of the entry that the receipt is for."""
        assert self.receipt is not None
        found = [body for body in world.entries() if body["id"] == self.receipt.leaf.id]
        assert len(found) == 1
        assert found[0]["decision"] == self.document["answer"]["decision"]
        return found[0]


def see(world: World, request: Request | bytes) -> Seen:
    """Send a request and read the answer."""
    return Seen.of(world, world.send(request))


def releases(world: World) -> list[Document]:
    """Every entry about a release, in the order of the log."""
    return [body for body in world.entries() if str(body["kind"]).startswith("release")]


def refusals(world: World) -> list[Document]:
    """Every aggregate of refusals, with what was counted until now."""
    return list(world.entries("refusals"))


def is_spent(world: World, request: Request) -> bool:
    """Whether another request on the same challenge is turned away as a replay."""
    other = json.loads(request.body)
    other["items"] = [*other["items"], {"kind": "nothing"}]
    answer = see(world, json.dumps(other).encode())
    assert answer.status in (401, 403)
    return answer.code == "challenge.replayed"
