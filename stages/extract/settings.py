"""Settings of extraction, which can change features and are in the feature key, and knobs of a run, which are not.

No torch is imported.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stages.extract.registry import BACKBONES
from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

GeometryName = Literal["crop224-pad", "squash256-crop224", "short224-crop", "tile224"]
TapName = Literal["cls", "ln2_cls", "attention", "embedding", "pooled", "mean"]


def _known_backbone(name: str) -> str:
    if name not in BACKBONES:
        raise ValueError(f"no such backbone; allowed: {', '.join(BACKBONES)}")
    return name


def _readable_blocks(blocks: str | tuple[int, ...]) -> str | tuple[int, ...]:
    if isinstance(blocks, str) and blocks != "all" and not re.fullmatch(r"\d+-\d+", blocks):
        raise ValueError("expected all, a range such as 11-19 (both ends included), or a list of block numbers")
    return blocks


class ExtractSettings(BaseModel):
    """What reads the images of every corpus of a study.

    Attributes:
        backbone: a name in the backbone registry.
        weights: "default" (the registry's own), "random:SEED", or the path of a local weights file.
        taps: what is read from the backbone and stored.
        blocks: which blocks are stored: "all", a range such as "11-19" with both ends, or a list of 0-based numbers.
            Blocks behind the last one are not computed unless "embedding", "pooled" or "mean" needs them.
        precision: "fp32", "fp16" (CUDA only), or "auto": what the corpus was begun in, else fp16 on CUDA, else
            fp32.
        apply_exif: turn pictures as their EXIF orientation says; the protocols of the field do not.
        augmentation_seed: of the random views (train, val, noise).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Annotated[str, AfterValidator(_known_backbone)] = "clip-vit-l-14"
    weights: str = "default"
    taps: tuple[TapName, ...] = Field(default=("cls", "embedding"), min_length=1)
    blocks: Annotated[str | tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_readable_blocks)] = "all"
    precision: Literal["auto", "fp32", "fp16"] = "auto"
    apply_exif: bool = False
    augmentation_seed: Annotated[int, Field(ge=0)] = 0

    def stored_blocks(self, total: int) -> tuple[int, ...]:
        """Return the numbers of the blocks to store, ascending, of the ``total`` that the backbone has.

        Raises:
            SettingError: a number is not one of the backbone's.
        """
        if self.blocks == "all":
            return tuple(range(total))
        chosen: Sequence[int]
        if isinstance(self.blocks, str):
            first, last = map(int, self.blocks.split("-"))
            chosen = range(first, last + 1)
        else:
            chosen = sorted(set(self.blocks))
        if not chosen or max(chosen) >= total:
            raise SettingError(
                f"extract.blocks {self.blocks!r}: {self.backbone} has the blocks 0-{total - 1}; choose some of these"
            )
        return tuple(chosen)


@dataclass(frozen=True)
class Runtime:
    """How a run uses the machine: its speed and no feature, so that these stay outside params.yaml.

    Attributes:
        shard_size: images a shard.
        batch: images a forward pass; None for a size that suits the device. Changes features by rounding alone.
        loaders: decoding processes, for each worker; None for a number that suits the machine, 0 to decode in the main
            process.
        workers: processes of a local Dask cluster; 1 works in this process, without Dask.
        scheduler: address of a running Dask cluster, instead of ``workers``.
        compiled: compile the backbone's blocks with torch.compile.
        check_content: hash every image, and make again those whose content differs from what was extracted, though size
            and modification time are the same.
    """

    shard_size: int = 1024
    batch: int | None = None
    loaders: int | None = None
    workers: int = 1
    scheduler: str | None = None
    compiled: bool = False
    check_content: bool = False

    def loaders_on(self, device: str) -> int:
        """Return the number of loader processes of a worker with its backbone on ``device``."""
        share = 1 if self.scheduler else self.workers
        return auto_loaders(device, share=share) if self.loaders is None else self.loaders


def random_seed(weights: str) -> int | None:
    """Return the seed of a weights setting ``random:SEED``, None for any other.

    Raises:
        SettingError: it begins with ``random`` but has no whole number.
    """
    kind, _, seed = weights.partition(":")
    if kind != "random":
        return None
    if not seed.isdecimal():
        raise SettingError(f"extract.weights {weights!r}: expected random:SEED with a whole number, as in random:0")
    return int(seed)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def auto_loaders(device: str, *, share: int = 1) -> int:
    """Return how many loader processes suit the machine that ``share`` worker processes share.

    On "cuda" the GPU waits for pixels, so all cores but one decode. On "cpu" the backbone takes far longer than
    decoding and wants the cores itself, so one in four decodes; on a single core a process more only costs.
    """
    mine = max(cores() // share, 1)
    if mine == 1:
        return 0
    return mine - 1 if device == "cuda" else max(mine // 4, 1)
