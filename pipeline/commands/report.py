"""Scores -> metrics, tables, plots and one HTML page."""

from __future__ import annotations

import click

from pipeline.commands.arguments import echo, project_params


@click.command()
@click.option("--quiet", is_flag=True, help="Do not print the table.")
def report(quiet: bool) -> None:
    """Compute metrics from the stored scores, and write tables, plots and the HTML report of the study."""
    from pipeline.study import write_report

    folder, table = write_report(project_params())
    if not quiet:
        from rich.console import Console

        Console().print(table)
        echo(f"report: {folder / 'report.html'}")
