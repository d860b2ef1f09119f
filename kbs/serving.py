"""Running the broker: start checks, worker processes, the line that says "ready".

Granian serves (TLS 1.3, header time-outs, body limits below Flask); each worker
process composes its own broker after the fork, because database connections and
threads do not survive one.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server

from kbs.adapters.process import harden
from kbs.adapters.sql.migrate import upgrade
from kbs.adapters.tls import CERTIFICATE_NAME, KEY_NAME, certificate_sha256
from kbs.app import check_start, create_app, open_database, open_parts
from kbs.core.errors import ConfigurationError
from kbs.initialising import (
    RESPONSE_KEY_NAME,
    initialise,
    is_empty,
    update_profile,
)
from kbs.settings import Settings

HEADER_SECONDS = 10
MAX_HEADER_BYTES = 64 * 1024
READY_SECONDS = 30.0
BACKLOG = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A broker that accepts requests."""

    url: str
    instance: str
    tls_sha256: str | None
    response_key: Path
    profile: Path | None
    development: bool

    def to_json(self) -> dict[str, object]:
        """Return the ready line."""
        return {
            "url": self.url,
            "instance": self.instance,
            "tls_sha256": self.tls_sha256,
            "response_key": str(self.response_key),
            "profile": None if self.profile is None else str(self.profile),
        }

    def to_text(self) -> str:
        """Return the lines for people."""
        lines = [
            f"Listening on {self.url}",
            f"  instance      {self.instance}",
            f"  response key  {self.response_key}   (guests pin it: --broker-key)",
        ]
        if self.tls_sha256 is not None:
            lines.append(f"  TLS           SHA-256 {self.tls_sha256}")
        if self.profile is not None:
            lines.append(f"  profile       {self.profile}")
        if self.development:
            lines.append(
                "  DEVELOPMENT MODE: sample evidence counts"
            )
        return "\n".join(lines)


def run(settings: Settings, *, profile: Path, ready: Callable[[Serving], None]) -> None:
    """Serve until a signal ends it.

    Raises:
        ConfigurationError: it may not start.
        IntegrityError: database and trust folder do not agree.
    """
    harden()
    configure_logging(development=settings.development)
    if settings.db is None and is_empty(settings):
        initialise(settings, profile=profile)
    database = open_database(settings)
    try:
        upgrade(database.engine)
    finally:
        database.close()
    parts = open_parts(settings)
    try:
        check_start(parts, settings)
    finally:
        parts.close()
    held, settings = _hold_port(settings)
    scheme = "http" if settings.plain_http else "https"
    url = f"{scheme}://{settings.listen.authority}"
    serving = Serving(
        url=url,
        instance=parts.instance,
        tls_sha256=None if settings.plain_http else certificate_sha256(settings.data),
        response_key=(settings.data / RESPONSE_KEY_NAME).resolve(),
        profile=update_profile(settings, profile=profile, url=url),
        development=settings.development,
    )
    waiter = threading.Thread(
        target=_announce, args=(serving, ready), name="kbs-ready", daemon=True
    )
    waiter.start()
    with held:
        _serve(settings)


def load_application(settings: Settings) -> Any:
    """Compose the broker of one worker process."""
    harden()
    configure_logging(development=settings.development)
    return create_app(settings)


def configure_logging(*, development: bool) -> None:
    """Log to standard error, one line an event; development says so in every line."""
    marker = "DEVELOPMENT " if development else ""
    logging.basicConfig(
        level=os.environ.get("KBS_LOG_LEVEL", "INFO").upper(),
        format=f"%(asctime)sZ {marker}%(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        force=True,
    )
    logging.Formatter.converter = time.gmtime
    for name in ("alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A word about the number of threads, which is chosen for durable writes that wait.
    logging.getLogger("_granian").addFilter(
        lambda record: "Python threads" not in record.getMessage()
    )


def _serve(settings: Settings) -> None:
    tls = not settings.plain_http
    server = Server(
        "kbs",
        address=settings.listen.host,
        port=settings.listen.port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.threads,
        backlog=BACKLOG,
        http1_settings=HTTP1Settings(
            header_read_timeout=HEADER_SECONDS * 1000,
            max_buffer_size=MAX_HEADER_BYTES,
        ),
        websockets=False,
        log_level=LogLevels.warning,
        log_access=False,
        # Standard output belongs to the ready line; the server logs where we do.
        log_dictconfig={"handlers": {}, "loggers": {"_granian": {"propagate": True}}},
        ssl_cert=settings.data / CERTIFICATE_NAME if tls else None,
        ssl_key=settings.data / KEY_NAME if tls else None,
        respawn_failed_workers=True,
    )
    loader = functools.partial(load_application, settings)
    server.serve(target_loader=loader, wrap_loader=False)


def _hold_port(settings: Settings) -> tuple[socket.socket, Settings]:
    """Find a free port where 0 is asked for, and keep others from taking it.

    Raises:
        ConfigurationError: the address is taken or not ours.
    """
    listen = settings.listen
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        if listen.port:
            # Bound without sharing first: another server on this port is an error.
            _require_free(family, listen.host, listen.port)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((listen.host, listen.port))
    except OSError as exc:
        held.close()
        raise ConfigurationError(
            "--listen",
            got=f"{listen.authority}: {exc.strerror}",
            expected="an address of this machine that is free",
        ) from exc
    port = held.getsockname()[1]
    return held, replace(settings, listen=replace(listen, port=port))


def _require_free(family: int, host: str, port: int) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _announce(serving: Serving, ready: Callable[[Serving], None]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    context = ssl.create_default_context()
    # Only whether something answers is asked here; nothing is sent, nothing believed.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    while time.monotonic() < deadline:
        if _answers(serving.url, context):
            ready(serving)
            return
        time.sleep(0.02)


def _answers(url: str, context: ssl.SSLContext) -> bool:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(f"{url}/health/live", timeout=2) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004
    except OSError:
        return False
