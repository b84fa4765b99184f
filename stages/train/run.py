"""Train the heads of one extracted corpus in one pass over its features, and write their files."""

from __future__ import annotations

import csv
import itertools
from dataclasses import asdict, astuple, dataclass, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from stages.heads.file import build_head
from stages.heads.machine import best_device, default_budget, default_threads, in_portions, repeatable
from stages.heads.settings import LtdSettings
from stages.recipe import HEAD_CODE, recipe
from stages.train.data import TrainingData
from stages.train.loop import train_together
from stages.train.selection import choose_windows, doubts
from stages.train.training import Epoch, Training, planned
from storage.atomic import all_or_none, link, remove
from storage.csv_text import csv_text
from storage.errors import DataError, SettingError
from storage.headfile import load_head, save_head
from storage.store import training_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from stages.heads.settings import HeadSettings, TrainSettings
    from stages.reporter import Progress, Reporter
    from stages.train.batches import FeatureBatches

    _Feeds = tuple[FeatureBatches, FeatureBatches]

# The code that decides the bytes of a head file: the `deps:` of the stage.
CODE = ("stages/train", *HEAD_CODE)
_COLUMNS = [field.name for field in fields(Epoch)]


@dataclass(frozen=True, kw_only=True)
class HeadToTrain:
    """A head and its seed, and the file to write, ``.safetensors``; its epochs go beside it as ``.csv``."""

    name: str
    settings: HeadSettings
    seed: int
    out: Path


@dataclass(frozen=True)
class TrainSummary:
    """The best epoch, the number of parameters, facts learned in training, and whether the head was there already."""

    best: Epoch
    parameters: int
    facts: dict[str, Any]
    kept: bool


def run(
    *,
    views: Sequence[Path],
    validation_view: Path,
    heads: Sequence[HeadToTrain],
    settings: TrainSettings,
    reporter: Reporter,
    memory: int | None = None,
    threads: int | None = None,
    finished: Path | None = None,
    curves: Path | None = None,
) -> list[TrainSummary]:
    """Train heads on one extracted corpus, whose features are read once. Started again, a stopped run resumes.

    Each file is, to the last byte, what it would be if its head were trained alone.

    Args:
        views: directories of the corpus's views; epoch e reads view e mod V.
        validation_view: directory of the view that validates.
        heads: what is trained; a seed fixes initialisation, dropout, windows and image order.
        settings: of the study; a head's method and the head itself may override them.
        reporter: gets notes, warnings and progress.
        memory: bytes of features to hold; None: 60 % of what is free. A head whose features do not fit reads them from
            disk, in an order of its own that its file states (``FeatureBatches.order``).
        threads: CPU threads; None: as the width asks for. Another number rounds otherwise, so it is in the file.
        finished: folder of finished heads, each under its recipe, which are linked to their places: what is there is
            not trained again. None: everything is trained.
        curves: a ``.csv`` for the epochs of all heads in one table.

    Returns:
        In the order of ``heads``.

    Raises:
        SettingError: a head does not fit the backbone, or its loss is not finite; the other heads have been trained.
        DataError: features are missing, damaged, or lack labels or a class.
    """
    corpus = _Corpus(TrainingData.open(views, validation_view, settings), settings, threads)
    jobs = [_Job(head, corpus, finished, reporter) for head in heads]
    kept = {job.head for job in jobs if job.is_finished()}
    missing = [job for job in jobs if job.head not in kept]
    if missing:
        with repeatable(corpus.threads):
            _train(missing, corpus, memory, reporter)
    unmoved = [
        f"{job.head.name}, seed {job.head.seed}"
        for job in missing
        if job.metadata["facts"].get("window_moved") is False
    ]
    if unmoved:
        reporter.warn(
            f"{'; '.join(unmoved)}: training left the random initial window unchanged; set the selection of such heads "
            "to `halving` or `fixed:START` (docs/heads.md)"
        )
    with all_or_none() as partial:
        for job, suffix in itertools.product(jobs if finished else (), (".safetensors", ".csv")):
            link(job.file.with_suffix(suffix), partial(job.head.out.with_suffix(suffix)))
        if curves is not None:
            partial(curves).write_text(_curves(jobs), encoding="utf-8", newline="")
    return [
        TrainSummary(
            Epoch(**job.metadata["best"]), job.metadata["parameters"], job.metadata["facts"], kept=job.head in kept
        )
        for job in jobs
    ]


class _Corpus:
    """An extracted corpus, and what all heads trained on it have in common."""

    def __init__(self, data: TrainingData, settings: TrainSettings, threads: int | None) -> None:
        self.data, self.settings, self.asked_threads = data, settings, threads
        self.spec, self.device = data.views[0].spec, best_device()
        self.threads = threads or default_threads(self.spec.width)


