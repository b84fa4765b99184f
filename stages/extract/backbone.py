"""Frozen backbones: from uint8 pixels to one class token per transformer block, and the final embedding.

On a CPU each core takes a few images through the whole backbone by itself, as a stream. torch would split every small
matrix product over the cores and let them meet after each; cores that other processes use then hold up all others.
Streams meet once a batch. And since a stream always has one thread and the same few images, features do not depend on
the number of cores, to the byte. The rest of a shard that is no more than one stream's images is the exception: all
cores share it, and its float32 values may differ by rounding.
"""

from __future__ import annotations

import math
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stages.extract.registry import BACKBONES, BackboneCard
from stages.extract.settings import random_seed
from stages.extract.towers import Tower, build_tower
from stages.extract.views import view_spec
from stages.extract.weights import fetch_weights, load_weights, weights_hash
from storage.atomic import try_lock
from storage.errors import DataError, SettingError
from storage.spec import FeatureSpec, image_axis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from stages.extract.settings import ExtractSettings
    from stages.extract.views import Recipe
    from storage.views import View

    # tap -> float16 features as stored, and tap -> (N,) the largest magnitude of each image before rounding
    Encoded = tuple[dict[str, NDArray[np.float16]], dict[str, NDArray[np.float32]]]

# Raise by hand when an edit changes features without changing a setting; tests/stages/extract/test_golden.py guards it.
EXTRACTOR_VERSION = 1
_STREAM_IMAGES = 4  # fewer leave the cores waiting for weights, more leave cores without work
_CPU_BATCH, _CUDA_BATCH = 32, 256  # on a CPU, the end of a batch is where cores wait for each other


@dataclass(frozen=True, kw_only=True)
class BackboneIdentity:
    """Which backbone it is and where it runs; its weights may be on another machine.

    Attributes:
        card: its entry in the registry.
        weights: sha256 over names and values of all its parameters, hex; behind ``random:SEED:`` where a seed made
            them.
        device: where it runs.
        precision: "fp32", or "fp16": fp16 matrix products, with the residual stream in fp32.
    """

    card: BackboneCard
    weights: str
    device: torch.device
    precision: str


