"""The guest's side: take a challenge or an answer only from the broker it pinned.

A host between guest and broker may change, drop or replay anything. What it cannot do
is make the guest use a key that the broker did not release to this very request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from kbs.channel.answer import (
    MAX_SEALED_BYTES,
    Answer,
    Outcome,
    ReleasedKey,
    parse_answer,
)
from kbs.channel.binding import (
    MAX_KEYS,
    Mode,
    ReleaseRequest,
    RuntimeData,
    parse_audience,
    release_info,
)
from kbs.channel.challenge import parse_challenge
from kbs.channel.hpke import unseal
from kbs.channel.recipient import RecipientPrivateKey
from kbs.channel.signing import (
    ANSWER_CONTEXT,
    CHALLENGE_CONTEXT,
    ResponseSignature,
    parse_signature,
    sign_canonical,
    sign_document,
    verify_document,
)
from kbs.core.clock import format_time, parse_time
from kbs.core.encode import (
    parse_b64u,
    parse_json,
    require_integer,
    require_list,
    require_members,
    require_text,
)
from kbs.core.errors import MalformedError, VerificationError
from kbs.core.ids import KeyRef, parse_key_id

CHALLENGE_FORMAT = "kbs.challenge-answer/1"
_MAX_TEXT = 128

# A vkey (C2SP signed-note) has an origin of at most 255 characters, and 54 more; what
# it says is for the reader of the log to parse.
_LOG_KEY = re.compile(r"[!-~]{1,512}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeOffer:
    """What the broker answers to a guest that asks for a challenge.

    `log_key` is the public key of its log (a vkey): who pinned the response key need
    not pin another one to verify receipts.
    """

    audience: str
    challenge: str
    expires: datetime
    time: datetime
    log_key: str

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "format": CHALLENGE_FORMAT,
            "audience": self.audience,
            "challenge": self.challenge,
            "expires": format_time(self.expires),
            "time": format_time(self.time),
            "log_key": self.log_key,
        }


@dataclass(frozen=True, slots=True)
class OpenedAnswer:
    """A verified answer and the keys that it released, in request order."""

    answer: Answer
    keys: tuple[ReleasedKey, ...]


def sign_challenge(key: Ed25519PrivateKey, offer: ChallengeOffer) -> ResponseSignature:
    """Return the broker's signature over a challenge."""
    return sign_document(key, CHALLENGE_CONTEXT, offer.to_json())


def sign_answer(key: Ed25519PrivateKey, answer: Answer) -> ResponseSignature:
    """Return the broker's signature over an answer."""
    return sign_canonical(key, ANSWER_CONTEXT, answer.canonical)


def open_challenge(
    document: object, signature: object, *, response_key: Ed25519PublicKey
) -> ChallengeOffer:
    """Return the challenge if the pinned broker signed it.

    Raises:
        MalformedError: it lacks its shape.
        AuthenticationError: another key signed it, or the signature does not verify.
    """
    verify_document(
        response_key, CHALLENGE_CONTEXT, document, parse_signature(signature)
    )
    members = require_members(
        document,
        "challenge answer",
        required={"format", "audience", "challenge", "expires", "time", "log_key"},
    )
    if members["format"] != CHALLENGE_FORMAT:
        raise MalformedError("challenge answer format", expected=CHALLENGE_FORMAT)
    text = require_text(members["challenge"], "challenge", limit=_MAX_TEXT)
    expires = parse_time(members["expires"], "challenge expires")
    if parse_challenge(text).expires != expires:
        raise MalformedError(
            "challenge expires", expected="the time inside the challenge"
        )
    return ChallengeOffer(
        audience=parse_audience(members["audience"]),
        challenge=text,
        expires=expires,
        time=parse_time(members["time"], "challenge time"),
        log_key=_parse_log_key(members["log_key"]),
    )


