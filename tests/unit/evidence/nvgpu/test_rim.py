"""A manifest counts in one form only, signed as NVIDIA signs, and as a whole."""

from __future__ import annotations

import re
from copy import deepcopy

import pytest
from lxml import etree
from signxml.algorithms import CanonicalizationMethod

from kbs.core.errors import KbsError, MalformedError, VerificationError
from kbs.evidence.model import StoredRim
from kbs.evidence.nvgpu.rim import verify_rim
from kbs.evidence.nvgpu.rim_xml import MAX_RIM_BYTES, is_rim
from kbs.evidence.nvgpu.shelf import ReadRim, RimShelf
from tests.fakes.nvidia import DRIVER_INDICES, Device, FakeNvidia, rim_tag, sign_tag

NVIDIA = FakeNvidia()
GPU = Device()
GOOD = NVIDIA.rim(GPU, "driver")
SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
DSIG = "{http://www.w3.org/2000/09/xmldsig#}"
KEY = NVIDIA.key("GH100 rim signer")
CHAIN = NVIDIA.rim_chain("GH100")


def tag() -> etree._Element:
    return rim_tag("GH100", "1.0", {7: (b"\x01" * 48,)})


def signed(root: etree._Element, **changes: object) -> bytes:
    return sign_tag(root, KEY, CHAIN, **changes)  # type: ignore[arg-type]


def edited(document: bytes, old: bytes, new: bytes) -> bytes:
    assert document.count(old) >= 1, old
    return document.replace(old, new, 1)


def test_a_manifest_as_nvidia_signs_it() -> None:
    rim = verify_rim(GOOD)
    assert (rim.product, rim.edition, rim.version) == ("GH100", "GPU", GPU.driver)
    assert set(rim.measurements) == set(DRIVER_INDICES)
    assert rim.measurements[7].values == (GPU.golden(7),)
    assert rim.signer == CHAIN[0]


def test_a_declaration_of_utf8_is_allowed_and_nothing_else_before_the_tag() -> None:
    head = b'<?xml version="1.0" encoding="UTF-8"?>\n'
    assert verify_rim(head + GOOD).version == GPU.driver
    for other in (b'<?xml version="1.0" encoding="UTF-16"?>', b"<?x?>", head + head):
        with pytest.raises(MalformedError):
            verify_rim(other + GOOD)


@pytest.mark.parametrize(
    "attack",
    [
        b'<!DOCTYPE x [<!ENTITY a "b">]>',
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd">',
        b"<!-- nothing -->",
    ],
)
def test_no_document_type_entity_or_comment(attack: bytes) -> None:
    with pytest.raises(MalformedError, match="document type"):
        verify_rim(attack + GOOD)
    inner = edited(GOOD, b"</Payload>", attack + b"</Payload>")
    with pytest.raises(MalformedError):
        verify_rim(inner)


def test_a_comment_hides_no_text() -> None:
    """Canonicalisation drops comments, so one could split a value unseen."""
    value = GPU.golden(7).hex().encode()
    hidden = edited(GOOD, b"</Payload>", b"<!--x--></Payload>")
    assert value in hidden
    with pytest.raises(MalformedError):
        verify_rim(hidden)


def test_an_entity_has_nothing_to_name() -> None:
    with pytest.raises(MalformedError):
        verify_rim(edited(GOOD, b'edition="GPU"', b'edition="&x;"'))


def test_other_encodings_hide_nothing() -> None:
    with pytest.raises(MalformedError):
        verify_rim(GOOD.decode().encode("utf-16"))
    with pytest.raises(MalformedError):
        verify_rim(b"\xff" + GOOD)


def test_a_large_document_is_not_read() -> None:
    with pytest.raises(MalformedError, match="at most"):
        verify_rim(GOOD + b" " * MAX_RIM_BYTES)


# --- what is signed ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'colloquialVersion="580.95.05"', b'colloquialVersion="580.95.06"'),
        (b'product="GH100"', b'product="GB100"'),
        (b'active="True"', b'active="False"'),
        (b'tagId="ab', b'tagId="ac'),
        (GPU.golden(7).hex().encode(), b"00" * 48),
    ],
)
def test_any_change_to_what_is_signed_is_found(old: bytes, new: bytes) -> None:
    with pytest.raises(VerificationError):
        verify_rim(edited(GOOD, old, new))


def test_a_signature_of_another_key_is_found() -> None:
    with pytest.raises(VerificationError):
        verify_rim(sign_tag(tag(), NVIDIA.key("stranger"), CHAIN))


