from __future__ import annotations

import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit.checkpoint import (
    Checkpoint,
    NoteSignature,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
)
from kbs.audit.logkey import LogSigner, log_key_from_spki, parse_origin, parse_vkey
from kbs.core.encode import b64
from kbs.core.errors import KbsError, MalformedError, VerificationError
from tests.unit.audit.samples import ORIGIN, private_key, signer

ROOT = bytes(range(32))
CHECKPOINT = Checkpoint(ORIGIN, 42, ROOT)
NOTE = sign_checkpoint(CHECKPOINT, signer())


def signed(text: str) -> bytes:
    """Any text with a good signature of our key."""
    key = signer()
    line = NoteSignature(ORIGIN, key.key.key_hash, key.sign(text.encode())).line()
    return text.encode() + b"\n" + line


def test_a_checkpoint_looks_as_the_specification_shows() -> None:
    text, _, signature = NOTE.decode().partition("\n\n")
    assert text == f"{ORIGIN}\n42\n{b64(ROOT)}"
    assert signature.startswith(f"— {ORIGIN} {b64(signer().key.key_hash)[:4]}")
    assert signature.endswith("\n")


def test_a_signed_checkpoint_verifies_and_names_its_key() -> None:
    keys = (signer(2).key, signer().key)
    assert verify_checkpoint(NOTE, origin=ORIGIN, keys=keys) == (
        CHECKPOINT,
        signer().key,
    )


def test_every_flipped_bit_is_refused() -> None:
    for place in range(len(NOTE)):
        for bit in range(8):
            bad = bytearray(NOTE)
            bad[place] ^= 1 << bit
            with pytest.raises((MalformedError, VerificationError)):
                verify_checkpoint(
                    bytes(bad), origin=ORIGIN, keys=(signer().key,), only_known=True
                )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "checkpoint"),
        (f"{ORIGIN}\n42\n", "checkpoint text"),
        (f"{ORIGIN}\n42\n{b64(ROOT)}\nextension\n", "checkpoint text"),
        (f"{ORIGIN}\n042\n{b64(ROOT)}\n", "checkpoint size"),
        (f"{ORIGIN}\n-1\n{b64(ROOT)}\n", "checkpoint size"),
        (f"{ORIGIN}\n٣\n{b64(ROOT)}\n", "checkpoint size"),
        (f"{ORIGIN}\n{2**63}\n{b64(ROOT)}\n", "checkpoint size"),
        (f"{ORIGIN}\n42\n{b64(ROOT)[:-1]}\n", "checkpoint root"),
        (f"{ORIGIN}\n42\n{b64(ROOT[:31])}\n", "checkpoint root"),
        (f"{ORIGIN}\n42\n{b64(ROOT + ROOT)}\n", "checkpoint root"),
        (f"{ORIGIN} x\n42\n{b64(ROOT)}\n", "checkpoint origin"),
        (f"a+b\n42\n{b64(ROOT)}\n", "checkpoint origin"),
        (f"\n42\n{b64(ROOT)}\n", "checkpoint origin"),
    ],
)
def test_a_text_of_another_shape_is_refused_though_signed(text: str, what: str) -> None:
    with pytest.raises(MalformedError) as caught:
        verify_checkpoint(signed(text), origin=ORIGIN, keys=(signer().key,))
    assert caught.value.what == what


WITNESS = NoteSignature("witness.example", b"abcd", bytes(64))


def line(text: str) -> bytes:
    return NOTE + text.encode()


