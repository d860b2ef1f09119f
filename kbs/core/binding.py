"""B(o), the digest by which evidence is bound to a request of v1.

`B(o) = SHA-384("kbs.binding/1" 0x00 JCS(o))`; what goes in is `kbs.channel.binding`'s
business. It stands here because one verifier compares an object instead of its digest.
"""

from __future__ import annotations

import hashlib

from kbs.core.encode import canonical_json

BINDING_CONTEXT = b"kbs.binding/1\x00"

BINDING_BYTES = 48
"""SHA-384 (FIPS 180-4)."""


def binding(value: object) -> bytes:
    """Return B(value), 48 bytes.

    Raises:
        MalformedError: the value cannot be written as canonical JSON.
    """
    return hashlib.sha384(BINDING_CONTEXT + canonical_json(value)).digest()
