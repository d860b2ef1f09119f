"""Any bytes into a parser: a value that is written back the same, or a KbsError."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.model import EnrolledKey, Trust
from kbs.evidence.vtpm.abi import (
    parse_attest,
    parse_signature,
    serialize_attest,
    serialize_signature,
)
from kbs.evidence.vtpm.eventlog import parse_event_log, replay
from kbs.evidence.vtpm.item import load_ak
from kbs.evidence.vtpm.pcrs import parse_pcr_file, parse_pcrs, pcrs_to_json
from kbs.evidence.vtpm.public import parse_public, serialize_public
from kbs.evidence.vtpm.verify import VtpmVerifier
from tests.fakes.eventlog import typical_log
from tests.fakes.tpm import FakeTpm
from tests.fakes.tpm_ca import NOW

TPM = FakeTpm()
MESSAGE, SIGNATURE = TPM.quote(bytes(32))
LOG = typical_log(("sha256", "sha384")).to_bytes()
SAMPLES = {
    "attest": MESSAGE,
    "signature": SIGNATURE,
    "public": TPM.ak_public,
    "storage": TPM.ek_public,
    "log": LOG,
}
WRITTEN_BACK: dict[str, Callable[[bytes], bytes]] = {
    "attest": lambda data: serialize_attest(parse_attest(data)),
    "signature": lambda data: serialize_signature(parse_signature(data)),
    "public": lambda data: serialize_public(parse_public(data)),
    "storage": lambda data: serialize_public(parse_public(data)),
}


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Return a sample with a slice cut out, put in, or changed."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 8)))
    return data[:start] + draw(st.binary(max_size=8)) + data[end:]


@pytest.mark.parametrize("kind", WRITTEN_BACK)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_what_parses_is_written_back(kind: str, data: st.DataObject) -> None:
    raw = data.draw(st.binary(max_size=200) | mutated(SAMPLES[kind]))
    try:
        written = WRITTEN_BACK[kind](raw)
    except MalformedError:
        return
    assert written == raw


@given(raw=st.binary(max_size=400) | mutated(LOG))
@settings(max_examples=200, deadline=None)
def test_event_logs_parse_whole_or_not_at_all(raw: bytes) -> None:
    try:
        log = parse_event_log(raw)
    except MalformedError:
        return
    assert log.used_bytes == len(raw)
    for entry, value in replay(log).items():
        assert entry[0] in log.banks
        assert len(value) in (20, 32, 48, 64)


@given(raw=st.binary(max_size=700) | mutated(TPM.ak_spki))
@settings(max_examples=150, deadline=None)
def test_keys_and_pcr_files_are_read_or_refused(raw: bytes) -> None:
    for parse in (load_ak, parse_pcr_file):
        try:
            parse(raw)
        except MalformedError:
            continue


@given(
    st.dictionaries(
        st.sampled_from(["sha256", "sha384", "sha1", "md5"]),
        st.dictionaries(
            st.integers(-1, 30).map(str),
            st.sampled_from([20, 32, 48]).map(lambda size: "0a" * size),
            min_size=1,
            max_size=4,
        ),
        max_size=3,
    )
)
@settings(max_examples=150, deadline=None)
def test_pcrs_are_written_back(document: dict[str, dict[str, str]]) -> None:
    try:
        values = parse_pcrs(document)
    except MalformedError:
        return
    assert pcrs_to_json(values) == document


@given(raw=mutated(MESSAGE), signature=st.just(SIGNATURE) | mutated(SIGNATURE))
@settings(max_examples=200, deadline=None)
def test_no_other_message_or_signature_is_authentic(
    raw: bytes, signature: bytes
) -> None:
    item = TPM.quote_item(bytes(32))
    item["quote"] = {
        "message": base64.b64encode(raw).decode(),
        "signature": base64.b64encode(signature).decode(),
    }
    key = EnrolledKey(
        tenant="acme", group="hosts", name=TPM.ak_name, public=TPM.ak_public
    )
    trust = Trust(now=NOW, enrolled_keys={TPM.ak_name: (key,)})
    verifier = VtpmVerifier()
    try:
        result = verifier.verify(verifier.parse(item, 0), trust)
    except KbsError:
        return
    # Other bytes of r and s can be the same numbers, but the message is the signed one.
    assert not result.authenticated or raw == MESSAGE
    if result.claims is not None:
        assert raw == MESSAGE


@given(secret=st.binary(min_size=1, max_size=32))
@settings(max_examples=25, deadline=None)
def test_every_credential_opens_where_it_belongs(secret: bytes) -> None:
    from kbs.evidence.vtpm.credential import make_credential

    made = make_credential(TPM.endorsement_public, TPM.ak_name, secret)
    assert TPM.activate_credential(made.credential_blob, made.secret) == secret
