"""The same images give the same bytes, however often and wherever in memory they are computed."""

import subprocess
import sys

import numpy as np
import torch

from running import PROJECT, environment
from stages.extract.backbone import load_backbone


def test_a_batch_gives_the_same_bytes_every_time():
    backbone = load_backbone("demo-vit", weights="default", precision="fp32")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    first = backbone.taps(pixels, ("cls", "embedding"), range(24))
    kept = []  # moves what is allocated next to other places
    for number in range(8):
        kept.append(torch.empty(10_007 * (number + 1)))
        again = backbone.taps(pixels, ("cls", "embedding"), range(24))
        assert all(torch.equal(first[tap], again[tap]) for tap in first), number


def test_mkl_is_asked_for_repeatable_results_before_its_first_call_and_a_user_may_choose_otherwise():
    code = "import os, stages; print(os.environ['MKL_CBWR'])"
    for chosen, expected in ((None, "AUTO,STRICT"), ("COMPATIBLE", "COMPATIBLE")):
        variables = environment(PROJECT)
        variables.pop("MKL_CBWR", None)
        if chosen:
            variables["MKL_CBWR"] = chosen
        done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
