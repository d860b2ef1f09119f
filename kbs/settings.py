"""One frozen `Settings`, read and checked once at start.

The broker reads its environment nowhere else; options of the command line may come from
it too, which the CLI declares with them. Every setting has a safe value when
absent; a combination that would be fail-open is a `ConfigurationError`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kbs.broker.vendors.source import Services
from kbs.core.errors import ConfigurationError, MalformedError

DEFAULT_LISTEN = "127.0.0.1:8443"
MAX_PORT = 65535
MAX_WORKERS = 256
MAX_THREADS = 1024
MAX_RATE = 1_000_000
MAX_RETENTION_DAYS = 36_500
MAX_EVIDENCE_MIB = 1024 * 1024
MAX_REASON = 500
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LISTEN = re.compile(
    r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})", re.ASCII
)


def default_log_level(environ: Mapping[str, str] = os.environ) -> str:
    """Return KBS_LOG_LEVEL, whatever its case, else INFO."""
    return environ.get("KBS_LOG_LEVEL", "INFO").upper()


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the broker listens; port 0 takes a free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def authority(self) -> str:
        """`host:port` as it stands in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything `kbs serve` can be told.

    `evidence_retention_days`: 0 keeps no evidence. `evidence_max_mib`: where more is
    kept, the oldest goes before its time; 0 keeps none. `rate_limit`: requests a second
    and client, `rate_limit_total` of all guests together; 0 is off. `refusal_seconds`:
    how often refusals that never authenticated become one entry. `pin_workers`: each
    worker process keeps to a processor of its own. `production`: an instance that
    exists is served, by none of the ways that are for trying out or for one start.
    `refresh_collateral`: the broker fetches from vendors by itself, by `services`,
    ahead of expiry; it does not when it has to stay `offline`.
    """

    data: Path
    trust: Path
    db: str | None = None
    listen: Listen = Listen("127.0.0.1", 8443)
    production: bool = False
    development: bool = False
    plain_http: bool = False
    rate_limit: int = 50
    rate_limit_total: int = 0
    workers: int = 1
    threads: int = 8
    pin_workers: bool = False
    evidence_retention_days: int = 30
    evidence_max_mib: int = 1024
    refusal_seconds: float = 60.0
    accept_rollback: str | None = None
    refresh_collateral: bool = False
    offline: bool = False
    services: Services = field(default_factory=Services)
    log_level: str = field(default_factory=default_log_level)

    def __post_init__(self) -> None:
        """Refuse what must not be started.

        Raises:
            ConfigurationError: plain HTTP beyond loopback, a trust folder inside the
                data folder, several workers where the numbers make no sense, a log
                level that there is not, a rollback that is accepted for no reason,
                collateral to fetch without a network,
                any of the ways that production has no room for.
        """
        self._check_production()
        self._check_rollback()
        if self.refresh_collateral and self.offline:
            raise ConfigurationError(
                "--refresh-collateral",
                got="given beside --offline (KBS_OFFLINE)",
                expected="one of the two",
                hint="an offline site imports collateral by hand",
            )
        if self.log_level not in LOG_LEVELS:
            raise ConfigurationError(
                "KBS_LOG_LEVEL",
                got=repr(self.log_level)[:40],
                expected=", ".join(LOG_LEVELS),
            )
        if self.plain_http and not self.listen.is_loopback:
            raise ConfigurationError(
                "--plain-http",
                got=f"listening on {self.listen.host}",
                expected="a loopback address, for a proxy in front",
                hint="drop --plain-http: TLS needs no preparation",
            )
        data, trust = self.data.resolve(), self.trust.resolve()
        if trust == data or data in trust.parents:
            raise ConfigurationError(
                "trust folder",
                got=f"{self.trust}, inside the data folder",
                expected="a folder outside it",
                hint="whoever copies the data folder must not get the key to it",
            )
        for name, value, least, most in (
            ("--workers", self.workers, 1, MAX_WORKERS),
            ("--threads", self.threads, 1, MAX_THREADS),
            ("--rate-limit", self.rate_limit, 0, MAX_RATE),
            ("--rate-limit-total", self.rate_limit_total, 0, MAX_RATE),
            (
                "--evidence-retention-days",
                self.evidence_retention_days,
                0,
                MAX_RETENTION_DAYS,
            ),
            ("--evidence-max-mib", self.evidence_max_mib, 0, MAX_EVIDENCE_MIB),
        ):
            if not least <= value <= most:
                raise ConfigurationError(
                    name, got=str(value), expected=f"{least} to {most}"
                )

    def _check_production(self) -> None:
        # What an image or a unit starts takes more options from whoever deploys it; of
        # those none may make it answer to evidence, a network or a past that proves
        # nothing.
        if not self.production:
            return
        for name, given in (
            ("--dev", self.development),
            ("--plain-http", self.plain_http),
            ("--accept-rollback", self.accept_rollback is not None),
        ):
            if given:
                raise ConfigurationError(
                    name,
                    got="given beside --production",
                    expected="a start without it",
                    hint="units and images say --production; what is for trying out, "
                    "or for one start, is started by hand",
                    code="serve.production",
                )

    def _check_rollback(self) -> None:
        # It stands in the log for good, and is all that tells why the past was lost.
        reason = self.accept_rollback
        if reason is None or (reason.strip() and len(reason) <= MAX_REASON):
            return
        raise ConfigurationError(
            "--accept-rollback",
            got=f"{len(reason)} characters" if reason.strip() else "a blank reason",
            expected=f"a reason of 1 to {MAX_REASON} characters",
            hint="the audit log keeps it",
        )


def parse_listen(text: str) -> Listen:
    """Accept `HOST:PORT` or `[IPV6]:PORT`.

    Raises:
        MalformedError: anything else.
    """
    match = _LISTEN.fullmatch(text)
    port = int(match.group(3)) if match else MAX_PORT + 1
    if match is None or port > MAX_PORT:
        raise MalformedError("--listen", got=repr(text)[:80], expected="HOST:PORT")
    return Listen(match.group(1) or match.group(2), port)


def default_data_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return /var/lib/kbs for root, else the user's data folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/kbs")
    base = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "kbs"
