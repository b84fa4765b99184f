"""Whole studies ready to run."""

from __future__ import annotations

import click

from pipeline import paths


@click.group()
def profile() -> None:
    """Whole studies ready to run: list them, show one, or make one the project's params.yaml."""


@profile.command("list")
def profile_list() -> None:
    """List the profiles."""
    from pipeline.profiles import profile_names

    for name in profile_names():
        click.echo(name)


@profile.command("show")
@click.argument("name")
def profile_show(name: str) -> None:
    """Print a profile."""
    from pipeline.profiles import profile_path

    click.echo(profile_path(name).read_text(encoding="utf-8"), nl=False)


@profile.command("use")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also over edits of params.yaml that are not committed.")
def profile_use(name: str, force: bool) -> None:
    """Write a profile to params.yaml."""
    from pipeline.profiles import use_profile

    use_profile(name, paths.PARAMS, force=force)
    click.echo(f"{paths.PARAMS} is now the study {name}; run it with `dvc repro`")
