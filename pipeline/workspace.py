"""What a command works on: params.yaml, or folders and files given by hand, resolved into the same references.

The one place that knows where the files of a study lie, for the commands and for dvc.yaml.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from storage import names
from storage.errors import DataError, SettingError
from storage.views import VIEW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.params import Corpus, Params
    from stages.extract.settings import ExtractSettings

T = TypeVar("T")

PARAMS = Path("params.yaml")
DATA_ROOT = Path(".ltdpipe", "data-root")  # for this machine alone: below which folder the corpora lie


def manifest(corpus: str) -> Path:
    """The manifest of a corpus."""
    return Path("corpora", f"{corpus}.parquet")


def features(corpus: str) -> Path:
    """The extracted features of a corpus, one folder per view."""
    return Path("data", "features", corpus)


def view(corpus: str) -> Path:
    """The extracted features of a corpus in its clean view."""
    return features(corpus) / VIEW


def contents(corpus: str) -> Path:
    """The fingerprint of a corpus's extracted features: what stages that read them depend on."""
    return Path("data", "contents", f"{corpus}.json")


def curves(trained_on: str) -> Path:
    """What the heads trained on a corpus have measured epoch by epoch."""
    return Path("heads", f"{trained_on}.csv")


def head(trained_on: str, name: str, seed: int | str) -> Path:
    """The file of a head trained on a corpus."""
    return Path("heads", trained_on, name, f"{seed}.safetensors")


def scores(corpus: str, trained_on: str, name: str, seed: int | str) -> Path:
    """The scores of a head on a corpus: a folder with one file per view."""
    return Path("scores", corpus, trained_on, f"{name}-{seed}")


def external(name: str) -> Path:
    """The scores of an entry of `external`: a folder as that of a head's scores."""
    return Path("scores", "external", name)


def sweep(trained_on: str, kind: str) -> Path:
    """The results of a sweep over heads trained on a corpus."""
    return Path("sweeps", trained_on, kind)


def analysis(corpus: str) -> Path:
    """The transition profiles of a corpus."""
    return Path("analysis", f"{corpus}.parquet")


def audit(corpus: str, trained_on: str) -> Path:
    """The audit of a corpus beside one that heads are trained on."""
    return Path("audit", corpus, f"{trained_on}.json")


def report(study: str) -> Path:
    """The folder of a study's report."""
    return Path("reports", study)


def images(root: str, data: Path | None = None) -> Path | str:
    """Find a corpus's image folder, archive, list of images or pattern of archives; a URL is returned as it is.

    Args:
        root: as in params.yaml. A relative one is looked for here, below LTDPIPE_DATA, below the folder last given to
            ``ltdpipe profile use --data``, and below the main project of an experiment.
        data: look below this folder only.

    Raises:
        DataError: it does not exist; the message says where it was looked for.
    """
    from storage.remote import is_url
    from storage.sources import exists

    if is_url(root):
        return root
    project = Path(os.environ.get("DVC_ROOT", "."))
    bases = [data] if data is not None else [Path(), project]
    if data is None and "LTDPIPE_DATA" in os.environ:
        bases.append(Path(os.environ["LTDPIPE_DATA"]))
    if data is None and (project / DATA_ROOT).exists():
        bases.append(Path((project / DATA_ROOT).read_text(encoding="utf-8")))
    candidates = list(dict.fromkeys((base / root).absolute() for base in bases))
    existing = next((path for path in candidates if exists(str(path))), None)
    if existing is None:
        looked = ", ".join(map(str, candidates))
        way_out = "set LTDPIPE_DATA to its parent" if data is None else "give the folder that holds it with --data"
        raise DataError(f"image folder {root!r} does not exist (looked for {looked}); {way_out}")
    return existing


@dataclass(frozen=True)
class CorpusRef:
    """A corpus: one of params.yaml, or a folder given by hand.

    Attributes:
        name: of the corpus.
        settings: which images are listed, and how they are seen.
        root: folder, archive, list or URL of its images.
        reals: the second root, of real images that sets share.
        manifest: the list of its images; None: it is not kept.
        features: folder of its extracted features, one folder per view; None: it is only listed.
        fingerprint: the file that later stages depend on; None outside a study.
    """

    name: str
    settings: Corpus
    root: Path | str
    reals: Path | str | None
    manifest: Path | None = None
    features: Path | None = None
    fingerprint: Path | None = None

    @property
    def listing(self) -> dict[str, Any]:
        """What :func:`stages.scan.run.run` has to know to list its images."""
        settings = self.settings
        chosen = {"sets": settings.set_order or None, "splits": settings.splits, "categories": settings.categories}
        where = {"corpus": self.name, "root": self.root, "reals": self.reals}
        return {**where, "layout": settings.layout, "classes": settings.classes, **chosen}


@dataclass(frozen=True)
class HeadRef:
    """A head of the study.

    Attributes:
        name: of the head.
        seed: that it is trained with.
        features: the extracted corpus it is trained on.
        file: where it lies.
        run: ``corpus/head/seed``.
    """

    name: str
    seed: int
    features: Path
    file: Path
    run: str


