"""Train and score every head of a sweep on features that are read once."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

from stages.heads.file import build_head
from stages.heads.machine import best_device, default_budget, default_threads, repeatable
from stages.sweep.results import Results, write_results
from stages.sweep.tested import TestCorpus
from stages.train.batches import union_of
from stages.train.data import TrainingData
from stages.train.loop import fit
from storage.index import INDEX_NAME, fingerprint, read_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from stages.heads.head import HeadInput
    from stages.heads.settings import TrainSettings
    from stages.reporter import Reporter
    from stages.sweep.tested import Row
    from stages.sweep.variants import Variant
    from storage.spec import FeatureSpec


def run(
    *,
    views: Sequence[Path],
    validation_view: Path,
    evaluation: Sequence[Path],
    variants: Sequence[Variant],
    settings: TrainSettings,
    seeds: Sequence[int],
    out: Path,
    reporter: Reporter,
    memory: int | None = None,
    threads: int | None = None,
) -> list[Row]:
    """Train each variant with each seed, score it on the evaluation views, and write ``out``.

    ``results.csv`` has a row for each variant, seed and test set and one for the mean over sets, with accuracy at
    logit 0 and average precision. Each head is the very head that ``ltdpipe train`` makes. A stopped sweep resumes with
    the heads that are missing.

    Args:
        views: directories of the training views, as for ``stages.train.run``.
        validation_view: directory of the view that chooses the best epoch.
        evaluation: directories of the views to score, each of another corpus; not used to choose anything.
        variants: what is compared, all with the same coordinates.
        settings: how heads of the study are trained.
        seeds: each trains each variant.
        out: folder of the results.
        reporter: gets notes, warnings and progress.
        memory: bytes of features to hold; None: 60 % of what is free.
        threads: CPU threads; None: as the width asks for.

    Returns:
        All rows.

    Raises:
        SettingError: a head does not fit the backbone, or a loss is not finite.
        DataError: features are missing or damaged or do not fit each other, or no test set has both classes.
    """
    data = TrainingData.open(views, validation_view, settings)
    tests = [TestCorpus.open(directory, data.views[0], reporter) for directory in evaluation]
    device, spec = best_device(), data.views[0].spec
    threads = threads or default_threads(spec.width)
    tables = [*data.views, data.validation_view, *(test.table for test in tests)]
    # the content hash, label and sets of each image, and what its features were made with
    indexes = [[table.key, fingerprint(read_index(table.directory / INDEX_NAME))] for table in tables]
    identity = [settings.model_dump(mode="json"), threads, indexes]
    results = Results.load(out, hashlib.sha256(json.dumps(identity).encode()).hexdigest())
    with (
        repeatable(threads),
        reporter.progress("sweep", len(variants) * len(seeds), "heads") as progress,
    ):
        for reads, members in _by_tap(variants, spec):
            budget = default_budget(device) if memory is None else memory
            # of each corpus's features the same share is resident
            sizes = [sum(len(view) for view in data.views), *(len(test.table) for test in tests)]
            shares = [int(budget * size / sum(sizes)) for size in sizes]
            feeds = data.batches(reads, device, shares[0])
            scored = [test.feed(reads, device, share) for test, share in zip(tests, shares[1:], strict=True)]
            for variant in members:
                missing = [seed for seed in seeds if not results.has(variant, seed)]
                progress.advance(len(seeds) - len(missing))
                for seed in missing:
                    torch.manual_seed(seed)
                    head = build_head(variant.head, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
                    head.to(device)
                    _, best = fit(head, *feeds, variant.head.training(settings), seed=seed)
                    rows = [row for test, feed in zip(tests, scored, strict=True) for row in test.score(head, feed)]
                    facts = {"best_epoch": best.epoch, "validation_accuracy": best.validation_accuracy}
                    results.add(variant, seed, [{**row, **facts} for row in rows])
                    progress.advance(1)
    rows = results.rows(variants, seeds)
    write_results(out, rows)
    return rows


def _by_tap(variants: Sequence[Variant], spec: FeatureSpec) -> Iterable[tuple[HeadInput, list[Variant]]]:
    """Group variants by the tap they read, each with all that its group reads."""
    groups: dict[str, list[tuple[HeadInput, Variant]]] = {}
    for variant in variants:
        with torch.device("meta"):  # only what it reads is asked for
            reads = build_head(variant.head, blocks=spec.blocks, width=spec.width, embedding=spec.embedding).reads
        groups.setdefault(reads.tap, []).append((reads, variant))
    for members in groups.values():
        yield union_of([reads for reads, _ in members]), [variant for _, variant in members]