@pytest.mark.parametrize(
    ("note", "what"),
    [
        (b"\xff", "checkpoint"),
        (b"x" * 20000, "checkpoint"),
        (CHECKPOINT.text(), "checkpoint"),
        (CHECKPOINT.text() + b"\n", "checkpoint signatures"),
        (NOTE[:-1], "checkpoint signatures"),
        (NOTE + WITNESS.line() + WITNESS.line(), "checkpoint signatures"),
        (NOTE + b"".join([WITNESS.line()] * 16), "checkpoint signatures"),
        (NOTE + b"\n", "checkpoint signature"),
        (NOTE.replace("—".encode(), b"-"), "checkpoint signature"),
        (line(f"— w {b64(b'short')}\n"), "checkpoint signature"),
        (line(f"— w {b64(bytes(68))} \n"), "checkpoint signature"),
        (line(f"— w {b64(bytes(5000))}\n"), "checkpoint signature"),
        (line(f"— w+w {b64(bytes(68))}\n"), "checkpoint signer"),
        (line(f"—  {b64(bytes(68))}\n"), "checkpoint signer"),
    ],
)
def test_a_note_of_another_shape_is_refused(note: bytes, what: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_checkpoint(note)
    assert caught.value.what == what


def test_a_witness_line_is_carried_but_not_judged() -> None:
    cosigned = NOTE + WITNESS.line()
    keys = (signer().key,)
    assert parse_checkpoint(cosigned).note() == cosigned
    assert verify_checkpoint(cosigned, origin=ORIGIN, keys=keys)[0] == CHECKPOINT
    with pytest.raises(VerificationError) as caught:
        verify_checkpoint(cosigned, origin=ORIGIN, keys=keys, only_known=True)
    assert caught.value.code == "audit.checkpoint.signer"


@pytest.mark.parametrize(
    ("origin", "seeds", "code"),
    [
        ("other.example", (1,), "audit.checkpoint.origin"),
        (ORIGIN, (2,), "audit.checkpoint.signer"),
        (ORIGIN, (), "audit.checkpoint.signer"),
    ],
)
def test_another_log_or_another_key_is_refused(
    origin: str, seeds: tuple[int, ...], code: str
) -> None:
    keys = [signer(seed).key for seed in seeds]
    with pytest.raises(VerificationError) as caught:
        verify_checkpoint(NOTE, origin=origin, keys=keys)
    assert caught.value.code == code


def test_a_wrong_signature_of_a_known_key_is_refused_beside_a_good_one() -> None:
    second = signer(2).key
    note = NOTE + NoteSignature(ORIGIN, second.key_hash, bytes(64)).line()
    with pytest.raises(VerificationError) as caught:
        verify_checkpoint(note, origin=ORIGIN, keys=(signer().key, second))
    assert caught.value.code == "audit.checkpoint.signature"


def test_a_log_signs_no_checkpoint_of_another_log_nor_one_out_of_bounds() -> None:
    with pytest.raises(MalformedError):
        sign_checkpoint(Checkpoint("other.example", 1, ROOT), signer())
    for size, root in ((-1, ROOT), (2**63, ROOT), (1, ROOT[1:]), (1, b"")):
        with pytest.raises(MalformedError):
            sign_checkpoint(Checkpoint(ORIGIN, size, root), signer())


def test_a_vkey_is_written_back_as_it_was_read() -> None:
    key = signer().key
    assert parse_vkey(key.vkey) == key


def test_every_changed_character_of_a_vkey_is_refused() -> None:
    vkey = signer().key.vkey
    for place in range(len(vkey)):
        for char in "A0+/ =":
            if vkey[place] != char:
                with pytest.raises(MalformedError):
                    parse_vkey(vkey[:place] + char + vkey[place + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "a+b",
        "a+00000000",
        "x" * 500,
        f"a+00000000+{b64(b'')}",
        f"a+00000000+{b64(bytes([2]) + bytes(32))}",
        f"a+00000000+{b64(bytes([1]) + bytes(31))}",
        f"a+0000000+{b64(bytes([1]) + bytes(32))}",
        f"a b+00000000+{b64(bytes([1]) + bytes(32))}",
    ],
)
def test_what_is_no_vkey_is_refused(text: object) -> None:
    with pytest.raises(MalformedError):
        parse_vkey(text)


@pytest.mark.parametrize("text", [None, 1, "", "a b", "a+b", "a\n", "-a", "x" * 256])
def test_what_is_no_origin_is_refused(text: object) -> None:
    with pytest.raises(MalformedError):
        parse_origin(text)


def test_a_key_survives_its_subject_public_key_info() -> None:
    key = signer().key
    assert log_key_from_spki(ORIGIN, key.spki) == key


def test_a_key_of_another_kind_is_no_log_key() -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    other = (
        X25519PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    for spki in (b"", b"junk", other):
        with pytest.raises(KbsError):
            log_key_from_spki(ORIGIN, spki)


def test_a_key_that_is_no_point_signs_nothing() -> None:
    from kbs.audit.logkey import LogKey

    assert not LogKey(ORIGIN, b"short").is_signature(bytes(64), b"")


def test_a_signer_shows_and_copies_no_secret() -> None:
    private = Ed25519PrivateKey.generate()
    shown = repr(LogSigner(ORIGIN, private))
    assert private.private_bytes_raw().hex() not in shown
    assert "vkey" not in shown
    assert LogSigner(ORIGIN, private).key.vkey in shown
    with pytest.raises(TypeError):
        pickle.dumps(signer())


def test_a_signer_has_a_log_to_sign_for() -> None:
    with pytest.raises(MalformedError):
        LogSigner("not an origin", private_key(1))
