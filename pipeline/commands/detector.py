"""From a head to answers about images: bundle, calibrate, predict, explain, show."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline import workspace
from pipeline.commands.arguments import PATH, SHARE, echo, refuse_overwriting, weights_option
from storage.errors import DataError, SettingError

if TYPE_CHECKING:
    from stages.predict.detector import Detector
    from stages.predict.manifest import Calibration
    from stages.predict.run import Summary


@click.command()
@click.argument("head", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="The bundle to write, as detector.ltd.")
@click.option(
    "--features",
    type=PATH,
    help="The extracted clean view of the training corpus: its bands go into the bundle, for `ltdpipe explain`.",
)
@click.option("--geometry", help="How an image becomes the backbone's input; without it, as in training.")
@click.option(
    "--plan",
    default="clean",
    show_default=True,
    metavar="clean|tiles:N",
    help="How much of an image is read: its middle, or up to N crops that cover it.",
)
def bundle(*, head: Path, out: Path, features: Path | None, geometry: str | None, plan: str) -> None:
    """Put a trained head, with all that predicting needs, into one file.

    The backbone's weights are not in it: it names their hash, and predicting refuses any other.
    """
    from stages.predict.make import run

    refuse_overwriting(out, head, features)
    made = run(head=head, out=out, features=features, geometry=geometry, plan=plan)
    bands = "with reference ranges" if made.bands is not None else "no reference ranges (add --features)"
    weights = " with random weights" if made.random_weights else ""
    echo(f"{out}: head {made.name} on {made.spec.backbone}{weights}, {bands}, {made.calibration.source}")


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--on",
    required=True,
    metavar="SCORES|CORPUS",
    help="A scores file, an extracted view, results of predict (.csv, .jsonl), or a corpus of params.yaml.",
)
@click.option(
    "--target-fpr", type=SHARE, default=0.01, show_default=True, help="Share of real images called synthetic."
)
@click.option("--unsure", type=SHARE, help="Share of synthetic images called real; those between become unsure.")
@click.option(
    "--images",
    "classes",
    type=click.Choice(["labelled", "real", "unlabelled"]),
    default="labelled",
    show_default=True,
    help="What is known of the images: their labels; that all are real; nothing, then --share sets the threshold.",
)
@click.option("--share", type=SHARE, default=0.5, show_default=True, help="Synthetic share of unlabelled images.")
@click.option("-o", "--out", type=PATH, help="The calibrated bundle; without it BUNDLE is replaced.")
def calibrate(*, bundle: Path, on: str, out: Path | None, **options: Any) -> None:
    """Set the threshold of a bundle from real images that its head was not trained on.

    What the calibration promises is printed and kept in the bundle. Too few images are refused: --target-fpr 0.01 needs
    99 real ones, --unsure 0.05 needs 19 synthetic ones.
    """
    from stages.predict.calibration import run

    images, out = _images(on), out or bundle
    refuse_overwriting(out, images)
    found = run(bundle=bundle, on=images, out=out, **options)
    band = "" if found.real_up_to is None else f", real up to {found.real_up_to:.4f}"
    echo(f"{out}: synthetic above logit {found.threshold:.4f}{band}; {found.source}")
    echo(f"probabilities: {_probabilities(found)}")
    echo(f"guarantee: {found.guarantee}")


def _probabilities(found: Calibration) -> str:
    if found.scaling is None:
        return "0.5 at the threshold, and otherwise not calibrated: that takes images of both classes, with labels"
    return (
        f"of equally likely classes; the verdict is synthetic above {found.synthetic_above:.4f}, which keeps the "
        "false-positive rate"
    )


def _images(on: str) -> Path:
    """Return the path that --on names, or the extracted view of the corpus."""
    path = Path(on)
    if path.exists() or not workspace.PARAMS.exists() or path.suffix:
        return path
    workspace.defined(workspace.project_params().corpora, on, "corpora")
    return workspace.view(on)


class _PredictCommand(click.Command):
    """``--check`` alone, whatever follows it, is ``--check mild``: a path behind it stays a path."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        bare = [at for at, word in enumerate(args) if word == "--check" and args[at + 1 : at + 2] not in _CHECK_WORDS]
        return super().parse_args(ctx, ["--check=mild" if at in bare else word for at, word in enumerate(args)])


_CHECK_WORDS = [["mild"], ["web"]]


