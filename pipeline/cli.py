"""The ``ltdpipe`` command: its group, its options, and how errors and signals end it."""

from __future__ import annotations

import shlex
import signal
import sys
from typing import Any, NoReturn

import click

from pipeline import commands
from pipeline.commands.arguments import echo
from storage.errors import LtdpipeError


class _Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C: it unwinds the stack, so that nothing half-written stays."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ltdpipe", prog_name="ltdpipe")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def ltdpipe(debug: bool) -> None:
    """Tell photographs from AI-generated images, and measure it honestly.

    A frozen backbone's features are cached once; heads are trained on them in seconds and evaluated per generator.
    Run in a project's folder, the commands read params.yaml; `dvc repro` runs them all in order.

    Exit codes: 0 done; 2 a setting or option is wrong; 3 a file is missing, damaged or does not fit; 4 the machine
    cannot do it (disk full, weights unavailable); 130 and 143 interrupted, finished work is kept; 1 a defect.
    """


for command in commands.COMMANDS:
    ltdpipe.add_command(command)


def main() -> NoReturn:
    """Run the command line and exit with a documented code."""
    debug = "--debug" in sys.argv
    signal.signal(signal.SIGTERM, _terminate)
    try:
        ltdpipe.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt) as stop:
        # click turns KeyboardInterrupt into Abort and keeps it as the cause
        cause = stop.__cause__ or stop
        again = f"finished work is kept; to resume, run: {shlex.join(['ltdpipe', *sys.argv[1:]])}"
        note = next(iter(getattr(cause, "__notes__", [])), again)  # a command that resumes in another way says how
        echo(f"interrupted; {note}", err=True)
        sys.exit(143 if isinstance(cause, _Terminated) else 130)
    except LtdpipeError as error:
        if debug:
            raise
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)


def _terminate(_number: int, _frame: Any) -> NoReturn:
    raise _Terminated
