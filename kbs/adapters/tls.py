"""A generated certificate for TLS; clients pin its digest instead of a WebPKI chain."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kbs.adapters.files import write_private
from kbs.core.errors import ConfigurationError, MalformedError

CERTIFICATE_NAME = "tls.crt"
KEY_NAME = "tls.key"

# Pinned by digest, so that its end says nothing about trust; it must not surprise.
LIFETIME = timedelta(days=3650)

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DNS_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9][A-Za-z0-9-]{0,62}(\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*",
    re.ASCII,
)


def create_certificate(folder: Path, hosts: Iterable[str], now: datetime) -> None:
    """Write a new key and a self-signed certificate for `hosts` and loopback.

    Raises:
        ConfigurationError: the files cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kbs")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(folder / KEY_NAME, private, replace=False)
    write_private(
        folder / CERTIFICATE_NAME,
        certificate.public_bytes(Encoding.PEM),
        replace=False,
    )


def certificate_sha256(folder: Path) -> str:
    """Return hex SHA-256 of the certificate in DER, which clients pin.

    Raises:
        ConfigurationError: there is no certificate.
    """
    path = folder / CERTIFICATE_NAME
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError, x509.InvalidVersion) as exc:
        raise ConfigurationError(
            f"TLS certificate {path}",
            got=(exc.strerror if isinstance(exc, OSError) else None)
            or "no certificate, or a damaged one",
            expected="an X.509 certificate in PEM",
        ) from exc
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def parse_host(text: str) -> str:
    """Accept a DNS name (RFC 1123, section 2.1) or an IP address.

    Raises:
        MalformedError: anything else.
    """
    with suppress(ValueError):
        return str(ipaddress.ip_address(text))
    if not _DNS_NAME.fullmatch(text):
        raise MalformedError(
            "--host",
            got=repr(text)[:80],
            expected="a DNS name or an IP address, without scheme and port",
        )
    return text


def _names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    # One of each, in order: a certificate that names a host twice is no use to anybody.
    return [_name(host) for host in dict.fromkeys((*_LOOPBACK, *hosts))]


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