@click.command(cls=_PredictCommand)
@click.argument("bundle", type=PATH)
@click.argument("paths", nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, help="A result file: .csv, .jsonl, or .html, a page to look at.")
@click.option("--resume", type=PATH, metavar="OUT", help="Resume into the .csv or .jsonl file of a stopped run.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "jsonl"]), default="table", help="Without --out.")
@click.option("--sort", is_flag=True, help="The most suspicious images first, when all are scored.")
@click.option(
    "--check",
    type=click.Choice(["mild", "web"]),
    help="Also score mild changes (the default), or what the web does to pictures; a flip becomes unsure.",
)
@weights_option
@click.option("--follow-links", is_flag=True, help="Follow links that lead out of a folder.")
@click.option("--strict", is_flag=True, help="Exit with 3 if any image could not be read.")
@click.option("--loaders", type=click.IntRange(min=0), help="Decoding processes; 0 decodes in this one.")
@click.option("--batch", type=click.IntRange(min=1), help="Pictures a forward pass; changes results by rounding alone.")
def predict(
    *,
    bundle: Path,
    out: Path | None,
    resume: Path | None,
    paths: tuple[str, ...],
    weights: str,
    sort: bool,
    strict: bool,
    **options: Any,
) -> None:
    """Score images: real, synthetic or unsure.

    PATHS are images, folders, archives (.zip, .tar, .parquet), or - for a list of images on standard input. An image
    that cannot be read is a row with a reason. The exit status is 0 when at least one image was scored, 3 when none
    was, and with --strict 3 when any could not be read.
    """
    from stages.predict.inputs import check_paths

    if out is not None and resume is not None and out != resume:
        raise SettingError("--resume names the result file; leave --out out")
    check_paths(paths)

    from pipeline.console import ConsoleReporter
    from stages.predict.detector import Detector
    from stages.predict.run import run

    out, reporter = resume or out, ConsoleReporter()
    detector = Detector.load(bundle, weights=weights)
    try:
        summary = run(
            detector=detector,
            paths=paths,
            stdin=sys.stdin.buffer,
            stream=sys.stdout,
            out=out,
            resume=resume is not None,
            sort=sort,
            reporter=reporter,
            **options,
        )
    except KeyboardInterrupt as stop:
        stop.add_note(_how_to_resume(out, sort=sort))
        raise
    except BrokenPipeError:  # whoever read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    echo(_footer(summary, detector, out), err=True)
    if summary.failed == summary.total or (strict and summary.failed):
        raise DataError(f"{summary.failed} of {summary.total} images could not be read; their rows say why")


def _how_to_resume(out: Path | None, *, sort: bool) -> str:
    if out is None:
        return "rows that were printed are not kept; use --out to make a run resumable"
    if sort or out.suffix.lower() not in {".csv", ".jsonl"}:
        return f"nothing of {out} is kept; write a .csv or .jsonl file without --sort to make a run resumable"
    return f"the rows of {out} are kept; to resume, run the same command with --resume {out} in place of --out"


def _footer(summary: Summary, detector: Detector, out: Path | None) -> str:
    calibration, reference = detector.calibration, detector.bundle.reference
    counts = {**summary.verdicts, "failed": summary.failed, "there already": summary.there["ok"]}
    words = ("real", "synthetic", "unsure", "failed", "there already")
    listed = ", ".join(f"{counts[word]} {word}" for word in words if counts.get(word))
    parts = [
        f"{summary.total} image{'' if summary.total == 1 else 's'}" + (f" ({listed})" if listed else ""),
        f"synthetic above p = {calibration.synthetic_above:.4f} (logit {calibration.threshold:.4f}), "
        f"{calibration.source}",
    ]
    if summary.flips:
        parts.append("flipped: " + ", ".join(f"{count} under {view}" for view, count in summary.flips.most_common()))
    if reference is not None:
        parts.append(summary.sample.sentence(reference))
    if summary.left_out:
        parts.append("left out: " + ", ".join(f"{count} {kind}" for kind, count in sorted(summary.left_out.items())))
    return ("" if out is None else f"{out}: ") + "; ".join(parts)


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("image", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="The HTML page to write.")
@weights_option
def explain(*, bundle: Path, image: Path, out: Path, weights: str) -> None:
    """Write a page on one image: its transition profile, the blocks that decide, and what each branch adds."""
    from stages.predict.detector import Detector
    from stages.predict.explain import run

    refuse_overwriting(out, bundle, image)
    detector = Detector.load(bundle, weights=weights)
    prediction = run(detector=detector, image=image, out=out).prediction
    limit = f"(synthetic above {prediction.synthetic_above:.4f})"
    echo(f"{out}: {prediction.verdict}, probability of synthetic {prediction.probability:.4f} {limit}")
    if detector.warning:
        echo(f"warning: {detector.warning}", err=True)


@click.command()
@click.argument("head", metavar="HEAD|BUNDLE", type=PATH)
@click.option("--out", type=PATH, help="Write the card here instead of printing it.")
def show(*, head: Path, out: Path | None) -> None:
    """Print the model card of a head file or a bundle, in Markdown; a bundle's says how it is calibrated."""
    from storage.atomic import write_text

    refuse_overwriting(out, head)
    if head.suffix == ".safetensors":
        from stages.heads.model_card import model_card

        card = model_card(head)
    else:
        from stages.predict.bundle import bundle_card

        card = bundle_card(head)
    if out is None:
        echo(card, nl=False)
    else:
        write_text(out, card)
