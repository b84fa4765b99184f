"""The same images give the same bytes, however often and wherever in memory they are computed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mkl_mode import REPEATABLE

from running import PROJECT, environment

needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch is built without MKL")
_TELL = "\nfrom mkl_mode import mkl_mode\nprint(mkl_mode())"
_FOLDERS = os.pathsep.join([str(PROJECT), str(Path(__file__).parent)])

# In a process of its own: with several threads, as extraction has, and MKL not yet called.
_REPEATED = """
import numpy as np, torch
from stages.extract.backbone import load_backbone
backbone = load_backbone("demo-vit", weights="default", precision="fp32")
pixels = np.random.default_rng(0).integers(0, 256, (16, 224, 224, 3), dtype=np.uint8)
first, kept = None, []  # what is kept moves the next allocations to other places
for number in range(4):
    taps = backbone.taps(pixels, ("cls", "embedding"), range(24))
    first = first or taps
    kept.append(torch.empty(10_007 * (number + 1)))
    print(all(torch.equal(first[tap], taps[tap]) for tap in first))
"""


def variables(**chosen):
    found = environment(PROJECT, OMP_NUM_THREADS="2", PYTHONPATH=_FOLDERS)
    found.pop("MKL_CBWR", None)
    return found | chosen


def printed(code, **chosen):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=variables(**chosen), capture_output=True, text=True, check=True).stdout.split()


def test_a_batch_gives_the_same_bytes_every_time():
    assert printed(_REPEATED) == ["True"] * 4


@needs_mkl
def test_mkl_is_not_repeatable_unless_asked():
    assert printed(_TELL) != [str(REPEATABLE)]  # else the tests below could not fail


@needs_mkl
def test_mkl_is_asked_before_its_first_call():
    load = "import stages.predict.run\nfrom stages.extract.backbone import load_backbone\n"
    load += "load_backbone('demo-vit', weights='default', precision='fp32')"
    assert printed(load + _TELL) == [str(REPEATABLE)]


@needs_mkl
def test_a_mode_that_the_user_chose_is_kept():
    assert printed("import stages" + _TELL, MKL_CBWR="COMPATIBLE") != [str(REPEATABLE)]
