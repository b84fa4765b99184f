"""The commands, each a thin layer over one stage function: by name from params.yaml, or by hand with paths.

torch, open_clip and the like are imported inside the commands that need them, so that help and typos answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from pipeline import paths
from storage.errors import SettingError

if TYPE_CHECKING:
    from pipeline.params import Params

T = TypeVar("T")

_corpus = click.option("--corpus", metavar="NAME", help="A corpus of params.yaml.")
_PATH = click.Path(path_type=Path)


@click.command("demo-images")
@click.option("--corpus", metavar="NAME", required=True, help="A corpus under `demo` in params.yaml.")
def demo_images(corpus: str) -> None:
    """Make the image files of a corpus of the demo study."""
    from stages.demo.images import run

    params = _params()
    run(corpus=_defined(params.demo, corpus, "demo"), out=Path(_defined(params.corpora, corpus, "corpora").root))


@click.command()
@click.argument("folder", required=False, type=_PATH)
@_corpus
@click.option("--layout", default="folder", show_default=True, help="How FOLDER's sub-folders tell the label.")
@click.option("--out", type=_PATH, help="The manifest to write for FOLDER (Parquet).")
def scan(folder: Path | None, corpus: str | None, layout: str, out: Path | None) -> None:
    """List a corpus's images in its manifest.

    With --corpus, the folder and its layout come from params.yaml and the manifest goes to corpora/NAME.parquet.
    With FOLDER, any folder is listed.
    """
    from stages.scan.run import run

    if folder is None:
        name = _needed(corpus, "--corpus NAME or a FOLDER")
        entry = _defined(_params().corpora, name, "corpora")
        _, summary = run(corpus=name, root=paths.images(entry.root), layout=entry.layout, out=paths.manifest(name))
    else:
        _, summary = run(corpus=corpus or folder.absolute().name, root=folder, layout=layout, out=out)
    click.echo(str(summary))


@click.command()
@click.argument("folder", required=False, type=_PATH)
@_corpus
@click.option("--out", type=_PATH, help="Where the features of FOLDER go.")
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    help="How FOLDER's sub-folders tell the label; auto: by their names, or not at all where none has such a name.",
)
@click.option("--backbone", help="For FOLDER: name of the backbone.")
@click.option("--weights", help="For FOLDER: default, random:SEED, or a local weights file.")
@click.option("--geometry", help="For FOLDER: how an image becomes the backbone's input.")
@click.option("--shard-size", default=1024, show_default=True, help="Images a shard; changes no feature.")
@click.option("--batch", default=32, show_default=True, help="Images a forward pass; changes no feature.")
def extract(  # noqa: PLR0917 - click hands over one argument an option
    folder: Path | None,
    corpus: str | None,
    out: Path | None,
    layout: str,
    backbone: str | None,
    weights: str | None,
    geometry: str | None,
    shard_size: int,
    batch: int,
) -> None:
    """Run the frozen backbone over a corpus and cache its features.

    With --corpus, settings come from params.yaml. With FOLDER and --out, any folder of images is extracted. Finished
    shards are never made again: the same command goes on where it was stopped.
    """
    from pipeline.console import ConsoleReporter
    from pipeline.params import settings_from
    from stages.extract.run import run
    from stages.extract.settings import ExtractSettings
    from stages.scan.run import run as scan_folder
    from storage.manifest import read_manifest
    from storage.store import store_root

    if folder is None:
        name = _needed(corpus, "--corpus NAME, or a FOLDER with --out")
        params = _params()
        root = paths.images(_defined(params.corpora, name, "corpora").root)
        manifest, settings, out = read_manifest(paths.manifest(name)), params.extract, paths.features(name)
    else:
        name, root = corpus or folder.absolute().name, folder
        out = _needed(out, "--out, where the features go")
        manifest, _ = scan_folder(corpus=name, root=folder, layout=layout)
        given = {"backbone": backbone, "weights": weights, "geometry": geometry}
        settings = settings_from(ExtractSettings, {key: value for key, value in given.items() if value is not None})
    summary = run(
        corpus=name,
        root=root,
        manifest=manifest,
        settings=settings,
        store=store_root(),
        out=out,
        reporter=ConsoleReporter(),
        shard_size=shard_size,
        batch=batch,
    )
    click.echo(f"{name}: {summary.usable} images usable, {summary.extracted} extracted now, key {summary.key}")
    for reason, count in sorted(summary.failed.items()):
        click.echo(f"{name}: {count} failed: {reason}")


@click.command()
@click.option("--head", "name", metavar="NAME", required=True, help="A head of params.yaml.")
@click.option("--seed", type=int, required=True, help="Fixes everything that is random.")
@click.option("--features", type=_PATH, help="Train on this extracted corpus view instead of that of params.yaml.")
@click.option("--out", type=_PATH, help="The head file to write.")
def train(name: str, seed: int, features: Path | None, out: Path | None) -> None:
    """Train a head on cached features."""
    from pipeline.console import ConsoleReporter
    from stages.train.run import run

    params = _params()
    summary = run(
        features=features or paths.view(params.train.corpus),
        name=name,
        head=_defined(params.heads, name, "heads"),
        settings=params.train.settings,
        seed=seed,
        out=out or paths.head(name, seed),
        reporter=ConsoleReporter(),
    )
    click.echo(
        f"{name}, seed {seed}: best epoch {summary.best.epoch}, held-out accuracy "
        f"{summary.best.validation_accuracy:.4f}, {summary.parameters:,} parameters"
    )


@click.command()
@click.option("--head", "name", metavar="NAME", help="A head of params.yaml.")
@click.option("--seed", type=int, help="The seed it was trained with.")
@_corpus
@click.option("--head-file", type=_PATH, help="Any head file, instead of --head and --seed.")
@click.option("--features", type=_PATH, help="Any extracted corpus view, instead of --corpus.")
@click.option("--out", type=_PATH, help="The scores file to write.")
def evaluate(  # noqa: PLR0917 - click hands over one argument an option
    name: str | None,
    seed: int | None,
    corpus: str | None,
    head_file: Path | None,
    features: Path | None,
    out: Path | None,
) -> None:
    """Score a corpus's images with a trained head."""
    from stages.evaluate.run import run

    if head_file is None or features is None or out is None:
        params = _params()
        name, corpus = _needed(name, "--head"), _needed(corpus, "--corpus")
        _defined(params.heads, name, "heads")
        _defined(params.corpora, corpus, "corpora")
        seed = _needed(seed, "--seed")
        head_file = head_file or paths.head(name, seed)
        features = features or paths.view(corpus)
        out = out or paths.scores(corpus, name, seed)
    count = run(features=features, head=head_file, out=out)
    click.echo(f"{out}: {count} images scored")


