"""Where the files of a study lie in the project: the one place that knows, for the commands and for dvc.yaml."""

from __future__ import annotations

import os
from pathlib import Path

from storage.errors import DataError
from storage.views import VIEW

PARAMS = Path("params.yaml")
DATA_ROOT = Path(".ltdpipe", "data-root")  # for this machine alone: below which folder the corpora lie


def manifest(corpus: str) -> Path:
    """The manifest of a corpus."""
    return Path("corpora", f"{corpus}.parquet")


def features(corpus: str) -> Path:
    """The extracted features of a corpus, one folder a view."""
    return Path("data", "features", corpus)


def contents(corpus: str) -> Path:
    """The file that stands for the extracted features of a corpus: what stages that read them depend on."""
    return Path("data", "contents", f"{corpus}.json")


def view(corpus: str) -> Path:
    """The extracted features of a corpus in its one view."""
    return features(corpus) / VIEW


def head(trained_on: str, name: str, seed: int | str) -> Path:
    """The file of a head trained on a corpus."""
    return Path("heads", trained_on, name, f"{seed}.safetensors")


def head_by_hand(name: str, seed: int) -> Path:
    """The file of a head trained without params.yaml."""
    return Path("heads", name, f"{seed}.safetensors")


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


def speed(kind: str, name: str) -> Path:
    """Where this machine writes down how long a run took; an experiment's copy of the project writes to the project."""
    return Path(os.environ.get("DVC_ROOT", "."), ".ltdpipe", "speed", kind, f"{name}.json")


def images(root: str, data: Path | None = None) -> Path | str:
    """Find a corpus's image folder, archive or list of images; a URL is returned as it is.

    Args:
        root: as it is in params.yaml. Where it is relative it is looked for here, below LTDPIPE_DATA, below the folder
            last given to ``ltdpipe profile use --data``, and below the main project of an experiment.
        data: look below this folder only.

    Raises:
        DataError: it is nowhere; the message says where it was looked for.
    """
    from storage.archives import is_url  # imports pyarrow

    if is_url(root):
        return root
    project = Path(os.environ.get("DVC_ROOT", "."))
    bases = [Path(), project]
    if "LTDPIPE_DATA" in os.environ:
        bases.append(Path(os.environ["LTDPIPE_DATA"]))
    if (project / DATA_ROOT).exists():
        bases.append(Path((project / DATA_ROOT).read_text(encoding="utf-8")))
    places = list(dict.fromkeys((base / root).absolute() for base in (bases if data is None else [data])))
    found = next((place for place in places if place.exists()), None)
    if found is None:
        looked = ", ".join(str(place) for place in places)
        way_out = "set LTDPIPE_DATA to its parent" if data is None else "give the folder that holds it with --data"
        raise DataError(f"image folder {root!r} does not exist (looked for {looked}); {way_out}")
    return found
