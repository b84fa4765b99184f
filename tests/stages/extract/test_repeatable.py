"""The same images give the same bytes, however often and wherever in memory they are computed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mkl_mode import REPEATABLE, mkl_mode

from running import PROJECT, environment
from stages.extract.cluster import describe_on_worker, open_cluster
from stages.extract.settings import ExtractSettings, Runtime

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
@pytest.mark.parametrize("module", ["stages.extract.run", "stages.predict.run"])
def test_mkl_is_asked_before_its_first_call(module):
    load = f"import {module}\nfrom stages.extract.backbone import load_backbone\n"
    load += "load_backbone('demo-vit', weights='default', precision='fp32')"
    assert printed(load + _TELL) == [str(REPEATABLE)]


@needs_mkl
def test_mkl_is_asked_in_a_worker_of_a_cluster(monkeypatch):
    monkeypatch.delenv("MKL_CBWR")  # this process has set it, and workers would inherit it
    monkeypatch.setenv("PYTHONPATH", _FOLDERS)
    with open_cluster(Runtime(workers=1)) as client:
        describe_on_worker(client, ExtractSettings(backbone="demo-vit"), Runtime(), print)
        assert client.submit(mkl_mode).result() == REPEATABLE


@needs_mkl
def test_a_mode_that_the_user_chose_is_kept():
    assert printed("import stages" + _TELL, MKL_CBWR="COMPATIBLE") != [str(REPEATABLE)]


_THREADS = """
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
        command = [sys.executable, "-c", _THREADS, str(threads), str(tmp_path / f"{threads}.npz")]
        subprocess.run(command, cwd=PROJECT, check=True)
    one, three = (np.load(tmp_path / f"{threads}.npz") for threads in (1, 3))
    assert one["cls"].shape == one["ln2_cls"].shape == (24, 9, 128)
    for tap in one.files:
        assert np.abs(one[tap] - three[tap]).max() < 1e-5, tap
    assert len(np.unique(one["embedding"], axis=0)) == 9
