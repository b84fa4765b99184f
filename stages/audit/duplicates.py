"""Images that occur twice, in training and in test or with both labels: by their bytes and by their embeddings."""

from __future__ import annotations

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
_AXES = 32  # directions of the first, rough comparison
_PART = 1 << 13  # pairs whose embeddings are copied at once


def exact_copies(index: pa.Table, others: pa.Table | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Find files of equal bytes within the corpus, with both labels, and between training and test images.

    Args:
        index: of the corpus, usable rows.
        others: index of the training corpus; None where it is this one.

    Returns:
        Numbers and examples; kind of warning -> text.
    """
    groups = index.group_by("sha256", use_threads=False).aggregate([("path", "list"), ("label", "count_distinct")])
    groups = groups.filter(pc.greater(pc.list_value_length(groups["path_list"]), 1))
    copies = groups["path_list"].to_pylist()
    contrary = groups.filter(pc.equal(groups["label_count_distinct"], 2))["path_list"].to_pylist()
    tested, trained = sides(index, others)
    test, training = index.take(tested), (index if others is None else others).take(trained)
    at = pc.index_in(test["sha256"], value_set=training["sha256"])
    pairs = [
        {"test": path, "train": trained_path}
        for path, trained_path in zip(
            test["path"].filter(pc.is_valid(at)).to_pylist(),
            training["path"].take(at.drop_null()).to_pylist(),
            strict=True,
        )
    ]
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
    tested, trained = sides(table.index, None if others is None else others.index)
    test, training = table.index.take(tested), (table if others is None else others).index.take(trained)
    label, content = test["label"].to_numpy(), np.array(test["sha256"].to_pylist(), object)
    pairs_in_test, contrary, across = 0, SimilarPairs(), SimilarPairs()
    for first, second, cosine in near_pairs(embeddings[tested], None, near, reporter):
        pairs_in_test += len(first)
        differ = (label[first] != label[second]) & (content[first] != content[second])
        contrary.add(first[differ], second[differ], cosine[differ])
    if len(trained) and not other_settings:
        known = (embeddings if others is None else others.read("embedding"))[trained]
        theirs = np.array(training["sha256"].to_pylist(), object)
        for first, second, cosine in near_pairs(embeddings[tested], known, near, reporter):
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
            "train_test_examples": across.examples(test, training),
            "train_test_left_out": other_settings or None,
        },
        "label_noise": {"cosine": near, "pairs": contrary.count, "candidates": contrary.examples(test, test)},
    }
    return numbers, warnings


def sides(index: pa.Table, others: pa.Table | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows of ``index`` that are tested, and those of the training index that are trained on.

    With a training corpus of its own, all of this corpus is tested; else its own training split stands for it, unless
    it has no other.
    """
    if others is not None:
        return np.arange(len(index)), np.arange(len(others))
    in_training = pc.equal(index["split"], "train").fill_null(False).to_numpy()
    if in_training.all():
        return np.arange(len(index)), np.arange(0)
    return np.flatnonzero(~in_training), np.flatnonzero(in_training)


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
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]]:
    """Find all pairs of images that look nearly the same: cosine of centred embeddings at least ``threshold``.

    Embeddings share a large common part, which makes any two alike; it is taken off as the mean of ``embeddings``.
    A projection takes no two points further apart, so every near pair is near in the few directions in which the
    embeddings differ most. There, neighbours are put into blocks, blocks that lie apart are skipped, and only pairs
    that are near are compared in full: no pair is lost.

    Args:
        embeddings: (N, E).
        others: (M, E), or None to compare ``embeddings`` with itself; then the first row is the smaller one.
        threshold: between 0 and 1.
        reporter: gets the progress.

    Yields:
        For a pair of blocks, (P,) rows of ``embeddings``, (P,) rows of ``others``, and (P,) cosines.
    """
    centre = embeddings.astype(np.float32).mean(axis=0)
    mine = _normalised(embeddings, centre)
    theirs = mine if others is None else _normalised(others, centre)
    axes = np.linalg.eigh(mine.T @ mine)[1][:, -_AXES:]
    near, far = mine @ axes, theirs @ axes  # (N, A), (M, A)
    columns = _blocks(far)
    low, high = (np.stack([bound(far[block], axis=0) for block in columns]) for bound in (np.min, np.max))
    squared = np.float32(2 - 2 * threshold + 1e-3)  # distance of unit vectors of this cosine, and rounding
    # the product of these is `squared` less the squared distance
    one, length = np.ones((len(near), 1), np.float32), (near**2).sum(axis=1, keepdims=True)
    left = np.hstack([2 * near, squared - length, one])
    right = np.hstack([far, np.ones((len(far), 1), np.float32), -(far**2).sum(axis=1, keepdims=True)])
    with reporter.progress("compare embeddings", len(mine), "images") as progress:
        for number, rows in enumerate(columns if others is None else _blocks(near)):
            gaps = np.maximum(low - near[rows].max(axis=0), near[rows].min(axis=0) - high).clip(0)
            for at in np.flatnonzero((gaps**2).sum(axis=1) <= squared):
                if others is None and at < number:
                    continue
                row, column = np.nonzero(left[rows] @ right[columns[at]].T >= 0)  # of (B, B')
                if others is None and at == number:  # each pair once, no image with itself
                    row, column = row[row < column], column[row < column]
                first, second = rows[row], columns[at][column]
                if others is None:
                    first, second = np.minimum(first, second), np.maximum(first, second)
                cosine = _cosines(mine, first, theirs, second)
                found = cosine >= threshold - _ROUNDING
                yield first[found], second[found], cosine[found]
            progress.advance(len(rows))


def _blocks(points: NDArray[np.float32]) -> list[NDArray[np.intp]]:
    """Part (N, A) points by halves along their widest axis into blocks of neighbours: row numbers."""
    blocks, large = [], [np.arange(len(points))]
    while large:
        rows = large.pop()
        if len(rows) <= _BLOCK:
            blocks.append(rows)
            continue
        widest = np.ptp(points[rows], axis=0).argmax()
        order = rows[np.argpartition(points[rows, widest], len(rows) // 2)]
        large += [order[: len(rows) // 2], order[len(rows) // 2 :]]
    return blocks


def _cosines(
    mine: NDArray[np.float32], first: NDArray[np.intp], theirs: NDArray[np.float32], second: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Multiply pairs of rows, a part at a time: a pair of blocks may have a million of them."""
    parts = [
        np.einsum("pe,pe->p", mine[first[at : at + _PART]], theirs[second[at : at + _PART]])
        for at in range(0, len(first), _PART)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _normalised(embeddings: NDArray[np.floating[Any]], centre: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = embeddings.astype(np.float32) - centre
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    result: NDArray[np.float32] = centred / np.maximum(lengths, np.finfo(np.float32).tiny)
    return result
