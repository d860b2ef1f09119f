"""The XML of a manifest: one accepted profile, and the signature in it.

XML Signature Syntax and Processing 1.1. Nothing else of XML is accepted than what
NVIDIA uses:

* UTF-8; no document type, no entity, comment, CDATA or processing instruction, so that
  there is nothing to expand and no text that canonicalisation hides;
* one signature, the last child of the root, over the whole document (`URI=""`) by
  exactly the enveloped and the C14N 1.1 transform; ECDSA P-384 with SHA-384;
* in KeyInfo certificates only, the signer's first.

lxml and signxml are loaded with the first manifest, because a broker without NVIDIA's
GPUs does not need their megabytes. That they are installed is seen at import.
"""

from __future__ import annotations

import base64
import binascii
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.core.errors import MalformedError, VerificationError
from kbs.pki.certificates import MAX_CERTIFICATE_BYTES, load_der_certificate

if TYPE_CHECKING:
    from lxml import etree

for _library in ("lxml", "signxml"):
    if find_spec(_library) is None:
        raise ModuleNotFoundError(f"No module named {_library!r}", name=_library)

MAX_RIM_BYTES = 256 * 1024
"""One manifest; the largest seen has 26 KiB."""

SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_DSIG = "{http://www.w3.org/2000/09/xmldsig#}"

_MAX_CERTIFICATES = 8
_PROLOGUE = re.compile(rb"\A<\?xml version=\"1\.0\"(?: encoding=\"(?i:utf-8)\")?\?>\s*")

_C14N = "http://www.w3.org/2006/12/xml-c14n11"
_TRANSFORMS = ["http://www.w3.org/2000/09/xmldsig#enveloped-signature", _C14N]
# RFC 9231, ECDSA-SHA384 and SHA-384.
_ECDSA_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"
# Elements of the one accepted signature, in document order.
_SIGNED_INFO = [
    ("CanonicalizationMethod", {"Algorithm": _C14N}),
    ("SignatureMethod", {"Algorithm": _ECDSA_SHA384}),
    ("Reference", {"URI": ""}),
    ("Transforms", {}),
    *(("Transform", {"Algorithm": algorithm}) for algorithm in _TRANSFORMS),
    ("DigestMethod", {"Algorithm": _SHA384}),
    ("DigestValue", {}),
]


def is_rim(data: bytes) -> bool:
    """Whether bytes begin as a SWID tag does."""
    start = _PROLOGUE.sub(b"", data[:512].lstrip())
    return re.match(rb"<(?:[A-Za-z0-9]+:)?SoftwareIdentity[\s/>]", start) is not None


def read_tag(document: bytes) -> etree._Element:
    """Return the root of a document in the accepted profile; nothing is proven.

    Raises:
        MalformedError: it is none.
    """
    root = _parse(document)
    _check_shape(root)
    return root


def _parse(document: bytes) -> etree._Element:
    from lxml import etree  # noqa: PLC0415 - see the module's docstring

    if len(document) > MAX_RIM_BYTES:
        raise MalformedError(
            "rim", got=f"{len(document)} bytes", expected=f"at most {MAX_RIM_BYTES}"
        )
    body = _PROLOGUE.sub(b"", document)
    if b"<!" in body or b"<?" in body:
        raise MalformedError(
            "rim",
            got="a document type, entity, comment, CDATA or processing instruction",
            expected="elements and text only",
        )
    try:
        body.decode("utf-8")
        # Nothing above is left for these to refuse; they stay as a second wall.
        parser = etree.XMLParser(
            encoding="utf-8",
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            dtd_validation=False,
            huge_tree=False,
            recover=False,
            remove_blank_text=False,
        )
        return etree.fromstring(body, parser)
    except (UnicodeDecodeError, etree.XMLSyntaxError, ValueError) as exc:
        raise MalformedError("rim", got="no XML in UTF-8", expected="a RIM") from exc


def _check_shape(root: etree._Element) -> None:
    """Refuse everything that is not the one accepted form of tag and signature."""
    tags = [child.tag for child in root]
    wanted = [SWID + name for name in ("Entity", "Meta", "Payload")]
    if root.tag != SWID + "SoftwareIdentity" or tags != [*wanted, _DSIG + "Signature"]:
        raise MalformedError(
            "rim",
            got=f"{str(root.tag)[-40:]} of {len(tags)} other elements",
            expected="SoftwareIdentity of Entity, Meta, Payload and one Signature",
        )
    # A second element of these names, wherever it stands, is how wrapping begins.
    for name in (_DSIG + "Signature", SWID + "Meta", SWID + "Payload", root.tag):
        if sum(1 for _ in root.iter(name)) != 1:
            raise MalformedError("rim", got=f"several {name[-20:]}", expected="one")
    for element in root.iter():
        for attribute in map(str, element.attrib):
            # An id would give a reference something else than the document to name.
            is_xml = attribute.startswith("{http://www.w3.org/XML/1998/namespace}")
            if is_xml or attribute.lower() == "id":
                raise MalformedError("rim", got=attribute, expected="no such attribute")
    _check_signature_shape(root[-1])


