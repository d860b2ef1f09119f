"""What the bodies of a log must tell together: keys, statements, and grants.

Fed with the bodies in log order, as `kbs.audit.verification` reads them:

* the first entry says which instance this is and with which keys it began; each later
  key is announced by the key before it;
* signed statements form one gapless chain from the genesis authority (the signatures
  themselves are judged by governance, not here);
* no key was granted under a policy digest that was not in force at that place of the
  log, nor under another state of governance than the one before it (`decisions.md`,
  section 4: log order is truth).

Where bodies are withheld from the reader, what depends on them is not judged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kbs.audit.announcement import verify_announcement
from kbs.audit.entry import Body
from kbs.audit.events import KeyAnnouncement
from kbs.audit.kinds import Kind, Outcome, Purpose
from kbs.audit.logkey import LogKey, log_key_from_spki
from kbs.core.encode import canonical_json, parse_b64u
from kbs.core.errors import KbsError

_MAX_KEY = 2048
_POLICY_KIND = "release-policy"
_IN_FORCE = "activate"
_JUDGED = frozenset({Kind.STATEMENT, Kind.RELEASE_GRANTED})


@dataclass(slots=True)
class History:
    """The state that the entries so far lead to; `problems_of` judges the next one.

    An empty `origin` is not known, and then not compared.
    """

    origin: str
    instance: str | None = None
    log_keys: list[LogKey] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    seq: int = 0
    statement_hash: str | None = None
    withheld_statements: int = 0
    active: dict[str, str] = field(default_factory=dict)
    revoked: dict[tuple[str, str], int] = field(default_factory=dict)

    def problems_of(self, index: int, body: Body) -> Iterator[str]:
        """Yield what is wrong about this entry in its place, and take it in."""
        if (index == 0) != (body.kind is Kind.INSTANCE_INIT):
            yield f"{body.kind.value}: only entry 0 is {Kind.INSTANCE_INIT.value}"
        elif body.kind is Kind.INSTANCE_INIT:
            yield from self._begin(body.members)
        elif body.kind in (Kind.LOG_KEY, Kind.BROKER_KEY):
            yield from self._announce(body.members)
        elif body.kind is Kind.STATEMENT:
            yield from self._state(index, body.members)
        elif body.kind is Kind.RELEASE_GRANTED:
            yield from self._grant(body.members)

    def withheld(self, kind: Kind) -> bool:
        """Take in that there is an entry of this kind, without its body.

        Returns whether it would have been judged.
        """
        if kind is Kind.STATEMENT:
            self.withheld_statements += 1
            self.seq += 1
            self.statement_hash = None
        return kind in _JUDGED

    def _begin(self, members: Mapping[str, object]) -> Iterator[str]:
        self.instance = str(members["instance"])
        self.statement_hash = str(members["authority"])
        keys = members["public_keys"]
        self.keys = {**keys} if isinstance(keys, dict) else {}
        if self.origin not in ("", members["log"]):
            yield f"log: got {members['log']}, expected {self.origin}"
        yield from self._add_log_key(self.keys.get(Purpose.LOG, ""))

    def _add_log_key(self, text: str) -> Iterator[str]:
        try:
            spki = parse_b64u(text, "log key", limit=_MAX_KEY)
            self.log_keys.append(log_key_from_spki(self.origin, spki))
        except KbsError as exc:
            yield str(exc)

    def _announce(self, members: Mapping[str, object]) -> Iterator[str]:
        announced = KeyAnnouncement(
            log=str(members["log"]),
            purpose=Purpose(str(members["purpose"])),
            public_key=str(members["public_key"]),
            previous=str(members["previous"]),
            signature=str(members["signature"]),
        )
        purpose = announced.purpose.value
        if self.origin not in ("", announced.log):
            yield f"announced for the log {announced.log}, expected {self.origin}"
        if announced.previous != self.keys.get(purpose):
            yield f"{purpose} key: announced by another key than the one before it"
        try:
            verify_announcement(announced)
        except KbsError as exc:
            yield str(exc)
            return
        self.keys[purpose] = announced.public_key
        if announced.purpose is Purpose.LOG:
            yield from self._add_log_key(announced.public_key)

    def _state(self, index: int, members: Mapping[str, object]) -> Iterator[str]:
        (statement,) = _objects([members["statement"]])
        seq, prev = statement.get("seq"), statement.get("prev")
        self.seq += 1
        if seq != self.seq:
            yield f"statement: got sequence number {seq}, expected {self.seq}"
            self.seq = seq if isinstance(seq, int) else self.seq
        if self.statement_hash not in (None, prev):
            yield (
                f"statement {seq}: got prev {prev}, expected {self.statement_hash}, "
                "the hash of the statement before it"
            )
        if self.instance not in (None, statement.get("instance")):
            yield f"statement {seq}: it is for instance {statement.get('instance')}"
        self.statement_hash = hashlib.sha256(canonical_json(statement)).hexdigest()
        if statement.get("kind") == _POLICY_KIND:
            self._set_policy(index, statement)

    def _set_policy(self, index: int, statement: Mapping[str, object]) -> None:
        name = f"{statement.get('tenant')}/{statement.get('name')}"
        before = self.active.pop(name, None)
        if before is not None:
            self.revoked[name, before] = index
        if statement.get("action") == _IN_FORCE:
            self.active[name] = str(statement.get("digest"))

    def _grant(self, members: Mapping[str, object]) -> Iterator[str]:
        if members["governance"] != self.seq:
            yield (
                f"granted under statement {members['governance']}, "
                f"but the log stood at statement {self.seq}"
            )
        granted = [
            key
            for key in _objects(members["keys"])
            if key["decision"] == Outcome.GRANTED
        ]
        if not granted:
            yield "granted, but none of its keys is"
        for key in granted:
            yield from self._judge_key(key)

    def _judge_key(self, key: Mapping[str, object]) -> Iterator[str]:
        key_id = str(key["id"])
        policies = _objects(key["policies"])
        if not policies:
            yield f"key {key_id}: granted without a policy"
        for policy in policies:
            name, digest = str(policy["name"]), str(policy["digest"])
            if "/" not in name:
                name = f"{key_id.partition('/')[0]}/{name}"
            if self.active.get(name) == digest:
                continue
            revoked = self.revoked.get((name, digest))
            if revoked is not None:
                yield (
                    f"key {key_id}: granted under digest {digest} of policy {name}, "
                    f"which entry {revoked} had revoked"
                )
            elif not self.withheld_statements:
                yield (
                    f"key {key_id}: granted under digest {digest} of policy {name}, "
                    "which no entry before had put in force"
                )


def _objects(value: object) -> list[Mapping[str, object]]:
    elements = value if isinstance(value, list) else []
    return [element for element in elements if isinstance(element, Mapping)]
