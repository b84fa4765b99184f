"""How fast a backbone is extracted here, from files and from memory: what a study's plan is made from."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stages.extract.backbone import load_backbone
from stages.extract.run import run
from stages.scan.run import run as scan

if TYPE_CHECKING:
    from stages.extract.read_image import Timing
    from stages.extract.settings import ExtractSettings, Runtime
    from stages.reporter import Reporter

PHOTOGRAPH = (500, 375)  # pixels; the median of ImageNet, of which most published corpora's reals are
_QUALITY = 90


@dataclass(frozen=True)
class Measured:
    """One measurement.

    Attributes:
        device: where the backbone ran.
        precision: "fp32" or "fp16".
        from_files: images a second from JPEG files to written shards.
        from_memory: images a second through the backbone alone, pixels in memory.
        timing: where the seconds of ``from_files`` went.
    """

    device: str
    precision: str
    from_files: float
    from_memory: float
    timing: Timing


def make_photographs(folder: Path, count: int) -> None:
    """Write JPEG files of a photograph's size with a photograph's spectrum (amplitude falls with frequency)."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = PHOTOGRAPH
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    falling = 1 / np.maximum(frequency, 1 / width)
    for number in range(count):
        noise = np.random.default_rng(number).standard_normal((3, height, width))
        smooth = np.fft.irfft2(np.fft.rfft2(noise) * falling, s=(height, width))
        pixels = 128 + 48 * smooth / smooth.std()
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
        image.save(folder / f"{number:05d}.jpg", quality=_QUALITY)


def measure(settings: ExtractSettings, count: int, runtime: Runtime, reporter: Reporter) -> Measured:
    """Extract ``count`` made photographs into a temporary store, then run the backbone alone on as many.

    Args:
        settings: backbone and weights.
        count: how many images.
        runtime: batch and loaders.
        reporter: gets progress.
    """
    with tempfile.TemporaryDirectory(prefix="ltdpipe-bench-") as place:
        images = Path(place, "images")
        make_photographs(images, count)
        summary = run(
            corpus="bench",
            root=images,
            manifest=scan(corpus="bench", root=images, layout="auto")[0],
            settings=settings,
            geometry="crop224-pad",
            store=Path(place, "store"),
            out=Path(place, "out"),
            reporter=reporter,
            runtime=runtime,
        )
    loaded = load_backbone(settings.backbone, weights=settings.weights, precision=settings.precision)
    size, batch = loaded.card.size, min(runtime.batch or loaded.auto_batch, count)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    blocks = range(loaded.card.blocks)
    loaded.taps(pixels, settings.taps, blocks)["cls"].cpu()  # the first batch also chooses kernels
    started, done = time.perf_counter(), 0
    while done < count:
        loaded.taps(pixels, settings.taps, blocks)["cls"].cpu()
        done += batch
    from_memory = done / (time.perf_counter() - started)
    rate = count / summary.timing.wall
    return Measured(loaded.device.type, loaded.precision, rate, from_memory, summary.timing)
