"""What the class-token-only head, the feature cache and training together are worth, as ratios within one run.

Run in the project's folder: ``python -m benchmarks.training [step | retrain | share | stream | memory]...``, the first
three without an argument; the others write 1.2 and 1.3 GB of features to a temporary folder. Features are synthetic, of
the size of ViT-L/14: 24 blocks of width 1,024, of which the head reads nine. OMP_NUM_THREADS=1 steadies the ratios on a
busy machine. On a GPU all parts but ``share`` run there; untested.
"""

from __future__ import annotations

import io
import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from runpy import run_path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import compare, drop
from stages.extract.backbone import load_backbone
from stages.extract.read_image import decode
from stages.extract.views import Recipe, apply_view
from stages.heads.file import build_head
from stages.heads.machine import best_device
from stages.heads.settings import LtdSettings, TrainSettings
from stages.train.data import TrainingData
from stages.train.loop import train_together
from stages.train.training import Training
from storage.views import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from stages.heads.head import Head
    from stages.train.batches import FeatureBatches

BLOCKS, WIDTH, BATCH = 24, 1024, 256
SETTINGS = TrainSettings()
DEVICE = best_device()


def step() -> None:
    """(a) Training step and evaluation of the LTD head against torch's own encoder layer over all tokens."""
    fast, plain = ltd(), plain_ltd()
    features, labels = batch()
    for kind, program in (("training step", trainer), ("evaluation", evaluator)):
        programs = {
            "class token only": program(fast, features, labels),
            "plain layer": program(plain, features, labels),
        }
        compare(f"{kind}, an image", programs, baseline="plain layer", rounds=7, images=BATCH)


def retrain(images: int = 4096, forwards: int = 3) -> None:
    """(b) Five epochs from the cache against a loop that decodes, augments and runs the backbone for each image.

    Both are extrapolated from costs per image measured here: an epoch of ``images`` from disk, with reading and
    validation; and decode, augmentation (the method's, worst case not drawn), backbone up to block 19 and the plain
    head's step for ``forwards`` batches of 4. Weights are random, which costs the same.
    """
    with tempfile.TemporaryDirectory() as folder:
        view = random_view(Path(folder, "clean"), images)
        data = TrainingData.open([view], view, SETTINGS)
        started, head = time.perf_counter(), ltd()
        one_epoch = SETTINGS.model_copy(update={"epochs": 1})
        batches = data.batches(head.reads, DEVICE, 10**10)
        list(train_together([Training(head, one_epoch, 0)], *batches))
        cached = (time.perf_counter() - started) / images
    backbone = load_backbone("clip-vit-l-14", weights="random:0", precision="fp32")
    photograph = io.BytesIO()
    Image.fromarray(load_sample_images().images[0]).resize((500, 375)).save(photograph, "JPEG", quality=90)
    costs = []
    for number in range(forwards):
        started = time.perf_counter()
        pixels = [augmented(photograph.getvalue(), 4 * number + each) for each in range(4)]
        backbone.taps(np.stack(pixels), ["cls"], range(11, 20))
        costs.append((time.perf_counter() - started) / 4)
    plain = trainer(plain_ltd(), *batch())
    head_step = compare(
        "training step, an image", {"plain layer": plain}, baseline="plain layer", rounds=3, images=BATCH
    )
    end_to_end = statistics.median(costs) + head_step["plain layer"]
    print(f"  from the cache {1e3 * cached:.2f} ms an image and epoch; end to end {1e3 * end_to_end:.0f} ms")
    minutes, hours = 5 * 72_000 * cached / 60, 5 * 72_000 * end_to_end / 3600
    print(f"  5 epochs of 72,000 images: {minutes:.1f} min against {hours:.0f} h")
    print(f"  {end_to_end / cached:.0f} x (extrapolated)")


