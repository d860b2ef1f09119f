"""`kbs deny`: entries that override every grant, and the emergency stop."""

from __future__ import annotations

import secrets
import shlex
from typing import TYPE_CHECKING

import click

from kbs.cli.context import CliContext, common_options, emit, require_one
from kbs.core.ids import ScopedName, parse_key_ref, parse_name, parse_scoped_name

if TYPE_CHECKING:
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.governed import Listed
    from kbs.governance.objects import Deny

# `kbs.governance.statement`: the tenant of what concerns the whole instance.
_EVERYWHERE = "*"


@click.group()
def deny() -> None:
    """Deny policies, keys, devices; stop everything; lift it again."""


@deny.command()
@click.option("--policy", metavar="TENANT/NAME", help="Everything that it governs.")
@click.option("--key", metavar="ID", help="A key, or one version of it.")
@click.option("--ak", metavar="HEX", help="A TPM by its AK: SPKI SHA-256, or name.")
@click.option("--chip", metavar="HEX", help="A CPU by chip id, Turin's HWID or PPID.")
@click.option("--gpu", metavar="HEX", help="A GPU or NVSwitch by its device_id.")
@click.option("--measurement", metavar="HEX", help="A launch measurement.")
@click.option("--all", "everything", is_flag=True, help="Emergency stop: every key.")
@click.option("--reason", required=True, metavar="TEXT")
@click.option("--tenant", metavar="TENANT", help="Whom it concerns; default: all.")
@click.option("--name", "given", metavar="NAME", help="The entry's name.")
@common_options
def add(
    context: CliContext,
    *,
    policy: str | None,
    key: str | None,
    ak: str | None,
    chip: str | None,
    gpu: str | None,
    measurement: str | None,
    everything: bool,
    reason: str,
    tenant: str | None,
    given: str | None,
) -> None:
    """Deny what one option names, whatever policies say."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.governed import put, register
    from kbs.governance.contents import digest_of
    from kbs.governance.objects import parse_deny
    from kbs.governance.statement import Action, Kind

    named = {
        "--policy": policy,
        "--key": key,
        "--ak": ak,
        "--chip": chip,
        "--gpu": gpu,
        "--measurement": measurement,
        "--all": "" if everything else None,
    }
    option = require_one("what is denied", named)
    target, value = option.removeprefix("--"), named[option] or ""
    entry = parse_deny({"target": target, "value": value, "reason": reason})
    subject = ScopedName(
        _tenant_of(target, value, tenant),
        parse_name(given or f"{target}-{secrets.token_hex(4)}", "--name"),
    )
    content = entry.canonical()
    with AdminClient.from_context(context) as client:
        stored, _ = register(
            client, Kind.DENY, subject, source=content, digest=digest_of(content)
        )
        statement = put(client, Action.DENY, stored)
    document = {
        **stored.to_json(),
        "active": True,
        "entry": entry.to_json(),
        "statement": statement,
    }
    what = "everything is" if target == "all" else f"{target} {value} is"
    emit(
        context,
        document,
        lambda: click.echo(
            f"{what} denied by {subject}; "
            # Unquoted, a shell would take `*/` for the folders where it stands.
            f"lift it: kbs deny lift {shlex.quote(str(subject))}"
        ),
    )


@deny.command("list")
@click.option("--lifted", is_flag=True, help="Also entries that were lifted.")
@common_options
def list_entries(context: CliContext, *, lifted: bool) -> None:
    """List the entries in force."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.governed import list_objects
    from kbs.cli.render import table
    from kbs.governance.statement import Kind

    with AdminClient.from_context(context) as client:
        found = [
            (one, _read(client, one))
            for one in list_objects(client, Kind.DENY)
            if lifted or one.active
        ]
    emit(
        context,
        {"entries": [{**one.to_json(), **entry.to_json()} for one, entry in found]},
        lambda: table(
            ("name", "active", "target", "value", "reason", "since"),
            [
                (
                    one.subject,
                    one.active,
                    entry.target,
                    entry.value,
                    entry.reason,
                    one.registered,
                )
                for one, entry in found
            ],
        ),
    )


@deny.command()
@click.argument("name", metavar="TENANT/NAME")
@common_options
def lift(context: CliContext, *, name: str) -> None:
    """Take an entry out of force; `*/NAME` for one that concerns everybody."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.governed import take_out
    from kbs.governance.statement import Action, Kind

    subject = _parse_entry_name(name)
    with AdminClient.from_context(context) as client:
        _, document = take_out(client, Action.LIFT, Kind.DENY, subject)
    emit(context, document, lambda: click.echo(f"{subject} is lifted"))


def _tenant_of(target: str, value: str, tenant: str | None) -> str:
    # What belongs to a tenant is denied there; a device is denied everywhere.
    own = _EVERYWHERE
    if target == "policy":
        own = parse_scoped_name(value, "--policy").tenant
    elif target == "key":
        own = parse_key_ref(value).key_id.tenant
    if tenant in (None, _EVERYWHERE):
        return tenant or own
    return parse_name(tenant, "--tenant")


def _parse_entry_name(text: str) -> ScopedName:
    tenant, slash, name = text.partition("/")
    if slash and tenant == _EVERYWHERE:
        return ScopedName(_EVERYWHERE, parse_name(name, "deny entry"))
    return parse_scoped_name(text, "deny entry")


def _read(client: AdminClient, one: Listed) -> Deny:
    from kbs.cli.governed import read_object
    from kbs.governance.contents import read_deny

    return read_deny(read_object(client, one)[1])
