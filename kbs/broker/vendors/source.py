"""Where vendors publish collateral, and what may be asked for there.

A *source* is written as the URL under which the vendor itself publishes something. It
says what is wanted, not whom to ask: a site may put a mirror or a caching service (a
PCCS) in the place of a vendor's. Whatever is no source is not asked for, so that nobody
who can write one down chooses where this machine connects to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from kbs.core.errors import MalformedError


class Service(StrEnum):
    """A vendor's service, by the name that settings give it."""

    KDS = "kds"  # AMD Key Distribution Service
    PCS = "pcs"  # Intel Provisioning Certification Service, or a PCCS
    INTEL = "intel"  # where Intel publishes the list of its root
    RIM = "rim"  # NVIDIA reference integrity manifests
    OCSP = "ocsp"  # NVIDIA certificate status


VENDOR_URLS: Mapping[Service, str] = {
    # AMD 57230, section 4.
    Service.KDS: "https://kdsintf.amd.com",
    # Intel SGX and TDX Provisioning Certification Service, API version 4.
    Service.PCS: "https://api.trustedservices.intel.com",
    # Distribution point in Intel's root certificate.
    Service.INTEL: "https://certificates.trustedservices.intel.com",
    # NVIDIA attestation-sdk, its defaults.
    Service.RIM: "https://rim.attestation.nvidia.com",
    Service.OCSP: "https://ocsp.ndis.nvidia.com",
}

_MAX_URL = 2048
_PATH = re.compile(r"/[A-Za-z0-9._~%/?&=+-]*", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One thing that a vendor publishes; `path` has its query."""

    service: Service
    path: str

    @property
    def url(self) -> str:
        """The URL under which the vendor publishes it."""
        return VENDOR_URLS[self.service] + self.path

    @property
    def log_name(self) -> str:
        """The same for the log, without what may name one device."""
        per_device = self.service is Service.OCSP or "SPL=" in self.path
        return VENDOR_URLS[self.service] if per_device else self.url


@dataclass(frozen=True, slots=True)
class Services:
    """Whom to ask in place of each vendor's own service."""

    urls: Mapping[Service, str] = field(default_factory=lambda: VENDOR_URLS)

    def url_of(self, source: Source) -> str:
        """Return the URL to ask."""
        return self.urls[source.service] + source.path


def split_url(text: str) -> Source:
    """Return the source that a URL of a vendor's stands for.

    Whether the service has anything of that form, `Vendors` knows.

    Raises:
        MalformedError: it is no URL of a vendor's service.
    """
    for service, base in VENDOR_URLS.items():
        path = text.removeprefix(base)
        if path != text and len(text) <= _MAX_URL and _PATH.fullmatch(path):
            return Source(service, path)
    raise MalformedError(
        "source",
        got=ascii(text)[:120],
        expected="a URL below " + ", ".join(sorted(VENDOR_URLS.values())),
        code="collateral.source",
    )


def parse_services(given: Mapping[str, str]) -> Services:
    """Return the services of a site: name to base URL, the rest are the vendors' own.

    Raises:
        MalformedError: a name or URL is none.
    """
    urls = dict(VENDOR_URLS)
    for name, url in given.items():
        if name not in set(Service):
            raise MalformedError(
                "service", got=ascii(name)[:40], expected=", ".join(Service)
            )
        urls[Service(name)] = _base_url(url)
    return Services(urls)


def _base_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    allowed = parts.scheme in {"https", "http"} and _HOST.fullmatch(parts.netloc)
    path = parts.path.rstrip("/")
    if not (host and plain and allowed and (not path or _PATH.fullmatch(path))):
        raise MalformedError(
            "URL of a service",
            got=ascii(text)[:120],
            expected="https://HOST[:PORT][/PREFIX], without credentials",
        )
    return f"{parts.scheme}://{parts.netloc}{path}"
