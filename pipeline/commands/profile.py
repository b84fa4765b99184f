"""Whole studies ready to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline import paths
from pipeline.commands.arguments import PATH, echo
from storage.errors import DataError, SettingError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from pipeline.params import Params
    from pipeline.prepare import CorpusCheck


@click.group()
def profile() -> None:
    """Whole studies ready to run: list them, show one, or make one the project's params.yaml."""


@profile.command("list")
def profile_list() -> None:
    """List the profiles."""
    from pipeline.profiles import profile_names

    for name in profile_names():
        echo(name)


@profile.command("show")
@click.argument("name")
def profile_show(name: str) -> None:
    """Print a profile."""
    from pipeline.profiles import profile_text

    echo(profile_text(name), nl=False)


@profile.command("use")
@click.argument("name")
@click.option("--data", type=PATH, help="Folder below which the corpora lie: check and scan them, and plan the study.")
@click.option("--limit", type=click.IntRange(1), help="With --data: a small study, with N images of each kind.")
@click.option("--skip-missing", is_flag=True, help="With --data: go on without corpora that are not there.")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="With --data: images a second, instead of measuring the backbone here.",
)
@click.option("--set", "assignments", metavar="KEY=VALUE", multiple=True, help="A change, as train.epochs=2.")
@click.option("--force", is_flag=True, help="Also over edits of params.yaml that are not committed.")
def profile_use(  # noqa: PLR0917 - click hands over one argument an option
    name: str,
    data: Path | None,
    limit: int | None,
    skip_missing: bool,
    rate: float | None,
    assignments: tuple[str, ...],
    force: bool,
) -> None:
    """Write a profile to params.yaml.

    With --data, every corpus is first looked for, listed and compared with what is published of it; the features'
    size and the backbone's hours are told; and a study that cannot fit on the disk is refused. docs/data.md says where
    each benchmark is to be had. Nothing is written before all checks have passed.
    """
    from pipeline.params import params_from
    from pipeline.profiles import check_replaceable, profile_text
    from storage.atomic import all_or_none
    from storage.manifest import write_manifest

    if data is None and (limit is not None or skip_missing or rate is not None):
        raise SettingError("--limit, --skip-missing and --rate do nothing without --data, the folder of the corpora")
    text = profile_text(name, assignments)
    params = params_from(text, f"profile {name}")
    if not force:
        check_replaceable(paths.PARAMS)
    manifests: dict[str, pa.Table] = {}
    if data is not None:
        from pipeline.prepare import limited

        checks = _checked(params, data)
        missing = _missing(checks, params, skip_missing)
        text = profile_text(name, assignments, missing)
        params = params_from(text, f"profile {name}")
        manifests = {check.name: check.manifest for check in checks if check.manifest is not None}
        if limit is not None:
            manifests = {corpus: limited(manifest, limit) for corpus, manifest in manifests.items()}
        _print_plan(params, manifests, rate)
    with all_or_none() as partial:
        for corpus, manifest in manifests.items():
            write_manifest(manifest, partial(paths.manifest(corpus)))
        partial(paths.PARAMS).write_text(text, encoding="utf-8", newline="")
        if data is not None:
            partial(paths.DATA_ROOT).write_text(str(data.absolute()), encoding="utf-8")
    echo(f"{paths.PARAMS} is now the study {params.study}; run it with `dvc repro`")


def _checked(params: Params, data: Path) -> list[CorpusCheck]:
    from pipeline.console import ConsoleReporter
    from pipeline.prepare import check_corpus

    reporter = ConsoleReporter()
    checks = []
    for name, corpus in params.corpora.items():
        if name not in params.demo:
            check = check_corpus(name, corpus, data, reporter, is_test=name in params.evaluate.corpora)
            checks.append(check)
            count = "not found" if check.manifest is None else f"{len(check.manifest)} images"
            echo(f"{name}: {count}")
            for finding in check.findings:
                echo(f"  {finding}")
    return checks


def _missing(checks: list[CorpusCheck], params: Params, skip_missing: bool) -> tuple[str, ...]:
    """Return the corpora to leave out.

    Raises:
        DataError: one is missing that is needed, or that nobody said to leave out.
    """
    missing = tuple(check.name for check in checks if check.manifest is None)
    needed = [name for name in missing if name in params.train_on]
    if needed:
        raise DataError(
            f"the study trains on {', '.join(needed)}, not found; docs/data.md says where to get each corpus"
        )
    if missing and not skip_missing:
        raise DataError(
            f"not found: {', '.join(missing)}; docs/data.md says where to get each; --skip-missing goes on without"
        )
    if set(params.evaluate.corpora) <= set(missing):
        raise DataError(f"none of the corpora to evaluate on is there: {', '.join(missing)}")
    return missing


def _print_plan(params: Params, manifests: dict[str, pa.Table], rate: float | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pipeline.prepare import check_room, plan
    from storage.names import printable
    from storage.store import store_root

    planned = plan(params, manifests, store_root())
    table = Table("corpus", "images", "views", "forward passes", "features", title="extraction")
    for name, images in planned.images.items():
        size = f"{planned.bytes[name] / 1e9:.2f} GB"
        table.add_row(
            Text(printable(name)), f"{images:,}", str(planned.passes[name] // images), f"{planned.passes[name]:,}", size
        )
    Console().print(table)
    needed, passes = sum(planned.bytes.values()), sum(planned.passes.values())
    echo(f"features: {needed / 1e9:.2f} GB, free: {planned.free_bytes / 1e9:.1f} GB")
    check_room(planned)
    if rate is None:
        from pipeline.console import ConsoleReporter
        from stages.extract.bench import measure
        from stages.extract.settings import ExtractSettings, Runtime

        settings = ExtractSettings(backbone=params.extract.backbone, weights="random:0")
        measured = measure(settings, 16, Runtime(), ConsoleReporter())
        rate = measured.from_files
        echo(f"{params.extract.backbone} on this machine ({measured.device}): {rate:.2f} images/s from files")
    echo(f"backbone: {passes:,} forward passes, about {planned.hours(rate):.1f} hours where none is cached yet")
