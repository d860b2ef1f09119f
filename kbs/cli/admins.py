"""`kbs admin`: who may govern, by which key, in which repositories."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbs.cli.context import CliContext, common_options, emit, require_one
from kbs.core.ids import parse_name

if TYPE_CHECKING:
    from kbs.cli.authority import AuthorityInForce
    from kbs.cli.authority_edits import Edit

_FILE = click.Path(path_type=Path)
_NAME = click.argument("name", metavar="NAME")
_ROLES = click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    metavar="ROLE[=REPO,…]",
    help="policy-admin, key-admin, auditor, approver; default: every repository.",
)
# `kbs.governance.statement`: the tenant of what concerns the whole instance.
_EVERYWHERE = "*"


@click.group()
def admin() -> None:
    """Administrators, their keys and roles, and who may use shared/."""


@admin.command("list")
@common_options
def list_administrators(context: CliContext) -> None:
    """List the administrators in force."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.authority import authority_in_force

    with AdminClient.from_context(context) as client:
        found = authority_in_force(client.get("/admin/v1/governance/head"))
    emit(context, found.to_json(), lambda: _print_authority(found))


@admin.command()
@_NAME
@click.option("--public", type=_FILE, required=True, help="Ed25519, PEM or DER.")
@_ROLES
@common_options
def add(
    context: CliContext, *, name: str, public: Path, roles: tuple[str, ...]
) -> None:
    """Add an administrator by the public key that `kbs admin key` made."""
    from kbs.cli.authority_edits import adding, read_public, read_roles

    edit = adding(name, read_public(public), read_roles(roles))
    _change(context, edit, f"{name} is an administrator")


@admin.command("roles")
@_NAME
@_ROLES
@common_options
def replace_roles(context: CliContext, *, name: str, roles: tuple[str, ...]) -> None:
    """Replace the roles of an administrator."""
    from kbs.cli.authority_edits import read_roles, with_roles

    edit = with_roles(name, read_roles(roles))
    _change(context, edit, f"{name} has other roles")


@admin.command()
@_NAME
@common_options
def remove(context: CliContext, *, name: str) -> None:
    """Remove an administrator; tokens of that key count no more."""
    from kbs.cli.authority_edits import removing

    _change(context, removing(name), f"{name} is no administrator any more")


@admin.command()
@click.argument("tenants", nargs=-1, metavar="[TENANT…]")
@click.option("--all", "everybody", is_flag=True, help="Every tenant.")
@click.option("--none", "nobody", is_flag=True, help="No tenant.")
@common_options
def shared(
    context: CliContext, *, tenants: tuple[str, ...], everybody: bool, nobody: bool
) -> None:
    """Say which tenants may use what is in shared/."""
    from kbs.cli.authority_edits import sharing

    require_one(
        "who may use shared/",
        {"TENANT…": tenants, "--all": everybody, "--none": nobody},
    )
    named = tuple(dict.fromkeys(parse_name(one, "TENANT") for one in tenants))
    chosen = (_EVERYWHERE,) if everybody else named
    _change(context, sharing(chosen), _shared_text(chosen))


@admin.command()
@click.option("--out", type=_FILE, required=True, metavar="DIR", help="A new profile.")
@common_options
def key(context: CliContext, *, out: Path) -> None:
    """Make a key for a new administrator, in a profile beside this one's pins.

    The private key is not known to anybody until `kbs admin add` names its public part.
    """
    from kbs.cli.profile import PUBLIC_FILE, create_profile, load_profile

    made = create_profile(out, load_profile(context.profile))
    public = out / PUBLIC_FILE
    document = {"profile": str(out), "keyid": made.keyid, "public": str(public)}

    def human() -> None:
        click.echo(f"key {made.keyid} is in {shlex.quote(str(out))}")
        click.echo(
            "have it admitted: kbs admin add NAME --public "
            f"{shlex.quote(str(public))} --role ROLE"
        )

    emit(context, document, human)


def _change(context: CliContext, edit: Edit, done: str) -> None:
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.authority import change_authority

    with AdminClient.from_context(context) as client:
        found, statement = change_authority(client, edit)

    def human() -> None:
        # All of it, so that nobody is in there of whom the signer does not know.
        click.echo(f"{done}; in force is now:")
        _print_authority(found)

    emit(context, {**found.to_json(), "statement": statement}, human)


def _print_authority(found: AuthorityInForce) -> None:
    from kbs.cli.authority_edits import roles_text
    from kbs.cli.render import table

    authority = found.content
    table(
        ("name", "key id", "roles"),
        [(one.name, one.keyid, roles_text(one)) for one in authority.administrators],
    )
    keys = "1 key" if authority.threshold == 1 else f"{authority.threshold} keys"
    click.echo(
        f"version {found.version}, threshold: {keys}; {_shared_text(authority.shared)}"
    )


def _shared_text(tenants: tuple[str, ...]) -> str:
    if _EVERYWHERE in tenants:
        return "every tenant may use shared/"
    return f"{', '.join(tenants) or 'no tenant'} may use shared/"
