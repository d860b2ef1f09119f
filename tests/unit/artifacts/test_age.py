from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import io
import os
from collections.abc import Callable

import pyrage
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kbs.artifacts import age
from kbs.artifacts.age import open_age
from kbs.artifacts.age_header import MAX_HEADER, read_age_header
from kbs.core.errors import (
    KbsError,
    MalformedError,
    UnavailableError,
    VerificationError,
)

# Made once with pyrage 1.4 for these tests; the identity guards nothing.
IDENTITY = b"AGE-SECRET-KEY-1JJSDGNDWVZ2P3SX276P7HHXN4A09D93PJD80PWE78H8P4DFZ04FQVSLTP4"
ARMORED = b"""\
-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBSVEEwN0tBVGFUQUhsdWEw
MEpucUtvQ044bytBNkcyc2RzWVlKQWJlOVJ3ClpKa3hLR2dPb1ZtVllWV3NnQkNh
dGExZzAyc2FORjhxLzlrMTFxdUZFSHMKLT4gbC1ncmVhc2UgaW5uNkg4IFBCQyYg
JVIKNFBFN09zNmU5SXYzMjdQUDRpdjFRRGFSQUJEMklCTldwNGFaVVlzYk5FUGxL
QXJzRUFUVVVEQ1dCODduWjNMdwo0RFdHYnpIYU9qME95OFlIZ2EvVlVQTHlhN3k1
Ci0tLSBZVUFXV1BEMXNmb2J3VVVqcWtGa3ZCN3NBK2dsRUVPQlVTbEZVVFl5WnBz
ClJaqRMsoPg31pvSq7WDEBzcVXYUig7NV1r3qD4IJDpMDshHbYWizI+HN6J1VocY
EyKVk2EYPdA=
-----END AGE ENCRYPTED FILE-----
"""
PLAINTEXT = b"sealed with stock tools"
BINARY = base64.b64decode(b"".join(ARMORED.splitlines()[1:-1]))
RECIPIENT = pyrage.x25519.Identity.from_str(IDENTITY.decode()).to_public()

PASSPHRASE = b"correct horse"


def _raw64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(key)


def sealed_by_passphrase(
    plaintext: bytes, *, log_n: str = "4", stanzas: int = 1
) -> bytes:
    """An age file by C2SP age, "scrypt recipient stanza", with any work factor."""
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    wrapping = hashlib.scrypt(
        PASSPHRASE,
        salt=b"age-encryption.org/v1/scrypt" + salt,
        n=16,
        r=8,
        p=1,
        dklen=32,
    )
    body = ChaCha20Poly1305(wrapping).encrypt(bytes(12), file_key, None)
    stanza = b"-> scrypt %s %s\n%s\n" % (_raw64(salt), log_n.encode(), _raw64(body))
    header = b"age-encryption.org/v1\n" + stanza * stanzas + b"---"
    mac = hmac.digest(_hkdf(file_key, b"", b"header"), header, "sha256")
    payload = ChaCha20Poly1305(_hkdf(file_key, nonce, b"payload"))
    # One chunk: counter 0, last flag 1.
    chunk = payload.encrypt(bytes(11) + b"\1", plaintext, None)
    return header + b" " + _raw64(mac) + b"\n" + nonce + chunk


def opened(data: bytes, secret: bytes) -> bytes:
    sink = io.BytesIO()
    assert open_age(io.BytesIO(data), sink, secret) == len(sink.getvalue())
    return sink.getvalue()


@pytest.mark.parametrize("data", [BINARY, ARMORED, ARMORED.replace(b"\n", b"\r\n")])
@pytest.mark.parametrize(
    "secret",
    [
        IDENTITY,
        IDENTITY + b"\n",
        b"# created: 2026-01-01\n# public key: age1\n\n" + IDENTITY + b"\r\n",
        str(pyrage.x25519.Identity.generate()).encode() + b"\n" + IDENTITY,
    ],
)
def test_a_file_for_a_recipient_opens_with_an_identity_file(
    data: bytes, secret: bytes
) -> None:
    assert opened(data, secret) == PLAINTEXT


@pytest.mark.parametrize("secret", [PASSPHRASE, PASSPHRASE + b"\n"])
def test_a_file_with_a_passphrase_opens(secret: bytes) -> None:
    assert opened(sealed_by_passphrase(b"plain"), secret) == b"plain"


def test_large_files_are_streamed_with_progress() -> None:
    plaintext = os.urandom(300_000)
    steps: list[int] = []
    sink = io.BytesIO()
    source = io.BytesIO(pyrage.encrypt(plaintext, [RECIPIENT]))
    assert open_age(source, sink, IDENTITY, progress=steps.append) == len(plaintext)
    assert sink.getvalue() == plaintext
    assert sum(steps) == len(plaintext)
    assert len(steps) > 1


def test_the_header_tells_armor_and_recipients_and_moves_nothing() -> None:
    for data, armored in ((BINARY, False), (ARMORED, True)):
        source = io.BytesIO(data)
        header = read_age_header(source)
        assert header.armored is armored
        assert header.types == ("X25519", "l-grease")
        assert source.tell() == 0
    assert read_age_header(io.BytesIO(sealed_by_passphrase(b""))).types == ("scrypt",)


@pytest.mark.parametrize("position", [60, 200, 300, len(BINARY) - 30, len(BINARY) - 1])
def test_a_flipped_bit_is_refused_and_nothing_is_written(position: int) -> None:
    bad = bytearray(BINARY)
    bad[position] ^= 1
    sink = io.BytesIO()
    with pytest.raises(KbsError):
        open_age(io.BytesIO(bytes(bad)), sink, IDENTITY)
    assert sink.getvalue() == b""


