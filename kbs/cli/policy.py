"""`kbs policy`: check and test policies here, explain what one says to evidence.

What touches the broker's store is in `kbs.cli.policy_store`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbs.cli.context import (
    EXIT_DONE,
    EXIT_REFUSED,
    EXIT_USAGE,
    CliContext,
    common_options,
    emit,
    is_usage,
    one_line,
)
from kbs.cli.policy_store import COMMANDS
from kbs.core.errors import KbsError, MalformedError

if TYPE_CHECKING:
    from kbs.policy.cases import FolderResult
    from kbs.policy.parse import ParsedPolicy

_FILE = click.Path(path_type=Path)


@click.group()
def policy() -> None:
    """Check, test, register and explain policies."""


for _command in COMMANDS:
    policy.add_command(_command)


@policy.command()
@click.argument("file", type=_FILE)
@click.option("--context", "names", type=_FILE, help="What the names refer to.")
@click.option("--workload", is_flag=True, help="FILE is a workload policy.")
@common_options
def check(
    context: CliContext, *, file: Path, names: Path | None, workload: bool
) -> None:
    """Read a policy as registration would; say every problem with its place."""
    if workload:
        _check_workload(context, file, names)
        return
    from kbs.cli.policy_files import load_policy
    from kbs.policy.located import PolicyError

    try:
        parsed = load_policy(file)
        wrong = _wrong_names(parsed, names)
    except PolicyError as exc:
        _report_problems(context, [str(one) for one in exc.problems])
        click.get_current_context().exit(EXIT_USAGE)
    except MalformedError as exc:
        if is_usage(exc):
            raise
        _report_problems(context, [str(exc)])
        click.get_current_context().exit(EXIT_USAGE)
    document = {
        "valid": not wrong,
        "name": parsed.policy.name,
        "tenant": parsed.policy.tenant,
        "digest": parsed.digest,
        "releases": list(parsed.policy.releases),
        "rules": [rule.name for rule in parsed.policy.allow],
        "warnings": list(parsed.warnings),
        "problems": list(wrong),
    }
    emit(context, document, lambda: _print_checked(file, parsed, wrong))
    click.get_current_context().exit(EXIT_REFUSED if wrong else EXIT_DONE)


@policy.command("test")
@click.argument("folder", type=_FILE, metavar="DIR")
@common_options
def run_cases(context: CliContext, *, folder: Path) -> None:
    """Run the allow and deny cases of one policy folder, or of every one in DIR."""
    results = [(path, _run(path)) for path in _policy_folders(folder)]
    passed = all(
        not isinstance(result, KbsError) and result.passed for _, result in results
    )
    document = {
        "passed": passed,
        "folders": [_folder_json(path, result) for path, result in results],
    }
    emit(context, document, lambda: _print_folders(results))
    malformed = any(isinstance(result, KbsError) for _, result in results)
    code = EXIT_USAGE if malformed else EXIT_DONE if passed else EXIT_REFUSED
    click.get_current_context().exit(code)


@policy.command()
@click.argument("target", metavar="FILE|[TENANT/]NAME")
@click.option("--evidence", type=_FILE, required=True, metavar="BUNDLE")
@click.option("--at", metavar="TIME", help="RFC 3339 in UTC; default now.")
@click.option("--context", "names", type=_FILE, help="Explain here, with these names.")
@click.option("--request", type=_FILE, help="JSON: keys, door, freshness, time …")
@click.option(
    "--collateral",
    multiple=True,
    type=_FILE,
    help="With --context: keys of token issuers, vendors' collateral.",
)
@common_options
def explain(
    context: CliContext,
    *,
    target: str,
    evidence: Path,
    at: str | None,
    names: Path | None,
    request: Path | None,
    collateral: tuple[Path, ...],
) -> None:
    """Say what a policy says to evidence, condition by condition; releases nothing."""
    from kbs.cli.explaining import Explanation, explain_by_server, explain_here
    from kbs.cli.policy_files import load_policy
    from kbs.cli.render import explanation

    asked = Explanation.read(
        evidence=evidence, at=at, request=request, collateral=collateral
    )
    if names is not None:
        found = explain_here(asked, load_policy(Path(target)), names)
    else:
        found = explain_by_server(context, asked, target)

    def human() -> None:
        explanation(found.document)
        for line in found.check_lines():
            click.echo(line)
        for note in found.notes:
            click.echo(f"note: {one_line(note)}")

    emit(context, found.document, human)
    click.get_current_context().exit(found.exit_code)


def _wrong_names(parsed: ParsedPolicy, names: Path | None) -> tuple[str, ...]:
    if names is None:
        return ()
    from kbs.evidence.registry import vocabulary
    from kbs.policy.context import missing_names
    from kbs.policy.contextfile import load_context
    from kbs.policy.references import reference_faults

    tenant = parsed.policy.tenant
    view = load_context(names, tenant=tenant).view(tenant)
    return (
        *missing_names(parsed.dependencies, view),
        *reference_faults(parsed.policy, view, vocabulary()),
    )


def _check_workload(context: CliContext, file: Path, names: Path | None) -> None:
    from kbs.cli.evidence import print_fields
    from kbs.cli.inputs import read_input
    from kbs.governance.objects import MAX_OBJECT_BYTES, measure_workload_policy

    if names is not None:
        raise MalformedError(
            "--context", got="--workload", expected="a release policy", code="usage"
        )
    source = read_input(file, "workload policy", limit=MAX_OBJECT_BYTES)
    measured = measure_workload_policy(source)
    document: dict[str, object] = {
        "valid": True,
        "sha256": measured.sha256,
        "sha384": measured.sha384,
        "sha512": measured.sha512,
        "size": measured.size,
    }
    emit(context, document, lambda: print_fields(document))


def _report_problems(context: CliContext, problems: list[str]) -> None:
    for problem in problems:
        click.echo(f"error: {one_line(problem)}", err=True)
    if context.json:
        from kbs.cli.render import print_json

        print_json({"valid": False, "problems": problems})


def _print_checked(file: Path, parsed: ParsedPolicy, wrong: tuple[str, ...]) -> None:
    for warning in parsed.warnings:
        click.echo(f"warning: {one_line(warning)}")
    for fault in wrong:
        click.echo(f"error: {one_line(fault)}", err=True)
    if not wrong:
        rules = len(parsed.policy.allow)
        click.echo(
            f"{one_line(str(file))}: {parsed.policy.tenant}/{parsed.policy.name}, "
            f"{rules} rule{'' if rules == 1 else 's'}, digest {parsed.digest}"
        )


def _policy_folders(folder: Path) -> list[Path]:
    if (folder / "policy.yaml").is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/policy.yaml"))
    if not found:
        raise MalformedError(
            f"policy folder {folder}",
            got="no policy.yaml in it or in a folder in it",
            expected="policy.yaml, context.yaml, allow/*.json, deny/*.json",
            code="usage",
        )
    return found


def _run(folder: Path) -> FolderResult | KbsError:
    from kbs.evidence.registry import vocabulary
    from kbs.policy.cases import run_folder

    try:
        return run_folder(folder, vocabulary())
    except KbsError as exc:
        return exc


def _folder_json(path: Path, result: FolderResult | KbsError) -> dict[str, object]:
    if isinstance(result, KbsError):
        return {
            "folder": str(path),
            "passed": False,
            "problems": [str(result)],
            "cases": [],
        }
    return {
        "folder": str(path),
        "policy": result.policy.policy.name,
        "digest": result.policy.digest,
        "passed": result.passed,
        "problems": list(result.problems),
        "cases": [
            {"name": case.name, "passed": case.passed, "detail": case.detail}
            for case in result.cases
        ],
    }


def _print_folders(results: list[tuple[Path, FolderResult | KbsError]]) -> None:
    from kbs.cli.render import table

    rows: list[tuple[object, ...]] = []
    for path, result in results:
        if isinstance(result, KbsError):
            rows.append((path, "-", "failed", one_line(str(result))))
            continue
        rows += [(path, "-", "failed", problem) for problem in result.problems]
        rows += [
            (path, case.name, "passed" if case.passed else "failed", case.detail)
            for case in result.cases
        ]
    table(("folder", "case", "result", "detail"), rows)
    failed = sum(1 for row in rows if row[2] == "failed")
    click.echo(f"{len(rows) - failed} passed, {failed} failed")
