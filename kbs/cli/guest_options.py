"""The options of `kbs guest`: which broker to trust, which devices attest, patience."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbs.channel.recipient import Suite
from kbs.cli.context import CliContext
from kbs.cli.inputs import read_input
from kbs.cli.x509_files import read_certificates
from kbs.core.encode import parse_hex, parse_json_object
from kbs.core.errors import MalformedError, UnavailableError

if TYPE_CHECKING:
    from kbs.audit.logkey import LogKey

KINDS = ("vtpm", "snp", "sample")
SUITES = {"x25519": Suite.X25519, "p256": Suite.P256, "p384": Suite.P384}
DEFAULT_RETRY_SECONDS = 15.0

# A CPU's report is the primary of every bundle that has one (`binding.md`).
_PRIMARY = ("snp",)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestOptions:
    """What was given on the command line, not opened yet."""

    broker_key: Path | None
    kinds: tuple[str, ...]
    tcti: str
    ak_handle: int
    pcrs: str | None
    event_log: Path | None
    ak_certs: tuple[Path, ...]
    claims: Path | None
    suite: Suite
    state: Path | None
    log_key: Path | None
    tls_sha256: str | None
    retry_for: float

    def transport(self, context: CliContext) -> Any:
        """Return a connection to the server.

        Raises:
            MalformedError: no server, or no URL.
        """
        from kbs.client.transport import Transport

        return Transport(context.require_server(), tls_sha256=self.tls_sha256)

    def client(self, context: CliContext) -> Any:
        """Return a client of the pinned broker with this machine's attesters.

        Raises:
            MalformedError: an option or a file of one is wrong.
        """
        from kbs.channel.signing import MAX_KEY_FILE_BYTES, parse_response_key
        from kbs.client.guest import GuestClient
        from kbs.client.log_watch import LogWatch

        if self.broker_key is None:
            raise MalformedError(
                "broker key",
                got="none",
                expected="the file that holds the broker's response key",
                hint="give --broker-key FILE; kbs serve names it",
            )
        pem = read_input(self.broker_key, "broker key", limit=MAX_KEY_FILE_BYTES)
        pinned = None if self.log_key is None else _read_log_key(self.log_key)
        transport = self.transport(context)
        primary, *devices = self.attesters()
        return GuestClient(
            transport,
            parse_response_key(pem),
            primary,
            devices=devices,
            suite=self.suite,
            log=LogWatch(transport, state=self.state, pinned=pinned, warn=warn),
            patience=self.patience(),
        )

    def attesters(self) -> list[Any]:
        """Return one attester per kind, the primary first."""
        makers = {"vtpm": self._tpm, "snp": self._snp, "sample": self._sample}
        ordered = sorted(self.kinds, key=lambda kind: kind not in _PRIMARY)
        return [makers[kind]() for kind in ordered]

    def patience(self) -> Any:
        """Return how long to try, telling on stderr about each wait."""
        from kbs.client.retry import Patience

        return Patience(total_seconds=self.retry_for, notify=_tell_wait)

    def _tpm(self) -> object:
        from kbs.client.tpm_attester import (
            DEFAULT_SELECTION,
            TpmAttester,
            default_event_log,
            parse_selection,
        )
        from kbs.evidence.vtpm.eventlog import MAX_LOG

        if self.event_log is not None:
            # Read again when the evidence is collected; but what was named and is not
            # there, no patience brings.
            read_input(self.event_log, "--event-log", limit=MAX_LOG)
        return TpmAttester(
            tcti=self.tcti,
            selection=parse_selection(self.pcrs) if self.pcrs else DEFAULT_SELECTION,
            ak_handle=self.ak_handle,
            ak_certificates=read_certificates(self.ak_certs, "AK certificate"),
            event_log=self.event_log or default_event_log(self.tcti),
        )

    def _snp(self) -> object:
        from kbs.client.snp import SnpAttester

        return SnpAttester()

    def _sample(self) -> object:
        from kbs.client.sample import SampleAttester

        if self.claims is None:
            return SampleAttester()
        data = read_input(self.claims, "sample claims")
        return SampleAttester(parse_json_object(data, "sample claims", limit=len(data)))


def guest_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the guest's options, gathered in one value named `guest`."""
    names = list(GuestOptions.__dataclass_fields__)

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        taken = {name: options.pop(name) for name in names}
        taken["kinds"] = tuple(dict.fromkeys(taken["kinds"]))
        taken["suite"] = SUITES[taken["suite"]]
        taken["state"] = taken["state"] or default_state()
        command(*args, guest=GuestOptions(**taken), **options)

    for option in reversed(_options()):
        run = option(run)
    return run


