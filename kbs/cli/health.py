"""`kbs health`: whether the broker lives, can release keys, and what is missing."""

from __future__ import annotations

import click

from kbs.cli.context import (
    EXIT_DONE,
    EXIT_UNCHECKED,
    CliContext,
    common_options,
    emit,
    one_line,
)
from kbs.core.errors import MalformedError, UnavailableError

_OK = 200


@click.command()
@common_options
def health(context: CliContext) -> None:
    """Ask the broker how it is; exit 3 when it cannot release keys."""
    from kbs.cli.profile import load_profile
    from kbs.client.transport import Transport

    try:
        profile = load_profile(context.profile)
    except MalformedError:
        # Anybody may ask; a profile only says where, and which certificate to expect.
        server, pin = context.require_server(), None
    else:
        server = context.server or profile.server or context.require_server()
        pin = profile.tls_sha256
    transport = Transport(server, tls_sha256=pin)
    reply = transport.get("/health")
    transport.close()
    if reply.status != _OK:
        raise UnavailableError("health", got=f"status {reply.status}", expected="200")
    document = reply.json()
    ready = document.get("ready") is True

    def human() -> None:
        click.echo(f"{server} is {'ready' if ready else 'NOT ready'}")
        for part in ("missing", "notes"):
            listed = document.get(part)
            for one in listed if isinstance(listed, list) else []:
                if isinstance(one, dict):
                    said = one_line(f"{one.get('what')}: {one.get('detail')}")
                    mark = " (not blocking)" if one.get("blocking") is False else ""
                    click.echo(f"  {said}{mark}")

    emit(context, document, human)
    click.get_current_context().exit(EXIT_DONE if ready else EXIT_UNCHECKED)
