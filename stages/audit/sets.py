"""Sizes of the test sets against the published ones, classes that are missing, images that cannot be used well."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from stages.scan.protocols import published_sizes
from storage.index import rows_of_set, set_names

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


def sizes(index: pa.Table, layout: str, crop: int) -> list[dict[str, Any]]:
    """Count the images of every set.

    Args:
        index: all rows, failed ones among them.
        layout: the corpus's layout, whose published sizes are looked up.
        crop: side of the crop in pixels.

    Returns:
        One mapping a set: ``name``, ``real``, ``synthetic`` (usable or not), ``expected`` (published size or None),
        ``unreadable``, and ``below_crop``: class -> images with a side shorter than the crop.
    """
    label = index["label"].to_numpy()
    failed = pc.not_equal(index["status"], "ok").to_numpy()
    shorter = pc.less(pc.min_element_wise(index["width"], index["height"]), crop).fill_null(False).to_numpy()
    found = []
    for name in set_names(index):
        rows = rows_of_set(index, name)
        real, fake = rows[label[rows] == 0], rows[label[rows] == 1]
        published = published_sizes(layout).get(name)
        found.append(
            {
                "name": name,
                "real": len(real),
                "synthetic": len(fake),
                "expected": None if published is None else asdict(published),
                "unreadable": int(failed[rows].sum()),
                "below_crop": {"real": int(shorter[real].sum()), "synthetic": int(shorter[fake].sum())},
            }
        )
    return found


def size_warnings(entry: dict[str, Any], layout: str, crop: int) -> dict[str, str]:
    """Say where a set's size differs from the published one, where a class is missing, and what is too small.

    Args:
        entry: a mapping of :func:`sizes`.
        layout: the corpus's layout.
        crop: side of the crop in pixels.

    Returns:
        Kind of warning -> text.
    """
    real, fake, below = entry["real"], entry["synthetic"], entry["below_crop"]
    published = published_sizes(layout).get(entry["name"])
    warnings = {}
    if not real or not fake:
        lacks = "synthetic" if real else "real"
        warnings["one-class"] = f"no {lacks} image: AP, AUC and accuracy are undefined, no mean covers this set"
    if published is not None and not published.agrees(real, fake):
        warnings["counts"] = f"{real} real and {fake} synthetic images; published: {published}"
    if any(below.values()):
        warnings["below-crop"] = (
            f"{below['real']} of {real} real and {below['synthetic']} of {fake} synthetic images are smaller than "
            f"the crop of {crop} pixels and are padded or enlarged; where the classes differ, that gives them away"
        )
    return warnings


def unreadable(index: pa.Table) -> dict[str, Any]:
    """Count the images that could not be read, by reason, with a few examples."""
    failed = index.filter(pc.not_equal(index["status"], "ok"))
    reasons = Counter((error or "unknown").partition(":")[0] for error in failed["error"].to_pylist())
    examples = failed.slice(0, 20).select(["path", "error"]).to_pylist()
    return {"images": failed.num_rows, "reasons": dict(sorted(reasons.items())), "examples": examples}


def distributions(usable: pa.Table) -> dict[str, dict[str, Any]]:
    """Describe format, size and JPEG quality of each class: class -> numbers."""
    label = usable["label"].to_numpy()
    return {
        name: _describe(usable.take(np.flatnonzero(label == number)))
        for number, name in enumerate(("real", "synthetic"))
    }


def _describe(rows: pa.Table) -> dict[str, Any]:
    formats = Counter(rows["format"].to_pylist())
    pairs = Counter(zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True))
    quality = rows["jpeg_quality"].drop_null().to_numpy()
    bins = Counter((quality // 5 * 5).tolist())
    return {
        "images": rows.num_rows,
        "formats": dict(formats.most_common()),
        "distinct_sizes": len(pairs),
        "most_common_sizes": [[f"{width}x{height}", count] for (width, height), count in pairs.most_common(5)],
        "width": _quantiles(rows["width"].to_numpy()),
        "height": _quantiles(rows["height"].to_numpy()),
        "jpeg_quality": {f"{low}-{low + 4}": bins[low] for low in sorted(bins)},
    }


def _quantiles(values: NDArray[np.integer[Any]]) -> list[float]:
    """Minimum, quartiles and maximum; empty without values."""
    return [] if not len(values) else np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
