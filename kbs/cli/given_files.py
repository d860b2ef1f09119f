"""The files that stand beside evidence on the command line, and for which it is each.

A file that would be ignored is a usage error, and so is one that lacks its shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from kbs.cli.evidence_files import BUNDLE, CCA, EVENT_LOG, GCE, NVGPU, RCAR, RIM, TOKEN
from kbs.cli.inputs import read_input
from kbs.cli.issuer_files import is_keys_file, vouched
from kbs.cli.rim_files import name_in, rim_in
from kbs.cli.x509_files import certificates_in, crls_in, load_collateral, ocsp_answer_in
from kbs.core.errors import MalformedError
from kbs.evidence.bundle import MAX_BUNDLE_BYTES
from kbs.evidence.model import GivenCollateral, StoredRim, TrustedIssuer
from kbs.evidence.vtpm.item import load_ak
from kbs.pki.certificates import spki_sha256
from kbs.pki.issuers import Profile

_MAX_COLLATERAL_FILE = 4 * MAX_BUNDLE_BYTES

# Which evidence an option is for, or which not.
_ONLY_FOR: Mapping[str, frozenset[str]] = {
    "--signature": frozenset({"vtpm"}),
    "--pcrs": frozenset({"vtpm"}),
    "--event-log": frozenset({"vtpm", "tdx"}),
    "--ak": frozenset({BUNDLE, RCAR, GCE, "vtpm"}),
    "--rim": frozenset({BUNDLE, NVGPU}),
}
_NOT_FOR: Mapping[str, frozenset[str]] = {
    # The keys of a CCA token come with --collateral; there are no certificates.
    "--cert": frozenset({"sample", EVENT_LOG, RIM, CCA}),
    "--crl": frozenset({"sample", EVENT_LOG, CCA}),
    "--collateral": frozenset({"sample", EVENT_LOG}),
}

# Beside others, keys of issuers are a mistake.
_WITH_ISSUERS = frozenset({BUNDLE, RCAR, TOKEN, CCA})


def _takes(kind: str, option: str) -> bool:
    only = _ONLY_FOR.get(option)
    return kind in only if only is not None else kind not in _NOT_FOR[option]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFiles:
    """The files that stand beside the evidence on the command line."""

    certificates: tuple[Path, ...] = ()
    revocation_lists: tuple[Path, ...] = ()
    collateral: tuple[Path, ...] = ()
    rims: tuple[Path, ...] = ()
    event_log: Path | None = None
    signature: Path | None = None
    pcrs: Path | None = None
    ak: Path | None = None

    def refuse_for(self, kind: str) -> None:
        """Return if every file given means something for evidence of this kind.

        Raises:
            MalformedError: one would be ignored without a word.
        """
        given = {
            "--signature": self.signature,
            "--pcrs": self.pcrs,
            "--event-log": self.event_log,
            "--ak": self.ak,
            "--cert": next(iter(self.certificates), None),
            "--crl": next(iter(self.revocation_lists), None),
            "--collateral": next(iter(self.collateral), None),
            "--rim": next(iter(self.rims), None),
        }
        unused = [
            option
            for option, path in given.items()
            if path is not None and not _takes(kind, option)
        ]
        if kind not in _WITH_ISSUERS and self._holds_keys():
            unused.append("--collateral")
        if unused:
            raise MalformedError(
                unused[0],
                got=f"a file beside evidence of kind {kind}",
                expected="only files that evidence of this kind has",
                code="usage",
            )

    def given_certificates(self) -> tuple[x509.Certificate, ...]:
        """Return the certificates of every --cert, in order.

        Raises:
            MalformedError: a file cannot be read, or holds none.
        """
        return tuple(
            certificate
            for path in self.certificates
            for certificate in certificates_in(
                read_input(path, "--cert"), f"--cert {path}"
            )
        )

    def given_collateral(self) -> GivenCollateral:
        """Return what --crl and --collateral hold.

        Raises:
            MalformedError: a file cannot be read, or holds something else.
        """
        given = [_status_in(path) for path in self.revocation_lists]
        given += [
            load_collateral(data, f"--collateral {path}")
            for path, data in self._collateral_files()
            if not is_keys_file(data)
        ]
        return GivenCollateral(
            tuple(one for each in given for one in each.certificates()),
            tuple(one for each in given for one in each.revocation_lists()),
            given_documents=tuple(one for each in given for one in each.documents()),
            given_ocsp_answers=tuple(
                one for each in given for one in each.given_ocsp_answers
            ),
            given_rims=self.given_rims(),
        )

    def given_rims(self) -> tuple[StoredRim, ...]:
        """Return the manifests that --rim names.

        Raises:
            MalformedError: a file cannot be read, or holds no manifest.
        """
        return tuple(
            rim_in(
                read_input(path, "--rim", limit=MAX_BUNDLE_BYTES),
                f"--rim {path}",
                name_in(path),
            )
            for path in self.rims
        )

    def given_issuers(self) -> tuple[TrustedIssuer, ...]:
        """Return the keys of issuers that --collateral holds, trusted this time only.

        Raises:
            MalformedError: a file cannot be read, or holds something else.
        """
        return tuple(
            issuer
            for path, data in self._collateral_files()
            if is_keys_file(data)
            for issuer in vouched(path, "--collateral")
        )

    def given_roots(self) -> tuple[TrustedIssuer, ...]:
        """Return --cert as the pinned root of PKI tokens, trusted this time only.

        Raises:
            MalformedError: a file cannot be read, or holds no certificate.
        """
        pins = frozenset(spki_sha256(one) for one in self.given_certificates())
        if not pins:
            return ()
        return (
            TrustedIssuer(tenant=None, name="--cert", profile=Profile.GCS, roots=pins),
        )

    def _holds_keys(self) -> bool:
        return any(is_keys_file(data) for _, data in self._collateral_files())

    def _collateral_files(self) -> Iterator[tuple[Path, bytes]]:
        for path in self.collateral:
            yield path, read_input(path, "--collateral", limit=_MAX_COLLATERAL_FILE)

    def lacks_of_quote(self) -> tuple[str, ...]:
        """Return the options without which a TPM quote cannot be verified."""
        wanted = {
            "--signature": self.signature,
            "--pcrs": self.pcrs,
            "--ak": self.ak,
        }
        return tuple(option for option, path in wanted.items() if path is None)

    def named_ak(self) -> bytes | None:
        """Return the key that --ak vouches for.

        Raises:
            MalformedError: the file cannot be read, or holds no key.
        """
        if self.ak is None:
            return None
        data = read_input(self.ak, "--ak")
        try:
            load_ak(data)
        except MalformedError as exc:
            raise MalformedError(
                f"--ak {self.ak}", got=str(exc), expected="TPM2B_PUBLIC, PEM or DER"
            ) from exc
        return data


def _status_in(path: Path) -> GivenCollateral:
    data = read_input(path, "--crl", limit=_MAX_COLLATERAL_FILE)
    answer = ocsp_answer_in(data)
    if answer is not None:
        return GivenCollateral(given_ocsp_answers=(answer,))
    return GivenCollateral((), crls_in(data, f"--crl {path}"))
