"""Extract one corpus: plan the shards of all views, run the backbone over what is missing, merge the indexes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.extract.align import QUALITY, alignment
from stages.extract.backbone import feature_spec, load_backbone
from stages.extract.encode import make_shards
from stages.extract.plan import plan_missing, roots_note
from stages.extract.read_image import ReadSpec, Timing
from stages.extract.registry import BACKBONES
from stages.extract.settings import Runtime
from stages.extract.views import Recipe
from storage.errors import DataError, ResourceError
from storage.index import INDEX_NAME, read_index
from storage.published import publish, refuse_foreign
from storage.remote import is_url
from storage.sources import Sources
from storage.store import corpus_folder
from storage.views import VIEW, expand_views

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stages.extract.backbone import BackboneIdentity
    from stages.extract.settings import ExtractSettings
    from stages.reporter import Reporter
    from storage.corpus_folder import CorpusFolder
    from storage.index import Index

_SEEN = ("label", "format", "width", "height", "jpeg_quality", "status", "error")  # of the index, by the summary
_LABELS = {0: "real", 1: "synthetic", None: "unlabelled"}


@dataclass(frozen=True)
class FormatRow:
    """How the images of one class in one format look, failed ones included."""

    label: str
    format: str  # as the decoder names it; "none" where it could not tell
    images: int
    median_size: tuple[int, int] | None  # width and height, each the median
    median_quality: int | None  # of JPEG, estimated


@dataclass(frozen=True)
class ExtractSummary:
    """What a run did.

    Attributes:
        usable: images usable in every view.
        failed: reason -> number of images that failed in at least one view.
        extracted: images that were read and encoded just now, in at least one view.
        keys: view folder -> feature key.
        views: view folder -> images encoded just now.
        formats: how the images look, per class and format.
        small: usable images with a side smaller than the backbone's input: their crop is padded or repeated.
        timing: where the seconds went.
    """

    usable: int
    failed: dict[str, int]
    extracted: int
    keys: dict[str, str]
    views: dict[str, int]
    formats: tuple[FormatRow, ...]
    small: int
    timing: Timing

    @property
    def key(self) -> str:
        """The feature key of the first view."""
        return next(iter(self.keys.values()))

    @property
    def failed_kinds(self) -> dict[str, int]:
        """Kind of failure -> number of images."""
        kinds: dict[str, int] = {}
        for reason, count in self.failed.items():
            kind = reason.partition(":")[0]
            kinds[kind] = kinds.get(kind, 0) + count
        return kinds


def run(
    *,
    corpus: str,
    root: Path | str,
    reals: Path | str | None = None,
    manifest: pa.Table,
    settings: ExtractSettings,
    geometry: str,
    views: Sequence[str] = (VIEW,),
    store: Path,
    owner: Path | None = None,
    out: Path,
    reporter: Reporter,
    runtime: Runtime | None = None,
) -> ExtractSummary:
    """Bring ``out/<view>`` up to date with the manifest for every view; finished shards are never made again.

    Args:
        corpus: its name.
        root: folder that the manifest's paths are relative to (see :mod:`storage.sources`).
        reals: folder of the real images that several sets share, the second root of a manifest's paths.
        manifest: rows as ``ltdpipe scan`` makes them.
        settings: backbone, taps and precision; they, the geometry and the view decide the feature key.
        geometry: a name in ``stages.extract.views.GEOMETRIES``.
        views: as ``corpora.<name>.views`` has them; all of one run come from one decode.
        store: where shards are kept under their key between runs.
        owner: the project that the corpus belongs to; None: a folder extracted by hand, known by its root.
        out: ``features/<corpus>``; its view folders get hard links to the shards, and the index.
        reporter: gets notes, warnings and progress.
        runtime: knobs that change speed and no feature.

    Raises:
        SettingError: a setting does not fit the backbone.
        DataError: an image that has to be read is gone or has another size than the manifest says, no image at all
            can be read, features are broken, a shard took too many workers with it, or ``out`` holds
            files of another origin.
        ResourceError: features made on a GPU are to be completed without one.
    """
    runtime = runtime or Runtime()
    card = BACKBONES[settings.backbone]
    if card.token != "class" and {"cls", "ln2_cls"} & set(settings.taps):  # noqa: S105 - no password
        reporter.note(f"{card.name} has no class token: cls holds the mean of its patch tokens")
    sources = Sources.of(_absolute(root), None if reals is None else _absolute(reals))
    recipe = Recipe(geometry, card.size, settings.augmentation_seed, settings.apply_exif)
    plain, aligned = (tuple(v for v in expand_views(views) if v.aligned is which) for which in (False, True))
    for view in (*plain, *aligned):
        refuse_foreign(out / view.directory)

    def folders_of(backbone: BackboneIdentity, read_spec: ReadSpec) -> list[CorpusFolder]:
        specs = [feature_spec(backbone, settings, read_spec.recipe, view) for view in read_spec.views]
        return [corpus_folder(store, corpus, spec, project=owner, roots=roots_note(sources)) for spec in specs]

    images, read_spec = manifest, ReadSpec(sources, plain, recipe)
    indexes: dict[str, Index] = {}
    made: dict[str, int] = {}
    timing = Timing()
    with ExitStack() as stack:
        backbone, make = _worker(settings, runtime, reporter, stack)
        if settings.precision == "auto":
            backbone = _as_before(backbone, partial(folders_of, read_spec=read_spec), corpus, reporter)
        for chosen in filter(None, (plain, aligned)):
            if chosen is aligned:  # how their images are encoded is known when the clean view is there
                qualities, digest = alignment(read_index(out / VIEW / INDEX_NAME).table, corpus)
                images = manifest.append_column(QUALITY, qualities)
                read_spec = ReadSpec(sources, aligned, replace(recipe, alignment=digest))
            names, folders = [view.directory for view in chosen], folders_of(backbone, read_spec)
            with ExitStack() as locks:
                for folder in sorted(folders, key=lambda folder: folder.directory):  # one order for all: no deadlock
                    locks.enter_context(folder.lock(reporter.note))
                plans = plan_missing(folders, images, sources, reporter, runtime)
                made |= {
                    name: sum(len(plan.images) for plan in plans if view in plan.shards)
                    for view, name in enumerate(names)
                }
                total = sum(len(plan.images) for plan in plans)
                if total:
                    _check_precision(backbone, corpus, total)
                    with reporter.progress(f"extract {corpus}", total, "images") as progress:
                        knobs = {"progress": progress, "runtime": runtime, "notify": reporter.note}
                        timing.add(make(backbone, read_spec, folders, plans, **knobs))
                    for folder in folders:
                        folder.clean(reporter.warn)
                indexes |= _publish(dict(zip(names, folders, strict=True)), images, root, out, reporter)
    return _summarise(indexes, made, card.size, timing)


def _publish(
    folders: Mapping[str, CorpusFolder], images: pa.Table, root: Path | str, out: Path, reporter: Reporter
) -> dict[str, Index]:
    """Write the indexes of the views, show these below ``out``, and return of each what a summary needs."""
    shards = {name: folder.write_index(images) for name, folder in folders.items()}
    indexes = {name: read_index(folder.directory / INDEX_NAME, _SEEN) for name, folder in folders.items()}
    errors = _errors(indexes)
    if not errors.null_count:
        corpus, reasons = next(iter(folders.values())).corpus, "; ".join(errors.unique().to_pylist())
        raise DataError(f"corpus {corpus!r}: none of {len(images)} images below {root} can be read ({reasons})")
    for name, folder in folders.items():
        publish(folder, out / name, shards[name], reporter.note)
    return indexes


def _worker(
    settings: ExtractSettings, runtime: Runtime, reporter: Reporter, stack: ExitStack
) -> tuple[BackboneIdentity, Callable[..., Timing]]:
    """Return the backbone, and what makes shards with it: in this process, or on a cluster that ends with ``stack``."""
    if runtime.workers == 1 and not runtime.scheduler:
        backbone = load_backbone(
            settings.backbone,
            weights=settings.weights,
            precision=settings.precision,
            note=reporter.note,
            compiled=runtime.compiled,
        )
        return backbone, make_shards
    from stages.extract import cluster  # noqa: PLC0415 - Dask is imported only where it is used

    client = stack.enter_context(cluster.open_cluster(runtime))
    identity = cluster.describe_on_worker(client, settings, runtime, reporter.note)
    reporter.note(f"{len(client.nthreads())} workers, {identity.device.type}, {identity.precision}")

    def on_cluster(chosen: BackboneIdentity, *arguments: Any, **options: Any) -> Timing:
        pinned = {} if chosen.precision == identity.precision else {"precision": chosen.precision}
        return cluster.make_shards_on(client, *arguments, settings=settings.model_copy(update=pinned), **options)

    return identity, on_cluster


def _as_before(
    backbone: BackboneIdentity,
    folders_of: Callable[[BackboneIdentity], list[CorpusFolder]],
    corpus: str,
    reporter: Reporter,
) -> BackboneIdentity:
    """Return the backbone with the precision that a corpus was begun in, perhaps on another machine; else as it is."""
    other = replace(backbone, precision="fp32" if backbone.precision == "fp16" else "fp16")
    own_shards, others_shards = (
        any(any(folder.directory.glob("shard-*.h5")) for folder in folders_of(each)) for each in (backbone, other)
    )
    if own_shards or not others_shards:
        return backbone
    reporter.note(
        f"{corpus}: its features are {other.precision} so far, and stay so; "
        f"extract.precision {backbone.precision} makes them anew"
    )
    return other


def _check_precision(backbone: BackboneIdentity, corpus: str, images: int) -> None:
    if backbone.precision == "fp16" and backbone.device.type != "cuda":
        raise ResourceError(
            f"corpus {corpus!r}: its features were made in fp16 on a GPU, and {images} more cannot be made here, "
            "without one; go on where there is one, or set extract.precision to fp32, which makes all of them anew"
        )


def _absolute(root: Path | str) -> Path | str:
    """Make a local folder absolute, since workers run elsewhere; leave a URL."""
    return root if isinstance(root, str) and is_url(root) else Path(root).absolute()


def _summarise(indexes: Mapping[str, Index], made: Mapping[str, int], size: int, timing: Timing) -> ExtractSummary:
    """Count what the indexes of all views hold, of which ``made`` images were encoded now; S is ``size``."""
    first = next(iter(indexes.values())).table
    errors = _errors(indexes)
    failed = {each["values"]: each["counts"] for each in errors.drop_null().value_counts().to_pylist()}
    sides = pc.min_element_wise(first["width"], first["height"])
    small = pc.and_(pc.less(sides, size), pc.equal(first["status"], "ok"))
    return ExtractSummary(
        usable=errors.null_count,
        failed=failed,
        extracted=max(made.values()),
        keys={view: index.spec.key for view, index in indexes.items()},
        views=dict(made),
        formats=_formats(first),
        small=pc.sum(small, min_count=0).as_py(),
        timing=timing,
    )


def _errors(indexes: Mapping[str, Index]) -> pa.ChunkedArray:
    """Return (N,) why each image failed in the first view in which it did; null for those usable in every view."""
    return pc.coalesce(*(index.table["error"] for index in indexes.values()))


def _formats(table: pa.Table) -> tuple[FormatRow, ...]:
    columns = ["width", "height", "jpeg_quality"]
    rows = []
    for group in table.group_by(["label", "format"]).aggregate([(name, "list") for name in columns]).to_pylist():
        values = [[value for value in group[f"{name}_list"] if value is not None] for name in columns]
        width, height, quality = (int(np.median(known)) if known else None for known in values)
        size = None if width is None or height is None else (width, height)
        images = len(group["width_list"])
        rows.append(FormatRow(_LABELS[group["label"]], group["format"] or "none", images, size, quality))
    return tuple(sorted(rows, key=lambda row: (row.label, row.format)))
