"""Streams: the same numbers for any number of cores, each row its own image's, the caller's thread setting kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from running import PROJECT

CODE = """
import sys, numpy as np, torch
torch.set_num_threads(int(sys.argv[1]))
from stages.extract.backbone import load_backbone
backbone = load_backbone("demo-vit", weights="random:0", precision="fp32")
pixels = np.random.default_rng(0).integers(0, 256, (9, 224, 224, 3), dtype=np.uint8)
taps = backbone.taps(pixels, ("cls", "ln2_cls", "embedding"), range(24))
assert torch.get_num_threads() == int(sys.argv[1])
np.savez(sys.argv[2], **{tap: values.numpy() for tap, values in taps.items()})
"""


def test_number_of_threads_changes_rounding_alone(tmp_path: Path):
    for threads in (1, 3):
        command = [sys.executable, "-c", CODE, str(threads), str(tmp_path / f"{threads}.npz")]
        subprocess.run(command, cwd=PROJECT, check=True)
    one, three = (np.load(tmp_path / f"{threads}.npz") for threads in (1, 3))
    assert one["cls"].shape == one["ln2_cls"].shape == (24, 9, 128)
    for tap in one.files:
        assert np.abs(one[tap] - three[tap]).max() < 1e-5, tap
    assert len(np.unique(one["embedding"], axis=0)) == 9
