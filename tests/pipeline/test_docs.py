"""What README and docs tell people to type is understood by the program, and links lead somewhere."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from pipeline.cli import ltdpipe
from running import PROJECT, run_command

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
_LINE = re.compile(r"^\s*(?:\$ )?(ltdpipe .+)$")


def commands(page):
    """Command lines of ltdpipe in a page: in blocks and in `backticks` with an option or argument."""
    text = page.read_text().replace("\\\n", " ")
    blocks = [*re.findall(r"^```[a-z]*\n(.*?)^```", text, re.M | re.S), *re.findall(r"^ {4}.*$", text, re.M)]
    found = [match[1] for block in blocks for line in block.splitlines() if (match := _LINE.match(line))]
    return found + [code for code in re.findall(r"`(ltdpipe [^`]+)`", text) if "|" not in code and "[" not in code]


def parsed(line):
    words = shlex.split(line.split("&&")[0], comments=True)[1:]
    command, context = ltdpipe, click.Context(ltdpipe)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, info_name=name, parent=context)
    if not words or words[0].isupper():  # a command named in passing, or by a placeholder
        return
    command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_docs_is_understood(page):
    for line in commands(page):
        if line.split()[1] in {"COMMAND", "--help"}:
            continue
        try:
            parsed(line)
        except click.ClickException as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")


def test_an_unknown_option_in_the_docs_would_be_found():
    with pytest.raises(click.ClickException):
        parsed("ltdpipe scan --corpsu x")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_docs_site_builds_without_a_warning(tmp_path):
    run_command("mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site"), cwd=PROJECT)
    assert (tmp_path / "site" / "reproduce" / "index.html").exists()
