"""Bundle x images -> verdicts."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

import click

from pipeline.commands.arguments import PATH, echo

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from stages.predict.results import Prediction
    from stages.reporter import Progress


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("paths", nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, help="A result file: .csv, .jsonl or .parquet.")
@click.option("--resume", type=PATH, metavar="OUT", help="Go on with the result file of a stopped run.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "jsonl"]), default="table", help="Without --out.")
@click.option("--check", is_flag=True, help="Also score mild re-encodings and rescalings; a flip becomes unsure.")
@click.option("--tta", type=click.Choice(["tencrop"]), help="The mean logit over ten crops.")
@click.option("--features", type=PATH, help="An extracted view whose features are used where they hold an image.")
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
    tta: str | None,
    features: Path | None,
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
    from stages.predict.looks import Looks
    from stages.predict.results import RowWriter, open_rows
    from storage.errors import DataError, SettingError

    looks = Looks(check, tta is not None)
    if out is not None and resume is not None and out != resume:
        raise SettingError("--resume names the result file; leave --out out")
    if features is not None and (check or tta is not None):
        raise SettingError("--features holds one view of each image, and --check and --tta need others; choose one")

    check_paths(paths)

    from pipeline.console import ConsoleReporter
    from stages.predict.detector import Detector
    from stages.predict.features import CachedFeatures
    from stages.predict.run import run

    target = resume or out
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        done: Iterable[dict[str, object]] = ()
        writer: RowWriter | _Table
        progress: Progress | None = None  # rows on the terminal show it themselves
        detector = Detector.load(bundle, weights=weights)
        cached = None if features is None else CachedFeatures.open(features, detector.card)
        if target is not None:
            writer, done = stack.enter_context(open_rows(target, check=check, resume=resume is not None))
            progress = stack.enter_context(ConsoleReporter().progress("predict", None, "images"))
        elif form == "table":
            writer = _Table(sys.stdout, detector.calibration.synthetic_above)
        else:
            writer = RowWriter(sys.stdout, form, check=check)
        predictions = run(
            detector=detector,
            paths=paths,
            stdin=sys.stdin.buffer,
            looks=looks,
            done=_counted(done, counts),
            features=cached,
            follow_links=follow_links,
            loaders=loaders,
            batch=batch,
        )
        try:
            for prediction in predictions:
                writer.write(prediction)
                counts[prediction.verdict or "failed"] += 1
                if progress is not None:
                    progress.advance(1, failed=int(prediction.verdict is None))
        except KeyboardInterrupt as stop:
            stop.add_note(_how_to_go_on(target))
            raise
        except BrokenPipeError:  # whoever read the output, such as `head`, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
    echo(_summary(counts, target), err=True)
    scored = sum(counts[word] for word in ("real", "synthetic", "unsure", "there already"))
    if not scored or (strict and counts["failed"]):
        raise DataError(f"{counts['failed']} of {sum(counts.values())} images could not be read; their rows say why")


def _how_to_go_on(target: Path | None) -> str:
    if target is None:
        return "rows that were printed are not kept; with --out a run can be gone on with"
    return f"the rows of {target} are kept, to go on run the same command with --resume {target} in place of --out"


class _Table:
    """Results as lines for a person."""

    def __init__(self, stream: IO[str], synthetic_above: float) -> None:
        self._stream, self._synthetic_above = stream, synthetic_above
        self._has_header = False

    def write(self, prediction: Prediction) -> None:
        from storage.names import printable

        if not self._has_header:
            limit = f"(synthetic above p = {self._synthetic_above:.4f})"
            self._stream.write(f"{'verdict':<9}  {'p(synthetic)':>12}  path  {limit}\n")
            self._has_header = True
        value = "" if prediction.probability is None else f"{prediction.probability:.4f}"
        reason = f"  ({prediction.error})" if prediction.error else ""
        reason += f"  (flips under {prediction.flipped})" if prediction.flipped else ""
        line = f"{prediction.path or ''}{reason}"
        self._stream.write(f"{prediction.verdict or 'failed':<9}  {value:>12}  {printable(line)}\n")
        self._stream.flush()


def _counted(rows: Iterable[dict[str, object]], counts: Counter[str]) -> Iterable[dict[str, object]]:
    for row in rows:
        counts["there already" if row["status"] == "ok" else "failed"] += 1
        yield row


def _summary(counts: Counter[str], target: Path | None) -> str:
    words = ("real", "synthetic", "unsure", "failed", "there already")
    parts = ", ".join(f"{counts[word]} {word}" for word in words if counts[word])
    return f"{'' if target is None else f'{target}: '}{parts or 'no image'}"