def _check_signature_shape(signature: etree._Element) -> None:
    tags = [child.tag for child in signature]
    if tags != [_DSIG + name for name in ("SignedInfo", "SignatureValue", "KeyInfo")]:
        raise MalformedError(
            "rim Signature",
            got=", ".join(str(tag).rpartition("}")[2] for tag in tags)[:80],
            expected="SignedInfo, SignatureValue, KeyInfo",
        )
    found = [
        (str(element.tag), dict(element.attrib)) for element in signature[0].iter()
    ]
    wanted = [(_DSIG + name, attributes) for name, attributes in _SIGNED_INFO]
    if found[1:] != wanted:
        raise MalformedError(
            "rim SignedInfo",
            got="another algorithm, transform or reference",
            expected="ECDSA-SHA384 over the whole document, enveloped, C14N 1.1",
        )


def read_certificates(root: etree._Element) -> tuple[x509.Certificate, ...]:
    """Return the certificates in the signature of a tag, in their order.

    Raises:
        MalformedError: there is something else, or a certificate cannot be read.
    """
    data = list(root[-1][2])
    listed = list(data[0]) if len(data) == 1 else []
    is_known = all(
        element.tag == _DSIG + "X509Certificate" and not len(element)
        for element in listed
    )
    if not listed or not is_known or data[0].tag != _DSIG + "X509Data":
        raise MalformedError(
            "rim KeyInfo", got="another content", expected="X509Data of certificates"
        )
    if len(listed) > _MAX_CERTIFICATES:
        raise MalformedError(
            "rim KeyInfo",
            got=f"{len(listed)} certificates",
            expected=f"at most {_MAX_CERTIFICATES}",
        )
    return tuple(_certificate(element.text or "") for element in listed)


def _certificate(text: str) -> x509.Certificate:
    compact = "".join(text.split())
    if len(compact) > 2 * MAX_CERTIFICATE_BYTES:
        raise MalformedError("rim certificate", got="too long a text")
    try:
        der = base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedError("rim certificate", got="no base64") from exc
    return load_der_certificate(der, "rim certificate")


def verify_signature(document: bytes, signer: x509.Certificate) -> etree._Element:
    """Return the element that the signer's signature covers.

    Raises:
        VerificationError: the signature does not hold.
        MalformedError: the library cannot read it.
    """
    from lxml import etree  # noqa: PLC0415 - see the module's docstring
    from signxml import algorithms, verifier  # noqa: PLC0415 - as above
    from signxml.exceptions import SignXMLException  # noqa: PLC0415 - as above

    try:
        key = signer.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedError("rim signer", got="a key that cannot be read") from exc
    if not (
        isinstance(key, ec.EllipticCurvePublicKey)
        and isinstance(key.curve, ec.SECP384R1)
    ):
        raise VerificationError(
            "rim signature", got="a signer's key of another kind", expected="P-384"
        )
    config = verifier.SignatureConfiguration(
        require_x509=True,
        location="./",
        expect_references=1,
        signature_methods=frozenset({algorithms.SignatureMethod.ECDSA_SHA384}),
        digest_algorithms=frozenset({algorithms.DigestAlgorithm.SHA384}),
        ignore_ambiguous_key_info=False,
        # Dates are a check of their own, at the time that the caller gives.
        verification_time=signer.not_valid_before_utc,
    )
    try:
        result = verifier.XMLVerifier().verify(
            _PROLOGUE.sub(b"", document), x509_cert=signer, expect_config=config
        )
    except (SignXMLException, InvalidSignature, UnsupportedAlgorithm) as exc:
        raise VerificationError(
            "rim signature", got=_words(exc), expected="the signer's over this document"
        ) from exc
    except (etree.LxmlError, ValueError, TypeError, KeyError) as exc:
        raise MalformedError("rim signature", got=type(exc).__name__) from exc
    signed = getattr(result, "signed_xml", None)
    if signed is None or signed.tag != SWID + "SoftwareIdentity":
        # The one reference is to the whole document, so this cannot be; values are
        # read from what is returned here, so it had better not.
        raise VerificationError(
            "rim signature", got="another element signed", expected="the whole tag"
        )
    return signed


def _words(exc: Exception) -> str:
    return "another digest" if "igest" in str(exc) else "one that does not verify"
