"""Options before and behind a command, exit codes, and how errors are said."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from kbs.cli.context import (
    CliContext,
    common_options,
    emit,
    exit_code,
    initial_context,
    main_with,
    shared_options,
)
from kbs.core.errors import (
    AuthenticationError,
    CollateralError,
    ConfigurationError,
    ForbiddenError,
    IntegrityError,
    KbsError,
    MalformedError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)

SEEN: list[CliContext] = []


def program(raises: BaseException | None = None) -> click.Group:
    """A root group like the real one, with one command."""

    @click.pass_context
    def root(
        ctx: click.Context,
        *,
        server: str | None,
        profile: Path | None,
        json: bool,
        verbose: bool,
    ) -> None:
        ctx.obj = initial_context(
            server=server, profile=profile, json=json, verbose=verbose
        )

    callback = root
    for option in reversed(shared_options()):
        callback = option(callback)
    group = click.group("kbs")(callback)

    @group.command()
    @click.argument("word", default="x")
    @common_options
    def act(context: CliContext, *, word: str) -> None:
        SEEN.append(context)
        if raises is not None:
            raise raises
        emit(context, {"word": word}, lambda: click.echo(f"the word is {word}"))

    assert isinstance(group, click.Group)
    return group


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    SEEN.clear()
    for name in ("KBS_SERVER", "KBS_PROFILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--server", "https://a", "--profile", "p", "--json", "--verbose", "act"],
        ["act", "--server", "https://a", "--profile", "p", "--json", "--verbose"],
        ["--server=https://b", "act", "--server=https://a", "--profile=p"],
    ],
    ids=["before", "behind", "both"],
)
def test_options_stand_before_or_behind_and_the_latter_wins(
    arguments: list[str],
) -> None:
    assert main_with(program(), arguments) == 0
    (seen,) = SEEN
    flags = "--json" in arguments
    assert seen == CliContext("https://a", Path("p"), json=flags, verbose=flags)


def test_the_environment_fills_what_was_not_given() -> None:
    context = initial_context(environment={"KBS_SERVER": "s", "KBS_PROFILE": "/p"})
    assert (context.server, context.profile) == ("s", Path("/p"))
    context = initial_context(environment={"XDG_CONFIG_HOME": "/c", "KBS_SERVER": ""})
    assert (context.server, context.profile) == (None, Path("/c/kbs"))
    context = initial_context(environment={})
    assert context.profile == Path.home() / ".config" / "kbs"
    assert initial_context(server="x", environment={"KBS_SERVER": "s"}).server == "x"


def test_without_a_server_it_is_said_how_to_give_one() -> None:
    with pytest.raises(MalformedError, match="KBS_SERVER"):
        CliContext(None, Path(), json=False, verbose=False).require_server()


def test_json_is_one_document_and_people_get_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main_with(program(), ["act", "hello"]) == 0
    assert capsys.readouterr().out == "the word is hello\n"
    assert main_with(program(), ["act", "hello", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"word": "hello"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MalformedError("x"), 2),
        (UnavailableError("x"), 3),
        (CollateralError("x"), 3),
        (AuthenticationError("x"), 1),
        (ForbiddenError("x"), 1),
        (VerificationError("x"), 1),
        (NotFoundError("x"), 1),
        (ConfigurationError("x"), 2),
        (IntegrityError("x"), 1),
        (KbsError("x"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: KbsError, code: int) -> None:
    assert exit_code(error) == code
    assert main_with(program(error), ["act"]) == code


def test_an_error_is_one_line_that_steers_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = ForbiddenError("x\ny", got="\x1b[31mred", expected="plain")
    main_with(program(error), ["act"])
    captured = capsys.readouterr()
    assert captured.err == "error: x y: got \\x1b[31mred, expected plain\n"
    assert captured.out == ""


def test_verbose_adds_code_and_causes(capsys: pytest.CaptureFixture[str]) -> None:
    error = UnavailableError("x", code="away")
    error.__cause__ = OSError("the cause")
    main_with(program(error), ["act", "--verbose"])
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["error: x", "  code: away", "  because: OSError: the cause"]


def test_with_json_an_error_is_a_document_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main_with(program(UnavailableError("x", got="y", hint="z")), ["act", "--json"])
    assert json.loads(capsys.readouterr().out) == {
        "error": {
            "code": "unavailable",
            "message": "x: got y (z)",
            "what": "x",
            "got": "y",
            "hint": "z",
        }
    }


@pytest.mark.parametrize(
    "arguments",
    [["act", "--nonsense"], ["nonsense"], ["act", "a", "b"], ["--server"]],
)
def test_usage_errors_are_one_line_and_exit_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_with(program(), arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "--help" in lines[0]


@pytest.mark.parametrize(
    "error",
    [
        None,
        MalformedError("x", code="usage"),
        MalformedError("input x", code="artifact.unreadable"),
        MalformedError("evidence x", code="evidence.kind"),
        MalformedError("profile x", code="profile.missing"),
        MalformedError("--at", got="x", expected="a time"),
    ],
)
def test_what_never_began_is_one_line_and_no_document(
    error: KbsError | None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["act", "--json"] if error else ["act", "--nonsense", "--json"]
    assert main_with(program(error), arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [MalformedError("x"), ForbiddenError("--option", code="usage"), KbsError("x")],
)
def test_what_did_begin_has_a_document(
    error: KbsError, capsys: pytest.CaptureFixture[str]
) -> None:
    main_with(program(error), ["act", "--json"])
    assert json.loads(capsys.readouterr().out)["error"]["what"] == error.what


def test_what_nobody_expected_shows_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main_with(program(ZeroDivisionError("oops")), ["act"]) == 3
    error = capsys.readouterr().err
    assert error == "error: internal: got ZeroDivisionError: oops\n"
    assert main_with(program(ZeroDivisionError("oops")), ["act", "--verbose"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_with(program(KeyboardInterrupt()), ["act"]) == 3
    assert capsys.readouterr().err.endswith("error: interrupted\n")


def test_an_error_before_the_command_is_reported_as_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    group = click.Group("kbs")

    @group.command()
    def plain() -> None:
        raise ForbiddenError("from a command without our options")

    assert main_with(group, ["plain"]) == 1
    assert "without our options" in capsys.readouterr().err


def test_help_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_with(program(), ["act", "--help"]) == 0
    assert "--profile" in capsys.readouterr().out


def test_a_reader_that_went_away_is_no_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import os

    saved = os.dup(1)
    try:
        assert main_with(program(BrokenPipeError()), ["act"]) == 3
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert capfd.readouterr().err == ""
