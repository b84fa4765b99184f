"""Bundle x images -> verdicts."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from pipeline.commands.arguments import PATH, echo

if TYPE_CHECKING:
    from pathlib import Path

    from stages.predict.manifest import Calibration
    from stages.predict.run import Summary


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("paths", nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, help="A result file: .csv, .jsonl or .parquet.")
@click.option("--resume", type=PATH, metavar="OUT", help="Go on with the .csv or .jsonl file of a stopped run.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "jsonl"]), default="table", help="Without --out.")
@click.option("--check", is_flag=True, help="Also score mild re-encodings and rescalings; a flip becomes unsure.")
@click.option(
    "--weights", default="default", show_default=True, help="Backbone: default, random:SEED, or a local file."
)
@click.option("--follow-links", is_flag=True, help="Follow links that lead out of a folder.")
@click.option("--strict", is_flag=True, help="Exit with 3 if any image could not be read.")
@click.option("--loaders", type=click.IntRange(min=0), help="Decoding processes; 0 decodes in this one.")
@click.option("--batch", type=click.IntRange(min=1), help="Pictures a forward pass; changes results by rounding alone.")
def predict(
    *,
    bundle: Path,
    paths: tuple[str, ...],
    out: Path | None,
    resume: Path | None,
    form: str,
    check: bool,
    weights: str,
    follow_links: bool,
    strict: bool,
    loaders: int | None,
    batch: int | None,
) -> None:
    """Say of each image how likely it is synthetic: real, synthetic or unsure.

    PATHS are images, folders, archives (.zip, .tar, .parquet), or - for a list of images on standard input. An image
    that cannot be read is a row with a reason. The exit status is 0 when at least one image was scored, 3 when none
    was, and with --strict 3 when any could not be read.
    """
    from stages.predict.inputs import check_paths
    from storage.errors import DataError, SettingError

    if out is not None and resume is not None and out != resume:
        raise SettingError("--resume names the result file; leave --out out")
    check_paths(paths)

    from pipeline.console import ConsoleReporter
    from stages.predict.detector import Detector
    from stages.predict.run import run

    out = resume or out
    detector = Detector.load(bundle, weights=weights)
    try:
        summary = run(
            detector=detector,
            paths=paths,
            stdin=sys.stdin.buffer,
            stream=sys.stdout,
            form=form,
            out=out,
            resume=resume is not None,
            check=check,
            follow_links=follow_links,
            loaders=loaders,
            batch=batch,
            reporter=ConsoleReporter(),
        )
    except KeyboardInterrupt as stop:
        stop.add_note(_how_to_go_on(out))
        raise
    except BrokenPipeError:  # whoever read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    echo(_footer(summary, detector.calibration, out), err=True)
    if summary.failed == summary.total or (strict and summary.failed):
        raise DataError(f"{summary.failed} of {summary.total} images could not be read; their rows say why")


def _how_to_go_on(out: Path | None) -> str:
    if out is None:
        return "rows that were printed are not kept; with --out a run can be gone on with"
    if out.suffix.lower() == ".parquet":
        return f"nothing of {out} is kept; a run that writes a .csv or .jsonl file can be gone on with"
    return f"the rows of {out} are kept, to go on run the same command with --resume {out} in place of --out"


def _footer(summary: Summary, calibration: Calibration, out: Path | None) -> str:
    counts = {**summary.verdicts, "failed": summary.failed, "there already": summary.there["ok"]}
    words = ("real", "synthetic", "unsure", "failed", "there already")
    listed = ", ".join(f"{counts[word]} {word}" for word in words if counts.get(word))
    line = f"{summary.total} images" + (f" ({listed})" if listed else "")
    line += f"; synthetic above p = {calibration.synthetic_above:.4f} (logit {calibration.threshold:.4f}), "
    line += calibration.source
    if summary.left_out:
        line += "; left out: " + ", ".join(f"{count} {kind}" for kind, count in sorted(summary.left_out.items()))
    return f"{'' if out is None else f'{out}: '}{line}"