@dataclass(frozen=True, kw_only=True)
class Backbone(BackboneIdentity):
    """A frozen vision transformer on its device.

    Attributes:
        tower: its model, in eval mode, without gradients.
    """

    tower: Tower

    @property
    def auto_batch(self) -> int:
        """A number of images that makes a fast forward pass."""
        return _CUDA_BATCH if self.device.type == "cuda" else max(_CPU_BATCH, _STREAM_IMAGES * torch.get_num_threads())

    @property
    def in_flight(self) -> int:
        """How many batches may be on the device before the results of the first are waited for."""
        return 2 if self.device.type == "cuda" else 0

    def taps(self, pixels: NDArray[np.uint8], taps: Sequence[str], blocks: Sequence[int]) -> dict[str, Tensor]:
        """Run the backbone as far as the taps need it.

        Blocks behind the last one wanted are not computed, and in the last one computed only the class token's row,
        unless a tap needs the patches there.

        Args:
            pixels: (N, S, S, 3) uint8 RGB.
            taps: what to read.
            blocks: the L' blocks to read, 0-based, ascending.

        Returns:
            "cls": (L', N, D), the class token (or the mean of the patch tokens, see the card) after each residual
            block, before the final norm, raw; "ln2_cls": (L', N, D), the same behind the LayerNorm before the block's
            feed-forward layers; "attention": (L', N, P), the weights with which the class token attends to the patches,
            mean over the heads; "pooled": (N, D), the class token (or what the model pools) after the final norm;
            "embedding": (N, E), that after the projection; "mean": (N, D), the mean of the patch tokens after the final
            norm. All float32, on the device.
        """
        images = torch.from_numpy(pixels)
        if self.device.type != "cpu" or len(images) <= _STREAM_IMAGES:
            return self._run(images, taps, blocks)
        streams = torch.split(images, _STREAM_IMAGES)
        parts = list(_cores().map(lambda part: self._run(part, taps, blocks), streams))
        return {tap: torch.cat([part[tap] for part in parts], dim=image_axis(tap)) for tap in taps}

    @torch.inference_mode()
    def submit(self, pixels: NDArray[np.uint8], spec: FeatureSpec) -> Callable[[], Encoded]:
        """Start the features that ``spec`` names of pixels (N, S, S, 3); return what waits for them.

        They are rounded and measured on the device. On CUDA nothing is waited for: results are copied on a stream of
        their own into pinned memory while the next batch runs. On a CPU they are there already.
        """
        results: dict[str, Tensor] = {}
        for tap, values in self.taps(pixels, spec.taps, spec.stored_blocks).items():
            others = tuple(axis for axis in range(values.ndim) if axis != image_axis(tap))
            results[tap] = values.half()
            results[f"largest {tap}"] = torch.linalg.vector_norm(values, math.inf, dim=others)  # NaN where one is

        def split(arrays: dict[str, Tensor]) -> Encoded:
            stored = {tap: arrays[tap].numpy() for tap in spec.taps}
            return stored, {tap: arrays[f"largest {tap}"].numpy() for tap in spec.taps}

        if self.device.type != "cuda":
            return lambda: split(results)
        self._copies.wait_stream(torch.cuda.current_stream(self.device))
        copied = {}
        with torch.cuda.stream(self._copies):
            for name, values in results.items():
                values.record_stream(self._copies)
                pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
                copied[name] = pinned.copy_(values, non_blocking=True)
            done = self._copies.record_event()

        def wait() -> Encoded:
            done.synchronize()
            return split(copied)

        return wait

    @cached_property
    def _copies(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def _run(self, images: Tensor, taps: Sequence[str], blocks: Sequence[int]) -> dict[str, Tensor]:
        tower = self.tower
        of_image = {tap for tap in taps if image_axis(tap) == 0}
        depth = len(tower.blocks) if of_image else max(blocks) + 1
        class_only = tower.has_class_token and "mean" not in taps and (not of_image or tower.embeds_class_token)
        found: dict[str, list[Tensor]] = {tap: [] for tap in taps if tap not in of_image}
        with torch.autocast(self.device.type, torch.float16, enabled=self.precision == "fp16"):
            tokens, block_kwargs = tower.start(self._normalise(images))
            for block in range(depth):
                only = class_only and block == depth - 1
                attends = "attention" in found and block in blocks
                tokens, normed, attention = tower.run(block, tokens, block_kwargs, class_only=only, attends=attends)
                if block in blocks:
                    for tap, parts in found.items():
                        token = tokens if tap == "cls" else normed
                        parts.append(attention if tap == "attention" else self._token(token))
        results = {tap: torch.stack(parts) for tap, parts in found.items()}
        if of_image - {"mean"}:
            results["pooled"] = tower.pool(tokens.float())
        if "embedding" in of_image:
            results["embedding"] = tower.project(results["pooled"])
        if "mean" in of_image:
            results["mean"] = tower.norm(tokens.float())[:, tower.prefix :].mean(1)
        return {tap: results[tap] for tap in taps}

    def _normalise(self, images: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 -> (N, 3, S, S) float32 on the device; bytes travel, floats are made there."""
        if self.device.type == "cuda":
            images = images.pin_memory().to(self.device, non_blocking=True)
        mean, std = self._mean_and_std
        return (images.permute(0, 3, 1, 2).float().div_(255) - mean) / std

    @cached_property
    def _mean_and_std(self) -> tuple[Tensor, Tensor]:
        mean, std = torch.tensor([self.card.mean, self.card.std], device=self.device).view(2, 3, 1, 1)
        return mean, std

    def _token(self, tokens: Tensor) -> Tensor:
        """(N, T, D) -> (N, D) float32: the class token, or where there is none the mean of the patch tokens."""
        token = tokens[:, 0] if self.tower.has_class_token else tokens[:, self.tower.prefix :].mean(1)
        return token.float().clone()


def feature_spec(backbone: BackboneIdentity, settings: ExtractSettings, recipe: Recipe, view: View) -> FeatureSpec:
    """Return what the features of a view will be: every setting that can change them.

    Raises:
        SettingError: a block or a tap is asked for that the backbone does not have.
    """
    card = backbone.card
    if "attention" in settings.taps and card.patches is None:
        raise SettingError(f"extract.taps: {card.name} has no tap attention, only CLIP's models have; leave it out")
    return FeatureSpec(
        backbone=card.name,
        weights=backbone.weights,
        activation=card.activation,
        blocks=card.blocks,
        stored_blocks=settings.stored_blocks(card.blocks),
        width=card.width,
        embedding=card.embedding,
        taps=tuple(sorted(settings.taps)),
        view=view_spec(view, recipe),
        mean=card.mean,
        std=card.std,
        precision=backbone.precision,
        extractor=EXTRACTOR_VERSION,
        patches=card.patches if "attention" in settings.taps else None,
    )


def load_backbone(
    name: str,
    *,
    weights: str,
    precision: str,
    note: Callable[[str], None] = lambda _line: None,
    device: str | None = None,
    compiled: bool = False,
) -> Backbone:
    """Build a backbone with its weights.

    Args:
        name: in ``BACKBONES``.
        weights: "default" (fetched where they are not here yet), "random:SEED", or the path of a local weights file or
            snapshot folder.
        precision: "fp32", "fp16" or "auto" (fp16 on CUDA, else fp32; a CPU without native bf16 or fp16 is slower
            with them, and bf16 moves mid-block features by 1 %).
        note: gets a line for a download.
        device: where it runs; None for the best at hand, of several GPUs one that no other process of ours took.
        compiled: compile the blocks with torch.compile; slow to start, and equal but for rounding.

    Raises:
        SettingError: unknown name, unusable weights setting, or fp16 without CUDA.
        DataError: a weights file does not belong to this backbone.
        ResourceError: weights can neither be found nor downloaded.
    """
    if name not in BACKBONES:
        raise SettingError(f"backbone {name!r} is not known; choose from {', '.join(BACKBONES)}")
    card = BACKBONES[name]
    place = torch.device(device or (f"cuda:{_free_gpu()}" if torch.cuda.is_available() else "cpu"))
    if precision == "fp16" and place.type != "cuda":
        raise SettingError("extract.precision fp16 needs a CUDA device, and none is here; use auto or fp32")
    seed = random_seed("random:0" if card.library == "demo" and weights == "default" else weights)
    tower = build_tower(card, seed or 0)
    if seed is None:
        file, sha256 = fetch_weights(card, note) if weights == "default" else (Path(weights), None)
        load_weights(tower, file, card, sha256)
    if tower.activation != card.activation:
        raise DataError(f"backbone {name} was built with {tower.activation}, expected {card.activation}")
    tower.module.to(place).eval().requires_grad_(False)
    if compiled:
        torch.compiler.reset()  # what a backbone before had compiled would count against this one's limit
        tower.compile()
    resolved = ("fp16" if place.type == "cuda" else "fp32") if precision == "auto" else precision
    made_by = "" if seed is None or card.library == "demo" else f"random:{seed}:"
    identity = made_by + weights_hash(tower.module)
    return Backbone(card=card, tower=tower, weights=identity, device=place, precision=resolved)


@cache
def _free_gpu() -> int:
    """Return the number of the GPU that this process uses: one that no other process of ours has taken."""
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible[:count] if len(visible) >= count > 1 else list(map(str, range(count)))
    return take_free(names, Path(tempfile.gettempdir())) if count > 1 else 0


def take_free(names: Sequence[str], folder: Path) -> int:
    """Return the position of the first of ``names`` (of GPUs) that no process holds, and hold it; 0 where all are held.

    So the workers of one machine spread over its GPUs, whatever started them and whatever they are called.
    """
    for position, name in enumerate(names):
        path = folder / f"ltdpipe-gpu-{name}-{os.getuid()}.lock"
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        if try_lock(descriptor, path):
            return position  # the descriptor, and with it the lock, stays until this process ends
        os.close(descriptor)
    return 0


@cache
def _cores() -> ThreadPoolExecutor:
    """As many threads as torch would use, each of which lets torch use one."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    list(pool.map(lambda _number: None, range(threads)))
    torch.set_num_threads(threads)  # a thread's setting is its own, but also what threads made later start with
    return pool