def share(steps: int = 4) -> None:
    """(c) Share of a training step's time outside the matrix products."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the profiler counts an operation once, whatever the number of threads
    features, labels = batch()
    run = trainer(ltd().cpu(), features.cpu(), labels.cpu())
    run()
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        for _ in range(steps):
            run()
    torch.set_num_threads(threads)
    products = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::addmv"}
    spent = {event.key: event.self_cpu_time_total for event in measured.key_averages()}
    total = sum(spent.values())
    outside = sorted(((value / total, name) for name, value in spent.items() if name not in products), reverse=True)
    print(f"  outside the matrix products: {sum(value for value, _ in outside):.1%}")
    for value, name in outside[:6]:
        print(f"    {name}: {value:.1%}")


def stream(images: int = 65_536, steps: int = 32) -> None:
    """(d) Training on features four times as large as the memory, cold, in windows and in a whole permutation.

    As many steps are taken from memory; then the batches are read without training on them.
    """
    with tempfile.TemporaryDirectory() as folder:
        view = random_view(Path(folder, "clean"), images)
        shards = sorted(view.glob("*.h5"))
        data, head = TrainingData.open([view], view, SETTINGS), ltd()
        size = len(data.split.training) * 9 * WIDTH * 2
        resident, _ = data.batches(head.reads, DEVICE, size)
        streamed, _ = data.batches(head.reads, DEVICE, size // 4)
        training = Training(head, SETTINGS, 0)
        training.begin_epoch()
        whole = resident.order(0, 0)
        next(resident.batches(0, whole, 1, [head.reads]))  # reads it all

        def program(source: FeatureBatches, order: torch.Tensor, train: bool) -> Callable[[], None]:
            def run() -> None:
                batches = source.batches(0, order, BATCH, [head.reads])
                for number, ((features,), labels) in enumerate(itertools.islice(batches, steps)):
                    if train:
                        training.step(number, features, labels)
                batches.close()
                synchronize()

            return run

        for kind, train in (("training", True), ("reading alone", False)):
            programs = {
                "from memory": program(resident, whole, train),
                "from disk, windows": program(streamed, streamed.order(0, 0), train),
                "from disk, whole permutation": program(streamed, whole, train),
            }
            medians = compare(
                f"{kind}, an image of {images:,}, cold",
                programs,
                baseline="from memory",
                rounds=2,
                before=lambda: drop(shards),
                images=steps * BATCH,
            )
            print(f"  {', '.join(f'{name}: {1 / seconds:,.0f} images/s' for name, seconds in medians.items())}")


def memory(images: int = 72_000) -> None:
    """Peak memory of training on 72,000 images x blocks 11..19, resident and streamed.

    Each in a process of its own, two epochs: the second has the best weights of the first beside it.
    """
    with tempfile.TemporaryDirectory() as folder:
        view = random_view(Path(folder, "clean"), images)
        for name, budget in (("resident", 10**10), ("streamed with 200 MB", 200_000_000)):
            print(f"  {name}:", flush=True)
            subprocess.run([sys.executable, "-m", "benchmarks.training", "measure", str(view), str(budget)], check=True)


def measure(view: str, budget: str) -> None:
    """Train in this process and print what of it was in memory."""
    data = TrainingData.open([Path(view)], Path(view), SETTINGS)
    head = ltd()
    batches = data.batches(head.reads, DEVICE, int(budget))
    read = len(data.views[0]) * 9 * WIDTH * 2
    weights, before = 4 * sum(parameter.numel() for parameter in head.parameters()), anonymous()
    with Peak() as peak:
        settings = SETTINGS.model_copy(update={"epochs": 2})
        training = Training(head, settings, 0, kept=Path(view).with_name("unfinished.safetensors"))
        list(train_together([training], *batches))
    grew = peak.bytes - before + weights  # the weights were there already
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"    features {read:,} bytes; weights, gradients and moments {4 * weights:,}")
    print(f"    interpreter and libraries: {before - weights:,} bytes that are not mapped files")
    print(f"    training: {grew:,} bytes, {grew / read:.3f} x the features")
    print(f"    training without weights, gradients and moments: {(grew - 4 * weights) / read:.3f} x")
    print(f"    the whole process: {whole:,} bytes with mapped files, {whole / read:.3f} x")


def ltd() -> Head:
    """The head with its published settings."""
    torch.manual_seed(0)
    return build_head(LtdSettings(), blocks=BLOCKS, width=WIDTH, embedding=8).to(DEVICE)


def plain_ltd() -> torch.nn.Module:
    """The reference of the tests: the head on ``nn.TransformerEncoderLayer``."""
    head: torch.nn.Module = run_path("tests/stages/heads/plain_ltd.py")["PlainLtd"](9, 5, WIDTH, 0.3).to(DEVICE)
    return head


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """One batch of random features (N, 9, D) and labels (N,)."""
    return torch.randn(BATCH, 9, WIDTH, device=DEVICE), (torch.arange(BATCH, device=DEVICE) % 2).float()


def trainer(head: torch.nn.Module, features: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """Return a program of one training step."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-5, weight_decay=0, fused=True)

    def run() -> None:
        head.train()
        loss = binary_cross_entropy_with_logits(head(features), labels)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        synchronize()

    return run


def evaluator(head: torch.nn.Module, features: torch.Tensor, _labels: torch.Tensor) -> Callable[[], None]:
    """Return a program that scores one batch."""

    def run() -> None:
        head.eval()
        with torch.inference_mode():
            head(features)
        synchronize()

    return run


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def random_view(folder: Path, images: int) -> Path:
    """Write random features of blocks 11..19, in shards of 2,048 images."""
    write = run_path("tests/planted.py")["write_random_view"]
    view: Path = write(folder, images, blocks=range(11, 20), of=BLOCKS, width=WIDTH)
    return view


def augmented(file: bytes, view: int) -> np.ndarray:
    """Pixels of a training view of an image file."""
    _, image = decode(file)
    assert image is not None
    return np.asarray(apply_view(image, View("train", view), Recipe("crop224-pad", 224), "photograph.jpg"))


def anonymous() -> int:
    """Bytes of this process that are not a mapped file: what really has to be in memory."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


class Peak:
    """The largest ``anonymous()`` within the block, looked at every 20 ms."""

    bytes = 0

    def __enter__(self) -> Peak:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.bytes = max(self.bytes, anonymous())


PARTS = {"step": step, "retrain": retrain, "share": share, "stream": stream, "memory": memory}

if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:  # what ``memory`` starts
        measure(*sys.argv[2:4])
        sys.exit()
    for part in sys.argv[1:] or ("step", "retrain", "share"):
        about = (PARTS[part].__doc__ or "").splitlines()[0]
        print(f"{part}: {about} [{DEVICE.type}, {torch.get_num_threads()} threads]")
        PARTS[part]()
