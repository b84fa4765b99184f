"""The score sets that metrics get wrong: ties, saturation, imbalance, thresholds that are hit exactly."""

import numpy as np

_RANDOM = np.random.default_rng(5)


def _set(labels, logits):
    return np.asarray(labels, dtype=np.int8), np.asarray(logits, dtype=np.float64)


SCORE_SETS = {
    "overlapping": _set(_RANDOM.integers(0, 2, 300), _RANDOM.normal(0, 2, 300)),
    "ties": _set(_RANDOM.integers(0, 2, 300), _RANDOM.integers(-2, 3, 300)),
    "all equal": _set([0, 1, 1, 0, 1], np.full(5, 0.25)),
    "separable": _set([0, 0, 0, 1, 1], [-3.0, -2.0, -1.0, 1.0, 2.0]),
    "inverted": _set([1, 1, 1, 0, 0], [-3.0, -2.0, -1.0, 1.0, 2.0]),
    "57 to 3": _set(np.repeat([0, 1], [57, 3]), _RANDOM.normal(0, 1, 60)),
    "exactly at the threshold": _set([0, 1, 0, 1], np.zeros(4)),
    "tiny": _set(_RANDOM.integers(0, 2, 100), _RANDOM.normal(0, 1e-9, 100)),
    "huge": _set(_RANDOM.integers(0, 2, 100), _RANDOM.normal(0, 1e3, 100)),
    "neighbours in float64": _set([0, 1, 0, 1], [1.0, np.nextafter(1.0, 2), 1.0, 1.0]),
}
# Rows from last to first, and logits negated: each must give the values of scikit-learn as well.
SCORE_SETS |= {f"{name}, reversed": (labels[::-1], logits[::-1]) for name, (labels, logits) in SCORE_SETS.items()}
SCORE_SETS |= {f"{name}, negated": (labels, -logits) for name, (labels, logits) in SCORE_SETS.items()}