class _Job:
    """A head to train, and its file, which is linked to its place in the end.

    Attributes:
        reads: what of the features it reads; with a choice of windows, what all of them read.
        windows: first blocks of the windows to choose among by held-out loss; none where there are not two.
        bytes: what it takes while it is trained.
        epochs: how many are trained for it at most, those of the choice too.
        metadata: what its file states, once it is there.
    """

    def __init__(self, head: HeadToTrain, corpus: _Corpus, finished: Path | None, reporter: Reporter) -> None:
        self.head, self._corpus, self._reporter = head, corpus, reporter
        self.settings = head.settings.training(corpus.settings)
        self.file = head.out if finished is None else finished / f"{self._recipe()}.safetensors"
        self.reads, self.bytes = planned(head.settings, corpus.spec)
        self.windows: Sequence[int] = ()
        self._trained, self._selection = head.settings, dict[str, Any]()
        if isinstance(head.settings, LtdSettings) and head.settings.chosen_windows:
            self.windows = head.settings.starts_for(corpus.spec.blocks)
            if len(self.windows) == 1:
                self._trained, self.windows = head.settings.fixed_at(*self.windows), ()
        self.epochs = (1 + len(self.windows)) * self.settings.epochs
        self.metadata: dict[str, Any] = {}
        self._order: str | None = None
        self._unfinished: set[Path] = set()

    def is_finished(self) -> bool:
        """Say whether the file is there, whole, under the name of its recipe; ``metadata`` is then what it states."""
        try:
            self.metadata = {} if self.file == self.head.out else load_head(self.file)[1]
        except DataError:
            return False
        return bool(self.metadata) and self.file.with_suffix(".csv").exists()

    def _recipe(self) -> str:
        """A name for all that decides what is learned. The machine does not: its rounding may differ."""
        data, head = self._corpus.data, self.head
        facts = [
            *(head.name, head.seed, head.settings.model_dump(mode="json"), self.settings.model_dump(mode="json")),
            *(data.views[0].corpus, data.fingerprints, self._corpus.asked_threads),
            [(table.directory.name, table.key) for table in (*data.views, data.validation_view)],
        ]
        return recipe(facts, CODE)

    def start(self, settings: HeadSettings, *, announce: bool = False) -> Training:
        """Return the training of a head as far as it was kept: in the store, which outlives a stopped DVC stage."""
        kept = training_folder() / f"{recipe([self._provenance(), settings.model_dump(mode='json')], ())}.pt"
        self._unfinished.add(kept)
        torch.manual_seed(self.head.seed)
        spec = self._corpus.spec
        module = build_head(settings, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
        return Training(
            module.to(self._corpus.device),
            self.settings,
            self.head.seed,
            name=self.head.name,
            kept=kept,
            notify=self._reporter.note,
            announce=announce,
        )

    def chosen(self, feeds: _Feeds, room: int, progress: Progress) -> Training:
        """Return the training of the head, after the choice of its window where there is one to make."""
        asked, self._order = self.head.settings, feeds[0].order_rule
        if isinstance(asked, LtdSettings) and self.windows:
            chosen, self._selection = choose_windows(
                asked,
                self.windows,
                lambda start: self.start(asked.fixed_at(start)),
                feeds,
                epochs=self.settings.epochs,
                at_once=max(1, room // self.bytes),
                progress=progress,
            )
            self._trained = asked.fixed_at(*sorted(chosen))
        # one chosen window is trained already: what is kept of it has the last epoch
        return self.start(self._trained, announce=not self._selection)

    def write(self, training: Training) -> None:
        """Write the file, say what a user should look at, and drop what was kept of the training."""
        of, facts = f"head {self.head.name!r}, seed {self.head.seed}", training.head.describe()
        if "pi" in facts:
            moved = training.before["window_start"] != facts["window_start"]
            facts |= {"pi_before": training.before["pi"], "window_moved": moved}
        if self._selection:
            facts["window_selection"] = self._selection
            for doubt in doubts(facts):
                self._reporter.warn(f"{of}: {doubt}")
        self.metadata = {
            **self._provenance(),
            "settings": self._trained.model_dump(mode="json"),
            "parameters": sum(parameter.numel() for parameter in training.head.parameters()),
            "best": asdict(training.best),
            "facts": facts,
        }
        with all_or_none() as partial:
            save_head(partial(self.file), training.head.state_dict(), self.metadata)
            epochs = csv_text(_COLUMNS, map(astuple, training.history))
            partial(self.file.with_suffix(".csv")).write_text(epochs, encoding="utf-8", newline="")
        remove(*self._unfinished)

    def _provenance(self) -> dict[str, Any]:
        """What the file states of its training."""
        on_cpu = self._corpus.device.type == "cpu"
        order = {} if self._order is None else {"image_order": self._order}
        return {
            "head": self.head.name,
            "seed": self.head.seed,
            "train": self.settings.model_dump(mode="json"),
            **self._corpus.data.provenance(),
            **order,
            "machine": {"device": self._corpus.device.type, "threads": self._corpus.threads if on_cpu else None},
            "versions": {package: version(package) for package in ("ltdpipe", "torch")},
        }


def _train(jobs: Sequence[_Job], corpus: _Corpus, memory: int | None, reporter: Reporter) -> None:
    """Train all and write their files; a loss that is not finite is raised when all other heads are written."""
    free = default_budget(corpus.device)
    room = free // 4  # for trainings, beside the features
    faults: list[SettingError] = []
    epochs = sum(job.epochs for job in jobs)
    with reporter.progress(f"train on {corpus.data.views[0].corpus}", epochs, "epochs") as progress:
        jobs = sorted(jobs, key=lambda job: (job.head.seed, job.settings.batch))  # these share their batches
        every = corpus.data.shared([job.reads for job in jobs], corpus.device, free if memory is None else memory)
        for feeds, members in every:
            for portion in in_portions([jobs[number] for number in members], lambda job: job.bytes, room):
                trainings: dict[Training, _Job] = {}
                for job in portion:
                    try:
                        trainings[job.chosen(feeds, room, progress)] = job
                    except SettingError as error:
                        faults.append(error)
                try:
                    for training in train_together(list(trainings), *feeds, progress=progress):
                        trainings[training].write(training)
                except SettingError as error:
                    faults.append(error)
    if faults:
        raise faults[0]


def _curves(jobs: Iterable[_Job]) -> str:
    """The epochs of all heads as one table; ``group`` says whose they are."""
    rows = []
    for job in jobs:
        with job.file.with_suffix(".csv").open(newline="") as file:
            rows += [[f"{job.head.name}, seed {job.head.seed}", *row] for row in list(csv.reader(file))[1:]]
    return csv_text(["group", *_COLUMNS], rows)
