"""Our streams and those of the `tink` package open each other, byte for byte."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
import tink
from tink import proto_keyset_format, secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from kbs.artifacts.envelope import SealedHeader, read_header
from kbs.artifacts.formats import seal
from kbs.artifacts.reader import SealedReader
from kbs.artifacts.segments import KEY_SIZE, SEGMENT_SIZE, Layout
from kbs.artifacts.stream import open_stream, seal_stream
from kbs.core.errors import KbsError
from kbs.core.ids import parse_key_ref

SMALL = 64
KEY = bytes(range(32))
AAD = b"associated data"

# Written by tink 1.16.1 (C++ core): KEY, AAD, 64-byte segments.
TINK_PLAINTEXT = (
    b"Tink wrote this; three segments of 64 bytes hold it whole." + b"." * 8
)
TINK_CIPHERTEXT = bytes.fromhex(
    "28cfdf3603f2e2e923158e23531ba53970897c461142cee28289a835398ede38c1caa533"
    "5b062a3a353e8d79031808cc6b356b3c2539994cf1d73c8496b68dccafe4b6725aa7b88f"
    "54558ad9a2882719c4a1bca9b9e463217eefa7e66cfcac8532071b6a0de3a62223c0760f"
    "d9513983ff960cf0433504a9c7269d0e46ab80dfc9d524e23b9086726759b5ec259b37a9"
    "0a018c7140580acd53af"
)

streaming_aead.register()


class Kept(io.BytesIO):
    """Remembers what was written when Tink closes it."""

    value = b""

    def close(self) -> None:
        if not self.closed:
            self.value = self.getvalue()
        super().close()


def tink_primitive(key: bytes, segment_size: int) -> Any:
    proto = aes_gcm_hkdf_streaming_pb2
    value = proto.AesGcmHkdfStreamingKey(
        version=0,
        key_value=key,
        params=proto.AesGcmHkdfStreamingParams(
            ciphertext_segment_size=segment_size,
            derived_key_size=32,
            hkdf_hash_type=common_pb2.SHA256,
        ),
    )
    keyset = tink_pb2.Keyset(primary_key_id=1)
    entry = keyset.key.add()
    entry.key_id = 1
    entry.status = tink_pb2.ENABLED
    entry.output_prefix_type = tink_pb2.RAW
    entry.key_data.type_url = (
        "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"
    )
    entry.key_data.value = value.SerializeToString()
    entry.key_data.key_material_type = tink_pb2.KeyData.SYMMETRIC
    handle = proto_keyset_format.parse(
        keyset.SerializeToString(), secret_key_access.TOKEN
    )
    return handle.primitive(streaming_aead.StreamingAead)


def tink_seal(primitive: Any, plaintext: bytes, aad: bytes, *, piece: int) -> bytes:
    sink = Kept()
    with primitive.new_encrypting_stream(sink, aad) as stream:
        for start in range(0, len(plaintext), piece):
            stream.write(plaintext[start : start + piece])
    return sink.value


def tink_open(primitive: Any, ciphertext: bytes, aad: bytes) -> bytes:
    with primitive.new_decrypting_stream(io.BytesIO(ciphertext), aad) as stream:
        data: bytes = stream.read()
        return data


def our_seal(plaintext: bytes, segment_size: int) -> bytes:
    sink = io.BytesIO()
    seal_stream(
        KEY,
        io.BytesIO(plaintext),
        sink,
        associated_data=AAD,
        segment_size=segment_size,
    )
    return sink.getvalue()


def our_open(ciphertext: bytes, segment_size: int) -> bytes:
    sink = io.BytesIO()
    open_stream(
        KEY,
        io.BytesIO(ciphertext),
        sink,
        associated_data=AAD,
        segment_size=segment_size,
    )
    return sink.getvalue()


@pytest.mark.parametrize("size", range(170))
def test_small_segments_of_every_length_open_both_ways(size: int) -> None:
    primitive = tink_primitive(KEY, SMALL)
    plaintext = os.urandom(size)
    theirs = tink_seal(primitive, plaintext, AAD, piece=11)
    # One plaintext, one size: neither of us ends with an empty segment.
    assert len(theirs) == Layout(SMALL).ciphertext_size(size)
    assert our_open(theirs, SMALL) == plaintext
    reader = SealedReader(
        KEY, io.BytesIO(theirs), associated_data=AAD, segment_size=SMALL
    )
    assert reader.read() == plaintext
    assert tink_open(primitive, our_seal(plaintext, SMALL), AAD) == plaintext


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        Layout().first_plaintext - 1,
        Layout().first_plaintext,
        Layout().first_plaintext + 1,
        Layout().first_plaintext + Layout().plaintext_segment,
        3 << 20,
    ],
)
def test_real_segments_open_both_ways(size: int) -> None:
    primitive = tink_primitive(KEY, SEGMENT_SIZE)
    plaintext = os.urandom(size)
    theirs = tink_seal(primitive, plaintext, AAD, piece=1 << 20)
    assert our_open(theirs, SEGMENT_SIZE) == plaintext
    assert tink_open(primitive, our_seal(plaintext, SEGMENT_SIZE), AAD) == plaintext


def test_the_published_template_is_the_one_we_speak() -> None:
    """A keyset that Tink makes from its own template opens with its bare key here."""
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    handle = tink.new_keyset_handle(template)
    stored = proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    keyset = tink_pb2.Keyset.FromString(stored)
    proto = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey
    key = proto.FromString(keyset.key[0].key_data.value)
    assert key.params.ciphertext_segment_size == SEGMENT_SIZE
    assert len(key.key_value) == key.params.derived_key_size == KEY_SIZE

    primitive = handle.primitive(streaming_aead.StreamingAead)
    ciphertext = tink_seal(primitive, b"the weights", AAD, piece=64)
    sink = io.BytesIO()
    open_stream(key.key_value, io.BytesIO(ciphertext), sink, associated_data=AAD)
    assert sink.getvalue() == b"the weights"


def test_a_sealed_file_opens_with_tink_alone() -> None:
    """What docs/formats/sealed.md says about the bytes behind the header."""
    header = SealedHeader(key=parse_key_ref("acme/model/chat@1"), name="m.bin", size=9)
    sink = io.BytesIO()
    seal(KEY, io.BytesIO(b"plaintext"), sink, header=header)
    sink.seek(0)
    associated_data = read_header(sink).associated_data
    primitive = tink_primitive(KEY, SEGMENT_SIZE)
    assert tink_open(primitive, sink.read(), associated_data) == b"plaintext"


def test_a_fixed_ciphertext_of_tink_opens() -> None:
    assert our_open(TINK_CIPHERTEXT, SMALL) == TINK_PLAINTEXT
    primitive = tink_primitive(KEY, SMALL)
    assert tink_open(primitive, TINK_CIPHERTEXT, AAD) == TINK_PLAINTEXT


@pytest.mark.parametrize("position", [0, 5, 35, 45, 70, -1])
def test_both_refuse_the_same_damage(position: int) -> None:
    bad = bytearray(TINK_CIPHERTEXT)
    bad[position] ^= 1
    with pytest.raises(KbsError):
        our_open(bytes(bad), SMALL)
    with pytest.raises((tink.TinkError, OSError)):
        tink_open(tink_primitive(KEY, SMALL), bytes(bad), AAD)
