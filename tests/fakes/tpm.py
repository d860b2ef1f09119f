"""A TPM 2.0 in pure Python, as far as attestation needs one: it really signs.

It holds PCR banks, an attestation key and an endorsement key, quotes, and activates
credentials. It knows no authorisations and no sessions: what must hold against a real
TPM is tested against a software TPM (`tests/tpm`).
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from kbs.core.encode import b64
from kbs.core.reader import Reader
from kbs.evidence.vtpm.abi import (
    Attest,
    PcrSelection,
    Signature,
    serialize_attest,
    serialize_signature,
)
from kbs.evidence.vtpm.algorithms import (
    CURVES,
    DIGEST_SIZES,
    NAME_HASHES,
    SIGNATURE_HASHES,
    Algorithm,
    digest,
    hash_of,
    parse_bank,
)
from kbs.evidence.vtpm.credential import kdfa, kdfe
from kbs.evidence.vtpm.pcrs import pcrs_to_json
from kbs.evidence.vtpm.public import (
    NO_SCHEME,
    EccParameters,
    ObjectAttributes,
    RsaParameters,
    Scheme,
    Symmetric,
    TpmPublic,
    coordinate_size,
    serialize_public,
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

AK_ATTRIBUTES = (
    ObjectAttributes.FIXED_TPM
    | ObjectAttributes.FIXED_PARENT
    | ObjectAttributes.SENSITIVE_DATA_ORIGIN
    | ObjectAttributes.USER_WITH_AUTH
    | ObjectAttributes.RESTRICTED
    | ObjectAttributes.SIGN
)
EK_ATTRIBUTES = (
    ObjectAttributes.FIXED_TPM
    | ObjectAttributes.FIXED_PARENT
    | ObjectAttributes.SENSITIVE_DATA_ORIGIN
    | ObjectAttributes.ADMIN_WITH_POLICY
    | ObjectAttributes.RESTRICTED
    | ObjectAttributes.DECRYPT
)
DEFAULT_SELECTION = (0, 1, 2, 3, 4, 5, 6, 7, 15)
ENDORSEMENT_HIERARCHY = bytes.fromhex("4000000b")
PCR_BANKS = (Algorithm.SHA1, Algorithm.SHA256, Algorithm.SHA384)


class FakeTpm:
    """One TPM with an attestation key of the given scheme and hash."""

    def __init__(
        self,
        scheme: str = "ecdsa",
        hash: str = "sha256",  # noqa: A002 - what the specification calls it
        *,
        attributes: ObjectAttributes = AK_ATTRIBUTES,
        endorsement: str = "ecc",
    ) -> None:
        """Make the keys; PCRs start at their initial values."""
        self.scheme = Algorithm[scheme.upper()]
        self.hash = Algorithm[hash.upper()]
        self.key: PrivateKey = (
            ec.generate_private_key(CURVES[curve_for(self.hash)])
            if self.scheme is Algorithm.ECDSA
            else rsa_key()
        )
        self.public = public_of(
            self.key, attributes=attributes, scheme=Scheme(self.scheme, self.hash)
        )
        self.endorsement_key: PrivateKey = (
            ec.generate_private_key(ec.SECP256R1())
            if endorsement == "ecc"
            else rsa_key()
        )
        self.endorsement_public = public_of(
            self.endorsement_key,
            attributes=EK_ATTRIBUTES,
            symmetric=Symmetric(128),
            auth_policy=bytes(32),
        )
        self.pcrs = {
            (bank, pcr): _initial_value(bank, pcr)
            for bank in PCR_BANKS
            for pcr in range(24)
        }
        self.parent_name = ENDORSEMENT_HIERARCHY
        self.clock = 5994
        self.reset_count = 3
        self.restart_count = 1
        self.safe = True
        self.firmware_version = 0x2016051100162800

    @property
    def ak_public(self) -> bytes:
        """The attestation key's TPM2B_PUBLIC."""
        return serialize_public(self.public)

    @property
    def ak_name(self) -> bytes:
        """The attestation key's name."""
        return self.public.name

    @property
    def ak_spki(self) -> bytes:
        """The attestation key as DER SubjectPublicKeyInfo."""
        return self.public.spki

    @property
    def ek_public(self) -> bytes:
        """The endorsement key's TPM2B_PUBLIC."""
        return serialize_public(self.endorsement_public)

    @property
    def qualified_name(self) -> bytes:
        """The attestation key's qualified name below `parent_name`."""
        algorithm = self.public.name_algorithm
        inner = digest(NAME_HASHES[algorithm], self.parent_name, self.ak_name)
        return algorithm.to_bytes(2, "big") + inner

    def extend(self, pcr: int, value: bytes) -> None:
        """TPM2_PCR_Extend in the bank whose digests are as long as `value`."""
        sizes = {DIGEST_SIZES[bank]: bank for bank in PCR_BANKS}
        bank = sizes[len(value)]
        algorithm = hash_of(bank)
        assert algorithm is not None
        self.pcrs[bank, pcr] = digest(algorithm, self.pcrs[bank, pcr], value)

    def quote(
        self,
        extra_data: bytes,
        selection: Iterable[int] = DEFAULT_SELECTION,
        banks: Iterable[str] = ("sha256",),
    ) -> tuple[bytes, bytes]:
        """TPM2_Quote: the TPMS_ATTEST and the TPMT_SIGNATURE."""
        numbers = tuple(sorted(selection))
        selections = tuple(
            PcrSelection(parse_bank(name, "bank"), numbers) for name in banks
        )
        values = [
            self.pcrs[entry.bank, pcr] for entry in selections for pcr in entry.pcrs
        ]
        message = serialize_attest(
            Attest(
                qualified_signer=self.qualified_name,
                extra_data=extra_data,
                clock=self.clock,
                reset_count=self.reset_count,
                restart_count=self.restart_count,
                safe=self.safe,
                firmware_version=self.firmware_version,
                pcr_select=selections,
                pcr_digest=digest(SIGNATURE_HASHES[self.hash], *values),
            )
        )
        return message, self.sign(message)

    def quote_item(
        self,
        extra_data: bytes,
        selection: Iterable[int] = DEFAULT_SELECTION,
        banks: Iterable[str] = ("sha256",),
        event_log: bytes | None = None,
    ) -> dict[str, object]:
        """Return a bundle's item: quote, PCR values, key, and the log if given."""
        numbers, names = tuple(selection), tuple(banks)
        message, signature = self.quote(extra_data, numbers, names)
        values = {
            (parse_bank(name, "bank"), pcr): self.pcrs[parse_bank(name, "bank"), pcr]
            for name in names
            for pcr in numbers
        }
        item: dict[str, object] = {
            "kind": "vtpm",
            "quote": {"message": b64(message), "signature": b64(signature)},
            "pcrs": pcrs_to_json(values),
            "ak": b64(self.ak_public),
        }
        if event_log is not None:
            item["event_log"] = b64(event_log)
        return item

    def sign(self, message: bytes) -> bytes:
        """Sign as the attestation key does: a TPMT_SIGNATURE."""
        algorithm = SIGNATURE_HASHES[self.hash]
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            der = self.key.sign(message, ec.ECDSA(algorithm))
            size = coordinate_size(curve_for(self.hash))
            r, s = decode_dss_signature(der)
            values: tuple[bytes, ...] = (
                r.to_bytes(size, "big"),
                s.to_bytes(size, "big"),
            )
        elif self.scheme is Algorithm.RSASSA:
            values = (self.key.sign(message, padding.PKCS1v15(), algorithm),)
        else:
            pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
            values = (self.key.sign(message, pss, algorithm),)
        return serialize_signature(
            Signature(scheme=self.scheme, hash=self.hash, values=values)
        )

    def activate_credential(self, credential_blob: bytes, secret: bytes) -> bytes:
        """TPM2_ActivateCredential for the attestation key; raises if it is not its.

        Both arguments are TPM2Bs, as `make_credential` writes them.
        """
        outer = Reader(credential_blob, "TPM2B_ID_OBJECT")
        content = Reader(outer.sized(2, "credential", limit=512), "TPMS_ID_OBJECT")
        outer.end()
        integrity = content.sized(2, "integrityHMAC", limit=64)
        identity = content.take(content.remaining, "encIdentity")
        seed = self._open_seed(secret)
        algorithm = NAME_HASHES[self.endorsement_public.name_algorithm]
        check = hmac.HMAC(kdfa(algorithm, seed, b"INTEGRITY", b"", 32), algorithm)
        check.update(identity + self.ak_name)
        check.verify(integrity)
        key = kdfa(algorithm, seed, b"STORAGE", self.ak_name, 16)
        decryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor()
        inner = Reader(decryptor.update(identity) + decryptor.finalize(), "credential")
        credential = inner.sized(2, "credential", limit=64)
        inner.end()
        return credential

    def _open_seed(self, secret: bytes) -> bytes:
        outer = Reader(secret, "TPM2B_ENCRYPTED_SECRET")
        content = outer.sized(2, "secret", limit=512)
        outer.end()
        algorithm = NAME_HASHES[self.endorsement_public.name_algorithm]
        if isinstance(self.endorsement_key, rsa.RSAPrivateKey):
            oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, b"IDENTITY\0")
            return self.endorsement_key.decrypt(content, oaep)
        point = Reader(content, "TPMS_ECC_POINT")
        x = point.sized(2, "x", limit=48)
        y = point.sized(2, "y", limit=48)
        point.end()
        own = self.endorsement_key
        peer = ec.EllipticCurvePublicNumbers(
            int.from_bytes(x, "big"), int.from_bytes(y, "big"), own.curve
        ).public_key()
        parameters = self.endorsement_public.parameters
        assert isinstance(parameters, EccParameters)
        shared = own.exchange(ec.ECDH(), peer)
        return kdfe(algorithm, shared, b"IDENTITY", x, parameters.x)


