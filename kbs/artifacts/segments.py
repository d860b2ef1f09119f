"""One segment of a Tink AES256_GCM_HKDF stream: key derivation, nonce, geometry.

Specification: Tink, *AES-GCM-HKDF Streaming AEAD*
(https://developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming)::

    ciphertext   = header ‖ segment 0 ‖ segment 1 ‖ …
    header       = length (1 byte, 40) ‖ salt (32) ‖ nonce prefix (7)
    derived key  = HKDF-SHA256(ikm = key, salt = salt, info = associated data), 32 bytes
    segment i    = AES-256-GCM(derived key, nonce i, plaintext i), tag included
    nonce i      = nonce prefix ‖ u32be(i) ‖ 01 for the last segment, else 00

Every segment fills `segment_size` bytes of ciphertext, the first together with the
header; the last may be shorter. We accept one spelling only: a last segment holds
at least one byte of plaintext unless it is the only one, as every Tink writer does.
What this module does not answer for: reading and writing (`stream`, `reader`).
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kbs.core.errors import MalformedError, VerificationError
from kbs.core.reader import Reader

# Tink key template AES256_GCM_HKDF_1MB: ciphertext_segment_size.
SEGMENT_SIZE = 1 << 20

# Same template: the key and the derived key are both 32 bytes.
KEY_SIZE = 32

# Tink specification, "Creating the header": len(salt) = derived key size.
SALT_SIZE = 32
NONCE_PREFIX_SIZE = 7
HEADER_SIZE = 1 + SALT_SIZE + NONCE_PREFIX_SIZE

# NIST SP 800-38D; Tink always uses full tags.
TAG_SIZE = 16

# The nonce has four bytes for the number of the segment.
MAX_SEGMENTS = 1 << 32


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """What a stream starts with: fresh and random for every stream."""

    salt: bytes
    nonce_prefix: bytes

    def to_bytes(self) -> bytes:
        """Return the 40 bytes on the wire."""
        return bytes([HEADER_SIZE]) + self.salt + self.nonce_prefix


def parse_stream_header(data: bytes) -> StreamHeader:
    """Parse the header of a stream.

    Raises:
        MalformedError: another length, in the bytes or in the length byte.
    """
    reader = Reader(data, "sealed stream header")
    length = reader.big(1, "length byte")
    if length != HEADER_SIZE:
        raise MalformedError(
            "sealed stream header length byte", got=str(length), expected="40"
        )
    header = StreamHeader(
        salt=reader.take(SALT_SIZE, "salt"),
        nonce_prefix=reader.take(NONCE_PREFIX_SIZE, "nonce prefix"),
    )
    reader.end()
    return header


@dataclass(frozen=True, slots=True)
class Layout:
    """Where plaintext and ciphertext lie, for one ciphertext segment size."""

    segment_size: int = SEGMENT_SIZE

    def __post_init__(self) -> None:
        """Refuse a size that leaves no room in the first segment (Tink does too)."""
        if self.segment_size <= HEADER_SIZE + TAG_SIZE:
            message = f"a segment of {self.segment_size} bytes cannot hold the header"
            raise ValueError(message)

    @property
    def plaintext_segment(self) -> int:
        """Plaintext bytes in every segment but the first."""
        return self.segment_size - TAG_SIZE

    @property
    def first_plaintext(self) -> int:
        """Plaintext bytes in the first segment."""
        return self.plaintext_segment - HEADER_SIZE

    @property
    def max_plaintext(self) -> int:
        """Most plaintext that one stream can hold."""
        return MAX_SEGMENTS * self.plaintext_segment - HEADER_SIZE

    def segments(self, plaintext_size: int) -> int:
        """Return how many segments hold this much plaintext; never none."""
        # The header takes the place of plaintext, so it counts as plaintext here.
        return max(1, -(-(plaintext_size + HEADER_SIZE) // self.plaintext_segment))

    def ciphertext_size(self, plaintext_size: int) -> int:
        """Return the size of the stream, header included."""
        return HEADER_SIZE + plaintext_size + TAG_SIZE * self.segments(plaintext_size)

    def plaintext_size(self, ciphertext_size: int) -> int:
        """Return the size of what a stream of this size holds.

        Raises:
            MalformedError: no complete stream has this size.
        """
        segments = max(1, -(-ciphertext_size // self.segment_size))
        size = ciphertext_size - HEADER_SIZE - TAG_SIZE * segments
        if size < 0 or self.ciphertext_size(size) != ciphertext_size:
            raise MalformedError(
                "sealed stream",
                got=f"{ciphertext_size} bytes, which end inside a segment",
                expected="the size of a complete stream",
                hint="the file is cut short; copy it again",
                code="artifact.truncated",
            )
        return size

    def locate(self, position: int) -> tuple[int, int]:
        """Return the segment that holds a plaintext position, and the offset in it."""
        shifted = position + HEADER_SIZE
        number, offset = divmod(shifted, self.plaintext_segment)
        return (number, offset if number else offset - HEADER_SIZE)

    def extent(self, number: int, ciphertext_size: int) -> tuple[int, int]:
        """Return where a segment starts in the stream, and its size there."""
        start = HEADER_SIZE if number == 0 else number * self.segment_size
        end = min((number + 1) * self.segment_size, ciphertext_size)
        return start, end - start


class SegmentCipher:
    """Seals and opens single segments under the key derived for one stream."""

    __slots__ = ("_aead", "_prefix")

    def __init__(
        self, key: bytes, header: StreamHeader, *, associated_data: bytes
    ) -> None:
        """Derive the key of this stream.

        Raises:
            MalformedError: the key is not 32 bytes.
        """
        derived = HKDF(
            algorithm=SHA256(),
            length=KEY_SIZE,
            salt=header.salt,
            info=associated_data,
        ).derive(require_key(key))
        self._aead = AESGCM(derived)
        self._prefix = header.nonce_prefix

    def seal(
        self, number: int, plaintext: memoryview, out: memoryview, *, last: bool
    ) -> None:
        """Encrypt into `out`, which is 16 bytes longer than `plaintext`."""
        nonce = self._nonce(number, last=last)
        self._aead.encrypt_into(nonce, plaintext, None, out)

    def open(
        self, number: int, ciphertext: memoryview, out: memoryview, *, last: bool
    ) -> None:
        """Decrypt into `out`, which is 16 bytes shorter than `ciphertext`.

        Raises:
            VerificationError: it does not authenticate; `out` holds zeros then.
        """
        if not self._authentic(number, ciphertext, out, last=last):
            raise self._refusal(number, ciphertext, out, last=last)

    def _authentic(
        self, number: int, ciphertext: memoryview, out: memoryview, *, last: bool
    ) -> bool:
        nonce = self._nonce(number, last=last)
        try:
            self._aead.decrypt_into(nonce, ciphertext, None, out)
        except InvalidTag:
            return False
        return True

    def _refusal(
        self, number: int, ciphertext: memoryview, out: memoryview, *, last: bool
    ) -> VerificationError:
        # Only the words depend on this second look: as the other kind of segment it
        # would be genuine, so the end of the file was moved.
        moved = self._authentic(number, ciphertext, out, last=not last)
        # AES-GCM decrypts before it compares tags, and decrypt_into leaves there what
        # it decrypted; nobody may see it.
        out[:] = bytes(len(out))
        if not moved:
            return VerificationError(
                f"sealed segment {number}",
                got=f"{len(ciphertext)} bytes that do not authenticate",
                expected="the bytes that were sealed under this key and header",
                hint="another key, or the file was changed",
                code="artifact.segment",
            )
        if last:
            return VerificationError(
                f"sealed segment {number}",
                got="the end of the file",
                expected="more segments",
                hint="the file is cut short; copy it again",
                code="artifact.truncated",
            )
        return VerificationError(
            f"sealed segment {number}",
            got="more bytes after the last segment",
            expected="the end of the file",
            hint="the file was extended; copy it again",
            code="artifact.extended",
        )

    def _nonce(self, number: int, *, last: bool) -> bytes:
        return self._prefix + number.to_bytes(4, "big") + (b"\1" if last else b"\0")


def require_key(key: bytes) -> bytes:
    """Return a data key of the one size that the format has.

    Raises:
        MalformedError: it is not 32 bytes.
    """
    if len(key) != KEY_SIZE:
        raise MalformedError(
            "data key",
            got=f"{len(key)} bytes",
            expected=f"{KEY_SIZE} bytes",
            hint="a key of kind aes256 has them",
        )
    return key
