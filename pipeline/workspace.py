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
    from pipeline.params import Corpus, Params
    from stages.extract.settings import ExtractSettings

T = TypeVar("T")

PARAMS = Path("params.yaml")
DATA_ROOT = Path(".ltdpipe", "data-root")  # for this machine alone: below which folder the corpora lie


def manifest(corpus: str) -> Path:
    """The manifest of a corpus."""
    return Path("corpora", f"{corpus}.parquet")


def features(corpus: str) -> Path:
    """The extracted features of a corpus, one folder a view."""
    return Path("data", "features", corpus)


def view(corpus: str) -> Path:
    """The extracted features of a corpus in its clean view."""
    return features(corpus) / VIEW


def contents(corpus: str) -> Path:
    """The fingerprint of a corpus's extracted features: what stages that read them depend on."""
    return Path("data", "contents", f"{corpus}.json")


def head(trained_on: str, name: str, seed: int | str) -> Path:
    """The file of a head trained on a corpus."""
    return Path("heads", trained_on, name, f"{seed}.safetensors")


def scores(corpus: str, trained_on: str, name: str, seed: int | str) -> Path:
    """The scores of a head on a corpus: a folder with one file a view."""
    return Path("scores", corpus, trained_on, f"{name}-{seed}")


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
    """Find a corpus's image folder, archive or list of images; a URL is returned as it is.

    Args:
        root: as it is in params.yaml. Where it is relative it is looked for here, below LTDPIPE_DATA, below the folder
            last given to ``ltdpipe profile use --data``, and below the main project of an experiment.
        data: look below this folder only.

    Raises:
        DataError: it is nowhere; the message says where it was looked for.
    """
    from storage.remote import is_url

    if is_url(root):
        return root
    project = Path(os.environ.get("DVC_ROOT", "."))
    bases = [Path(), project]
    if "LTDPIPE_DATA" in os.environ:
        bases.append(Path(os.environ["LTDPIPE_DATA"]))
    if (project / DATA_ROOT).exists():
        bases.append(Path((project / DATA_ROOT).read_text(encoding="utf-8")))
    candidates = list(dict.fromkeys((base / root).absolute() for base in (bases if data is None else [data])))
    existing = next((path for path in candidates if path.exists()), None)
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
        features: folder of its extracted features, one folder a view; None: it is only listed.
        fingerprint: the file that later stages depend on; None outside a study.
    """

    name: str
    settings: Corpus
    root: Path | str
    reals: Path | str | None
    manifest: Path | None = None
    features: Path | None = None
    fingerprint: Path | None = None


@dataclass(frozen=True)
class HeadRef:
    """A head: one of params.yaml, or one given by hand.

    Attributes:
        name: of the head.
        seed: that it is trained with.
        features: the extracted corpus it is trained on, or one view of it.
        file: where it lies.
        run: ``corpus/head/seed`` of the study that it belongs to; None outside a study.
    """

    name: str
    seed: int
    features: Path
    file: Path
    run: str | None = None


def project_params() -> Params:
    """Read and validate the project's params.yaml."""
    from pipeline.params import load_params

    return load_params(PARAMS)


def defined(entries: dict[str, T], name: str, section: str) -> T:
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


def study_head(params: Params, name: str, *, seed: int | None, trained_on: str | None) -> HeadRef:
    """Return a head of the study by the options --head, --seed and --trained-on.

    Raises:
        SettingError: the study has no such head, or an option is missing.
    """
    corpus, seed = training_corpus(params, trained_on), needed(seed, "--seed")
    defined(params.heads, name, "heads")
    return HeadRef(name, seed, features(corpus), head(corpus, name, seed), f"{corpus}/{name}/{seed}")


def head_by_hand(name: str, seed: int, features: Path) -> HeadRef:
    """Return a head that is made without params.yaml."""
    return HeadRef(name, seed, features, Path("heads", name, f"{seed}.safetensors"))


def study_corpus(params: Params, name: str) -> CorpusRef:
    """Return a corpus of the study, whose images have to be here.

    Raises:
        SettingError: the study has no such corpus.
        DataError: its images are not found.
    """
    settings = defined(params.corpora, name, "corpora")
    reals = None if settings.reals is None else images(settings.reals)
    return CorpusRef(name, settings, images(settings.root), reals, manifest(name), features(name), contents(name))


def corpus_to_scan(folder: str | None, *, corpus: str | None, out: Path | None, settings: dict[str, Any]) -> CorpusRef:
    """Return the corpus that ``ltdpipe scan`` lists: FOLDER, or where it is None a corpus of params.yaml.

    Args:
        folder: anything that holds images.
        corpus: its name.
        out: where the manifest of FOLDER goes.
        settings: fields of ``Corpus`` for FOLDER; those that are empty were not given.

    Raises:
        SettingError: neither is given, or an option is wrong or would do nothing.
    """
    if folder is None:
        name = needed(corpus, "--corpus NAME or a FOLDER")
        _refuse_idle(settings | {"out": out})
        return study_corpus(project_params(), name)
    return _corpus_by_hand(folder, corpus, settings, manifest=out)


def corpus_to_extract(
    folder: Path | None, *, corpus: str | None, out: Path | None, seen: dict[str, Any], made: dict[str, Any]
) -> tuple[CorpusRef, ExtractSettings]:
    """Return the corpus that ``ltdpipe extract`` reads and how: FOLDER, or where it is None a corpus of params.yaml.

    Args:
        folder: anything that holds images.
        corpus: its name.
        out: where the features of FOLDER go.
        seen: fields of ``Corpus`` for FOLDER; those that are empty were not given.
        made: fields of ``ExtractSettings`` for FOLDER, likewise.

    Raises:
        SettingError: neither is given, or an option is wrong or would do nothing.
    """
    from pipeline.validation import settings_from
    from stages.extract.settings import ExtractSettings

    if folder is None:
        name = needed(corpus, "--corpus NAME, or a FOLDER with --out")
        _refuse_idle(seen | made | {"out": out})
        params = project_params()
        return study_corpus(params, name), params.extract
    ref = _corpus_by_hand(str(folder), corpus, seen, features=out)
    return ref, settings_from(ExtractSettings, _given(made), source="options: ")


def _corpus_by_hand(folder: str, corpus: str | None, options: dict[str, Any], **files: Path | None) -> CorpusRef:
    """Return the corpus of a folder, named by --corpus or as the folder or archive is.

    Raises:
        SettingError: an option is wrong, or the name cannot be that of a folder in the store.
    """
    from pipeline.params import Corpus
    from pipeline.validation import settings_from

    settings = settings_from(Corpus, {"root": folder, "layout": "auto"} | _given(options), source="options: ")
    path = folder.rstrip("/") if "://" in folder else os.path.abspath(folder)  # noqa: PTH100 - resolves `..`
    name = names.to_text(path.rpartition("/")[2]) if corpus is None else corpus
    if name in {"", ".", ".."} or "/" in name:
        raise SettingError(f"{name!r} cannot name a corpus; give a name without slashes with --corpus NAME")
    return CorpusRef(name, settings, folder, settings.reals, **files)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value not in (None, False, ())}


def _refuse_idle(options: dict[str, Any]) -> None:
    """Refuse options of a FOLDER that were given without one."""
    spelled = {"splits": "split", "categories": "category", "classes": "real, --synthetic, --leave-out"}
    idle = [f"--{spelled.get(name, name).replace('_', '-')}" for name in _given(options)]
    if idle:
        raise SettingError(f"{', '.join(idle)} needs a FOLDER; with --corpus edit {PARAMS} instead")
