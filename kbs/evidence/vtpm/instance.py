"""Which instance of Google's an attestation key belongs to, by its certificate.

Google puts the instance into an extension of the certificates that it issues to the
vTPMs of Compute Engine (1.3.6.1.4.1.11129.2.1.21; google/go-tpm-tools,
server/instance_info.go)::

    SEQUENCE { zone UTF8String, project_number INTEGER, project_id UTF8String,
               instance_id INTEGER, instance_name UTF8String, … }

It counts only in certificates below Google's pinned roots, and is left out where it has
another form.
"""

from __future__ import annotations

from cryptography import x509

from kbs.core.claims import ClaimValue
from kbs.core.errors import MalformedError
from kbs.pki.der import INTEGER, SEQUENCE, element, elements, unsigned

_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.1.21")
_UTF8_STRING = 0x0C
_MAX_NUMBER = 2**64 - 1
_MAX_TEXT = 256
# Name of the claim and tag, in the order of the sequence.
_FIELDS = (
    ("zone", _UTF8_STRING),
    ("project_number", INTEGER),
    ("project_id", _UTF8_STRING),
    ("instance_id", INTEGER),
    ("instance_name", _UTF8_STRING),
)


def instance_claims(leaf: x509.Certificate, family: str) -> dict[str, ClaimValue]:
    """Return what the certificate says of the instance; nothing if it is not Google's.

    Numbers are decimal text: ids have 64 bits.
    """
    for extension in leaf.extensions:
        value = extension.value
        if isinstance(value, x509.UnrecognizedExtension) and value.oid == _EXTENSION:
            try:
                return _read(value.value, family)
            except MalformedError:
                break
    return {}


def _read(data: bytes, family: str) -> dict[str, ClaimValue]:
    what = "GCE instance"
    found = elements(element(data, SEQUENCE, what), what)
    if len(found) < len(_FIELDS):
        raise MalformedError(what, got=f"{len(found)} fields")
    values: dict[str, ClaimValue] = {}
    for (name, tag), (got, content) in zip(_FIELDS, found, strict=False):
        if got != tag:
            raise MalformedError(f"{what} {name}", got=f"tag {got:#04x}")
        values[f"{family}.gce.{name}"] = (
            str(unsigned(content, name, most=_MAX_NUMBER))
            if tag == INTEGER
            else _text(content, name)
        )
    return values


def _text(content: bytes, name: str) -> str:
    text = content.decode("ascii", errors="replace")
    if not 0 < len(text) <= _MAX_TEXT or not text.isascii() or not text.isprintable():
        raise MalformedError(f"GCE instance {name}", got=repr(text)[:60])
    return text
