"""The report of the study that params.yaml describes: which files belong to it, and in which order they are shown."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from pipeline import paths
from stages.extract.settings import VIEW
from stages.report.metrics_file import result_table
from stages.report.run import run

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from pipeline.params import Params

_SHOWN_VERSIONS = ("ltdpipe", "torch", "open_clip_torch", "scikit-learn", "pillow", "h5py")


def write_report(params: Params) -> tuple[Path, Table]:
    """Write ``reports/<study>`` from the scores and profiles that the parameters name, and from no other.

    Returns:
        The report's folder, and its headline table.
    """
    out = paths.report(params.study)
    score_files = [
        paths.scores(corpus, head, seed) / f"{VIEW}.parquet"
        for corpus in params.evaluate.corpora
        for head in params.heads
        for seed in params.train.seeds
    ]
    metrics = run(
        study=params.study,
        score_files=score_files,
        profile_files=[paths.analysis(corpus) for corpus in params.evaluate.corpora],
        out=out,
        notes=params.notes,
        head_order=list(params.heads),
        set_order=_set_order(params),
        head_cards={name: head.model_dump(mode="json") for name, head in params.heads.items()},
        versions={package: version(package) for package in _SHOWN_VERSIONS},
    )
    return out, result_table(metrics, title=f"{params.study}: AP / accuracy, mean over seeds")


def _set_order(params: Params) -> list[str]:
    """Sets in the order that the study names them."""
    return [
        generator
        for corpus in params.evaluate.corpora
        if corpus in params.demo
        for generator in params.demo[corpus].generators
    ]
