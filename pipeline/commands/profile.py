"""Whole studies ready to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.commands.arguments import PATH, echo, print_table
from storage.errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.params import Params
    from pipeline.plan import Plan


@click.group()
def profile() -> None:
    """Whole studies ready to run: list them, show one, or make one the project's params.yaml."""


@profile.command("list")
def profile_list() -> None:
    """List the profiles, each with what it studies."""
    from pipeline.profiles import description, profile_names

    for name in profile_names():
        echo(f"{name:12} {description(name)}")


def _known(_context: click.Context, _argument: click.Parameter, begun: str) -> list[str]:
    from pipeline.profiles import profile_names

    return [name for name in profile_names() if name.startswith(begun)]


@profile.command("show")
@click.argument("name", shell_complete=_known)
def profile_show(*, name: str) -> None:
    """Print a profile."""
    from pipeline.profiles import profile_text

    echo(profile_text(name), nl=False)


@profile.command("use")
@click.argument("name", shell_complete=_known)
@click.option("--data", type=PATH, help="Folder below which the corpora lie: check and scan them, and plan the study.")
@click.option("--limit", type=click.IntRange(1), help="With --data: a small study, with N images of each kind.")
@click.option("--skip-missing", is_flag=True, help="With --data: leave out corpora that are not there.")
@click.option("--force", is_flag=True, help="Also over edits of params.yaml that are not committed.")
def profile_use(*, name: str, data: Path | None, limit: int | None, skip_missing: bool, force: bool) -> None:
    """Write a profile to params.yaml, and say what to do next.

    With --data, every corpus is first looked for, listed and compared with what is published of it; the size of the
    features and the hours of backbone and heads are estimated; and a study that cannot fit on the disk is refused.
    docs/data.md says where to get each benchmark. Nothing is written before all checks have passed.
    """
    from pipeline.console import ConsoleReporter
    from pipeline.profiles import next_steps, use

    if data is None and (limit is not None or skip_missing):
        raise SettingError("--limit and --skip-missing do nothing without --data, the folder of the corpora")
    params, plan = use(name, data, ConsoleReporter(), limit=limit, skip_missing=skip_missing, force=force)
    if plan is not None:
        _print_plan(params, plan)
    echo(f"params.yaml is now the study {params.study}; next:")
    for number, step in enumerate(next_steps(name, params), start=1):
        echo(f"  {number}. {step}")


def _print_plan(params: Params, plan: Plan) -> None:
    from stages.extract.doctor import measured_rate
    from stages.extract.registry import BACKBONES

    rows = [
        (name, f"{images:,}", str(views), f"{images * views:,}", f"{size / 1e9:.2f} GB")
        for name, (images, views, size) in plan.corpora.items()
    ]
    print_table(("corpus", "images", "views", "forward passes", "features"), rows, title="extraction")
    echo(f"features: {plan.bytes / 1e9:.2f} GB, free: {plan.free_bytes / 1e9:.1f} GB")
    device, rate = measured_rate(params.extract.backbone)
    echo(f"{params.extract.backbone} on this machine ({device}): {rate:.2f} images/s from files")
    seconds = plan.passes / rate
    echo(f"backbone: {plan.passes:,} forward passes, about {_duration(seconds)}")
    for kind, (trainings, of_kind) in plan.seconds(BACKBONES[params.extract.backbone]).items():
        seconds += of_kind
        echo(f"{kind}: {trainings:,} trainings and their scores, about {_duration(of_kind)}")
    echo(f"in all about {_duration(seconds)} where nothing is cached yet, without reading features, tables and figures")


def _duration(seconds: float) -> str:
    """Say a length of time in the unit that suits it."""
    unit, size = ("hours", 3600) if seconds >= 5400 else ("minutes", 60) if seconds >= 90 else ("seconds", 1)
    return f"{seconds / size:.1f} {unit}"
