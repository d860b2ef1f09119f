"""HPKE (RFC 9180) against another implementation, in both directions, every suite."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

from kbs.channel.hpke import seal, unseal
from kbs.channel.recipient import Suite, generate_recipient_key, recipient_of

# RFC 9180, section 7: identifiers and the sizes of enc (Nenc).
PEERS = {
    Suite.X25519: (0x0020, 0x0001, 0x0002, 32),
    Suite.P256: (0x0010, 0x0001, 0x0002, 65),
    Suite.P384: (0x0011, 0x0002, 0x0002, 97),
}
INFO = b"kbs.release/1\x00" + bytes(range(48))


def peer(suite: Suite) -> tuple[CipherSuite, int]:
    kem, kdf, aead, size = PEERS[suite]
    return CipherSuite.new(KEMId(kem), KDFId(kdf), AEADId(aead)), size


@pytest.mark.parametrize("suite", list(Suite))
def test_the_suite_names_are_the_identifiers_of_the_rfc(suite: Suite) -> None:
    assert suite.value == "-".join(f"{one:04x}" for one in PEERS[suite][:3])


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("size", [0, 1, 16, 5000])
def test_the_peer_opens_what_we_seal(suite: Suite, size: int) -> None:
    private = generate_recipient_key(suite)
    plaintext = bytes(index % 251 for index in range(size))
    sealed = seal(suite, recipient_of(private), plaintext, info=INFO)
    cipher, enc_size = peer(suite)
    context = cipher.create_recipient_context(
        sealed[:enc_size], KEMKey.from_pyca_cryptography_key(private), info=INFO
    )
    assert context.open(sealed[enc_size:], aad=b"") == plaintext


@pytest.mark.parametrize("suite", list(Suite))
def test_we_open_what_the_peer_seals(suite: Suite) -> None:
    private = generate_recipient_key(suite)
    cipher, _ = peer(suite)
    public = KEMKey.from_pyca_cryptography_key(private.public_key())
    enc, context = cipher.create_sender_context(public, info=INFO)
    sealed = enc + context.seal(b"a model key", aad=b"")
    assert unseal(suite, private, sealed, info=INFO) == b"a model key"


FIXED_SEALED = (
    "bc1adab9ee477e93aad60412472fe2127fc5c465e80bf3d647596fdbf50de632"
    "5eb2a05614b4a05ccde702fba612cd08df170c0a7bf5efaa3e25617ebe3d70"
)


def test_a_message_of_fixed_keys_opens_as_computed_by_the_peer() -> None:
    """Sealed once by the peer with an ephemeral key of its own, and written down."""
    private = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    sealed = bytes.fromhex(FIXED_SEALED)
    assert unseal(Suite.X25519, private, sealed, info=INFO) == b"Beauty is truth"
