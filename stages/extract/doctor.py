"""What this machine can do for an extraction: its findings for ``ltdpipe doctor``, and a backbone's measured rate."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections import deque
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image, features

from stages.extract.backbone import feature_spec, load_backbone
from stages.extract.loaders import open_loaders
from stages.extract.read_image import ReadSpec, Task
from stages.extract.registry import BACKBONES
from stages.extract.settings import ExtractSettings, Runtime, auto_loaders, cores
from stages.extract.views import Recipe
from stages.extract.weights import present_weights
from storage.atomic import try_lock
from storage.errors import ResourceError
from storage.sources import Sources
from storage.views import VIEW, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stages.extract.backbone import Encoded

_PACKAGES = ("ltdpipe", "torch", "open_clip_torch", "timm", "pillow", "h5py", "pyarrow", "distributed", "dvc")
_FORMATS = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "libtiff": "TIFF", "jpg_2000": "JPEG 2000", "avif": "AVIF"}
_PROBE_BYTES = 64 << 20
_BATCH = {"cpu": 16, "cuda": 256}
_PHOTOGRAPHS = 16  # different ones
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


def measured_rate(backbone: str, *, loaders: int | None = None, seconds: float = 5) -> tuple[str, float]:
    """Read made photographs and run a backbone over them, for so many seconds once loaders and backbone are warm.

    Args:
        backbone: its name; the weights are random.
        loaders: as in ``Runtime``.
        seconds: how long it is measured at least.

    Returns:
        The device ("cuda" or "cpu"), and images a second from JPEG files to features.
    """
    settings = ExtractSettings(backbone=backbone, weights="random:0")
    model = load_backbone(backbone, weights=settings.weights, precision=settings.precision)
    device, view = model.device.type, View(VIEW)
    tasks = (Task(f"{number % _PHOTOGRAPHS:05d}.jpg", (0,)) for number in count())
    with tempfile.TemporaryDirectory(prefix="ltdpipe-rate-") as folder:
        make_photographs(Path(folder), _PHOTOGRAPHS)
        recipe = Recipe("crop224-pad", model.card.size)
        read_spec, spec = ReadSpec(Sources(folder), (view,), recipe), feature_spec(model, settings, recipe, view)
        pixels = np.empty((_BATCH[device], *read_spec.shape[1:]), np.uint8)
        under_way: deque[Callable[[], Encoded]] = deque()
        with open_loaders(read_spec, Runtime(loaders=loaders).loaders_on(device), 2 * len(pixels)) as read:
            reads = read(tasks)
            for batch in count():
                for at in range(len(pixels)):
                    pixels[at] = np.asarray(next(reads).pixels)[0]
                under_way.append(model.submit(pixels, spec))
                if len(under_way) > model.in_flight:
                    under_way.popleft()()
                if batch == 0:  # it has gone through all that is made once
                    warm = time.perf_counter()
                elif (passed := time.perf_counter() - warm) >= seconds:
                    break
    return device, batch * len(pixels) / passed


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
