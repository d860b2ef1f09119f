"""Running the broker: start checks, worker processes, the line that says "ready".

Granian serves (TLS 1.3, header time-outs, body limits below Flask); each worker
process composes its own broker after the fork, because database connections and
threads do not survive one.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flask import Flask
from granian.constants import Interfaces
from granian.http import HTTP1Settings, HTTP2Settings
from granian.log import LogLevels
from granian.server import Server

from kbs.adapters.connections import (
    CLIENT_SHARE,
    LOOK_SECONDS,
    ConnectionWatch,
    room_for_connections,
)
from kbs.adapters.process import harden, raise_descriptor_limit
from kbs.adapters.processors import Processors
from kbs.adapters.sql.engine import parse_url
from kbs.adapters.sql.migrate import upgrade
from kbs.adapters.tls import CERTIFICATE_NAME, KEY_NAME, certificate_sha256
from kbs.api.gateway import Gateway
from kbs.app import check_start, create_app, open_database, open_parts
from kbs.broker.mark import Ticker
from kbs.core.errors import ConfigurationError
from kbs.initialising import (
    RESPONSE_KEY_NAME,
    initialise,
    is_empty,
    require_initialised,
    update_profile,
)
from kbs.settings import Settings

log = logging.getLogger("kbs.serving")

HEADER_SECONDS = 10
MAX_HEADER_BYTES = 64 * 1024
"""Of one request; in HTTP/2 a byte may stand for a header that came before, so that
they are counted as they are after decompression."""

MAX_STREAMS = 16
"""Requests at once on one HTTP/2 connection, those included whose answers wait because
the client does not read them: nobody sees how long they do."""

BACKLOG = 1024

_LISTENING_TRIES = 5000
_LISTENING_PAUSE_SECONDS = 0.002


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
            lines.append("  DEVELOPMENT MODE: sample evidence counts")
        return "\n".join(lines)


def run(
    settings: Settings,
    *,
    profile: Path,
    ready: Callable[[Serving], None],
    create: Callable[[Settings], Flask] = create_app,
) -> None:
    """Serve until a signal ends it; `create` composes the application of a worker.

    Raises:
        ConfigurationError: it may not start.
        IntegrityError: database and trust folder do not agree.
    """
    harden()
    configure_logging(settings)
    if settings.db is not None:
        parse_url(settings.db)
    if settings.db is None and not settings.production and is_empty(settings):
        initialise(settings, profile=profile)
    require_initialised(settings)
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
    connections = room_for_connections(
        raise_descriptor_limit(), threads=settings.threads
    )
    held_address = held.getsockname()

    def say_ready() -> None:
        _await_listening(held.family, held_address)
        ready(serving)

    loader = functools.partial(
        load_application,
        settings,
        create,
        _Composed(settings.workers, say_ready),
        connections=connections,
        processors=Processors(settings.workers) if settings.pin_workers else None,
    )
    # What workers are forked with is left alone, or collecting would copy it to each.
    gc.freeze()
    with held:
        _serve(settings, str(held_address[0]), loader, connections=connections)


def load_application(
    settings: Settings,
    create: Callable[[Settings], Flask],
    composed: _Composed,
    *,
    connections: int,
    processors: Processors | None,
) -> Any:
    """Compose the broker of one worker process, and tell the main process."""
    harden()
    configure_logging(settings)
    application = Gateway(
        create(settings),
        threads=settings.threads,
        per_client=_addresses_are_clients(settings),
    )
    _watch_connections(settings, connections)
    if processors is not None:
        log.info("this worker keeps to processor %s", processors.keep_to_one())
    gc.freeze()
    gc.enable()
    composed.tell()
    return application


def _watch_connections(settings: Settings, connections: int) -> None:
    per_client = None
    if _addresses_are_clients(settings):
        per_client = connections // CLIENT_SHARE
    watch = ConnectionWatch(settings.listen.port, per_client=per_client, stuck=_give_up)
    Ticker(watch.look, LOOK_SECONDS, name="kbs-connections").start()


def _addresses_are_clients(settings: Settings) -> bool:
    # Without a rate limit they say nothing about clients: a proxy is in front.
    return settings.rate_limit > 0


def _give_up() -> None:
    # The main process starts another worker; what is acknowledged is durable.
    log.critical("no descriptor is left: this worker ends, and another one starts")
    os._exit(os.EX_OSERR)


class _Composed:
    """Calls the main process back when every worker has composed its broker.

    Workers are forks: a thread of the main process must hold no lock while they are
    made, and TLS or an HTTP client would; one that reads from a pipe holds none.
    """

    def __init__(self, workers: int, ready: Callable[[], None]) -> None:
        self._workers = workers
        self._ready = ready
        self._reading, self._writing = os.pipe()
        threading.Thread(target=self._wait, name="kbs-ready", daemon=True).start()

    def tell(self) -> None:
        """Say that this worker is composed."""
        os.write(self._writing, b".")

    def _wait(self) -> None:
        # Workers that are started again later write too, to nobody: a pipe holds more.
        for _ in range(self._workers):
            os.read(self._reading, 1)
        self._ready()


def configure_logging(settings: Settings) -> None:
    """Log to standard error, one line an event; development says so in every line."""
    marker = "DEVELOPMENT " if settings.development else ""
    logging.basicConfig(
        level=settings.log_level,
        format=f"%(asctime)sZ {marker}%(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        force=True,
    )
    logging.Formatter.converter = time.gmtime
    spare_records()
    for name in ("alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A word about the number of threads, which is chosen for durable writes that wait.
    logging.getLogger("_granian").addFilter(
        lambda record: "Python threads" not in record.getMessage()
    )


def spare_records() -> None:
    """Look nothing up for a line of the log that no line shows.

    As in "Optimization" of Python's logging HOWTO: the place in the code, the thread,
    the process. It is a third of what a line costs.
    """
    logging._srcfile = None  # noqa: SLF001 - documented
    logging.logThreads = False
    logging.logMultiprocessing = False
    logging.logProcesses = False


def _serve(
    settings: Settings, address: str, loader: Callable[[], Any], *, connections: int
) -> None:
    tls = not settings.plain_http
    server = Server(
        "kbs",
        address=address,
        port=settings.listen.port,
        interface=Interfaces.RSGI,
        workers=settings.workers,
        backlog=BACKLOG,
        backpressure=connections,
        http1_settings=HTTP1Settings(
            header_read_timeout=HEADER_SECONDS * 1000,
            max_buffer_size=MAX_HEADER_BYTES,
        ),
        http2_settings=HTTP2Settings(
            max_concurrent_streams=MAX_STREAMS,
            max_headers_size=MAX_HEADER_BYTES,
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
    server.serve(target_loader=loader, wrap_loader=False)


def _hold_port(settings: Settings) -> tuple[socket.socket, Settings]:
    """Find a free port where 0 is asked for, and keep others from taking it.

    Raises:
        ConfigurationError: the address is taken or not ours.
    """
    listen = settings.listen
    held = None
    try:
        family, *_, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM
        )[0]
        held = socket.socket(family, socket.SOCK_STREAM)
        if listen.port:
            # Bound without sharing first: another server on this port is an error.
            _require_free(family, str(address[0]), listen.port)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError as exc:
        if held is not None:
            held.close()
        raise ConfigurationError(
            "--listen",
            got=f"{listen.authority}: {exc.strerror}",
            expected="an address of this machine that is free",
        ) from exc
    port = held.getsockname()[1]
    return held, replace(settings, listen=replace(listen, port=port))


def _await_listening(family: int, address: Any) -> None:
    # A worker listens a moment after it has composed its broker; whoever is told that
    # the broker listens may connect at once.
    pause = threading.Event()
    for _ in range(_LISTENING_TRIES):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(address) == 0:
                return
        # A length of time: `time.sleep` asks for a point in time, which is refused
        # where the clock is moved under a process (libfaketime).
        pause.wait(_LISTENING_PAUSE_SECONDS)


def _require_free(family: int, host: str, port: int) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
