"""What this machine can do for an extraction: its findings for ``ltdpipe doctor``, and a backbone's measured rate."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image, features

from stages.extract.registry import BACKBONES
from stages.extract.run import run
from stages.extract.settings import auto_loaders, cores
from stages.extract.weights import present_weights
from stages.reporter import SilentReporter
from stages.scan.run import run as scan
from storage.atomic import try_lock
from storage.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stages.extract.settings import ExtractSettings, Runtime

_PACKAGES = ("ltdpipe", "torch", "open_clip_torch", "timm", "pillow", "h5py", "pyarrow", "distributed", "dvc")
_FORMATS = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "libtiff": "TIFF", "jpg_2000": "JPEG 2000", "avif": "AVIF"}
_PROBE_BYTES = 64 << 20
_BATCH = {"cpu": 16, "cuda": 256}
_PHOTOGRAPHS, _MOST = 16, 8192  # different ones, and names of them
PHOTOGRAPH = (500, 375)  # pixels; the median of ImageNet, of which most published corpora's reals are


class Finding(NamedTuple):
    """One line of the report: its subject, what was found, and what to do where it is not fine."""

    subject: str
    text: str
    advice: str | None = None


def examine(store: Path) -> Iterator[Finding]:
    """Yield findings on the machine; the store's disk is written to and cleaned up."""
    yield Finding("versions", ", ".join(f"{package} {_version(package) or 'missing'}" for package in _PACKAGES))
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield _device()
    loaders = auto_loaders("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    advice = f"set OMP_NUM_THREADS={cores()}: more threads than cores stall" if threads > cores() else None
    yield Finding("cores", f"{cores()} for this process, torch uses {threads}, {loaders} loader processes", advice)
    yield _formats()
    yield from _disk(store)
    present = [card.name for card in BACKBONES.values() if card.library != "demo" and present_weights(card)]
    advice = "`ltdpipe fetch clip-vit-l-14` on a machine with internet; demo-vit needs none"
    yield Finding("weights", ", ".join(present) or "none on this machine", None if present else advice)


def measured_rate(settings: ExtractSettings, runtime: Runtime, *, seconds: float = 5) -> tuple[str, float]:
    """Extract made photographs into a temporary store, for so many seconds once loaders and backbone are warm.

    Returns:
        The device ("cuda" or "cpu"), and images a second from JPEG files to features.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = _Clock(_BATCH[device], seconds)
    with tempfile.TemporaryDirectory(prefix="ltdpipe-rate-") as folder, suppress(_EnoughError):
        images = Path(folder, "images")
        make_photographs(images, _PHOTOGRAPHS)
        for number in range(_PHOTOGRAPHS, _MOST):
            os.link(images / f"{number % _PHOTOGRAPHS:05d}.jpg", images / f"{number:05d}.jpg")
        run(
            corpus="rate",
            root=images,
            manifest=scan(corpus="rate", root=images, layout="auto")[0],
            settings=settings,
            geometry="crop224-pad",
            store=Path(folder, "store"),
            out=Path(folder, "out"),
            reporter=clock,
            runtime=replace(runtime, batch=clock.batch),
        )
    return device, clock.rate


class _EnoughError(Exception):
    """What was to be measured is."""


class _Clock(SilentReporter):
    """Images a second after the first batch, as it has gone through all that is made once; ends the run by an error."""

    def __init__(self, batch: int, seconds: float) -> None:
        self.batch, self.rate = batch, 0.0
        self._seconds, self._done, self._warm = seconds, 0, 0.0

    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:  # noqa: ARG002
        """Count images; the last one of a batch comes when the batch has been encoded, or on a GPU handed to it."""
        self._done += count
        if self._done == self.batch:
            self._warm = time.perf_counter()
        elif self._done % self.batch == 0:
            passed = time.perf_counter() - self._warm
            self.rate = (self._done - self.batch) / passed
            if passed >= self._seconds:
                raise _EnoughError


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
        image.save(folder / f"{number:05d}.jpg", quality=90)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> Finding:
    if not torch.cuda.is_available():
        return Finding("device", "CPU, fp32", "no CUDA device: ViT-L/14 runs at about an image a second and core here")
    free, total = torch.cuda.mem_get_info()
    text = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, {free >> 30} of {total >> 30} GB free"
    return Finding("device", f"{text}, fp16 and fp32; `--precision auto` takes fp16")


def _formats() -> Finding:
    present = [name for feature, name in _FORMATS.items() if features.check(feature)]
    missing = [name for name in _FORMATS.values() if name not in present]
    heif = _version("pillow-heif")
    heic = f"HEIC by pillow-heif {heif}" if heif else "no HEIC (`pip install pillow-heif` adds it)"
    advice = f"no decoder for {', '.join(missing)}: such files will be recorded as failed" if missing else None
    return Finding("image formats", ", ".join([*present, heic]), advice)


def _disk(store: Path) -> Iterator[Finding]:
    folder = next(each for each in (store, *store.absolute().parents) if each.is_dir())
    room = shutil.disk_usage(folder).free
    images = room // (24 * 1024 * 2 + 768 * 2)  # ViT-L/14: 24 blocks x 1024 x 2 bytes, and the embedding
    low = "less than 10 GB: set LTDPIPE_STORE to a larger disk" if room < 10 << 30 else None
    yield Finding("room", f"{room >> 30} GB at {folder}, {images:,} images of ViT-L/14 in one view", low)
    if not os.access(folder, os.W_OK):
        yield Finding("disk", f"{folder} may not be written to", "set LTDPIPE_STORE to a folder of yours")
        return
    try:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            probe = Path(place, "probe")
            started = time.perf_counter()
            with probe.open("wb") as file:
                file.write(os.urandom(1 << 20) * (_PROBE_BYTES >> 20))
                file.flush()
                os.fsync(file.fileno())
            rate = _PROBE_BYTES / (time.perf_counter() - started) / 1e6
            yield Finding("disk speed", f"{rate:.0f} MB/s written and synced")
            yield _locking(probe)
            yield _linking(probe)
    except OSError as error:  # full, over the quota, read-only: what a doctor is asked about
        what = f"{_PROBE_BYTES >> 20} MB cannot be written to {folder} ({error.strerror})"
        yield Finding("disk", what, "free some room, or set LTDPIPE_STORE to another disk")


def _locking(probe: Path) -> Finding:
    with probe.open() as first, probe.open() as second:
        try:
            if try_lock(first, probe) and not try_lock(second, probe):
                return Finding("locking", "works")
        except ResourceError:
            advice = "nothing can be extracted into this store: set LTDPIPE_STORE to a file system with locks"
            return Finding("locking", "refused: no file locks", advice)
    return Finding("locking", "two writers got the same lock", "run one extraction into this store at a time")


def _linking(probe: Path) -> Finding:
    try:
        os.link(probe, probe.with_name("link"))
    except OSError as error:
        advice = "published features are copies and take twice the room"
        return Finding("hard links", f"refused ({error.strerror})", advice)
    return Finding("hard links", "work")
