"""Images that occur twice, in training and in test or with both labels: by their bytes and by their embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    from stages.reporter import Reporter
    from storage.features import FeatureTable

_BLOCK = 1024
_ROUNDING = 1e-6  # of a cosine in float32: equal embeddings reach a threshold of 1
_FILES = 20
_PAIRS = 50


def exact_copies(usable: pa.Table, others: FeatureTable | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Find files of equal bytes within the corpus, with both labels, and between training and test images.

    Args:
        usable: the corpus's index.
        others: the training corpus; None where it is this one.

    Returns:
        Numbers and examples; kind of warning -> text.
    """
    groups = usable.group_by("sha256", use_threads=False).aggregate([("path", "list"), ("label", "count_distinct")])
    groups = groups.filter(pc.greater(pc.list_value_length(groups["path_list"]), 1))
    copies = groups["path_list"].to_pylist()
    contrary = groups.filter(pc.equal(groups["label_count_distinct"], 2))["path_list"].to_pylist()
    sides = _Sides.of(usable, others)
    trained = dict(zip(*(sides.training[name].to_pylist() for name in ("sha256", "path")), strict=True))
    tested = zip(*(sides.test[name].to_pylist() for name in ("sha256", "path")), strict=True)
    pairs = [{"test": path, "train": trained[sha256]} for sha256, path in tested if sha256 in trained]
    warnings = {}
    if copies:
        extra = sum(len(paths) - 1 for paths in copies)
        warnings["duplicates"] = f"{extra} files are byte for byte copies of another file"
    if contrary:
        warnings["label-noise"] = (
            f"{len(contrary)} files are listed as real and as synthetic, with the same bytes: "
            f"{' and '.join(contrary[0][:2])}"
        )
    if pairs:
        warnings["train-test-duplicates"] = (
            f"{len(pairs)} test images are byte for byte in the training images, such as {pairs[0]['test']}"
        )
    numbers = {
        "groups": len(copies),
        "examples": copies[:_FILES],
        "with_both_labels": contrary[:_FILES],
        "train_test": len(pairs),
        "train_test_examples": pairs[:_FILES],
    }
    return numbers, warnings


def near_copies(
    table: FeatureTable, others: FeatureTable | None, near: float | None, reporter: Reporter
) -> tuple[dict[str, Any], dict[str, str]]:
    """Find near duplicates: with opposite labels (a label may be wrong), and between training and test images.

    Embeddings made with other settings, as where the two corpora have different geometries, cannot be compared:
    training against test is then left out, with the difference as the reason.

    Args:
        table: the corpus.
        others: the training corpus; None where it is this one.
        near: cosine of centred embeddings from which on two images are near duplicates; None looks for none.
        reporter: gets the progress.

    Returns:
        The entries ``near_duplicates`` and ``label_noise`` of the audit; kind of warning -> text.
    """
    if near is None or "embedding" not in table.spec.taps:
        reason = "left out as asked for" if near is None else "the tap `embedding` was not extracted"
        return {"near_duplicates": {"left_out": reason}, "label_noise": {"left_out": reason}}, {}
    other_settings = "" if others is None else table.spec.difference(others.spec)
    if other_settings:
        reporter.warn(f"near duplicates of training images are not looked for, the features differ: {other_settings}")
    embeddings = table.read("embedding")
    sides = _Sides.of(table.index, others)
    label, content = sides.test["label"].to_numpy(), np.array(sides.test["sha256"].to_pylist(), object)
    pairs_in_test, contrary, across = 0, SimilarPairs(), SimilarPairs()
    for first, second, cosine in near_pairs(embeddings[sides.tested], None, near, reporter):
        pairs_in_test += len(first)
        differ = (label[first] != label[second]) & (content[first] != content[second])
        contrary.add(first[differ], second[differ], cosine[differ])
    if len(sides.trained) and not other_settings:
        known = embeddings if others is None else others.read("embedding")
        theirs = np.array(sides.training["sha256"].to_pylist(), object)
        for first, second, cosine in near_pairs(embeddings[sides.tested], known[sides.trained], near, reporter):
            differ = content[first] != theirs[second]
            across.add(first[differ], second[differ], cosine[differ])
    warnings = {}
    if across.count:
        warnings["train-test-near-duplicates"] = (
            f"{len(across.first)} test images look nearly the same as training images (cosine {near} or more)"
        )
    if contrary.count:
        images = len(contrary.first | contrary.second)
        warnings["label-noise"] = (
            f"{images} images look nearly the same as one of the other class (cosine {near} or more): their labels may "
            "be wrong"
        )
    numbers = {
        "near_duplicates": {
            "cosine": near,
            "pairs_in_test": pairs_in_test,
            "pairs_train_test": across.count,
            "train_test_examples": across.examples(sides.test, sides.training),
            "train_test_left_out": other_settings or None,
        },
        "label_noise": {
            "cosine": near,
            "pairs": contrary.count,
            "candidates": contrary.examples(sides.test, sides.test),
        },
    }
    return numbers, warnings