@click.command()
@_corpus
@click.option("--features", type=_PATH, help="Any extracted corpus view, instead of --corpus.")
@click.option("--out", type=_PATH, help="The Parquet file to write.")
def analyse(corpus: str | None, features: Path | None, out: Path | None) -> None:
    """Measure how the class token moves between adjacent blocks, for real images and each generator."""
    from stages.analyse.run import run

    if features is None or out is None:
        corpus = _needed(corpus, "--corpus NAME, or --features and --out")
        features, out = paths.view(corpus), paths.analysis(corpus)
    run(features=features, out=out)


@click.command()
@click.option("--quiet", is_flag=True, help="Do not print the table.")
def report(quiet: bool) -> None:
    """Compute metrics from the stored scores, and write tables, plots and the HTML report of the study."""
    from pipeline.study import write_report

    folder, table = write_report(_params())
    if not quiet:
        from rich.console import Console

        Console().print(table)
        click.echo(f"report: {folder / 'report.html'}")


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


COMMANDS: tuple[click.Command, ...] = (demo_images, scan, extract, train, evaluate, analyse, report, profile)


def _params() -> Params:
    from pipeline.params import load_params

    return load_params(paths.PARAMS)


def _defined(entries: dict[str, T], name: str, section: str) -> T:
    if name not in entries:
        raise SettingError(
            f"{name!r} is not in `{section}` of {paths.PARAMS}; it has {', '.join(entries) or 'nothing'}"
        )
    return entries[name]


def _needed(value: T | None, what: str) -> T:
    if value is None:
        raise SettingError(f"this command needs {what}; see --help")
    return value