def project_params() -> Params:
    """Read and validate the project's params.yaml."""
    from pipeline.params import load_params

    return load_params(PARAMS)


def defined(entries: Mapping[str, T], name: str, section: str) -> T:
    """Return an entry of a section of params.yaml.

    Raises:
        SettingError: there is none of that name; the message lists those that are there.
    """
    if name not in entries:
        raise SettingError(f"{name!r} is not in `{section}` of {PARAMS}; it has {', '.join(entries) or 'nothing'}")
    return entries[name]


def needed(value: T | None, what: str) -> T:
    """Return an option's value.

    Raises:
        SettingError: it was not given.
    """
    if value is None:
        raise SettingError(f"this command needs {what}; see --help")
    return value


def training_corpus(params: Params, name: str | None) -> str:
    """Return the corpus that a head is trained on: the one named, or the only one of the study.

    Raises:
        SettingError: the study does not train on it, or trains on several and none is named.
    """
    listed = ", ".join(params.train_on)
    if name is None and len(params.train_on) > 1:
        raise SettingError(f"this command needs --trained-on, one of {listed}")
    if name is not None and name not in params.train_on:
        raise SettingError(f"--trained-on {name!r} is not in `train_on` of {PARAMS}; it has {listed}")
    return name or params.train_on[0]


def study_heads(params: Params, *, name: str | None, seed: int | None, trained_on: str | None) -> list[HeadRef]:
    """Return the heads of the study, or those that the options --head, --seed and --trained-on leave of them.

    Raises:
        SettingError: the study has no such head, or does not train on that corpus.
    """
    corpora = params.train_on if trained_on is None else [training_corpus(params, trained_on)]
    if name is not None:
        defined(params.heads, name, "heads")
    return [
        HeadRef(each, number, features(corpus), head(corpus, each, number), f"{corpus}/{each}/{number}")
        for corpus in corpora
        for each in ([name] if name is not None else params.heads)
        for number in ([seed] if seed is not None else params.seeds)
    ]


def head_by_hand(name: str, seed: int) -> Path:
    """Return where a head lies that is made without params.yaml."""
    return Path("heads", name, f"{seed}.safetensors")


def study_corpus(params: Params, name: str, data: Path | None = None) -> CorpusRef:
    """Return a corpus of the study, whose images have to be here, or below the folder ``data``.

    Raises:
        SettingError: the study has no such corpus.
        DataError: its images are not found.
    """
    settings = defined(params.corpora, name, "corpora")
    reals = None if settings.reals is None else images(settings.reals, data)
    root = images(settings.root, data)
    return CorpusRef(name, settings, root, reals, manifest(name), features(name), contents(name))


def given_corpus(
    folder: str | None, corpus: str | None, options: Mapping[str, Any], **out: Path | None
) -> tuple[CorpusRef, ExtractSettings]:
    """Return the corpus that a command works on and how its features are made.

    Args:
        folder: anything that holds images; None for a corpus of params.yaml.
        corpus: its name; without it, a FOLDER is called as its last part is.
        options: fields of ``Corpus``, its classes and ``ExtractSettings`` for FOLDER; empty ones were not given.
        out: ``manifest`` or ``features`` of FOLDER.

    Raises:
        SettingError: neither folder nor corpus is given, or an option is wrong or would do nothing.
    """
    from pipeline.params import Corpus
    from pipeline.validation import settings_from
    from stages.extract.settings import ExtractSettings
    from stages.scan.classes import ClassPatterns
    from storage.sources import base_of, is_pattern

    given = {name: value for name, value in options.items() if value not in (None, False, ())}
    if folder is None:
        name = needed(corpus, "--corpus NAME or a FOLDER")
        spelled = {"splits": "split", "categories": "category"}
        idle = [f"--{spelled.get(each, each).replace('_', '-')}" for each in given] + ["--out"] * any(out.values())
        if idle:
            raise SettingError(f"{', '.join(idle)} needs a FOLDER; with --corpus edit {PARAMS} instead")
        params = project_params()
        return study_corpus(params, name), params.extract
    made = {each: given.pop(each) for each in ExtractSettings.model_fields if each in given}
    classes = {each: given.pop(each) for each in ClassPatterns.model_fields if each in given}
    values = {"root": folder, "layout": "auto", "classes": classes or None} | given
    settings = settings_from(Corpus, values, source="options: ")
    top = base_of(folder) if is_pattern(folder) else folder
    last = (top.rstrip("/") if "://" in top else os.path.abspath(top)).rpartition("/")[2]  # noqa: PTH100 - `..`
    name = names.to_text(last) if corpus is None else corpus
    if name in {"", ".", ".."} or "/" in name:
        raise SettingError(f"{name!r} cannot name a corpus; give a name without slashes with --corpus NAME")
    ref = CorpusRef(name, settings, folder, settings.reals, **out)
    return ref, settings_from(ExtractSettings, made, source="options: ")
