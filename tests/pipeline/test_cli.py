"""The command line as a user meets it: real processes, their output and their exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from click import Group
from click.testing import CliRunner

from pipeline.cli import ltdpipe
from running import PROJECT, run_command, start_held, wait_for

COMMANDS = [(name,) for name in ltdpipe.commands] + [
    (name, below) for name, group in ltdpipe.commands.items() if isinstance(group, Group) for below in group.commands
]


def test_help_lists_every_command(tmp_path):
    text = run_command("ltdpipe", "--help", cwd=tmp_path).stdout
    assert all(f"  {name} " in text for name in ltdpipe.commands)
    assert "Exit codes" in text


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command):
    done = CliRunner().invoke(ltdpipe, [*command, "--help"], prog_name="ltdpipe")
    assert done.stdout.startswith(f"Usage: ltdpipe {' '.join(command)} ")


def test_help_imports_no_heavy_library():
    code = (
        "import sys; sys.argv = ['ltdpipe', '--help']\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'open_clip', 'dask', 'sklearn', 'pyarrow', 'numpy')\n"
        "print('heavy:', [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["trainn"], 2, "No such command 'trainn'"),
        (["train", "--features", "data"], 2, "--head FAMILY"),
        (["train", "--head", "lt", "--seed", "0"], 2, "'lt' is not in `heads` of params.yaml"),
        (["scan", "--corpus", "nope"], 2, "'nope' is not in `corpora`"),
        (["extract"], 2, "this command needs --corpus NAME or a FOLDER"),
        (["scan", "nowhere"], 3, "nowhere does not exist"),
        (["evaluate", "--head-file", "a", "--features", "b", "--out", "c", "--seed", "1"], 2, "--seed, --trained-on"),
        (["evaluate", "--head-file", "a", "--out", "c"], 2, "--head-file, --features and --out belong together"),
        (["extract", "--corpus", "demo-test", "--taps", "cls"], 2, "--taps needs a FOLDER"),
        (["extract", "profiles", "--backbone", "demo-vit"], 2, "this command needs --out"),
        (["scan", "--corpus", "demo-test", "--split", "val"], 2, "--split needs a FOLDER"),
        (["scan", "params.yaml"], 3, "params.yaml is a file"),
        (["scan", "profiles"], 3, "no image file below profiles"),
        (["evaluate", "--corpus", "demo-test", "--head", "ltd", "--seed", "0"], 3, "holds no view to evaluate"),
        (
            ["extract", "profiles", "--out", "x", "--backbone", "nope"],
            2,
            "backbone: no such backbone; allowed: clip-vit",
        ),
        (["analyse", "--features", "nowhere", "--corpus", "demo-test"], 2, "this command needs --out with --features"),
        (["profile", "use", "nope"], 2, "profile 'nope' does not exist; choose from"),
    ],
)
def test_a_mistake_is_one_clear_line(project, arguments, code, says):
    done = run_command("ltdpipe", *arguments, cwd=project, check=False)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("ltdpipe scan --corpus demo-", {"demo-train", "demo-test"}),
        ("ltdpipe evaluate --head linear", {"linear"}),
        ("ltdpipe profile use g", {"genimage"}),
    ],
)
def test_a_shell_completes_names_of_the_study(project, typed, completed):
    env = {"_LTDPIPE_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    said = run_command("ltdpipe", cwd=project, **env).stdout
    assert {line.partition(",")[2] for line in said.splitlines()} == completed


def test_debug_shows_the_traceback(project):
    done = run_command("ltdpipe", "--debug", "scan", "nowhere", cwd=project, check=False)
    assert "Traceback" in done.stderr
    assert "DataError" in done.stderr


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_its_code_and_a_way_to_go_on(project, sent, code):
    place = "stages.demo.images:random_crop"
    process = start_held(place, 3, "demo-images", "--corpus", "demo-test", cwd=project)
    wait_for(process, project / "data" / "images" / "demo-test", "**/*.png")
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code
    assert "to resume, run: ltdpipe demo-images --corpus demo-test" in stderr
    assert "Traceback" not in stderr