def test_a_digest_of_its_own_does_not_help() -> None:
    """The digest is signed: changing document and digest breaks the signature."""
    mine, theirs = signed(tag()), GOOD
    digest = re.compile(rb"<ds:DigestValue>[^<]*</ds:DigestValue>")
    wanted = digest.search(mine)
    assert wanted is not None
    with pytest.raises(VerificationError):
        verify_rim(digest.sub(wanted.group(), theirs))


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": "ecdsa-sha256"},
        {"signature": "ecdsa-sha512"},
        {"digest": "sha256"},
        {"digest": "sha512"},
        {"c14n": CanonicalizationMethod.CANONICAL_XML_1_0},
        {"c14n": CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0},
        {"c14n": CanonicalizationMethod.CANONICAL_XML_1_1_WITH_COMMENTS},
    ],
)
def test_one_algorithm_only(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError, match="SignedInfo"):
        verify_rim(signed(tag(), **changes))


def test_no_mac_under_a_public_key() -> None:
    """A MAC algorithm would make a secret of what everybody knows."""
    mac = b"http://www.w3.org/2001/04/xmldsig-more#hmac-sha384"
    with pytest.raises(MalformedError, match="SignedInfo"):
        verify_rim(
            edited(GOOD, b"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384", mac)
        )


def test_a_signer_with_another_kind_of_key_is_refused() -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import CertificateBuilder

    key = ec.derive_private_key(11, ec.SECP256R1())
    signer = CHAIN[0]
    certificate = (
        CertificateBuilder()
        .subject_name(signer.subject)
        .issuer_name(signer.issuer)
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(signer.not_valid_before_utc)
        .not_valid_after(signer.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(VerificationError, match="another kind"):
        verify_rim(sign_tag(tag(), key, (certificate, *CHAIN[1:])))


# --- wrapping ---------------------------------------------------------------------


def parsed(document: bytes = GOOD) -> etree._Element:
    return etree.fromstring(document)


def written(root: etree._Element) -> bytes:
    return bytes(etree.tostring(root))


def wrap_in_new_root() -> etree._Element:
    root = tag()
    root.append(parsed())
    return root


def wrap_below_signature() -> etree._Element:
    """The signed tag hangs in the signature, another one is looked at."""
    original = parsed()
    root = tag()
    signature = original[-1]
    root.append(signature)
    signature.append(original)
    return root


def second_payload() -> etree._Element:
    root = parsed()
    root.insert(2, deepcopy(tag()[2]))
    return root


def payload_in_entity() -> etree._Element:
    root = parsed()
    root[0].append(deepcopy(tag()[2]))
    return root


def payload_in_signature() -> etree._Element:
    root = parsed()
    root[-1][1].append(deepcopy(tag()[2]))
    return root


def second_signature() -> etree._Element:
    root = parsed()
    root.append(deepcopy(root[-1]))
    return root


def signature_first() -> etree._Element:
    root = parsed()
    root.insert(0, root[-1])
    return root


def signature_of_another() -> etree._Element:
    root = tag()
    root.append(parsed()[-1])
    return root


def object_in_signature() -> etree._Element:
    root = parsed()
    etree.SubElement(root[-1], DSIG + "Object").append(tag())
    return root


def reference_by_id() -> etree._Element:
    root = parsed()
    root[2].set("ID", "x")
    root[-1][0][2].set("URI", "#x")
    return root


def no_reference() -> etree._Element:
    root = parsed()
    del root[-1][0][2]
    return root


def two_references() -> etree._Element:
    root = parsed()
    root[-1][0].append(deepcopy(root[-1][0][2]))
    return root


def xpath_transform() -> etree._Element:
    root = parsed()
    transforms = root[-1][0][2][0]
    etree.SubElement(
        transforms,
        DSIG + "Transform",
        Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116",
    )
    return root


def key_value() -> etree._Element:
    root = parsed()
    etree.SubElement(root[-1][2], DSIG + "KeyValue")
    return root


def no_certificates() -> etree._Element:
    root = parsed()
    for one in list(root[-1][2][0]):
        root[-1][2][0].remove(one)
    return root


def many_certificates() -> etree._Element:
    root = parsed()
    for _ in range(9):
        root[-1][2][0].append(deepcopy(root[-1][2][0][0]))
    return root


def root_first() -> etree._Element:
    root = parsed()
    data = root[-1][2][0]
    data.insert(0, data[-1])
    return root


def no_base64() -> etree._Element:
    root = parsed()
    root[-1][2][0][0].text = "%%%"
    return root


def long_certificate() -> etree._Element:
    root = parsed()
    root[-1][2][0][0].text = "A" * 40_000
    return root


def xml_attribute() -> etree._Element:
    root = parsed()
    root[1].set("{http://www.w3.org/XML/1998/namespace}base", "http://x")
    return root


def bare_signature_value() -> etree._Element:
    root = parsed()
    root[-1][1].text = "AAAA"
    return root


def odd_signature_value() -> etree._Element:
    root = parsed()
    root[-1][1].text = "A"
    return root


def no_key_info() -> etree._Element:
    root = parsed()
    del root[-1][2]
    return root


@pytest.mark.parametrize(
    "attack",
    [
        odd_signature_value,
        no_key_info,
        wrap_in_new_root,
        wrap_below_signature,
        second_payload,
        payload_in_entity,
        payload_in_signature,
        second_signature,
        signature_first,
        signature_of_another,
        object_in_signature,
        reference_by_id,
        no_reference,
        two_references,
        xpath_transform,
        key_value,
        no_certificates,
        many_certificates,
        root_first,
        no_base64,
        long_certificate,
        xml_attribute,
        bare_signature_value,
    ],
    ids=lambda attack: attack.__name__,
)
def test_no_other_structure(attack: object) -> None:
    assert callable(attack)
    with pytest.raises((MalformedError, VerificationError)):
        verify_rim(written(attack()))


def test_no_signature_at_all() -> None:
    with pytest.raises(MalformedError):
        verify_rim(written(tag()))


# --- values -----------------------------------------------------------------------


def resource(root: etree._Element, index: int = 7) -> etree._Element:
    return root[2][index]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "Other"),
        ("index", "8"),
        ("index", "255"),
        ("index", "-1"),
        ("index", "07"),
        ("active", "true"),
        ("alternatives", "2"),
        ("alternatives", "0"),
        ("size", "32"),
        ("size", "0"),
        ("size", "65"),
        ("{http://www.w3.org/2001/04/xmlenc#sha384}Hash0", "zz" * 48),
        ("{http://www.w3.org/2001/04/xmlenc#sha384}Hash2", "00" * 48),
    ],
)
def test_values_have_one_form(name: str, value: str) -> None:
    """Signed for real: whoever signs it, another form is not understood."""
    root = tag()
    resource(root).set(name, value)
    with pytest.raises(MalformedError):
        verify_rim(signed(root))


