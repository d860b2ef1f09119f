"""Options about vendors' services, which `serve` and `collateral fetch` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kbs.core.errors import MalformedError

if TYPE_CHECKING:
    from kbs.broker.vendors.source import Services

SERVICES = click.option(
    "--collateral-service",
    "services",
    multiple=True,
    metavar="NAME=URL",
    help="Whom to ask in place of a vendor: kds, pcs (a PCCS), intel, rim, ocsp.",
)
OFFLINE = click.option(
    "--offline",
    is_flag=True,
    envvar="KBS_OFFLINE",
    help="Ask nobody (KBS_OFFLINE).",
)


def services_of(given: tuple[str, ...]) -> Services:
    """Read NAME=URL pairs.

    Raises:
        MalformedError: a pair is none, or names a service twice.
    """
    from kbs.broker.vendors.source import parse_services

    pairs: dict[str, str] = {}
    for text in given:
        name, sign, url = text.partition("=")
        if not sign or name in pairs:
            raise MalformedError(
                "--collateral-service",
                got=repr(text)[:80],
                expected="NAME=URL, each name once",
            )
        pairs[name] = url
    return parse_services(pairs)