def default_state() -> Path | None:
    """Return where the last checkpoint is kept; None where there is no home."""
    given = os.environ.get("STATE_DIRECTORY") or os.environ.get("XDG_STATE_HOME")
    home = os.environ.get("HOME")
    if given:
        return Path(given) / "kbs"
    return Path(home) / ".local" / "state" / "kbs" if home else None


def warn(text: str) -> None:
    """Say something on stderr that does not stop the command."""
    from kbs.cli.context import one_line

    click.echo(f"warning: {one_line(text)}", err=True)


def _tell_wait(error: UnavailableError, seconds: float) -> None:
    warn(f"{error}; trying again in {seconds:.1f} s")


def _read_log_key(path: Path) -> LogKey:
    from kbs.audit.logkey import parse_vkey

    text = read_input(path, "log key", limit=1024).decode("utf-8", "replace").strip()
    try:
        return parse_vkey(text)
    except MalformedError:
        # `from None`: the parser quotes what it got, which may be any file here, and a
        # secret one.
        raise MalformedError(
            f"--log-key {path}",
            got="a file that holds no log key",
            expected="one line, NAME+HASH+KEY, as kbs audit verify --log-key takes",
        ) from None


def _options() -> list[Callable[[Any], Any]]:
    file = click.Path(path_type=Path, dir_okay=False)
    return [
        click.option(
            "--broker-key",
            type=file,
            envvar="KBS_BROKER_KEY",
            metavar="FILE",
            help="The broker's response key (PEM): all that is trusted of it.",
        ),
        click.option(
            "--kind",
            "kinds",
            type=click.Choice(KINDS),
            multiple=True,
            default=("vtpm",),
            show_default="vtpm",
            help="What attests; repeated, a CPU's report covers the others.",
        ),
        click.option(
            "--tcti",
            default="device:/dev/tpmrm0",
            envvar="KBS_TCTI",
            show_default=True,
            help="The TPM, as tpm2-tss names it.",
        ),
        click.option(
            "--ak-handle",
            type=Handle(),
            default="0x81010002",
            show_default=True,
            help="Persistent handle of the attestation key; made when absent.",
        ),
        click.option(
            "--pcrs",
            metavar="LIST",
            help="PCRs to quote.  [default: sha256:0,1,2,3,4,5,6,7,15]",
        ),
        click.option("--event-log", type=file, help="The TCG2 boot log to send."),
        click.option(
            "--ak-cert",
            "ak_certs",
            type=file,
            multiple=True,
            help="Certificates of the AK to send, leaf first.",
        ),
        click.option("--claims", type=file, help="Claims of sample evidence (JSON)."),
        click.option(
            "--suite",
            type=click.Choice(list(SUITES)),
            default="x25519",
            show_default=True,
            help="Key agreement that the answer is sealed with.",
        ),
        click.option(
            "--state",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Where the log's last checkpoint is kept.",
        ),
        click.option(
            "--log-key",
            type=file,
            help="The log's key (vkey) to insist on.  [default: what the broker signs]",
        ),
        click.option(
            "--tls-sha256",
            type=Fingerprint(),
            metavar="HEX",
            help="SHA-256 of the server's certificate to insist on.",
        ),
        click.option(
            "--retry-for",
            type=Seconds(min=0),
            default=DEFAULT_RETRY_SECONDS,
            show_default=True,
            metavar="SECONDS",
            help="How long to try while the broker or a device does not answer.",
        ),
    ]


class Seconds(click.FloatRange):
    """A span of time that ends: neither NaN, which is never over, nor infinite."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read a finite number in the range."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


class Handle(click.ParamType[int]):
    """A persistent TPM handle, like 0x81010002."""

    name = "handle"

    # TPM 2.0 Library, Part 2, section 7.5: TPM_HT_PERSISTENT is 0x81.
    _LEAST, _MOST = 0x81000000, 0x81FFFFFF

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read `0x` and eight hex digits."""
        try:
            handle = value if isinstance(value, int) else int(value, 16)
        except ValueError:
            handle = 0
        if not self._LEAST <= handle <= self._MOST:
            self.fail(
                f"{value!r} is no persistent handle (0x81000000 to 0x81ffffff)",
                param,
                ctx,
            )
        return handle


class Fingerprint(click.ParamType[str]):
    """A SHA-256 in lower-case hex."""

    name = "fingerprint"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Read 64 hex digits."""
        try:
            return parse_hex(value, "fingerprint", size=32).hex()
        except MalformedError:
            self.fail(f"{value!r} is not 64 lower-case hex digits", param, ctx)
