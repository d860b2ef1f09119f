"""The guest opens answers of the pinned broker to this very request, and no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.channel.answer import (
    Answer,
    Outcome,
    ReleasedKey,
    WithheldKey,
    seal_keys,
)
from kbs.channel.binding import (
    Mode,
    ReleaseRequest,
    RuntimeData,
    primary_binding,
    release_info,
)
from kbs.channel.challenge import ChallengeKey, Door, mint_challenge
from kbs.channel.hpke import seal
from kbs.channel.opening import (
    ChallengeOffer,
    OpenedAnswer,
    open_answer,
    open_challenge,
    parse_keys,
    sign_answer,
    sign_challenge,
)
from kbs.channel.recipient import Suite, generate_recipient_key, recipient_of
from kbs.channel.signing import CHALLENGE_CONTEXT, sign_document
from kbs.core.errors import AuthenticationError, MalformedError, VerificationError
from kbs.core.ids import KeyRef, parse_key_ref

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
BROKER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MALLORY = Ed25519PrivateKey.generate()
PRIVATE = generate_recipient_key(Suite.X25519)
DECISION = "0123456789abcdef" * 2
ASKED = ("acme/model/chat", "acme/prompt/front@7", "acme/model/chat@2")
GIVEN = ("acme/model/chat@3", "acme/prompt/front@7", "acme/model/chat@2")
DATA = RuntimeData(
    audience="kbs.example.org/log",
    nonce="AQAA",
    recipient=recipient_of(PRIVATE),
    request=ReleaseRequest(
        keys=tuple(parse_key_ref(text) for text in ASKED),
        mode=Mode.RELEASE,
        partial=False,
        suite=Suite.X25519,
    ),
)
P = primary_binding("snp", DATA, [])


def asking(**changes: Any) -> RuntimeData:
    return replace(DATA, request=replace(DATA.request, **changes))


def refs(texts: tuple[str, ...]) -> tuple[KeyRef, ...]:
    return tuple(parse_key_ref(text) for text in texts)


def granted(texts: tuple[str, ...] = GIVEN, **changes: Any) -> Answer:
    released = [ReleasedKey(ref, str(ref).encode()) for ref in refs(texts)]
    answer = Answer(
        audience=DATA.audience,
        nonce=DATA.nonce,
        decision=DECISION,
        time=NOW,
        outcome=Outcome.GRANTED,
        suite=Suite.X25519,
        keys=refs(texts),
        sealed=seal_keys(released, runtime_data=DATA, primary=P, decision=DECISION),
    )
    return replace(answer, **changes)


def withheld(*texts: str) -> tuple[WithheldKey, ...]:
    return tuple(WithheldKey(ref, ("policy.none",)) for ref in refs(texts))


def opened(
    answer: Answer, *, data: RuntimeData = DATA, signer: Ed25519PrivateKey = BROKER
) -> OpenedAnswer:
    return open_answer(
        answer.to_json(),
        sign_answer(signer, answer).to_json(),
        response_key=BROKER.public_key(),
        runtime_data=data,
        primary=P,
        private_key=PRIVATE,
    )


def test_a_grant_gives_the_keys_in_request_order() -> None:
    keys = opened(granted()).keys
    assert [str(key.ref) for key in keys] == list(GIVEN)
    assert [key.value for key in keys] == [text.encode() for text in GIVEN]


def denial(*texts: str) -> Answer:
    return granted(
        outcome=Outcome.DENIED, keys=(), sealed=None, denied=withheld(*texts)
    )


@pytest.mark.parametrize("mode", list(Mode))
def test_a_denial_answers_both_modes_and_gives_no_keys(mode: Mode) -> None:
    answer = denial("acme/prompt/front@7")
    assert opened(answer, data=asking(mode=mode)) == OpenedAnswer(answer, ())


def test_a_denial_of_what_was_not_asked_is_refused() -> None:
    with pytest.raises(VerificationError):
        opened(denial("acme/model/other"))


def test_a_part_is_given_where_a_part_was_asked_for() -> None:
    answer = granted((GIVEN[0], GIVEN[2]), denied=withheld("acme/prompt/front@7"))
    result = opened(answer, data=asking(partial=True))
    assert [str(key.ref) for key in result.keys] == [GIVEN[0], GIVEN[2]]


def test_a_dry_run_names_keys_without_giving_them() -> None:
    answer = granted(outcome=Outcome.CHECKED, sealed=None)
    assert opened(answer, data=asking(mode=Mode.CHECK)).keys == ()
    part = replace(answer, keys=refs(GIVEN[:1] + GIVEN[2:]), denied=withheld(ASKED[1]))
    assert opened(part, data=asking(mode=Mode.CHECK)).answer == part


def wrong_seal(**changes: Any) -> Answer:
    info = release_info(
        changes.get("primary", P),
        audience=DATA.audience,
        decision=changes.get("decision", DECISION),
        keys=refs(GIVEN),
    )
    plaintext = changes.get("plaintext", b'{"keys":[]}')
    return granted(sealed=seal(Suite.X25519, DATA.recipient, plaintext, info=info))


@pytest.mark.parametrize(
    "make",
    [
        lambda: (granted(audience="evil.example.org"), DATA),
        lambda: (granted(nonce="AQAB"), DATA),
        lambda: (granted(suite=Suite.P256), DATA),
        lambda: (granted(), asking(mode=Mode.CHECK)),
        lambda: (granted(outcome=Outcome.CHECKED, sealed=None), DATA),
        lambda: (granted(GIVEN[:2]), DATA),
        lambda: (granted((*GIVEN, "acme/model/more@1")), DATA),
        lambda: (granted((GIVEN[1], GIVEN[0], GIVEN[2])), DATA),
        lambda: (granted(("acme/model/evil@3", *GIVEN[1:])), DATA),
        lambda: (granted((GIVEN[0], "acme/prompt/front@6", GIVEN[2])), DATA),
        lambda: (granted(GIVEN[:2], denied=withheld("acme/model/chat@2")), DATA),
        lambda: (
            granted(GIVEN[:2], denied=withheld("acme/model/chat@9")),
            asking(partial=True),
        ),
        lambda: (
            granted(GIVEN[:2], denied=withheld(*["acme/model/chat@2"] * 2)),
            asking(partial=True),
        ),
        lambda: (granted(decision="f" * 32), DATA),
        lambda: (wrong_seal(), DATA),
        lambda: (wrong_seal(primary=bytes(48)), DATA),
        lambda: (wrong_seal(decision="f" * 32), DATA),
    ],
)
def test_an_answer_to_something_else_is_refused(
    make: Callable[[], tuple[Answer, RuntimeData]],
) -> None:
    answer, data = make()
    with pytest.raises(VerificationError):
        opened(answer, data=data)


def test_an_answer_by_another_key_is_refused_before_it_is_read() -> None:
    with pytest.raises(AuthenticationError):
        opened(granted(), signer=MALLORY)
    document: Any = {"anything": True}
    with pytest.raises(AuthenticationError):
        open_answer(
            document,
            sign_answer(BROKER, granted()).to_json(),
            response_key=BROKER.public_key(),
            runtime_data=DATA,
            primary=P,
            private_key=PRIVATE,
        )


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[{"id":"acme/model/chat","version":1}]}',
        b'{"keys":[{"id":"acme/model/chat","value":"secret=","version":1}]}',
        b'{"keys":[{"id":"acme/model/chat","value":"AA","version":0}]}',
    ],
)
def test_a_malformed_release_is_refused_without_quoting_it(plaintext: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_keys(plaintext)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


KEY = ChallengeKey(1, bytes(32))
MINTED = mint_challenge(KEY, door=Door.V1, origin=DATA.audience, now=NOW)
OFFER = ChallengeOffer(
    audience=DATA.audience,
    challenge=str(MINTED),
    expires=MINTED.expires,
    time=NOW,
    log_key="broker.example+00c0ffee+AQID",
)


def test_a_signed_challenge_comes_back() -> None:
    signature = sign_challenge(BROKER, OFFER).to_json()
    got = open_challenge(OFFER.to_json(), signature, response_key=BROKER.public_key())
    assert got == OFFER


def test_a_challenge_by_another_key_is_refused() -> None:
    with pytest.raises(AuthenticationError):
        open_challenge(
            OFFER.to_json(),
            sign_challenge(MALLORY, OFFER).to_json(),
            response_key=BROKER.public_key(),
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "kbs.answer/1"},
        {"challenge": 1},
        {"expires": "2026-11-22T09:00:00Z"},
        {"expires": "soon"},
        {"audience": "a b"},
        {"log_key": None},
        {"log_key": ""},
        {"log_key": "a b"},
        {"log_key": "a\n"},
        {"log_key": "\u00e9"},
        {"log_key": "k" * 513},
        {"more": 1},
    ],
)
def test_a_signed_challenge_still_has_one_form(changes: dict[str, Any]) -> None:
    document = {**OFFER.to_json(), **changes}
    signature = sign_document(BROKER, CHALLENGE_CONTEXT, document).to_json()
    with pytest.raises(MalformedError):
        open_challenge(document, signature, response_key=BROKER.public_key())


@pytest.mark.parametrize("missing", sorted(OFFER.to_json()))
def test_every_member_of_a_challenge_is_required(missing: str) -> None:
    document = OFFER.to_json()
    del document[missing]
    signature = sign_document(BROKER, CHALLENGE_CONTEXT, document).to_json()
    with pytest.raises(MalformedError):
        open_challenge(document, signature, response_key=BROKER.public_key())


def test_a_log_key_that_somebody_changed_is_refused() -> None:
    document = {**OFFER.to_json(), "log_key": "broker.example+00c0ffef+AQID"}
    with pytest.raises(AuthenticationError):
        open_challenge(
            document,
            sign_challenge(BROKER, OFFER).to_json(),
            response_key=BROKER.public_key(),
        )


def test_a_broken_challenge_is_named_so() -> None:
    document = {**OFFER.to_json(), "challenge": "AQAA"}
    signature = sign_document(BROKER, CHALLENGE_CONTEXT, document).to_json()
    with pytest.raises(AuthenticationError) as caught:
        open_challenge(document, signature, response_key=BROKER.public_key())
    assert caught.value.code == "challenge.malformed"
    assert OFFER.expires - OFFER.time == timedelta(seconds=300)
