"""Train and score every head of a sweep on features that are read once."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from stages.heads.file import build_head
from stages.heads.machine import best_device, default_budget, default_threads, in_portions, repeatable
from stages.recipe import HEAD_CODE, recipe
from stages.sweep.variants import releases
from stages.train.batches import FeatureBatches, union_of
from stages.train.data import Split, TrainingData, backbone_difference
from stages.train.loop import logits_of, train_together
from stages.train.training import Training, planned
from storage.atomic import write_text
from storage.csv_text import csv_text
from storage.errors import DataError
from storage.features import FeatureTable
from storage.index import INDEX_NAME, fingerprint, read_index, set_names
from storage.manifest import evaluation_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.heads.head import Head
    from stages.heads.settings import TrainSettings
    from stages.reporter import Reporter
    from stages.sweep.variants import Variant

Row = dict[str, Any]
# The code that decides the rows of a head: of the `deps:` of the stage.
CODE = (
    *("stages/sweep", *(f"stages/train/{name}.py" for name in ("batches", "data", "loop", "training"))),
    *HEAD_CODE,
)
MEAN = "mean of sets"
_BATCH = 1024


class Tested(NamedTuple):
    """One corpus view: its table, and its test sets that have both classes, as row numbers."""

    table: FeatureTable
    sets: Mapping[str, NDArray[np.int64]]

    def generators(self, name: str) -> list[str]:
        """Return the generators of a set's synthetic images, each as often as it has some."""
        named: list[str | None] = self.table.index["generator"].take(self.sets[name]).to_pylist()
        return [generator for generator in named if generator is not None]


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
    logit 0 and average precision; where generators are held out, ``seen`` is the share of the set's synthetic images
    whose generator trained the head. A head that all images train is the very head that ``ltdpipe train`` makes, where
    the features fit into memory. ``sweep.json`` keeps the heads that are done: a stopped sweep resumes with those that
    are missing.

    Args:
        views: directories of the training views, as for ``stages.train.run``.
        validation_view: directory of the view that chooses the best epoch.
        evaluation: directories of the views to score, each of another corpus; not used to choose anything.
        variants: what is compared: all with the same coordinates, and heads that read the same tap.
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
    tests = [open_tested(directory, data.views[0], reporter) for directory in evaluation]
    threads = threads or default_threads(data.views[0].spec.width)
    tables = [*data.views, data.validation_view, *(test.table for test in tests)]
    # the content hash, label and sets of each image, and what its features were made with
    indexes = [[table.key, fingerprint(read_index(table.directory / INDEX_NAME))] for table in tables]
    identity = recipe([settings.model_dump(mode="json"), threads, indexes], CODE)
    done = _read_done(out / "sweep.json", identity)
    heads = {_key(variant, seed): (variant, seed) for variant, seed in product(variants, seeds)}
    missing = {key: head for key, head in heads.items() if key not in done}
    with repeatable(threads), reporter.progress("sweep", len(heads), "heads") as progress:
        progress.advance(len(heads) - len(missing))
        for key, rows in _swept(missing, variants, data, tests, settings, memory=memory) if missing else ():
            done[key] = rows
            write_text(out / "sweep.json", json.dumps({"identity": identity, "done": done}))
            progress.advance(1)
    corpora = {test.table.corpus: test for test in tests}
    table = []
    for variant, seed in product(variants, seeds):
        for row in done[_key(variant, seed)]:
            seen = {}
            if variant.generators is not None:
                test, name = corpora[row["corpus"]], row["set"]
                seen["seen"] = _seen(test, name, variant.generators) if name in test.sets else None
            table.append({**variant.coordinates, **row, **seen})
    write_text(out / "results.csv", csv_text(list(table[0]), [list(row.values()) for row in table]))
    return table


