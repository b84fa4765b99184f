"""The project's commands and git, run as a user runs them."""

import csv
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[1]
# A program started from here no longer has the capabilities to write and read where permissions forbid it.
_DROP = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def environment(cwd, **more):
    """Variables under which this environment's programs run on the code in ``cwd``, if it holds any."""
    if (cwd / ".dvc").is_dir():  # what DVC knows of a clone goes with it
        more.setdefault("DVC_SITE_CACHE_DIR", str(cwd / ".dvc" / "tmp" / "site"))
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(cwd if (cwd / "pipeline").is_dir() else PROJECT),
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def run_command(*command, cwd, check=True, **env):
    """Run a command as a user would, to its end."""
    done = subprocess.run(command, cwd=cwd, env=environment(cwd, **env), capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(command)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def ltdpipe(line):
    """Run a command as its program does, in this process; return its exit code."""
    from pipeline.cli import main

    arguments, sys.argv = sys.argv, ["ltdpipe", *shlex.split(line)]
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        main()
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = arguments
        signal.signal(signal.SIGTERM, terminated)


def invoke(*arguments, **options):
    """Run a command in this process; its result has what it said, and the error in ``exception``."""
    from click.testing import CliRunner

    from pipeline.cli import ltdpipe

    return CliRunner().invoke(ltdpipe, [str(argument) for argument in arguments], **options)


def demo_params(**changes):
    """The parameters of the demo study, as a mapping."""
    return yaml.safe_load((PROJECT / "profiles" / "demo.yaml").read_text(encoding="utf-8")) | changes


def read_csv(path):
    """The rows of a table, each a mapping."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_graph():
    """Run all commands of dvc.yaml, in the working directory, as `dvc repro` does but in this process.

    Returns:
        The stages in the order in which they ran.
    """
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro

    with warnings.catch_warnings(action="ignore"), Repo() as repo:
        stages = plan_repro(repo.index.graph)
    for stage in stages:
        for command in [stage.cmd] if isinstance(stage.cmd, str) else stage.cmd:
            assert ltdpipe(command.removeprefix("ltdpipe ")) == 0, command
    return [stage.addressing for stage in stages]


def without_root_s_privilege(script, *arguments, **env):
    """Run a Python script that obeys file permissions, also where the tests run as root."""

    dropped = [sys.executable, "-c", _DROP] if os.geteuid() == 0 else []
    return subprocess.run(
        [*dropped, sys.executable, "-c", script, *map(str, arguments)], cwd=PROJECT, env={**os.environ, **env},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def start(*command, cwd):
    """Start a command in a process group of its own, so that it can be killed with all that it starts."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(cwd),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def make_socket(path):
    """Leave a socket file; addressed through its folder, as an address may have no more than 107 bytes."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


_HELD = """
import importlib, signal, sys
module, *owners, name = sys.argv.pop(1).split(":")
calls = int(sys.argv.pop(1))
owner = importlib.import_module(module)
for each in owners:
    owner = getattr(owner, each)
function, made = getattr(owner, name), []
def held(*arguments, **options):
    if len(made) == calls:
        print("held", file=sys.stderr, flush=True)
    while len(made) == calls:
        signal.pause()
    made.append(name)
    return function(*arguments, **options)
setattr(owner, name, held)
from pipeline.cli import main
main()
"""


def start_held(place, calls, *arguments, cwd, **env):
    """Start ``ltdpipe`` so that it stops for a signal after some calls of a function of its main thread.

    However slow the test is to send one, the command cannot be done before.

    Args:
        place: the function, as ``module:function`` or ``module:Class:function``.
        calls: of these it makes so many.
        arguments: of ``ltdpipe``.
        cwd: where it runs.
        env: variables to set.
    """
    program = [sys.executable, "-c", _HELD, place, str(calls), *arguments]
    variables = environment(cwd, **env)
    return subprocess.Popen(program, cwd=cwd, env=variables, stderr=subprocess.PIPE, text=True)


def wait_until_held(process):
    """Read what a held command writes to standard error until it has made its calls."""
    assert process.stderr is not None
    while (line := process.stderr.readline()) != "held\n":
        if not line:
            pytest.fail(f"exited with {process.wait()} before it was held")


def wait_for(process, folder, pattern):
    """Wait until a file of that pattern lies in ``folder``; fails when the process ends in an error before."""
    while not list(folder.glob(pattern)):
        if process.poll() not in {None, 0}:
            pytest.fail(f"exited with {process.returncode}: {process.communicate()[1]}")
        time.sleep(0.01)


def git(folder, *arguments):
    settings = ("user.name=test", "user.email=test@localhost", "commit.gpgsign=false", "core.hooksPath=/dev/null")
    options = [word for setting in settings for word in ("-c", setting)]
    return run_command("git", *options, *arguments, cwd=folder).stdout


def commit(folder, message):
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)
