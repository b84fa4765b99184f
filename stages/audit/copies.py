"""What an audit says of pictures that are there twice: in training and in test, or with both labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from stages.audit.duplicates import Alike, describe, equal_between, equal_groups, near_pairs
from stages.audit.finding import Finding

if TYPE_CHECKING:
    import pyarrow as pa

    from stages.reporter import Reporter
    from storage.features import FeatureTable


def exact_copies(usable: pa.Table, others: FeatureTable | None) -> tuple[dict[str, Any], list[Finding]]:
    """Find files of equal bytes within the corpus, with both labels, and between training and test images."""
    hashes, paths = usable["sha256"].to_pylist(), usable["path"].to_pylist()
    label = usable["label"].to_numpy()
    groups = equal_groups(hashes)
    contrary = [rows for rows in groups if len(set(label[rows])) > 1]
    findings = []
    if groups:
        extra = sum(len(rows) - 1 for rows in groups)
        findings.append(Finding("duplicates", None, f"{extra} files are byte for byte copies of another file"))
    if contrary:
        shown = " and ".join(paths[row] for row in contrary[0][:2])
        text = f"{len(contrary)} files are listed as real and as synthetic, with the same bytes: {shown}"
        findings.append(Finding("label-noise", None, text))
    tested, trained, _, training = _sides(usable, others)
    shared = equal_between([hashes[row] for row in tested], training["sha256"].take(trained).to_pylist())
    pairs = [(paths[tested[row]], training["path"][int(trained[other])].as_py()) for row, other in shared]
    if pairs:
        text = f"{len(pairs)} test images are byte for byte in the training images, such as {pairs[0][0]}"
        findings.append(Finding("train-test-duplicates", None, text))
    numbers = {
        "groups": len(groups),
        "examples": [[paths[row] for row in rows] for rows in groups[:20]],
        "with_both_labels": [[paths[row] for row in rows] for rows in contrary[:20]],
        "train_test": len(pairs),
        "train_test_examples": [{"test": test, "train": trained_path} for test, trained_path in pairs[:20]],
    }
    return numbers, findings


def near_copies(
    table: FeatureTable, others: FeatureTable | None, near: float | None, reporter: Reporter
) -> tuple[dict[str, Any], list[Finding]]:
    """Find near duplicates: with opposite labels (a label may be wrong), and between training and test images.

    Embeddings made with other settings, as where the two corpora have different geometries, cannot be compared:
    training against test is then left out, with the difference as the reason.
    """
    reason = None if near is not None else "left out as asked for"
    if reason is None and "embedding" not in table.spec.taps:
        reason = "the tap `embedding` was not extracted"
    if near is None or reason is not None:
        return {"near_duplicates": {"left_out": reason}, "label_noise": {"left_out": reason}}, []
    other_settings = "" if others is None else table.spec.difference(others.spec)
    if other_settings:
        reporter.warn(f"near duplicates of training images are not looked for, the features differ: {other_settings}")
    usable, embeddings = table.index, table.read("embedding")
    tested, trained, is_other, training = _sides(usable, others)
    if other_settings:
        trained = trained[:0]
    label, content = usable["label"].to_numpy()[tested], np.array(usable["sha256"].to_pylist(), object)[tested]
    pairs_in_test, contrary, across = 0, Alike(), Alike()
    for first, second, cosine in near_pairs(embeddings[tested], None, near, reporter):
        pairs_in_test += len(first)
        differ = (label[first] != label[second]) & (content[first] != content[second])
        contrary.add(first[differ], second[differ], cosine[differ])
    if len(trained):
        known = others.read("embedding") if is_other and others is not None else embeddings
        theirs = np.array(training["sha256"].to_pylist(), object)[trained]
        for first, second, cosine in near_pairs(embeddings[tested], known[trained], near, reporter):
            differ = content[first] != theirs[second]
            across.add(first[differ], second[differ], cosine[differ])
    findings = []
    if across.count:
        text = f"{len(across.first)} test images nearly look like training images (cosine {near} or more)"
        findings.append(Finding("train-test-near-duplicates", None, text))
    if contrary.count:
        images = len(contrary.first | contrary.second)
        text = f"{images} images nearly look like one of the other class (cosine {near} or more): labels may be wrong"
        findings.append(Finding("label-noise", None, text))
    test_table, train_table = usable.take(tested), training.take(trained)
    numbers = {
        "near_duplicates": {
            "cosine": near,
            "pairs_in_test": pairs_in_test,
            "pairs_train_test": across.count,
            "train_test_examples": describe(across, test_table, train_table),
            "train_test_left_out": other_settings or None,
        },
        "label_noise": {"cosine": near, "pairs": contrary.count, "candidates": describe(contrary, test_table)},
    }
    return numbers, findings


def _sides(usable: pa.Table, others: FeatureTable | None) -> tuple[Any, Any, bool, pa.Table]:
    """Return (test rows of the corpus, training rows, whether these are of the other corpus, their table).

    With a training corpus of its own, all of this corpus is tested; else its training split stands for it.
    """
    if others is not None:
        return np.arange(usable.num_rows), np.arange(others.index.num_rows), True, others.index
    in_training = pc.equal(usable["split"], "train").fill_null(False).to_numpy()
    if in_training.all():  # a corpus for training alone
        return np.arange(usable.num_rows), np.arange(0), False, usable
    return np.flatnonzero(~in_training), np.flatnonzero(in_training), False, usable