@dataclass(frozen=True)
class _Sides:
    """Rows of an index that are tested, with their table, and rows of the training index, with theirs."""

    tested: NDArray[np.intp]
    test: pa.Table
    trained: NDArray[np.intp]
    training: pa.Table

    @classmethod
    def of(cls, usable: pa.Table, others: FeatureTable | None) -> _Sides:
        """With a training corpus of its own, all of this corpus is tested; else its training split stands for it."""
        if others is not None:
            return cls(np.arange(usable.num_rows), usable, np.arange(others.index.num_rows), others.index)
        in_training = pc.equal(usable["split"], "train").fill_null(False).to_numpy()
        if in_training.all():  # a corpus for training alone
            return cls(np.arange(usable.num_rows), usable, np.arange(0), usable.slice(0, 0))
        tested, trained = np.flatnonzero(~in_training), np.flatnonzero(in_training)
        return cls(tested, usable.take(tested), trained, usable.take(trained))


class SimilarPairs:
    """Pairs of similar images: all of them counted, the 50 most similar kept, as N images make up to N² pairs.

    Attributes:
        count: number of pairs.
        first: rows that are the first of a pair.
        second: rows that are the second of a pair, in the second table where two were compared.
        most_similar: (first, second, cosine) of the most similar pairs, the most similar first.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: set[int] = set()
        self.second: set[int] = set()
        self.most_similar: list[tuple[int, int, float]] = []

    def add(self, first: NDArray[np.int64], second: NDArray[np.int64], cosine: NDArray[np.float32]) -> None:
        """Add pairs: (P,) rows, (P,) rows and (P,) cosines."""
        self.count += len(first)
        self.first.update(np.unique(first).tolist())
        self.second.update(np.unique(second).tolist())
        best = np.lexsort((second, first, -cosine))[:_PAIRS]
        pairs = zip(first[best].tolist(), second[best].tolist(), cosine[best].tolist(), strict=True)
        self.most_similar = sorted([*self.most_similar, *pairs], key=lambda pair: (-pair[2], *pair[:2]))[:_PAIRS]

    def examples(self, table: pa.Table, others: pa.Table) -> list[dict[str, Any]]:
        """Return the most similar pairs as mappings of paths, labels and cosine."""
        return [
            {
                "first": table["path"][row].as_py(),
                "first_label": table["label"][row].as_py(),
                "second": others["path"][other].as_py(),
                "second_label": others["label"][other].as_py(),
                "cosine": round(cosine, 4),
            }
            for row, other, cosine in self.most_similar
        ]


def near_pairs(
    embeddings: NDArray[np.floating[Any]],
    others: NDArray[np.floating[Any]] | None,
    threshold: float,
    reporter: Reporter,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Find images that look nearly the same: cosine of centred embeddings at least ``threshold``.

    Embeddings share a large common part, which makes any two alike; it is taken off as the mean of ``embeddings``.
    The work is N x M x E multiplications, done in blocks.

    Args:
        embeddings: (N, E).
        others: (M, E), or None to compare ``embeddings`` with itself; then the first row is the smaller one.
        threshold: between 0 and 1.
        reporter: gets the progress.

    Yields:
        For each pair of blocks, (P,) rows of ``embeddings``, (P,) rows of ``others``, and (P,) cosines.
    """
    centre = embeddings.astype(np.float32).mean(axis=0)
    mine = _normalised(embeddings, centre)
    theirs = mine if others is None else _normalised(others, centre)
    with reporter.progress("compare embeddings", len(mine), "images") as progress:
        for start in range(0, len(mine), _BLOCK):
            block = mine[start : start + _BLOCK]
            for column in range(start if others is None else 0, len(theirs), _BLOCK):
                cosine = block @ theirs[column : column + _BLOCK].T  # (B, B')
                if others is None and column == start:
                    cosine[np.tril_indices(len(block))] = -1.0  # each pair once, no image with itself
                rows, columns = np.nonzero(cosine >= threshold - _ROUNDING)
                yield start + rows, column + columns, cosine[rows, columns]
            progress.advance(len(block))


def _normalised(embeddings: NDArray[np.floating[Any]], centre: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = embeddings.astype(np.float32) - centre
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    result: NDArray[np.float32] = centred / np.maximum(lengths, np.finfo(np.float32).tiny)
    return result
