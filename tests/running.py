"""The project's commands and git, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def environment(cwd: Path, **more: str) -> dict[str, str]:
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


def run_command(*command: str, cwd: Path, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, to its end."""
    done = subprocess.run(command, cwd=cwd, env=environment(cwd, **env), capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(command)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def start(*command: str, cwd: Path) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, so that it can be killed with all that it starts."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(cwd),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def git(folder: Path, *arguments: str) -> str:
    settings = ("user.name=test", "user.email=test@localhost", "commit.gpgsign=false", "core.hooksPath=/dev/null")
    options = [word for setting in settings for word in ("-c", setting)]
    return run_command("git", *options, *arguments, cwd=folder).stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)
