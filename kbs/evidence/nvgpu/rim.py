"""A reference integrity manifest (RIM): the values that NVIDIA says a device may have.

TCG RIM Information Model 1.01 in a SWID tag (ISO/IEC 19770-2:2015), in the profile
that `rim_xml` accepts. Values are read only from the element that the signature was
found to cover. Whose the signer is, and whether it is valid now, is not asked here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from cryptography import x509

from kbs.core.encode import parse_hex
from kbs.core.errors import MalformedError
from kbs.evidence.nvgpu.device import select_leaf
from kbs.evidence.nvgpu.rim_xml import (
    SWID,
    read_certificates,
    read_tag,
    verify_signature,
)

if TYPE_CHECKING:
    from lxml import etree

MAX_INDEX = 254
"""RIM index i stands for measurement block i + 1, which is one byte."""

_MAX_ALTERNATIVES = 64
_MAX_DIGEST_BYTES = 64
_MAX_TEXT = 256

_HASH = re.compile(r"\{http://www\.w3\.org/2001/04/xmlenc#sha384\}Hash([0-9]{1,3})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class Golden:
    """The values that one measurement may have."""

    values: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rim:
    """A manifest whose signature holds under the first of its certificates."""

    digest: bytes
    """SHA-256 of the document."""
    product: str
    edition: str
    version: str
    tag_id: str
    measurements: Mapping[int, Golden]
    """Active ones, by RIM index."""
    certificates: tuple[x509.Certificate, ...]

    @property
    def signer(self) -> x509.Certificate:
        """The certificate that the signature was verified with."""
        return self.certificates[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class RimHeader:
    """What a manifest says it is about, before anything of it is proven."""

    product: str
    edition: str
    version: str


def read_header(document: bytes) -> RimHeader:
    """Return what a manifest says it is about; nothing in it is proven.

    Raises:
        MalformedError: it is no manifest of the accepted profile.
    """
    _, meta, _, _ = read_tag(document)
    return _header(meta)


def verify_rim(document: bytes) -> Rim:
    """Verify a manifest's signature under the certificate in it, and read its values.

    Raises:
        MalformedError: it is no manifest of the accepted profile.
        VerificationError: the signature does not hold.
    """
    certificates = read_certificates(read_tag(document))
    signer = select_leaf(certificates)
    if signer is None or signer != certificates[0]:
        raise MalformedError(
            "rim KeyInfo",
            got="another order of certificates",
            expected="the signer's first",
        )
    signed = verify_signature(document, signer)
    # What is signed lacks the signature itself; the shape was checked with it.
    _, meta, payload = signed
    header = _header(meta)
    return Rim(
        digest=hashlib.sha256(document).digest(),
        product=header.product,
        edition=header.edition,
        version=header.version,
        tag_id=_attribute(signed, "tagId"),
        measurements=_measurements(payload),
        certificates=certificates,
    )


def _header(meta: etree._Element) -> RimHeader:
    return RimHeader(
        product=_attribute(meta, "product"),
        edition=_attribute(meta, "edition"),
        version=_attribute(meta, "colloquialVersion"),
    )


def _attribute(element: etree._Element, name: str) -> str:
    value = element.get(name)
    if (
        not value
        or not value.isascii()
        or not value.isprintable()
        or len(value) > _MAX_TEXT
    ):
        raise MalformedError(f"rim {name}", got=repr(value)[:60], expected="a text")
    return str(value)


def _measurements(payload: etree._Element) -> Mapping[int, Golden]:
    active: dict[int, Golden] = {}
    seen: set[int] = set()
    for resource in payload:
        index = _number(resource, "index", MAX_INDEX)
        is_known = resource.tag == SWID + "Resource"
        if not is_known or resource.get("type") != "Measurement" or index in seen:
            raise MalformedError(
                "rim Resource",
                got=f"type {resource.get('type')!r}, index {index}"[:60],
                expected="a Measurement, every index once",
            )
        seen.add(index)
        golden = _golden(resource)
        if _flag(resource, "active"):
            active[index] = golden
    return MappingProxyType(active)


def _golden(resource: etree._Element) -> Golden:
    size = _number(resource, "size", _MAX_DIGEST_BYTES)
    alternatives = _number(resource, "alternatives", _MAX_ALTERNATIVES)
    values: dict[int, bytes] = {}
    for name, value in resource.attrib.items():
        match = _HASH.fullmatch(str(name))
        if match is not None:
            text = str(value).lower()
            values[int(match[1])] = parse_hex(text, "rim hash", size=size)
    if not size or sorted(values) != list(range(alternatives)) or not alternatives:
        raise MalformedError(
            "rim Resource",
            got=f"{len(values)} hashes of {size} bytes",
            expected=f"{alternatives}, numbered from 0",
        )
    return Golden(tuple(values[number] for number in range(alternatives)))


def _number(element: etree._Element, name: str, most: int) -> int:
    text = element.get(name) or ""
    if not _NUMBER.fullmatch(text) or int(text) > most:
        raise MalformedError(
            f"rim {name}", got=repr(text)[:20], expected=f"a number up to {most}"
        )
    return int(text)


def _flag(element: etree._Element, name: str) -> bool:
    text = element.get(name)
    if text not in {"True", "False"}:
        raise MalformedError(
            f"rim {name}", got=repr(text)[:20], expected="True or False"
        )
    return bool(text == "True")