def open_answer(
    document: object,
    signature: object,
    *,
    response_key: Ed25519PublicKey,
    runtime_data: RuntimeData,
    primary: bytes,
    private_key: RecipientPrivateKey,
) -> OpenedAnswer:
    """Return the answer to this request, with the keys where it granted some.

    1. The pinned key signed it.
    2. It answers this request: audience, nonce, suite, mode.
    3. It speaks of exactly the keys asked for, in their order.
    4. The seal opens for this decision and holds exactly those keys.

    Raises:
        MalformedError: it lacks its shape.
        AuthenticationError: the pinned key did not sign it.
        VerificationError: it answers something else, or does not open.
    """
    verify_document(response_key, ANSWER_CONTEXT, document, parse_signature(signature))
    answer = parse_answer(document)
    _check_request(answer, runtime_data)
    _check_keys(answer, runtime_data.request)
    if answer.sealed is None:
        return OpenedAnswer(answer, ())
    info = release_info(
        primary,
        audience=answer.audience,
        decision=answer.decision,
        keys=answer.keys,
    )
    plaintext = unseal(answer.suite, private_key, answer.sealed, info=info)
    released = parse_keys(plaintext)
    _require("keys", [one.ref for one in released], list(answer.keys))
    return OpenedAnswer(answer, released)


def parse_keys(plaintext: bytes) -> tuple[ReleasedKey, ...]:
    """Read what was sealed.

    Raises:
        MalformedError: it lacks its shape.
    """
    try:
        document = parse_json(plaintext, "released keys", limit=MAX_SEALED_BYTES)
        members = require_members(document, "released keys", required={"keys"})
        listed = require_list(members["keys"], "released keys", limit=MAX_KEYS)
        return tuple(_parse_key(element) for element in listed)
    except MalformedError:
        # `from None`, and in no words of the parser: both could quote a secret.
        raise MalformedError(
            "released keys", got="another shape", expected="id, version and value each"
        ) from None


def _parse_log_key(value: object) -> str:
    if not isinstance(value, str) or not _LOG_KEY.fullmatch(value):
        raise MalformedError(
            "challenge log_key",
            got=ascii(value)[:80],
            expected="1 to 512 printable ASCII characters without white space",
        )
    return value


def _parse_key(value: object) -> ReleasedKey:
    members = require_members(
        value, "released key", required={"id", "version", "value"}
    )
    version = require_integer(
        members["version"], "released key version", least=1, most=999_999_999
    )
    secret = parse_b64u(members["value"], "released key", limit=MAX_SEALED_BYTES)
    return ReleasedKey(KeyRef(parse_key_id(members["id"]), version), secret)


def _check_request(answer: Answer, runtime_data: RuntimeData) -> None:
    request = runtime_data.request
    _require("audience", answer.audience, runtime_data.audience)
    _require("nonce", answer.nonce, runtime_data.nonce)
    _require("suite", answer.suite.value, request.suite.value)
    # A denial answers both modes; the other outcomes belong to one mode each.
    if answer.outcome is not Outcome.DENIED:
        is_check = answer.outcome is Outcome.CHECKED
        mode = Mode.CHECK if is_check else Mode.RELEASE
        _require("mode", mode.value, request.mode.value)


def _check_keys(answer: Answer, request: ReleaseRequest) -> None:
    withheld = [one.ref for one in answer.denied]
    asked = list(request.keys)
    for ref in withheld:
        if ref not in asked:
            raise _refused("denied", str(ref), "keys that were asked for, once each")
        asked.remove(ref)
    if answer.outcome is Outcome.DENIED:
        return
    if withheld and not request.partial and answer.outcome is Outcome.GRANTED:
        raise _refused("keys", "a part of them", "all: the request was not partial")
    is_exact = len(asked) == len(answer.keys) and all(
        _answers(got, ref) for got, ref in zip(answer.keys, asked, strict=True)
    )
    if not is_exact:
        raise _refused("keys", _listed(answer.keys), _listed(asked))


def _answers(got: KeyRef, asked: KeyRef) -> bool:
    if asked.version is None:
        return got.key_id == asked.key_id
    return got == asked


def _require(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise _refused(what, str(got), str(expected))


def _refused(what: str, got: str, expected: str) -> VerificationError:
    return VerificationError(
        f"answer {what}", got=got, expected=expected, code="answer.request"
    )


def _listed(keys: Sequence[KeyRef]) -> str:
    return ", ".join(str(key) for key in keys)
