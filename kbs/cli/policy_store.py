"""`kbs policy` at the broker: register, activate, list, show, diff, roll back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbs.cli.context import CliContext, common_options, emit, one_line
from kbs.cli.render import escaped
from kbs.core.errors import ConflictError, MalformedError

if TYPE_CHECKING:
    from kbs.cli.governed import Listed
    from kbs.core.ids import ScopedName
    from kbs.governance.statement import Action

    _Pick = Callable[[list[Listed], ScopedName], Listed]

_FILE = click.Path(path_type=Path)
_NAME = click.argument("name", metavar="[TENANT/]NAME")
_VERSION = click.option("--version", type=click.IntRange(1), metavar="N")
_WORKLOAD = click.option("--workload", is_flag=True, help="A workload policy.")


@click.command()
@click.argument("file", type=_FILE)
@click.option("--workload", metavar="TENANT/NAME", help="FILE is a workload policy.")
@click.option("--no-activate", is_flag=True, help="Store it only.")
@common_options
def register(
    context: CliContext, *, file: Path, workload: str | None, no_activate: bool
) -> None:
    """Store the next version of a policy, and put it in force."""
    from kbs.cli import governed
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.policy_files import load_document
    from kbs.governance.statement import Action

    kind, subject, source, digest = load_document(file, workload)
    with AdminClient.from_context(context) as client:
        stored, warnings = governed.register(
            client, kind, subject, source=source, digest=digest
        )
        statement = None
        active = True
        if no_activate:
            # The same document again may be the version that is in force.
            found = governed.list_objects(client, kind, subject)
            active = any(one.active for one in found if one.version == stored.version)
        else:
            try:
                statement = governed.put(client, Action.ACTIVATE, stored)
            except ConflictError as exc:
                # The same document again is the version that is in force already.
                if exc.code != "statement.active":
                    raise
    document = {
        **stored.to_json(),
        "active": active,
        "warnings": warnings,
        "statement": statement,
    }

    def human() -> None:
        for warning in warnings:
            click.echo(f"warning: {one_line(warning)}")
        state = "in force" if active else "stored, not in force"
        click.echo(f"{subject} version {stored.version} is {state}: digest {digest}")

    emit(context, document, human)


@click.command()
@_NAME
@_VERSION
@_WORKLOAD
@common_options
def activate(
    context: CliContext, *, name: str, version: int | None, workload: bool
) -> None:
    """Put a stored version in force; the newest, if none is named."""
    from kbs.cli.governed import choose
    from kbs.governance.statement import Action

    def pick(found: list[Listed], subject: ScopedName) -> Listed:
        return choose(found, subject, version)

    _put(context, name, Action.ACTIVATE, workload=workload, pick=pick)


@click.command()
@_NAME
@_VERSION
@_WORKLOAD
@common_options
def deactivate(
    context: CliContext, *, name: str, version: int | None, workload: bool
) -> None:
    """Take a policy out of force. What only it restricted, nothing restricts now."""
    from kbs.cli.governed import choose_active
    from kbs.governance.statement import Action

    def pick(found: list[Listed], subject: ScopedName) -> Listed:
        return choose_active(found, subject, version)

    _put(context, name, Action.DEACTIVATE, workload=workload, pick=pick)


@click.command()
@_NAME
@click.option("--to", "version", type=click.IntRange(1), required=True, metavar="N")
@common_options
def rollback(context: CliContext, *, name: str, version: int) -> None:
    """Put an earlier version in force again, by a new statement."""
    from kbs.cli.governed import choose, choose_active
    from kbs.governance.statement import Action

    def pick(found: list[Listed], subject: ScopedName) -> Listed:
        current = choose_active(found, subject)
        if version >= current.version:
            raise MalformedError(
                "--to",
                got=str(version),
                expected=f"below {current.version}, which is in force",
            )
        return choose(found, subject, version)

    _put(context, name, Action.ACTIVATE, workload=False, pick=pick)


@click.command("list")
@click.argument("name", metavar="[[TENANT/]NAME]", required=False)
@click.option("--tenant", metavar="TENANT")
@common_options
def list_policies(context: CliContext, *, name: str | None, tenant: str | None) -> None:
    """List policies of both kinds, every version; those of one name, if it is given."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.governed import LISTED, list_objects
    from kbs.cli.policy_names import POLICIES
    from kbs.cli.render import table

    with AdminClient.from_context(context) as client:
        found = [
            one
            for kind in POLICIES
            for one in list_objects(client, kind)
            if tenant in (None, one.tenant)
            and name in (None, one.name, str(one.subject))
        ]
    emit(
        context,
        {"policies": [one.to_json() for one in found]},
        lambda: table(LISTED, [one.row for one in found]),
    )


