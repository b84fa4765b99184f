"""params.yaml -> validated parameters: one model of the whole file, checked once, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.validation import NAME_PATTERN, load_yaml, settings_from
from stages.demo.settings import DemoCorpus
from stages.extract.settings import ExtractSettings, GeometryName
from stages.heads.settings import HeadSettings, TrainSettings
from stages.scan.settings import ScanSettings
from storage.atomic import write_text
from storage.errors import SettingError
from storage.views import VIEW, View, check_tiles, expand_views, view_directories

T = TypeVar("T")

# What a study does that does not say otherwise; `ltdpipe scan` writes the sections that are missing, since DVC reads
# params.yaml itself and knows no defaults.
DEFAULTS = {
    "notes": "notes: []",
    "demo": "demo: {}",
    "extract": "extract: {backbone: clip-vit-l-14, weights: default, taps: [cls, embedding], precision: auto}",
    "heads": "heads:\n  ltd: {type: ltd, selection: halving}\n  linear: {type: linear, block: last}",
    "seeds": "seeds: [0]",
    "train": "train: {lr: 5e-5, epochs: 5, batch: 256}",
    "sweeps": "sweeps: {window: [], layer: [], generators: []}",
    "external": "external: {}",
}


def _each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    twins = sorted({str(value) for value in values if values.count(value) > 1})
    if twins:
        raise ValueError(f"{', '.join(twins)} is listed twice; list each once")
    return values


def _known_views(views: tuple[str, ...]) -> tuple[str, ...]:
    expanded = expand_views(views)
    if any(view.aligned for view in expanded) and View(VIEW) not in expanded:
        raise ValueError("views that begin with align read from the clean view how files are encoded; add clean")
    return views


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Names = Annotated[tuple[Name, ...], AfterValidator(_each_once)]
SomeNames = Annotated[Names, Field(min_length=1)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1), AfterValidator(_each_once)]
Match = Literal["jpeg", "size", "jpeg+size"]


class Corpus(ScanSettings):
    """Where the images of a corpus lie and how, which of them are listed, and how they are seen."""

    geometry: GeometryName = "crop224-pad"
    """How an image becomes 224 x 224 pixels."""

    views: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_views)] = ("clean",)
    """Which views are extracted (docs/views.md), as in [clean, train:5, val, jpeg:70, scale:0.5+jpeg:70]."""

    @model_validator(mode="after")
    def _tiles_fit(self) -> Corpus:
        check_tiles(expand_views(self.views), self.geometry)
        return self


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EvaluateParams(_Section):
    """What every head is evaluated on."""

    corpora: SomeNames

    match: tuple[Match, ...]
    """In what files of both classes are made alike, for numbers without the file bias; each adds lines to tables."""


class Sweeps(_Section):
    """Which sweeps of ``ltdpipe sweep`` the graph runs: each lists the corpora whose heads are swept."""

    window: Names
    layer: Names
    generators: Names = ()


class ExternalScores(_Section):
    """The scores of a detector that is none of the heads, on one corpus (docs/external.md)."""

    file: str
    """CSV, JSON lines or Parquet, with paths or hashes of images and a score each."""

    corpus: Name
    detector: Name | None = None
    """What tables call it; None: as the entry."""

    column: str | None = None
    higher_is: Literal["synthetic", "real"] = "synthetic"
    logits: bool = False


class Params(_Section):
    """The whole of params.yaml."""

    study: Name
    """Its report lies in ``reports/<study>``."""

    notes: tuple[str, ...]
    """Caveats at the top of the report."""

    demo: dict[Name, DemoCorpus]
    """Corpora whose images the graph makes itself; empty in a real study."""

    corpora: Annotated[dict[Name, Corpus], Field(min_length=1)]
    extract: ExtractSettings
    heads: Annotated[dict[Name, HeadSettings], Field(min_length=1)]

    train_on: SomeNames
    """Every head is trained on each of these corpora, with each of the seeds."""

    seeds: Seeds
    train: TrainSettings
    sweeps: Sweeps
    evaluate: EvaluateParams

    external: dict[Name, ExternalScores]
    """Scores of other detectors, each with a name."""

    @model_validator(mode="after")
    def _check_references(self) -> Params:
        if "external" in self.corpora:
            raise ValueError("corpora: `external` is the folder of other detectors' scores; call the corpus otherwise")
        lists = {"train_on": self.train_on, "evaluate.corpora": self.evaluate.corpora}
        references = [(f"{key}.{at}", name) for key, names in lists.items() for at, name in enumerate(names)]
        for key, name in (*references, *((f"demo.{name}", name) for name in self.demo)):
            if name not in self.corpora:
                raise ValueError(f"{key}: {name!r} is no corpus; `corpora` defines {', '.join(self.corpora)}")
        for kind, swept in self.sweeps:
            for at, name in enumerate(swept):
                if name not in self.train_on:
                    listed = ", ".join(self.train_on)
                    raise ValueError(f"sweeps.{kind}.{at}: {name!r} is not in `train_on`, which lists {listed}")
        labels = {self.label(head, corpus) for head in self.heads for corpus in self.train_on}
        places = set()
        for key, entry in self.external.items():
            if entry.corpus not in self.evaluate.corpora:
                listed = ", ".join(self.evaluate.corpora)
                raise ValueError(f"external.{key}.corpus: {entry.corpus!r} is not in `evaluate.corpora`: {listed}")
            detector = entry.detector or key
            if detector in labels or (detector, entry.corpus) in places:
                raise ValueError(f"external.{key}: {detector!r} has scores of {entry.corpus} already; name another")
            places.add((detector, entry.corpus))
        head = self.heads.get("ltd")
        if self.sweeps.window and (head is None or head.type != "ltd"):
            raise ValueError("sweeps.window: it varies the head named ltd, of type ltd; `heads` has no such head")
        if self.sweeps.generators and head is None:
            raise ValueError("sweeps.generators: it trains the head named ltd; `heads` has no such head")
        return self

    @model_validator(mode="after")
    def _check_extracted(self) -> Params:
        """What later stages read has to be extracted: found out now, not after hours of extraction."""
        training = {*view_directories(self.train.views), *view_directories([self.train.validation_view])}
        for name in (*self.train_on, *self.evaluate.corpora):
            wanted = {"clean"} | (training if name in self.train_on else set())
            lacking = sorted(wanted - set(view_directories(self.corpora[name].views)))
            if lacking:
                raise ValueError(
                    f"corpora.{name}.views: lacks {', '.join(lacking)}; `train.views` and `train.validation_view` have "
                    "to be among the views of a training corpus, and clean among those of every corpus that is used"
                )
        for name, head in self.heads.items():
            if head.tap not in self.extract.taps:
                raise ValueError(
                    f"extract.taps: lacks {head.tap}, which the head {name!r} of type {head.type} reads; add it"
                )
        return self

    def label(self, head: str, trained_on: str) -> str:
        """What a head is called in tables: its name, and the corpus it was trained on where there are several."""
        return head if len(self.train_on) == 1 else f"{head} ({trained_on})"


def load_params(path: Path) -> Params:
    """Read and validate a parameter file.

    Raises:
        SettingError: the file is missing, is no YAML, or something in it is wrong; one line for each fault, with the
            key's path, what was found and what is allowed.
    """
    return params_from(_read(path), str(path))


def params_from(text: str, source: str) -> Params:
    """Validate the text of a parameter file, as ``load_params`` does."""
    content = load_yaml(text, source)
    if isinstance(content, dict):
        missing = (default for name, default in DEFAULTS.items() if name not in content)
        content |= load_yaml("\n".join(missing), source) or {}
    return settings_from(Params, content, source=f"{source}: ")


def complete_params(path: Path) -> list[str]:
    """Append the sections with defaults that a valid parameter file lacks, for DVC; return their names."""
    text = _read(path)
    content = load_yaml(text, str(path))
    missing = [name for name in DEFAULTS if name not in content]
    if missing:
        completed = "\n".join([text.rstrip("\n"), *map(DEFAULTS.__getitem__, missing), ""])
        params_from(completed, f"{path} with the missing sections added")
        write_text(path, completed)
    return missing


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingError(
            f"{path} does not exist here ({Path.cwd()}); change to the project's folder, or write one with "
            "`ltdpipe profile use NAME`"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is no valid YAML: it is not written in UTF-8 ({error})") from error
