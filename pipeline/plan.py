"""What a study takes: disk for its features, and this machine's time for its backbone and its heads."""

from __future__ import annotations

import shutil
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.extract.registry import BACKBONES
from stages.heads.settings import HELD_OUT, LinearSettings, LtdSettings
from stages.sweep.variants import layer_sweep, window_sweep
from storage.errors import ResourceError
from storage.store import store_root
from storage.views import expand_views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pipeline.params import Params
    from stages.extract.registry import BackboneCard
    from stages.heads.settings import HeadSettings, TrainSettings

_FLOAT16_BYTES = 2
_ROUNDS = 3  # of each head's step, after one that warms up


@dataclass(frozen=True)
class Work:
    """Trainings of one head, and the scoring of images with the trained ones.

    Attributes:
        kind: "heads", those of the study, or "sweeps".
        head: what one step costs is measured with it.
        settings: those of its training.
        trainings: how many.
        trained: images x epochs, of all trainings, at most: patience may end one earlier.
        scored: images x views, of all trainings; the images that choose the best epoch are among them.
    """

    kind: str
    head: HeadSettings
    settings: TrainSettings
    trainings: int
    trained: int
    scored: int


@dataclass(frozen=True)
class Plan:
    """What a study needs.

    Attributes:
        corpora: corpus -> (images, views, bytes of its features).
        free_bytes: room where the features go.
        work: what trains and scores.
    """

    corpora: Mapping[str, tuple[int, int, int]]
    free_bytes: int
    work: tuple[Work, ...] = ()

    @classmethod
    def of(cls, params: Params, images: Mapping[str, int]) -> Plan:
        """Count forward passes, bytes and trainings of the corpora that ``images`` counts."""
        backbone, extract = BACKBONES[params.extract.backbone], params.extract
        blocks = len(extract.stored_blocks(backbone.blocks))
        values = {"cls": blocks * backbone.width, "ln2_cls": blocks * backbone.width, "embedding": backbone.embedding}
        values["attention"] = blocks * (backbone.patches or 0)
        per_image = _FLOAT16_BYTES * sum(values.get(tap, backbone.width) for tap in extract.taps)
        views = {name: len(expand_views(params.corpora[name].views)) for name in images}
        store = store_root().absolute()
        existing = next(folder for folder in (store, *store.parents) if folder.exists())
        corpora = {name: (count, views[name], count * views[name] * per_image) for name, count in images.items()}
        return cls(corpora, shutil.disk_usage(existing).free, tuple(_work(params, corpora)))

    @property
    def passes(self) -> int:
        """Forward passes of the backbone."""
        return sum(images * views for images, views, _ in self.corpora.values())

    @property
    def bytes(self) -> int:
        """Bytes of features."""
        return sum(size for *_, size in self.corpora.values())

    def check_room(self) -> None:
        """Refuse a study whose features cannot fit on the disk."""
        if self.bytes > self.free_bytes:
            raise ResourceError(
                f"the features need {self.bytes / 1e9:.1f} GB and {self.free_bytes / 1e9:.1f} GB are free; free some "
                "room, set LTDPIPE_STORE to a larger disk, or make the study smaller with --limit"
            )

    def seconds(self, backbone: BackboneCard) -> dict[str, tuple[int, float]]:
        """Measure the steps of all heads on made features, and return kind of work -> (trainings, seconds of all).

        Not counted are the sweep over generators, as their number is known after extraction alone, and reading the
        features, which all heads do together.
        """
        rates: dict[tuple[object, ...], tuple[float, float]] = {}
        totals: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
        for work in self.work:
            # windows of one length cost the same, as do probes of one layer, whichever block they read
            head = work.head
            alike = head.model_dump_json(exclude={"selection", "block"}), getattr(head, "chosen_windows", None)
            key = *alike, work.settings
            if key not in rates:
                rates[key] = _seconds_an_image(head, work.settings, backbone)
            trainings, seconds = totals[work.kind]
            seconds += work.trained * rates[key][0] + work.scored * rates[key][1]
            totals[work.kind] = trainings + work.trainings, seconds
        return dict(totals)


def _work(params: Params, corpora: Mapping[str, tuple[int, int, int]]) -> Iterator[Work]:
    blocks, seeds = BACKBONES[params.extract.backbone].blocks, len(params.seeds)
    tested = [corpora[name] for name in params.evaluate.corpora if name in corpora]
    for corpus in params.train_on:
        images = corpora.get(corpus, (0,))[0]
        held_out = int(images * params.train.validation_share) if params.train.validation == HELD_OUT else 0
        swept: list[HeadSettings] = []
        if corpus in params.sweeps.window and isinstance(base := params.heads["ltd"], LtdSettings):
            swept += [variant.head for variant in window_sweep(base, blocks)]
        if corpus in params.sweeps.layer:
            swept += [variant.head for variant in layer_sweep(LinearSettings(), blocks)]
        heads = [*(("heads", head) for head in params.heads.values()), *(("sweeps", head) for head in swept)]
        for kind, asked in heads:
            head, settings = asked, asked.training(params.train)
            epochs = settings.epochs
            if isinstance(asked, LtdSettings) and asked.chosen_windows:
                starts = asked.starts_for(blocks)
                # the choice trains each window, to the end at most; two chosen ones are trained once more, together
                epochs, head = epochs * (len(starts) + asked.chosen_windows - 1), asked.fixed_at(starts[0])
            scored = epochs * held_out + sum(count * (views if kind == "heads" else 1) for count, views, _ in tested)
            yield Work(kind, head, settings, seeds, seeds * epochs * (images - held_out), seeds * scored)


def _seconds_an_image(head: HeadSettings, settings: TrainSettings, backbone: BackboneCard) -> tuple[float, float]:
    """Measure a training step and the scoring of a batch, on made features."""
    import torch

    from stages.heads.file import build_head
    from stages.heads.machine import best_device, default_threads, repeatable
    from stages.train.training import Training

    device = best_device()
    with repeatable(default_threads(backbone.width)):
        module = build_head(head, blocks=backbone.blocks, width=backbone.width, embedding=backbone.embedding).to(device)
        features = torch.randn(settings.batch, *module.feature_shape, device=device)
        labels = (torch.arange(settings.batch, device=device) % 2).float()
        training = Training(module, settings, 0)
        training.begin_epoch()
        step = _median_seconds(lambda: float(training.step(0, features, labels)))
        module.eval()
        with torch.inference_mode():
            return step / settings.batch, _median_seconds(lambda: float(module(features).sum())) / settings.batch


def _median_seconds(program: Callable[[], object]) -> float:
    times = []
    for _ in range(_ROUNDS + 1):
        started = time.perf_counter()
        program()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
