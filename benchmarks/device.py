"""The encoding loop on a simulated GPU: how much of what the device alone would do it reaches, shards written.

A batch takes 0.48 ms an image (modelled for ViT-L/14 in fp16 on an H100) and its taps are copied at 5 GB/s, in order,
each on a stream of its own; decoding costs nothing. `in flight 0` waits for each batch, as a loop on one stream does.

    python -m benchmarks.device [--images 8192]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.extract.backbone import feature_spec
from stages.extract.encode import make_shards
from stages.extract.plan import plan_shards
from stages.extract.read_image import NO_METADATA, ReadResult, ReadSpec
from stages.extract.registry import BACKBONES
from stages.extract.settings import ExtractSettings, Runtime
from stages.extract.views import Recipe
from stages.reporter import SilentReporter
from storage.corpus_folder import CorpusFolder
from storage.manifest import manifest_table
from storage.sources import Sources
from storage.views import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

COMPUTE_S, COPY_RATE, BATCH = 0.48e-3, 5e9, 256


@dataclass
class SimulatedGpu:
    """Fulfils what the loop asks of a :class:`stages.extract.backbone.Backbone`."""

    in_flight: int
    card: Any = BACKBONES["clip-vit-l-14"]
    weights: str = "0" * 64
    precision: str = "fp16"
    device: Any = field(default_factory=lambda: type("Device", (), {"type": "cuda"}))
    auto_batch: int = BATCH
    compute: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    copies: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def submit(self, pixels: np.ndarray, spec: Any) -> Callable[[], Any]:
        """Start a batch; return what waits for its features."""
        stored = {tap: np.ones(spec.tap_shape(tap, len(pixels)), np.float16) for tap in spec.taps}
        largest = {tap: np.ones(len(pixels), np.float32) for tap in spec.taps}
        computed = self.compute.submit(time.sleep, COMPUTE_S * len(pixels))
        size = sum(array.nbytes for array in stored.values())

        def copy() -> None:
            computed.result()
            time.sleep(size / COPY_RATE)

        copied = self.copies.submit(copy)
        return lambda: (copied.result(), (stored, largest))[1]


def main() -> None:
    """Print a row for each number of batches in flight."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8192)
    images = parser.parse_args().images
    rows = {"sets": [], "size_bytes": 1, "mtime_ns": 1}
    manifest = manifest_table(rows | {"path": f"{number:06d}.png"} for number in range(images))
    read_spec = ReadSpec(Sources.of("/"), (View("clean"),), Recipe("crop224-pad", 224))
    pixels = np.zeros(read_spec.shape, np.uint8)
    result = ReadResult(NO_METADATA | {"status": "ok"}, pixels)

    def read(tasks: Iterable[Any]) -> Iterator[ReadResult]:
        return (result for _ in tasks)

    for in_flight in (0, 2):
        gpu: Any = SimulatedGpu(in_flight)
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            spec = feature_spec(gpu, ExtractSettings(), read_spec.recipe, View("clean"))
            store = CorpusFolder(Path(folder), spec)
            plans = plan_shards(manifest, [np.arange(images)], [store.free_numbers()], 1024)
            timing = make_shards(
                gpu, read_spec, [store], plans, progress=SilentReporter(), runtime=Runtime(batch=BATCH), read=read
            )
        print(f"in flight {in_flight}: {images / timing.wall:.0f} images/s, {images * COMPUTE_S / timing.wall:.0%}")


if __name__ == "__main__":
    main()