@pytest.mark.parametrize("name", ["product", "edition", "colloquialVersion"])
@pytest.mark.parametrize("value", ["", "\u00e9", "x" * 300])
def test_what_it_is_about_is_a_text(name: str, value: str) -> None:
    root = tag()
    root[1].set(name, value)
    with pytest.raises(MalformedError):
        verify_rim(signed(root))


def test_another_element_among_the_values_is_malformed() -> None:
    root = tag()
    etree.SubElement(root[2], SWID + "File", index="90", type="Measurement")
    with pytest.raises(MalformedError):
        verify_rim(signed(root))


# --- the shelf --------------------------------------------------------------------


def test_the_shelf_remembers_what_it_found() -> None:
    shelf = RimShelf(limit=2)
    documents = [GOOD, b"<x/>", sign_tag(tag(), NVIDIA.key("stranger"), CHAIN)]
    found = [shelf.read(StoredRim(one)) for one in documents]
    assert isinstance(found[0], ReadRim)
    assert found[0].rim is not None
    assert isinstance(found[1], str)
    assert isinstance(found[2], ReadRim)
    assert found[2].rim is None
    assert found[2].fault
    assert shelf.read(StoredRim(documents[2])) is found[2]
    assert isinstance(RimShelf().read(StoredRim(written(no_certificates()))), str)
    again = shelf.read(StoredRim(GOOD))
    assert again == found[0]
    assert again is not found[0]


def test_only_a_tag_is_taken_for_one() -> None:
    assert is_rim(GOOD)
    assert is_rim(b'<?xml version="1.0"?>\n<ns0:SoftwareIdentity x="y">')
    assert not is_rim(b"<SoftwareIdentities>")
    assert not is_rim(b"{}")


def test_every_error_is_ours() -> None:
    for size in range(0, len(GOOD), 997):
        with pytest.raises(KbsError):
            verify_rim(GOOD[:size])
