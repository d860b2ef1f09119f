"""A fake OCSP responder of NVIDIA's: answers requests for a device's certificates.

It repeats the nonce unless told otherwise, and is the issuer itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tests.fakes.nvidia import Device, FakeNvidia
from tests.fakes.vendor import Served, VendorService


@dataclass
class Responder(VendorService):
    """`nonce`: what stands in answers; None repeats the request's, empty leaves it out.

    `status` is what it says of every certificate; `realm` whose keys it signs by.
    """

    nvidia: FakeNvidia = field(default_factory=FakeNvidia)
    device: Device = field(default_factory=Device)
    nonce: bytes | None = None
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    age: timedelta = timedelta(hours=1)
    signer: FakeNvidia | None = None

    def find(self, path: str, body: bytes | None) -> Served | None:
        """Answer a request."""
        if body is None:
            return None
        request = ocsp.load_der_ocsp_request(body)
        chain = self.nvidia.device_chain(self.device)
        for place, one in enumerate(chain[:-1]):
            if one.serial_number == request.serial_number:
                return Served(self._answer(request, one, chain[place + 1], place))
        refused = ocsp.OCSPResponseBuilder.build_unsuccessful(
            ocsp.OCSPResponseStatus.UNAUTHORIZED
        )
        return Served(refused.public_bytes(Encoding.DER))

    def _answer(
        self,
        request: ocsp.OCSPRequest,
        certificate: x509.Certificate,
        issuer: x509.Certificate,
        place: int,
    ) -> bytes:
        begins = self.nvidia.now - self.age
        revoked = self.status is ocsp.OCSPCertStatus.REVOKED
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=certificate,
                issuer=issuer,
                algorithm=hashes.SHA384(),
                cert_status=self.status,
                this_update=begins,
                next_update=begins + timedelta(hours=24),
                revocation_time=begins if revoked else None,
                revocation_reason=None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self._responder(place))
        )
        asked = request.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
        said = asked if self.nonce is None else self.nonce
        if said:
            builder = builder.add_extension(x509.OCSPNonce(said), critical=False)
        response = builder.sign(self._key(place), hashes.SHA384())
        return response.public_bytes(Encoding.DER)

    def _responder(self, place: int) -> x509.Certificate:
        vendor = self.signer or self.nvidia
        return vendor.device_chain(self.device)[place + 1]

    def _key(self, place: int) -> ec.EllipticCurvePrivateKey:
        chip, vendor = self.device.chip, self.signer or self.nvidia
        labels = [
            vendor.brom(self.device),
            f"{chip} ica",
            f"{chip} identity",
            "root",
        ]
        return vendor.key(labels[place])
