"""`kbs init` and `kbs serve`: the broker's own two commands."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import click

from kbs.adapters.trust import trust_folder_default, url_without_credentials
from kbs.cli.context import CliContext, common_options, emit
from kbs.cli.vendor_options import OFFLINE, SERVICES, services_of
from kbs.settings import (
    DEFAULT_LISTEN,
    MAX_EVIDENCE_MIB,
    MAX_RATE,
    MAX_RETENTION_DAYS,
    MAX_THREADS,
    MAX_WORKERS,
    Settings,
    default_data_folder,
    parse_listen,
)

DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Data folder: database, certificate. [/var/lib/kbs as root]",
)
DB = click.option("--db", metavar="URL", help="PostgreSQL instead of SQLite.")
TRUST = click.option(
    "--trust",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Trust folder: key-encryption key, pins. Never inside the data folder.",
)


@click.command()
@DATA
@DB
@TRUST
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="DNS name or address by which guests reach it, for the certificate; repeated.",
)
@common_options
def init(
    context: CliContext,
    data: Path | None,
    db: str | None,
    trust: Path | None,
    hosts: tuple[str, ...],
) -> None:
    """Make a broker: data folder, keys, certificate, and its administrator.

    The administrator's private key goes to the profile folder, not to the broker.
    """
    from kbs.adapters.tls import parse_host
    from kbs.initialising import initialise

    settings = _settings(data, db, trust)
    names = [parse_host(host) for host in hosts]
    made = initialise(settings, profile=context.profile, hosts=names)
    emit(
        context,
        {
            "instance": made.instance,
            "data": str(settings.data),
            "trust": str(settings.trust),
            "profile": str(context.profile.absolute()),
            "tls_sha256": made.tls_sha256,
            "response_key": str(made.response_key),
        },
        lambda: click.echo(
            _next_steps(settings, made.instance, context.profile, trust=trust)
        ),
    )


@click.command()
@DATA
@DB
@TRUST
@click.option(
    "--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", show_default=True
)
@click.option(
    "--production",
    is_flag=True,
    help="Only what exists; no --dev, --plain-http or --accept-rollback.",
)
@click.option("--dev", is_flag=True, help="Development: sample evidence counts.")
@click.option("--plain-http", is_flag=True, help="No TLS; on loopback only.")
@click.option(
    "--rate-limit",
    default=50,
    type=click.IntRange(0, MAX_RATE),
    metavar="N",
    help="Per client; 0 is off.",
)
@click.option(
    "--rate-limit-total",
    default=0,
    type=click.IntRange(0, MAX_RATE),
    metavar="N",
    help="Of all guests together; 0 is off.",
)
@click.option(
    "--workers",
    default=1,
    type=click.IntRange(1, MAX_WORKERS),
    metavar="N",
    help="Worker processes.",
)
@click.option(
    "--threads",
    default=8,
    type=click.IntRange(1, MAX_THREADS),
    metavar="N",
    help="Threads in each worker.",
)
@click.option(
    "--pin-workers",
    is_flag=True,
    help="Keep each worker to a processor of its own.",
)
@click.option(
    "--evidence-retention-days",
    default=30,
    type=click.IntRange(0, MAX_RETENTION_DAYS),
    metavar="N",
    help="0 keeps none.",
)
@click.option(
    "--evidence-max-mib",
    default=1024,
    type=click.IntRange(0, MAX_EVIDENCE_MIB),
    metavar="N",
    help="Kept evidence in all; the oldest goes first.",
)
@click.option(
    "--accept-rollback",
    metavar="REASON",
    help="Start although the database is older than its high-water mark.",
)
@click.option(
    "--refresh-collateral",
    is_flag=True,
    help="Fetch newer vendor collateral before the imported one runs out.",
)
@SERVICES
@OFFLINE
@common_options
def serve(
    context: CliContext,
    data: Path | None,
    db: str | None,
    trust: Path | None,
    listen: str,
    production: bool,
    dev: bool,
    plain_http: bool,
    rate_limit: int,
    rate_limit_total: int,
    workers: int,
    threads: int,
    pin_workers: bool,
    evidence_retention_days: int,
    evidence_max_mib: int,
    accept_rollback: str | None,
    refresh_collateral: bool,
    services: tuple[str, ...],
    offline: bool,
) -> None:
    """Run the broker; an empty data folder is initialised, but not for --production.

    TLS 1.3 with a generated certificate, whose digest is printed.
    """
    from kbs.adapters.process import wipe_freed_memory

    wipe_freed_memory()
    # Until the broker is composed nearly everything that is made stays: collecting
    # garbage meanwhile costs a tenth of the start and finds none.
    gc.disable()
    from kbs.serving import run

    base = _settings(data, db, trust)
    settings = Settings(
        data=base.data,
        trust=base.trust,
        db=db,
        listen=parse_listen(listen),
        production=production,
        development=dev,
        plain_http=plain_http,
        rate_limit=rate_limit,
        rate_limit_total=rate_limit_total,
        workers=workers,
        threads=threads,
        pin_workers=pin_workers,
        evidence_retention_days=evidence_retention_days,
        evidence_max_mib=evidence_max_mib,
        accept_rollback=accept_rollback,
        refresh_collateral=refresh_collateral,
        offline=offline,
        services=services_of(services),
    )
    try:
        run(
            settings,
            profile=context.profile,
            ready=lambda serving: emit(
                context, serving.to_json(), lambda: click.echo(serving.to_text())
            ),
        )
    finally:
        gc.enable()


def _settings(data: Path | None, db: str | None, trust: Path | None) -> Settings:
    folder = data or default_data_folder()
    return Settings(
        data=folder,
        db=db,
        trust=trust
        or trust_folder_default(folder, db, environ=os.environ, uid=os.geteuid()),
    )


def _next_steps(
    settings: Settings, instance: str, profile: Path, *, trust: Path | None
) -> str:
    serve = ["kbs serve", f"--data {settings.data}"]
    if settings.db is not None:
        serve.append(f"--db {url_without_credentials(settings.db)}")
    if trust is not None:
        serve.append(f"--trust {settings.trust}")
    admin = profile.absolute()
    return (
        f"Instance {instance} is ready.\n"
        f"  data     {settings.data}\n"
        f"  trust    {settings.trust}   (back it up apart from the data)\n"
        f"  profile  {admin}   (the administrator's key: keep it safe)\n"
        "\n"
        "Next:\n"
        f"  export KBS_PROFILE={admin}\n"
        f"  {' '.join(serve)}\n"
        "  kbs key create acme/model/chat --kind aes256\n"
        "  kbs policy register policy.yaml\n"
    )
