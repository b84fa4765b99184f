"""Does the comparison with the calibration's images hold? Simulated last features of two classes.

Prints how often a batch like the calibration's is called unlike it, with the same and with other shares of synthetic
images, how often single images of it lie outside, and how often planted shifts are found. docs/predict.md has the
figures.

python -m benchmarks.likeness [--batches 400]
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from stages.predict.likeness import UNLIKE, Reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALIBRATION, DIMENSIONS = 300, 256
# name -> images of a batch, share of synthetic ones, shift of every tenth dimension, spread of all
CASES = {
    "30 alike": (30, 0.5, 0.0, 1.0),
    "100 alike": (100, 0.5, 0.0, 1.0),
    "100, a tenth synthetic": (100, 0.1, 0.0, 1.0),
    "100, all real": (100, 0.0, 0.0, 1.0),
    "30, shifted by 0.3": (30, 0.5, 0.3, 1.0),
    "100, shifted by 0.3": (100, 0.5, 0.3, 1.0),
    "30, spread 1.1": (30, 0.5, 0.0, 1.1),
    "100, spread 1.1": (100, 0.5, 0.0, 1.1),
}


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=400, help="Simulated calibrations and batches per line.")
    random, batches = np.random.default_rng(0), parser.parse_args().batches
    print("share of batches with p <= 0.05 and p <= 0.01, of batches that could be tested, of images outside")
    for name, case in CASES.items():
        found, outside = [], []
        for _ in range(batches):
            reference, batch = Reference(*drawn(random, CALIBRATION)), drawn(random, *case)
            found.append(reference.p_of_batch(*batch))
            outside.append(reference.outside(reference.ranks(batch[0])).mean())
        p = np.array([value for value in found if value is not None])
        shares = [(p <= level).mean() for level in (0.05, UNLIKE)]
        print(f"  {name:24} {shares[0]:.3f} {shares[1]:.3f} {len(p) / batches:.2f} {np.mean(outside):.4f}", flush=True)


def drawn(
    random: np.random.Generator, images: int, share: float = 0.5, shift: float = 0.0, spread: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return features (N, 256) of classes 6 apart in the first dimension, and whether they are above the threshold."""
    features = spread * random.normal(size=(images, DIMENSIONS))
    features[:, 1::10] += shift
    features[:, 0] += np.where(random.random(images) < share, 3.0, -3.0)
    return features.astype(np.float32), features[:, 0] > 0


if __name__ == "__main__":
    main()
