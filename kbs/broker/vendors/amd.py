"""AMD's Key Distribution Service: issuers, revocation lists, VCEKs.

AMD 57230, Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface
Specification, section 4. The service has one of each per product line; the list is the
root's and the same below `/vcek` and `/vlek`. A VLEK is not published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cryptography import x509

from kbs.broker.vendors.source import Service, Source
from kbs.broker.vendors.visit import Route, Visit
from kbs.core.errors import MalformedError
from kbs.evidence.snp.certificates import (
    EndorsementKey,
    is_endorsement_key,
    parse_endorsement_key,
)
from kbs.evidence.snp.products import ProductLine
from kbs.evidence.snp.service import chain_path, crl_path, vcek_path
from kbs.pki.certificates import (
    MAX_CERTIFICATE_BYTES,
    MAX_CRL_BYTES,
    der,
    describe,
    load_certificates,
    load_der_certificate,
    load_der_crl,
    spki_sha256,
)
from kbs.pki.chain import Chain
from kbs.pki.roots import Purpose, amd_product_line, pinned_roots

_LINES = "|".join(ProductLine)
_CHAIN_PATH = re.compile(rf"/(?P<kind>vcek|vlek)/v1/(?P<line>{_LINES})/cert_chain")
_CRL_PATH = re.compile(rf"/(?:vcek|vlek)/v1/(?P<line>{_LINES})/crl")
_VCEK_PATH = re.compile(
    rf"/vcek/v1/(?P<line>{_LINES})/(?P<hwid>[0-9a-f]{{16}}|[0-9a-f]{{128}})\?"
    r"blSPL=(?P<bootloader>\d{1,3})&teeSPL=(?P<tee>\d{1,3})"
    r"&snpSPL=(?P<snp>\d{1,3})&ucodeSPL=(?P<microcode>\d{1,3})"
    r"(?:&fmcSPL=(?P<fmc>\d{1,3}))?",
    re.ASCII,
)
_ISSUERS = {"vcek": "SEV-", "vlek": "SEV-VLEK-"}
_MAX_CHAIN = 2
_MAX_CHAIN_BYTES = 64 * 1024


def chain_source(line: str, kind: str = "vcek") -> Source:
    """Return where the issuer of a line's VCEKs or VLEKs lies, with its root."""
    return Source(Service.KDS, chain_path(line, kind))


def crl_source(line: str) -> Source:
    """Return where the revocation list of a line's root lies."""
    return Source(Service.KDS, crl_path(line))


def vcek_source(line: str, hwid: bytes, tcb: Mapping[str, int]) -> Source:
    """Return where the VCEK of a chip at one TCB lies."""
    return Source(Service.KDS, vcek_path(line, hwid, tcb))


def source_of_certificate(certificate: x509.Certificate) -> Source | None:
    """Return where AMD publishes a certificate; None if it is not AMD's, or a VLEK."""
    if is_endorsement_key(certificate):
        try:
            key = parse_endorsement_key(certificate)
        except MalformedError:
            return None
        if key.hwid is None or key.product is None:
            return None
        return vcek_source(key.product, key.hwid, key.tcb)
    return _ISSUER_SOURCES.get(describe(certificate.subject))


def source_of_list(crl: x509.CertificateRevocationList) -> Source | None:
    """Return where AMD publishes a revocation list; None if it is not AMD's."""
    line = describe(crl.issuer).removeprefix("ARK-")
    return crl_source(line) if line in set(ProductLine) else None


def _fetch_chain(visit: Visit, match: re.Match[str]) -> tuple[bytes, ...]:
    chain = _issuer_chain(visit, match["line"], match["kind"])
    return tuple(der(one) for one in chain.certificates)


