"""How well the format, size and JPEG quality of a file alone tell real from synthetic: one number for a data bias.

Reals of GenImage are JPEG files of many sizes, its synthetic images PNG files of one size. A detector can learn that,
and a test set of the same make rewards it ("Fake or JPEG?", Grommelt et al. 2024). The number is the cross-validated
average precision of a small decision tree that sees nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pyarrow as pa

FOLDS = 5
DEPTH = 4
MOST_IMAGES = 20_000  # of each class; a longer list is thinned evenly
# Warn when the tree closes this share of the gap from chance (the share of synthetic images) to 1.
LOUD = 0.3


@dataclass(frozen=True)
class Predictor:
    """What file metadata alone predicts.

    Attributes:
        ap: average precision of the tree on held-out folds; None where it is undefined.
        prevalence: share of synthetic images, the average precision of guessing.
        images: how many it was measured on.
        reason: why ``ap`` is None.
    """

    ap: float | None
    prevalence: float | None
    images: int
    reason: str | None = None

    def warnings(self) -> dict[str, str]:
        """Return kind of warning -> text: one, or none."""
        if self.ap is None or self.prevalence is None or self.ap - self.prevalence < LOUD * (1 - self.prevalence):
            return {}
        text = (
            f"format, size and JPEG quality of the file alone tell the classes apart: AP {self.ap:.3f}, guessing "
            f"gives {self.prevalence:.3f}. A detector may score on this instead of the image; look at the matched "
            "numbers, and where formats differ extract the views align and align-train, in which they do not"
        )
        return {"format-bias": text}


def predict_from_metadata(rows: pa.Table) -> Predictor:
    """Measure how well ``format``, ``width``, ``height`` and ``jpeg_quality`` predict ``label``.

    The same rows give the same number: folds and tree have fixed seeds, and thinning is even in the order of paths.

    Args:
        rows: usable, labelled rows of an index.
    """
    label = rows["label"].to_numpy()
    classes = [np.flatnonzero(label == number) for number in (0, 1)]
    if min(map(len, classes)) < FOLDS:
        reason = f"fewer than {FOLDS} images of a class"
        return Predictor(None, float(label.mean()) if len(label) else None, len(label), reason)
    thinned = (np.linspace(0, len(rows_) - 1, min(len(rows_), MOST_IMAGES)).astype(np.intp) for rows_ in classes)
    chosen = np.sort(np.concatenate([members[kept] for members, kept in zip(classes, thinned, strict=True)]))
    synthetic, facts = label[chosen], rows.take(chosen)
    formats = facts["format"].combine_chunks()
    columns = [pc.equal(formats, name).to_numpy(zero_copy_only=False) for name in sorted(formats.unique().to_pylist())]
    columns += [facts[name].fill_null(-1).to_numpy() for name in ("width", "height", "jpeg_quality")]

    from sklearn.metrics import average_precision_score  # noqa: PLC0415 - slow to import
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: PLC0415
    from sklearn.tree import DecisionTreeClassifier  # noqa: PLC0415

    tree = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=max(2, len(chosen) // 100), random_state=0)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    features = np.stack(columns, axis=1).astype(np.float64)  # (N, formats + 3)
    predicted = cross_val_predict(tree, features, synthetic, cv=folds, method="predict_proba")[:, 1]
    return Predictor(float(average_precision_score(synthetic, predicted)), float(synthetic.mean()), len(chosen))
