"""The root command: names, help, start-up, and never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

import kbs as package
from kbs.cli.main import COMMANDS, Place
from kbs.cli.main import kbs as root
from tests.fakes.admin_bench import run


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_one_and_has_help(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert command.name == name
    ran = run(name, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: kbs {name}")


def test_help_lists_every_command_without_importing_one() -> None:
    program = (
        "import sys\n"
        "from kbs.cli.context import main_with\n"
        "from kbs.cli.main import kbs\n"
        "code = main_with(kbs, ['--help'])\n"
        "slow = {'flask', 'sqlalchemy', 'requests', 'cryptography', 'rich'}\n"
        "sys.exit(code or sorted(slow & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name, place in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert place.summary in done.stdout


def test_without_a_command_it_says_what_there_is() -> None:
    ran = run()
    assert ran.code == 0
    assert ran.out.startswith("Usage: kbs")
    assert run("--json").json == {"commands": list(COMMANDS)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("polcy",), "did you mean policy?"),
        (("zzzz",), "see kbs --help"),
        (("--nope",), "No such option"),
        (("key", "create", "A/b/c"), "each 1 to 64 of a-z 0-9 . _ -"),
        (("policy", "nope"), "No such command"),
        (("key", "create"), "Missing argument"),
        (("evidence", "verify", "x", "--kind", "csv"), "not one of"),
        (("policy", "show", "acme/x", "--version", "0"), "--version"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    arguments: tuple[str, ...], words: str
) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert words in ran.err
    assert ran.out == ""
    assert ran.err.count(" --help") <= 1
    ran.assert_one_error_line()


@pytest.mark.parametrize("group", ["policy", "key", "guest"])
def test_a_group_alone_shows_its_help_and_is_wrong_usage(group: str) -> None:
    ran = run(group)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == run(group, "--help").out
    assert run(group, "--json").out == ""


def test_what_nobody_expected_is_one_line_and_exit_3(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(COMMANDS, "version", Place("kbs.nowhere", "x", ""))
    ran = run("version")
    assert ran.code == 3
    ran.assert_one_error_line()
    assert "Traceback" in run("version", "--verbose").err


def test_a_name_in_the_table_that_is_no_command_is_a_bug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place("kbs.cli.main", "COMMANDS", "")
    monkeypatch.setitem(COMMANDS, "version", place)
    ran = run("version")
    assert ran.code == 3
    assert "is no command" in ran.err


def test_version() -> None:
    assert run("version").out == f"kbs {package.__version__}\n"
    assert run("version", "--json").json == {"version": package.__version__}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_the_program(shell: str) -> None:
    ran = run("completion", shell)
    assert ran.code == 0
    assert "_KBS_COMPLETE" in ran.out
    assert run("completion", shell, "--json").json["shell"] == shell


def test_completion_knows_the_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kbs"],
        env={
            "_KBS_COMPLETE": "bash_complete",
            "COMP_WORDS": "kbs pol",
            "COMP_CWORD": "1",
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(Path(package.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["plain,policy"]


def test_the_module_is_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kbs", "version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout == f"kbs {package.__version__}\n"


def test_the_version_is_told_by_option_and_by_command() -> None:
    said = f"kbs {package.__version__}\n"
    assert run("--version").out == said
    assert run("version").out == said
    assert run("version", "--json").json == {"version": package.__version__}
