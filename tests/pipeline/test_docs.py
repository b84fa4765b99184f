"""What README and docs tell people to type does what they say, and links lead somewhere."""

import os
import re
import shlex
import subprocess

import click
import documented_study
import pytest
from dvc.cli.parser import get_main_parser
from dvc.utils.serialize import parse_yaml

from docs import generate
from pipeline.cli import ltdpipe
from running import PROJECT, invoke, run_command

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
_LINE = re.compile(r"^\s*(?:\$ )?((?:find .+ \| )?ltdpipe .+)$")

# What runs before the commands of a page, as the graph would: the page takes it for done.
BEFORE = {
    "README.md: bundle": (
        *(
            "scan --corpus mine-train",
            "scan --corpus mine-test",
            "extract --corpus mine-train",
            "extract --corpus mine-test",
        ),
        *(
            f"{command} --head ltd --seed {seed}"
            for seed in (0, 3407)
            for command in ("train", "evaluate --corpus mine-test")
        ),
    ),
    "data.md: audit": ("scan --corpus genimage", "extract --corpus genimage"),
    "predict.md: bundle": ("evaluate --corpus mine-test --head ltd --seed 0",),
}
# What is understood but not run here, and why.
NOT_RUN = {
    "fetch": "downloads weights; tests/stages/extract/test_weights.py does so from a server of its own",
    "--scheduler": "a cluster; tests/stages/extract/test_cluster.py runs a local one",
    "--workers": "a cluster; tests/stages/extract/test_cluster.py runs a local one",
    "import-scores": "tables of others; tests/stages/evaluate/test_external.py makes some",
    "import-head": "checkpoints of others; tests/stages/heads/test_foreign.py makes some",
    "compare": "two trainings, or placeholders; tests/stages/report/test_compare.py has some",
    "calibrate BUNDLE --on X": "placeholders",
    "bundle HEAD": "a placeholder",
    "profile use NAME": "a placeholder",
    "COMMAND --help": "a placeholder; tests/pipeline/test_cli.py asks every command",
}


def commands(page):
    """Command lines of ltdpipe in a page: in blocks and in `backticks` with an option or argument."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    places = re.compile(r"^```[a-z]*\n(.*?)^```|^( {4}.*)$|`(ltdpipe [^`]+)`", re.M | re.S)
    for block, indented, code in places.findall(text):
        if code and "|" not in code and "[" not in code:
            yield code
        for line in (block or indented).splitlines():
            if match := _LINE.match(line):
                yield from match[1].split("#")[0].split(" && ")


def words_of(line):
    """A command's arguments, and what is written to its standard input."""
    *source, line = line.rsplit(" | ", 1)
    stdin = subprocess.run(shlex.split(source[0]), capture_output=True, check=True).stdout if source else b""
    return [os.path.expanduser(word) for word in shlex.split(line)[1:]], stdin  # noqa: PTH111


def parsed(line):
    words = shlex.split(line.rpartition(" | ")[2])[1:]
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_dvc_can_read_the_parameters_in_the_docs(page):
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        assert parse_yaml(block, page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_docs_ask_of_other_programs_is_there(page):
    """Targets of make, benchmarks, and commands of DVC; to run them is CI's part, or takes hours."""
    text = page.read_text(encoding="utf-8")
    asked = re.findall(r"(?:^\$ |`)(make|python -m|dvc) ([^`\n#]+)", text, re.M)
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for program, rest in asked:
        words = shlex.split(rest)
        if program == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.M), rest
        elif program == "dvc":
            assert get_main_parser().parse_args(words).func, rest
        elif words[0] != "benchmarks.NAME":
            assert (PROJECT / words[0].replace(".", "/")).with_suffix(".py").exists(), rest


def fault_of(line):
    """Run a command; what went wrong in one line, or nothing."""
    words, stdin = words_of(line)
    done = invoke(*words, input=stdin)
    return [] if done.exit_code == 0 else [f"{line}: {done.exception!r} {done.stderr.strip()[-300:]}"]


def test_every_command_in_the_docs_runs(tmp_path, monkeypatch):
    """In the order of the pages, in one project; what is typed where a page names a command in passing is not."""
    project = documented_study.make(tmp_path)
    for name, value in {"HOME": tmp_path / "home", "LTDPIPE_DATA": tmp_path / "data"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(project)
    params = (project / "params.yaml").read_text(encoding="utf-8")
    ran, faults, left_out = [], [], []
    for page in PAGES:
        for line in commands(page):
            typed = line.rpartition("ltdpipe ")[2].strip()
            in_passing = " " not in typed and typed not in {"backbones", "doctor", "status", "verify"}
            left_out += [each for each in NOT_RUN if each in typed]
            if in_passing or any(each in typed for each in NOT_RUN):
                continue
            before = [f"ltdpipe {each}" for each in BEFORE.get(f"{page.name}: {typed.split()[0]}", ())]
            # so that it needs no weights
            more = "--backbone demo-vit" if typed.startswith("extract") and "--corpus" not in typed else ""
            for each in (*before, f"{line} {more}"):
                if each not in ran:
                    faults += [f"{page.name}: {fault}" for fault in fault_of(each)]
                    ran.append(each)
            if typed.startswith("profile use"):
                (project / "params.yaml").write_text(params, encoding="utf-8")
    assert not faults, "\n".join(faults)
    assert len(ran) > 30
    assert set(left_out) == set(NOT_RUN)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page):
    named = re.findall(r"`((?:pipeline|stages|storage|tests|benchmarks|profiles)/[\w./-]*)`", page.read_text("utf-8"))
    assert [name for name in named if not (PROJECT / name).exists()] == []


@pytest.mark.parametrize("page", generate.PARTS)
def test_generated_parts_are_what_the_code_says(page):
    text = (generate.DOCS / page).read_text(encoding="utf-8")
    assert generate.generated(page) == text, "run `python docs/generate.py`"
    assert text.count("<!-- end -->") == len(generate.PARTS[page])


def test_the_page_on_architecture_shows_every_stage_and_functions_that_are_there():
    page = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    stages = re.findall(r"^  (\w+)/ ", page, re.M)
    assert set(stages) == {path.parent.name for path in (PROJECT / "stages").glob("*/__init__.py")}
    way = page[page.index("## The way of one image") : page.index("## Why")]
    code = "".join(path.read_text() for path in PROJECT.glob("*/**/*.py") if ".venv" not in path.parts)
    assert [name for name in re.findall(r"`([a-z_]+)`", way) if f"def {name}(" not in code] == []
    files = [PROJECT / "stages" / "extract" / name for name in re.findall(r"`(\w+\.py)`", way)]
    assert [path for path in files if not path.exists()] == []


def test_the_docs_site_builds_without_a_warning(tmp_path):
    run_command("mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site"), cwd=PROJECT)
    assert (tmp_path / "site" / "reproduce" / "index.html").exists()
