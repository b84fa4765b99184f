"""The report of the study that params.yaml describes: which files belong to it, and in which order they are shown."""

from __future__ import annotations

import itertools
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pipeline import workspace
from pipeline.speed import recorded
from stages.extract.registry import has_random_weights
from stages.report.run import run
from stages.report.speed import write_speed
from stages.report.study import Study
from stages.scan.protocols import set_lists
from storage.errors import DataError
from storage.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from pipeline.params import Params

_SHOWN_VERSIONS = ("ltdpipe", "torch", "open_clip_torch", "scikit-learn", "pillow", "h5py")


def write_report(params: Params) -> dict[str, Any]:
    """Write ``reports/<study>`` from the scores and analyses that the parameters name, and from no other.

    Returns:
        What metrics.json holds.
    """
    out = workspace.report(params.study)
    files = score_files(params)
    study = Study(
        name=params.study,
        notes=params.notes,
        made_from=_made_from(params),
        random_weights=has_random_weights(params.extract.backbone, params.extract.weights),
        head_order=labels(params),
        set_order=set_order(params),
        set_lists={name: found.members for name, found in set_lists().items()},
        head_settings={
            params.label(name, corpus): head.model_dump(mode="json")
            for corpus in params.train_on
            for name, head in params.heads.items()
        }
        | {entry.detector or key: {"type": "external"} for key, entry in params.external.items()},
        versions={package: version(package) for package in _SHOWN_VERSIONS},
        sources=dict(_images_at_hand(params)),
        audits=list(_audits(params)),
    )
    sweeps = {
        (kind, trained_on): workspace.sweep(trained_on, kind) / "results.csv"
        for kind, swept in params.sweeps
        for trained_on in swept
    }
    profiles = [workspace.analysis(corpus) for corpus in params.evaluate.corpora]
    metrics = run(study, score_files=list(files), heads_of=files, sweep_files=sweeps, profile_files=profiles, out=out)
    write_speed(list(recorded(params)), out, params.study)
    return metrics


def score_files(params: Params, *, labels: Collection[str] | None = None) -> dict[Path, str]:
    """Return the scores files of the study's heads (of all, or those with these labels) -> what the head is called.

    Raises:
        DataError: a head has not been scored on a corpus.
    """
    found: dict[Path, str] = {}
    runs = itertools.product(params.evaluate.corpora, params.train_on, params.heads, params.seeds)
    for corpus, trained_on, head, seed in runs:
        label = params.label(head, trained_on)
        if labels is not None and label not in labels:
            continue
        folder = workspace.scores(corpus, trained_on, head, seed)
        files = sorted(folder.glob("*.parquet"))
        view = workspace.view(corpus).name
        if folder / f"{view}.parquet" not in files:
            raise DataError(
                f"{folder} holds no scores of the view {view}; run `ltdpipe evaluate --corpus {corpus} --trained-on "
                f"{trained_on} --head {head} --seed {seed}`, or `dvc repro`"
            )
        found |= dict.fromkeys(files, label)
    for key, entry in params.external.items():
        if labels is None or (entry.detector or key) in labels:
            file = workspace.external(key) / f"{workspace.view(entry.corpus).name}.parquet"
            if not file.exists():
                raise DataError(f"{file} does not exist; run `ltdpipe import-scores --as {key}`, or `dvc repro`")
            found[file] = entry.detector or key
    return found


def labels(params: Params) -> list[str]:
    """Return what the study's heads are called in tables, in order, and then the other detectors."""
    heads = [params.label(head, corpus) for corpus in params.train_on for head in params.heads]
    return list(dict.fromkeys([*heads, *(entry.detector or key for key, entry in params.external.items())]))


def set_order(params: Params) -> list[str]:
    """Return ``corpus/set`` in the order that the study names them: demo generators, or a corpus's list of sets."""
    order: list[str] = []
    for corpus in params.evaluate.corpora:
        names = params.demo[corpus].generators if corpus in params.demo else params.corpora[corpus].set_order
        order += [f"{corpus}/{name}" for name in names]
    return order


def _made_from(params: Params) -> dict[str, str]:
    """Say what made the study's numbers: backbone, weights and training."""
    extract, train = params.extract, params.train
    random = has_random_weights(extract.backbone, extract.weights)
    return {
        "Backbone": f"{extract.backbone}, {'random weights' if random else f'weights {extract.weights}'}",
        "Precision": extract.precision,
        "Heads": f"trained on {', '.join(params.train_on)}, learning rate {train.lr:g}, {train.epochs} epochs, "
        f"batches of {train.batch}, where a head sets nothing else",
    }


def _images_at_hand(params: Params) -> Iterator[tuple[str, Sources]]:
    """Yield the corpora whose images lie on this machine; a report needs no network."""
    for corpus in params.evaluate.corpora:
        try:
            ref = workspace.study_corpus(params, corpus)
            sources = Sources.of(ref.root, ref.reals)
        except DataError:
            continue
        if not sources.is_remote:
            yield corpus, sources


def _audits(params: Params) -> Iterator[dict[str, Any]]:
    """Yield the audits of the study's corpora; one that stands beside several training corpora says a thing once."""
    for corpus in params.evaluate.corpora:
        said: list[dict[str, Any]] = []
        for trained_on in params.train_on:
            path = workspace.audit(corpus, trained_on)
            if path.exists():
                try:
                    found = json.loads(path.read_text(encoding="utf-8"))
                    found["warnings"] = [warning for warning in found["warnings"] if warning not in said]
                except (KeyError, TypeError, ValueError) as error:
                    again = f"ltdpipe audit --corpus {corpus} --trained-on {trained_on}"
                    raise DataError(f"{path} is damaged, or no audit; run `{again}` again") from error
                said += found["warnings"]
                yield found
