"""Documents say what the code does: generated pages, links, commands, check ids."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kbs.audit.kinds import Kind
from kbs.cli.main import kbs
from kbs.evidence.registry import VERIFIERS, vocabulary
from tests.generate import DOCS, documents

ROOT = DOCS.parent
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")])

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^    .+$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`]+)`")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_STOPS = frozenset({"|", ">", ">>", "<", "&&", ";", "2>"})
_FAMILIES = {*VERIFIERS, *vocabulary().families(), "binding", "bundle"}
_ID = re.compile(rf"(?:{'|'.join(sorted(_FAMILIES))})(?:\.[a-z0-9_]+)+")


def _where(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text("utf-8"))


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_generated_documents_are_up_to_date(path: Path) -> None:
    assert path.read_text("utf-8") == documents()[path], (
        f"{_where(path)} is not what the code says: run python -m tests.generate"
    )


def test_every_claim_stands_in_the_table() -> None:
    text = (DOCS / "claims.md").read_text("utf-8")
    for spec in vocabulary():
        stem, _, number = spec.name.rpartition(".")
        name = f"`{stem}.0`" if number.isdecimal() else f"`{spec.name}`"
        assert name in text


# -- links


@pytest.mark.parametrize("page", PAGES, ids=_where)
def test_links_between_documents_resolve(page: Path) -> None:
    broken = [link for link in _LINK.findall(_prose(page)) if not _resolves(page, link)]
    assert broken == []


def _resolves(page: Path, link: str) -> bool:
    if link.startswith("https://"):
        return True
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in _anchors(target)


def _anchors(page: Path) -> set[str]:
    # How GitHub makes an anchor of a heading.
    found = _HEADING.findall(_prose(page))
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in found]
    return {heading.strip().replace(" ", "-") for heading in plain}


def test_a_link_that_leads_nowhere_is_found() -> None:
    page = DOCS / "claims.md"
    assert _resolves(page, "evidence.md")
    assert not _resolves(page, "no-such-page.md")
    assert not _resolves(page, "evidence.md#no-such-heading")


# -- commands


def _commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        text = page.read_text("utf-8")
        blocks = [*_FENCE.findall(text), *_INDENTED.findall(text)]
        whole = "\n".join(blocks).replace("\\\n", " ")
        lines = [line.strip() for line in whole.splitlines()]
        lines += _INLINE.findall(_FENCE.sub("", text))
        for line in (" ".join(line.split()) for line in lines):
            # A prompt, another user, a unit.
            command = re.sub(r"^(?:\$ |.* -- |ExecStart=/usr/bin/)kbs ", "kbs ", line)
            if command.startswith("kbs "):
                yield _where(page), _COMMENT.sub("", command).strip()


COMMANDS = sorted({(command, page) for page, command in _commands()})


@pytest.mark.parametrize(("command", "page"), COMMANDS)
def test_quoted_commands_exist_with_their_options(command: str, page: str) -> None:
    assert _fault(command) is None, f"{page}: {command}"


def test_documents_quote_commands_at_all() -> None:
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(
    "command",
    ["kbs polcy list", "kbs policy regster F", "kbs policy register F --no-such N"],
)
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    assert _fault(command) is not None


def _fault(command: str) -> str | None:
    """Return what is wrong with a command line; metavariables stand for values."""
    words = shlex.split(command.replace("[", " ").replace("]", " "))[1:]
    found: click.Command = kbs
    context = click.Context(kbs)
    while words:
        word = words.pop(0)
        if word in _STOPS or word == "…":
            return None
        if word.startswith("-") and word != "-":
            name, _, value = word.partition("=")
            option = _option(found, name)
            if option is None:
                return f"no option {name}"
            if not option.is_flag and not value and words:
                words.pop(0)
        elif isinstance(found, click.Group):
            following = found.get_command(context, word)
            if following is None:
                return f"no command {word}"
            found = following
    return None


def _option(command: click.Command, name: str) -> click.Option | None:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and name in parameter.opts:
            return parameter
    return None


# -- check ids

_REPORTING = frozenset({"passed", "failed", "compared", "skipped", "unchecked"})


def _names_of_checks() -> set[str]:
    """Return every check id that a verifier or the bundle can report."""
    found = {f"{kind}.parse" for kind in VERIFIERS}
    for path in (ROOT / "kbs" / "evidence").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            found.update(_ids_in(node))
    return found


def _ids_in(node: ast.AST) -> Iterator[str]:
    for value in _candidates(node):
        if isinstance(value, ast.Constant) and _ID.fullmatch(str(value.value)):
            yield str(value.value)


def _candidates(node: ast.AST) -> list[ast.expr]:
    """Return the expressions that stand where an id of a check stands."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.args[:1] if node.func.attr in _REPORTING else []
    if isinstance(node, ast.keyword):
        return [node.value] if node.arg == "code" else []
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        if name == "_CHECKS" and isinstance(node.value, ast.Tuple):
            return node.value.elts
        return [node.value] if name == "check" else []
    return []


def _documented_checks() -> set[str]:
    text = (DOCS / "evidence.md").read_text("utf-8")
    return set(re.findall(r"^\| `([a-z0-9_.]+)` \|", text, re.MULTILINE))


def test_every_check_is_documented_and_no_other() -> None:
    """`docs/evidence.md` has one row for each check, and one for nothing else."""
    enrolment = {"vtpm.ek.chain"}  # said by the broker, which knows the CAs
    assert _documented_checks() == _names_of_checks() | enrolment


@pytest.mark.parametrize("page", PAGES, ids=_where)
def test_ids_in_running_text_exist(page: Path) -> None:
    specs = list(vocabulary())
    known = {spec.name for spec in specs} | _names_of_checks() | {"vtpm.ek.chain"}
    known |= {f"{spec.name}.{part}" for spec in specs for part in spec.components}
    known.add("request.not_all")
    named = {text for text in _INLINE.findall(_prose(page)) if _ID.fullmatch(text)}
    assert named <= known


def test_every_kind_of_entry_is_documented_and_no_other() -> None:
    text = (DOCS / "audit.md").read_text("utf-8")
    table = text.partition("## Kinds")[2].partition("\n## ")[0]
    named = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    found = {name for cell in named for name in re.findall(r"`([a-z.]+)`", cell)}
    assert found == {kind.value for kind in Kind}
