"""The same images give the same bytes, however often and wherever in memory they are computed."""

import subprocess
import sys

from running import PROJECT, environment

# In a process of its own: with several threads, as extraction has, and MKL not yet called.
_REPEATED = """
import numpy as np, torch
from stages.extract.backbone import load_backbone
backbone = load_backbone("demo-vit", weights="default", precision="fp32")
pixels = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3), dtype=np.uint8)
first, kept = None, []  # what is kept moves the next allocations to other places
for number in range(8):
    taps = backbone.taps(pixels, ("cls", "embedding"), range(24))
    first = first or taps
    kept.append(torch.empty(10_007 * (number + 1)))
    print(all(torch.equal(first[tap], taps[tap]) for tap in first))
"""


def variables(**chosen):
    found = environment(PROJECT, OMP_NUM_THREADS="2")
    found.pop("MKL_CBWR", None)
    return found | chosen


def test_a_batch_gives_the_same_bytes_every_time():
    done = subprocess.run(
        [sys.executable, "-c", _REPEATED], env=variables(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"] * 8


def test_mkl_is_asked_for_it_unless_the_user_chose_otherwise():
    code = "import os, stages; print(os.environ['MKL_CBWR'])"
    for chosen, expected in (({}, "AUTO,STRICT"), ({"MKL_CBWR": "COMPATIBLE"}, "COMPATIBLE")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=variables(**chosen), capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