def public_of(
    key: PrivateKey,
    *,
    attributes: ObjectAttributes,
    scheme: Scheme = NO_SCHEME,
    symmetric: Symmetric | None = None,
    auth_policy: bytes = b"",
) -> TpmPublic:
    """Return a TPMT_PUBLIC with SHA-256 names for a key."""
    if isinstance(key, rsa.RSAPrivateKey):
        modulus = key.public_key().public_numbers().n
        size = key.key_size // 8
        parameters: RsaParameters | EccParameters = RsaParameters(
            key.key_size, 0, modulus.to_bytes(size, "big")
        )
    else:
        numbers = key.public_key().public_numbers()
        names = {curve.name: number for number, curve in CURVES.items()}
        curve = names[key.curve.name]
        size = coordinate_size(curve)
        parameters = EccParameters(
            curve,
            NO_SCHEME,
            numbers.x.to_bytes(size, "big"),
            numbers.y.to_bytes(size, "big"),
        )
    return TpmPublic(
        name_algorithm=Algorithm.SHA256,
        attributes=attributes,
        auth_policy=auth_policy,
        symmetric=symmetric,
        scheme=scheme,
        parameters=parameters,
    )


def curve_for(hash_algorithm: Algorithm) -> int:
    """Return the curve as strong as a hash: P-256 or P-384."""
    return 0x0004 if hash_algorithm is Algorithm.SHA384 else 0x0003


def rsa_key() -> rsa.RSAPrivateKey:
    """Return a fresh RSA key; takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def hash_bytes(bank: str, data: bytes) -> bytes:
    """Return a digest in a bank's hash."""
    algorithm = hash_of(parse_bank(bank, "bank"))
    assert algorithm is not None
    return digest(algorithm, data)


def _initial_value(bank: Algorithm, pcr: int) -> bytes:
    # PC Client Platform TPM Profile: what locality 4 alone resets starts at ones.
    fill = b"\xff" if 17 <= pcr <= 22 else b"\x00"
    return fill * DIGEST_SIZES[bank]