@pytest.mark.parametrize(
    ("data", "secret"),
    [
        (BINARY[:-1], IDENTITY),
        (BINARY + b"\0", IDENTITY),
        (ARMORED[:-40], IDENTITY),
        (BINARY, str(pyrage.x25519.Identity.generate()).encode()),
        (sealed_by_passphrase(b"x"), b"battery staple"),
        (sealed_by_passphrase(b"x")[:-1], PASSPHRASE),
        (sealed_by_passphrase(b"x") + b"\0", PASSPHRASE),
    ],
)
def test_a_changed_file_or_another_secret_is_refused(
    data: bytes, secret: bytes
) -> None:
    with pytest.raises(VerificationError) as caught:
        opened(data, secret)
    assert caught.value.code == "artifact.age"
    assert caught.value.got in {"a file for other keys", "a file that does not open"}
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "age file first line"),
        (b"age-encryption.org/v2\n-> X25519 a\n---", "age file first line"),
        (b"age-encryption.org/v1\r\n-> X25519 a\n---", "age file first line"),
        (b"age-encryption.org/v1\n", "age file header"),
        (b"age-encryption.org/v1\n--- mac\n", "age file header"),
        (b"age-encryption.org/v1\n" + b"A" * (MAX_HEADER + 9), "age file header"),
        (b"age-encryption.org/v1\n-> X25519  a\n---", "age file recipient stanza"),
        (b"age-encryption.org/v1\n-> \x1b[2J\n---", "age file recipient stanza"),
        (b"age-encryption.org/v1\n-> ssh-rsa a\nAA\n---", "age file recipients"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n!!!!\n", "age file first line"),
        (ARMORED[:100].rpartition(b"\n")[0], "age file header"),
        (sealed_by_passphrase(b"x", stanzas=2), "age file recipients"),
        (sealed_by_passphrase(b"x", log_n="21"), "age file scrypt work factor"),
        (sealed_by_passphrase(b"x", log_n="0"), "age file scrypt work factor"),
        (sealed_by_passphrase(b"x", log_n="x"), "age file scrypt work factor"),
        (BINARY, "secret for an age file with X25519, l-grease"),
    ],
)
def test_what_cannot_be_opened_with_a_passphrase_says_why(
    data: bytes, what: str
) -> None:
    with pytest.raises(MalformedError) as caught:
        opened(data, PASSPHRASE)
    assert caught.value.what == what


@pytest.mark.parametrize(
    ("secret", "what"),
    [
        (b"", "age identity or passphrase"),
        (b"\n", "age identity or passphrase"),
        (b"\xff\xfe", "age identity or passphrase"),
        (b"x" * 65537, "age identity or passphrase"),
        (IDENTITY[:-1], "age identity"),
        (IDENTITY[:-1] + b"Q", "age identity"),
        (b"AGE-SECRET-KEY-PQ-1XYZ", "age identity"),
        (b"AGE-PLUGIN-YUBIKEY-1XYZ", "age identity"),
        (IDENTITY + b"\nsecret line", "age identity file"),
        ((IDENTITY + b"\n") * 65, "age identities"),
    ],
)
def test_a_secret_of_no_known_kind_is_refused_and_never_shown(
    secret: bytes, what: str
) -> None:
    with pytest.raises(MalformedError) as caught:
        opened(BINARY, secret)
    assert caught.value.what == what
    assert "JJSDGNDWV" not in str(caught.value)
    assert "secret line" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_an_identity_does_not_open_a_passphrase_file() -> None:
    with pytest.raises(MalformedError, match="got an identity, expected the passphr"):
        opened(sealed_by_passphrase(b"x"), IDENTITY)


def test_a_passphrase_file_beyond_the_cap_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A lower cap stands in for a file of a gibibyte.
    monkeypatch.setattr(age, "MAX_PASSPHRASE_FILE", 100)
    with pytest.raises(MalformedError, match=r"expected at most 100 \(.*age -r"):
        opened(sealed_by_passphrase(b"x"), PASSPHRASE)


class Breaks(io.BytesIO):
    """A file whose disk fails after some reads, or at the first write."""

    def __init__(
        self, data: bytes, failure: Callable[[], BaseException], *, reads: int = 0
    ) -> None:
        super().__init__(data)
        self._failure = failure
        self._reads = reads

    def readinto(self, buffer: object, /) -> int:
        self._reads -= 1
        if self._reads < 0:
            raise self._failure()
        return super().readinto(buffer)  # type: ignore[arg-type]

    def write(self, data: object, /) -> int:
        raise self._failure()


def test_a_full_disk_is_told_as_such() -> None:
    sink = Breaks(b"", lambda: OSError(errno.ENOSPC, "No space left on device"))
    for data, secret in (
        (BINARY, IDENTITY),
        (sealed_by_passphrase(b"x"), PASSPHRASE),
    ):
        with pytest.raises(UnavailableError, match="output: got No space left"):
            open_age(io.BytesIO(data), sink, secret)


# The first read is for the header alone; the next ones are those of pyrage.
@pytest.mark.parametrize("reads", [0, 1, 2])
def test_a_disk_that_fails_while_reading_is_told_as_such(reads: int) -> None:
    data = pyrage.encrypt(bytes(300_000), [RECIPIENT])
    source = Breaks(data, lambda: OSError(errno.EIO, "Input/output error"), reads=reads)
    with pytest.raises(UnavailableError, match="input: got Input/output error"):
        open_age(source, io.BytesIO(), IDENTITY)


def test_an_interrupt_stays_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        open_age(io.BytesIO(BINARY), Breaks(b"", KeyboardInterrupt), IDENTITY)