def _swept(
    missing: Mapping[str, tuple[Variant, int]],
    variants: Sequence[Variant],
    data: TrainingData,
    tests: Sequence[Tested],
    settings: TrainSettings,
    *,
    memory: int | None,
) -> Iterator[tuple[str, list[Row]]]:
    """Train and score heads with their seeds; yield the key and the rows of each as it is done.

    Features are read as all ``variants`` ask for them, so that a head is the same whatever is missing.
    """
    device, spec = best_device(), data.views[0].spec
    plans = [planned(variant.head, spec) for variant in variants]
    every, largest = union_of([reads for reads, _ in plans]), max(size for _, size in plans)
    budget = default_budget(device) if memory is None else memory
    # of each corpus's features the same share is resident
    sizes = [sum(len(view) for view in data.views), *(len(test.table) for test in tests)]
    shares = [int(budget * size / sum(sizes)) for size in sizes]
    tested = [
        FeatureBatches([test.table], np.arange(len(test.table)), every, device=device, budget=share)
        for test, share in zip(tests, shares[1:], strict=True)
    ]
    parts = defaultdict(list)
    for key, (variant, _) in missing.items():
        parts[json.dumps(variant.generators)].append(key)
    for part in parts.values():
        batches = replace(data, split=split_of(data, missing[part[0]][0])).batches(every, device, shares[0])
        # from memory one by one, so that a stop costs one head; from disk as many as may share what is read
        room = 0 if batches[0].resident_bytes else default_budget(device) // 4
        part.sort(key=lambda key: missing[key][1] if room else 0)
        for keys in in_portions(part, lambda _: largest, room):
            trainings = {}
            for key in keys:
                variant, seed = missing[key]
                torch.manual_seed(seed)
                head = build_head(variant.head, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
                trainings[Training(head.to(device), variant.head.training(settings), seed)] = key
            for each in train_together(list(trainings), *batches):
                facts = {"best_epoch": each.best.epoch, "validation_accuracy": each.best.validation_accuracy}
                scored = [row for test in zip(tests, tested, strict=True) for row in _score(each.head, *test)]
                yield trainings[each], [{"seed": each.seed, **row, **facts} for row in scored]


def split_of(data: TrainingData, variant: Variant) -> Split:
    """Return the images that train a variant and those that choose its best epoch.

    Of a generator of which only some images train, none chooses. Real images are thinned to the share of the synthetic
    ones that is left, so that the classes keep their balance. What stays is the first by content hash.

    Raises:
        DataError: no synthetic image is left on a side.
    """
    generators, split, index = variant.generators, data.split, data.views[0].index
    if generators is None:
        return split
    of_row, hashes = np.array(index["generator"].to_pylist(), dtype=object), np.array(index["sha256"].to_pylist())
    fake = index["label"].to_numpy() == 1

    def kept(rows: NDArray[np.int64], *, whole: bool, side: str) -> NDArray[np.int64]:
        rows = rows[np.argsort(hashes[rows], kind="stable")]
        wanted = {name: most for name, most in generators.items() if most is None or not whole}
        fakes = np.concatenate([rows[:0], *(rows[of_row[rows] == name][:most] for name, most in wanted.items())])
        if not len(fakes):
            raise DataError(
                f"{data.views[0].directory} has no synthetic image of {', '.join(wanted)} on the {side} side; sweep a "
                "corpus with more images of each generator"
            )
        reals = rows[~fake[rows]]
        return np.sort(np.concatenate([fakes, reals[: max(1, round(len(reals) * len(fakes) / fake[rows].sum()))]]))

    training = kept(split.training, whole=False, side="training")
    return Split(training, kept(split.validation, whole=True, side="validation"), split.rule)


def _seen(test: Tested, name: str, generators: Iterable[str]) -> float | None:
    """Return the share of a set's synthetic images whose generator, by whatever name, is one of these."""
    known = releases()
    trained = {known.get(generator, (generator, ""))[0] for generator in generators}
    tested = [known.get(generator, (generator, ""))[0] for generator in test.generators(name)]
    return sum(generator in trained for generator in tested) / len(tested) if tested else None


def open_tested(directory: Path, trained: FeatureTable, reporter: Reporter) -> Tested:
    """Open a view that heads trained on ``trained`` can score.

    Raises:
        DataError: it cannot be scored by them, holds images without a label, or no set has both classes.
    """
    table = FeatureTable.open(directory)
    difference = backbone_difference(trained.spec, table.spec)
    if difference:
        raise DataError(f"{directory} cannot be scored by heads trained on {trained.directory}: {difference}")
    if table.index["label"].null_count:
        raise DataError(f"{directory} holds images without a label, which cannot be evaluated")
    labels = table.index["label"].to_numpy()
    tested = evaluation_rows(table.index)
    names = set_names(table.index.take(tested))
    sets = {name: np.intersect1d(table.rows_of_set(name), tested) for name in names} or {table.corpus: tested}
    both = {name: rows for name, rows in sets.items() if len(np.unique(labels[rows])) == 2}
    if not both:
        raise DataError(f"no test set of {directory} has images of both classes")
    if len(both) < len(sets):
        reporter.warn(f"{directory}: sets of one class have no accuracy or AP here: {', '.join(sets.keys() - both)}")
    return Tested(table, both)


def _score(head: Head, test: Tested, batches: FeatureBatches) -> list[Row]:
    """Accuracy at logit 0 and average precision of a head on each set, and their means in a last row."""
    logits, labels = logits_of([head], batches, _BATCH)[0].cpu().numpy(), batches.labels.cpu().numpy() > 0.5
    rows: list[Row] = [
        {
            "corpus": test.table.corpus,
            "set": name,
            "images": len(members),
            "accuracy": float(((logits[members] > 0) == labels[members]).mean()),
            "ap": float(average_precision_score(labels[members], logits[members])),
        }
        for name, members in test.sets.items()
    ]
    mean = {key: float(np.mean([row[key] for row in rows])) for key in ("accuracy", "ap")}
    return [*rows, {**rows[0], "set": MEAN, "images": sum(row["images"] for row in rows), **mean}]


def _read_done(state: Path, identity: str) -> dict[str, list[Row]]:
    """Return head and seed -> rows of an earlier run of the same sweep; its coordinates may have been others."""
    try:
        content = json.loads(state.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return dict(content["done"]) if content.get("identity") == identity else {}


def _key(variant: Variant, seed: int) -> str:
    part = "" if variant.generators is None else f" {json.dumps(variant.generators)}"
    return f"{variant.head.model_dump_json()}{part} {seed}"