@click.command()
@_NAME
@_VERSION
@_WORKLOAD
@common_options
def show(
    context: CliContext, *, name: str, version: int | None, workload: bool
) -> None:
    """Print a policy as it was registered; the one in force, else the newest."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.governed import choose, read_object
    from kbs.cli.policy_names import find_policy
    from kbs.core.encode import b64, parse_json
    from kbs.governance.objects import MAX_OBJECT_BYTES
    from kbs.governance.statement import Kind

    with AdminClient.from_context(context) as client:
        subject, found = find_policy(client, name, workload=workload)
        active = [one for one in found if one.active]
        one = choose(found if version or not active else active, subject, version)
        source, content = read_object(client, one)
    text = source.decode("utf-8", "replace")
    document = {**one.to_json(), "source": text, "source_base64": b64(source)}
    if one.kind is Kind.RELEASE_POLICY:
        document["policy"] = parse_json(content, "policy", limit=MAX_OBJECT_BYTES)

    def human() -> None:
        state = "in force" if one.active else "not in force"
        click.echo(f"# {one.subject} version {one.version}, {state}, {one.digest}")
        for line in text.splitlines():
            click.echo(escaped(line))

    emit(context, document, human)


@click.command()
@_NAME
@click.argument("file", type=_FILE, required=False)
@click.option("--from", "before", type=click.IntRange(1), metavar="N")
@click.option("--to", "after", type=click.IntRange(1), metavar="M")
@common_options
def diff(
    context: CliContext,
    *,
    name: str,
    file: Path | None,
    before: int | None,
    after: int | None,
) -> None:
    """Compare two versions, or what is in force with FILE (else with the newest)."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.governed import choose, choose_active, read_object
    from kbs.cli.policy_diff import compare
    from kbs.cli.policy_files import load_policy
    from kbs.cli.policy_names import find_policy

    if file is not None and after is not None:
        raise MalformedError("diff", got="FILE and --to", expected="one", code="usage")
    with AdminClient.from_context(context) as client:
        subject, found = find_policy(client, name, workload=False)
        old = (
            choose(found, subject, before) if before else choose_active(found, subject)
        )
        _, old_content = read_object(client, old)
        if file is not None:
            label, new_content = str(file), load_policy(file).canonical
        else:
            new = choose(found, subject, after)
            label, new_content = f"version {new.version}", read_object(client, new)[1]
    result = compare(
        old_content, new_content, before=f"version {old.version}", after=label
    )

    def human() -> None:
        for line in (*result.lines, *result.notes()):
            click.echo(escaped(line))
        if not result.lines:
            click.echo("no difference")

    emit(context, {"name": str(subject), **result.to_json()}, human)


COMMANDS = (register, activate, deactivate, rollback, list_policies, show, diff)


def _put(
    context: CliContext, name: str, action: Action, *, workload: bool, pick: _Pick
) -> None:
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.governed import put, read_object
    from kbs.cli.policy_names import find_policy
    from kbs.governance.statement import BRINGING

    with AdminClient.from_context(context) as client:
        subject, found = find_policy(client, name, workload=workload)
        one = pick(found, subject)
        if action in BRINGING:
            # Nobody signs what cannot be read: the content must have this digest.
            read_object(client, one)
        statement = put(client, action, one)
    in_force = action in BRINGING
    document = {**one.to_json(), "active": in_force, "statement": statement}
    state = "in force" if in_force else "not in force any more"
    emit(
        context,
        document,
        lambda: click.echo(
            f"{subject} version {one.version} is {state} (statement "
            f"{statement.get('seq')})"
        ),
    )
