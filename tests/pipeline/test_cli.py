"""The command line as a user meets it: its output and its exit codes."""

import signal
import subprocess
import sys

import pytest
from click import Group

import running
from pipeline.cli import ltdpipe
from running import PROJECT, invoke, run_command, start_held, wait_for
from storage.errors import DataError

COMMANDS = [(name,) for name in ltdpipe.commands] + [
    (name, below) for name, group in ltdpipe.commands.items() if isinstance(group, Group) for below in group.commands
]


def test_help_lists_every_command_and_each_explains_itself():
    text = invoke("--help").stdout
    assert all(f"  {name} " in text for name in ltdpipe.commands)
    assert "Exit codes" in text
    for command in COMMANDS:
        said = invoke(*command, "--help", prog_name="ltdpipe").stdout
        assert said.startswith(f"Usage: ltdpipe {' '.join(command)} ")


def test_help_and_parameters_import_no_heavy_library():
    code = (
        "import sys; sys.argv = ['ltdpipe', '--help']\n"
        "from pathlib import Path\n"
        "from pipeline.cli import main\n"
        "from pipeline.params import load_params\n"
        "load_params(Path('profiles/demo.yaml'))\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'open_clip', 'dask', 'sklearn', 'pyarrow', 'numpy')\n"
        "print('heavy:', [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("trainn", 2, "No such command 'trainn'"),
        ("train --features data", 2, "--head FAMILY"),
        ("train --head lt --seed 0", 2, "'lt' is not in `heads` of params.yaml"),
        ("scan nowhere", 3, "nowhere does not exist"),
        ("evaluate --head-file a --out c", 2, "--head-file, --features and --out belong together"),
        ("extract --corpus demo-test --taps cls", 2, "--taps needs a FOLDER"),
        ("scan profiles", 3, "no image file below profiles"),
        ("evaluate --corpus demo-test --head ltd --seed 0", 3, "holds no view to evaluate"),
        ("extract profiles --out x --backbone nope", 2, "backbone: no such backbone; allowed: clip-vit"),
        ("analyse --features nowhere --corpus demo-test", 2, "this command needs --out with --features"),
        ("profile use nope", 2, "profile 'nope' does not exist; choose from"),
    ],
)
def test_a_mistake_is_one_clear_line(project, capsys, line, code, says):
    assert running.ltdpipe(line) == code
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_debug_lets_the_error_through_with_its_traceback(project):
    with pytest.raises(DataError, match="nowhere does not exist"):
        running.ltdpipe("--debug scan nowhere")


def test_a_shell_completes_names_of_the_study(project):
    for typed, names in (
        ("ltdpipe scan --corpus demo-", {"demo-train", "demo-test"}),
        ("ltdpipe profile use g", {"genimage"}),
    ):
        env = {"_LTDPIPE_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        said = run_command("ltdpipe", cwd=project, **env).stdout
        assert {line.partition(",")[2] for line in said.splitlines()} == names


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
