"""params.yaml -> validated parameters: one model of the whole file, checked once, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.validation import NAME_PATTERN, load_yaml, settings_from
from stages.demo.settings import DemoCorpus
from stages.extract.settings import ExtractSettings, GeometryName
from stages.heads.settings import HeadSettings, TrainSettings
from stages.scan.settings import ScanSettings
from storage.errors import SettingError
from storage.views import expand_views, view_directories

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
_STRICT = ConfigDict(extra="forbid", frozen=True)


def _known_views(views: tuple[str, ...]) -> tuple[str, ...]:
    expand_views(views)
    return views


class Corpus(ScanSettings):
    """Where the images of a corpus lie and how, which of them are listed, and how they are seen.

    Attributes:
        geometry: how an image becomes 224 x 224 pixels.
        views: which views are extracted (docs/views.md), as in [clean, train:5, val, jpeg:70, scale:0.5+jpeg:70].
    """

    geometry: GeometryName = "crop224-pad"
    views: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_views)] = ("clean",)


class EvaluateParams(BaseModel):
    """What every head is evaluated on.

    Attributes:
        corpora: names of the corpora.
        match: in what the files of both classes are made alike for numbers without the file bias: any of "jpeg",
            "size" and "jpeg+size", each as a further line of the tables.
        unlabelled: how many unlabelled images of a test set give the threshold of one of the accuracies.
    """

    model_config = _STRICT

    corpora: Annotated[tuple[Name, ...], Field(min_length=1)]
    match: tuple[Literal["jpeg", "size", "jpeg+size"], ...]
    unlabelled: Annotated[int, Field(ge=2)] = 100


class Sweeps(BaseModel):
    """Which sweeps of ``ltdpipe sweep`` the graph runs: each lists the corpora whose heads are swept.

    Attributes:
        window: the head ``ltd`` with every fixed window.
        layer: a linear probe on each block.
    """

    model_config = _STRICT

    window: tuple[Name, ...]
    layer: tuple[Name, ...]


class Params(BaseModel):
    """The whole of params.yaml.

    Attributes:
        study: name of the study; its report lies in ``reports/<study>``.
        notes: caveats that the report prints on top.
        demo: corpora whose images the graph makes itself; empty in a real study.
        corpora: all corpora by name.
        extract: how features are made.
        heads: all heads by name.
        train_on: the corpora that heads are trained on; every head is trained on each of them.
        seeds: every head is trained with each of them.
        train: how heads are trained.
        sweeps: which sweeps the graph runs.
        evaluate: what they are evaluated on.
    """

    model_config = _STRICT

    study: Name
    notes: tuple[str, ...]
    demo: dict[Name, DemoCorpus]
    corpora: Annotated[dict[Name, Corpus], Field(min_length=1)]
    extract: ExtractSettings
    heads: Annotated[dict[Name, HeadSettings], Field(min_length=1)]
    train_on: Annotated[tuple[Name, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1)]
    train: TrainSettings
    sweeps: Sweeps
    evaluate: EvaluateParams

    @model_validator(mode="after")
    def _references(self) -> Params:
        references = [(f"train_on.{at}", name) for at, name in enumerate(self.train_on)]
        references += [(f"evaluate.corpora.{at}", name) for at, name in enumerate(self.evaluate.corpora)]
        references += [(f"demo.{name}", name) for name in self.demo]
        for key, name in references:
            if name not in self.corpora:
                raise ValueError(f"{key}: {name!r} is no corpus; `corpora` defines {', '.join(self.corpora)}")
        for kind, swept in self.sweeps:
            for at, name in enumerate(swept):
                if name not in self.train_on:
                    listed = ", ".join(self.train_on)
                    raise ValueError(f"sweeps.{kind}.{at}: {name!r} is not in `train_on`, which lists {listed}")
        return self

    @model_validator(mode="after")
    def _named_once(self) -> Params:
        lists: dict[str, tuple[object, ...]] = {
            "train_on": self.train_on,
            "seeds": self.seeds,
            "sweeps.window": self.sweeps.window,
            "sweeps.layer": self.sweeps.layer,
            "evaluate.corpora": self.evaluate.corpora,
        }
        for key, values in lists.items():
            twins = sorted({str(value) for value in values if values.count(value) > 1})
            if twins:
                raise ValueError(f"{key}: {', '.join(twins)} is listed twice; list each once")
        return self

    @model_validator(mode="after")
    def _views_are_extracted(self) -> Params:
        """What later stages read of a corpus has to be in its views: found out now, not after hours of extraction."""
        training = {*view_directories(self.train.views), *view_directories([self.train.validation_view])}
        for name in (*self.train_on, *self.evaluate.corpora):
            wanted = {"clean"} | (training if name in self.train_on else set())
            lacking = sorted(wanted - set(view_directories(self.corpora[name].views)))
            if lacking:
                raise ValueError(
                    f"corpora.{name}.views: lacks {', '.join(lacking)}; `train.views` and `train.validation_view` have "
                    "to be among the views of a training corpus, and clean among those of every corpus that is used"
                )
        return self

    @model_validator(mode="after")
    def _taps_are_extracted(self) -> Params:
        for name, head in self.heads.items():
            if head.tap not in self.extract.taps:
                raise ValueError(
                    f"extract.taps: lacks {head.tap}, which the head {name!r} of type {head.type} reads; add it"
                )
        return self

    @model_validator(mode="after")
    def _window_sweep_has_its_head(self) -> Params:
        head = self.heads.get("ltd")
        if self.sweeps.window and (head is None or head.type != "ltd"):
            raise ValueError("sweeps.window: it varies the head named ltd, of type ltd; `heads` has no such head")
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
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingError(
            f"{path} does not exist here ({Path.cwd()}); change to the project's folder, or write one with "
            "`ltdpipe profile use NAME`"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is no valid YAML: it is not written in UTF-8 ({error})") from error
    return params_from(text, str(path))


def params_from(text: str, source: str) -> Params:
    """Validate the text of a parameter file, as ``load_params`` does."""
    return settings_from(Params, load_yaml(text, source), source=f"{source}: ")