def _fetch_list(visit: Visit, match: re.Match[str]) -> tuple[bytes, ...]:
    answer = visit.ask(crl_source(match["line"]), limit=MAX_CRL_BYTES)
    try:
        crl = load_der_crl(answer.body, "AMD revocation list")
    except MalformedError as exc:
        raise visit.wrong(str(exc), "a revocation list in DER") from exc
    root = _known_root(visit, match["line"])
    more: tuple[x509.Certificate, ...] = ()
    if root is None:
        chain = _issuer_chain(visit, match["line"], "vcek")
        root, more = chain.root, chain.certificates
    visit.proven_list(crl, root)
    return (*(der(one) for one in more), der(crl))


def _fetch_vcek(visit: Visit, match: re.Match[str]) -> tuple[bytes, ...]:
    wanted = {
        name: int(text)
        for name, text in match.groupdict().items()
        if _is_svn(name, text)
    }
    source = vcek_source(match["line"], bytes.fromhex(match["hwid"]), wanted)
    answer = visit.ask(source, limit=MAX_CERTIFICATE_BYTES)
    try:
        leaf = load_der_certificate(answer.body, "VCEK")
        key = parse_endorsement_key(leaf)
    except MalformedError as exc:
        raise visit.wrong(str(exc), "a VCEK in DER") from exc
    _check_vcek(visit, key, match, wanted)
    pool = visit.known.certificates()
    if not visit.has_chain(leaf, pool, Purpose.SNP):
        pool = _issuer_chain(visit, match["line"], "vcek").certificates
    chain = visit.proven_chain(leaf, pool, Purpose.SNP)
    _check_line(visit, chain, match["line"])
    return tuple(der(one) for one in chain.certificates)


def _is_svn(name: str, text: str | None) -> bool:
    return name not in {"line", "hwid"} and text is not None


def _check_vcek(
    visit: Visit, key: EndorsementKey, match: re.Match[str], wanted: Mapping[str, int]
) -> None:
    hwid = "none" if key.hwid is None else key.hwid.hex()
    got = (key.product, hwid, dict(key.tcb))
    if got != (match["line"], match["hwid"], wanted):
        raise visit.wrong(
            f"{key.product_name}, chip {hwid[:16]}…, TCB {dict(key.tcb)}",
            f"{match['line']}, chip {match['hwid'][:16]}…, TCB {wanted}",
        )


def _issuer_chain(visit: Visit, line: str, kind: str) -> Chain:
    answer = visit.ask(chain_source(line, kind), limit=_MAX_CHAIN_BYTES)
    try:
        found = load_certificates(answer.body, "AMD certificate chain", most=_MAX_CHAIN)
    except MalformedError as exc:
        raise visit.wrong(str(exc), "two certificates in PEM") from exc
    named = _ISSUERS[kind] + line
    for certificate in found:
        if describe(certificate.subject) == named:
            chain = visit.proven_chain(certificate, found, Purpose.SNP)
            _check_line(visit, chain, line)
            return chain
    names = ", ".join(describe(one.subject) for one in found)
    raise visit.wrong(f"certificates of {names}", f"one of {named}")


def _check_line(visit: Visit, chain: Chain, line: str) -> None:
    if amd_product_line(chain.root_name) != line:
        raise visit.wrong(f"a chain to {chain.root_name}", f"one to AMD ARK {line}")


def _known_root(visit: Visit, line: str) -> x509.Certificate | None:
    roots = pinned_roots(Purpose.SNP, visit.pins)
    for certificate in visit.known.certificates():
        name = roots.get(spki_sha256(certificate)) or ""
        if amd_product_line(name) == line:
            return certificate
    return None


_ISSUER_SOURCES: Mapping[str, Source] = {
    **{f"ARK-{line}": chain_source(line) for line in ProductLine},
    **{
        prefix + line: chain_source(line, kind)
        for kind, prefix in _ISSUERS.items()
        for line in ProductLine
    },
}

ROUTES = (
    Route(Service.KDS, _CHAIN_PATH, _fetch_chain),
    Route(Service.KDS, _CRL_PATH, _fetch_list),
    Route(Service.KDS, _VCEK_PATH, _fetch_vcek),
)
