"""How long a study took on the machine that ran it: beside the report, as no two runs take equally long."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from stages.report.html import table_page
from stages.report.table import WRITERS, Block, Table, Value
from storage.atomic import remove, write_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from stages.report.table import Cell


@dataclass(frozen=True)
class Measured:
    """One run of a stage.

    Attributes:
        kind: of stage.
        what: what it worked on, as the tables call it; runs of the same are put together.
        seconds: wall time.
        images: how many it went through, each view counted; None where that is not what it does.
        machine: where it ran.
    """

    kind: str
    what: str
    seconds: float
    images: int | None
    machine: str


def write_speed(runs: Iterable[Measured], out: Path, study: str) -> None:
    """Write ``speed.html`` and its table in all formats; remove older ones where there is nothing to tell."""
    table = speed_table(list(runs), study)
    files = {out / f"speed.{suffix}": write for suffix, write in {**WRITERS, "html": table_page}.items()}
    if table is None:
        remove(*files)
    else:
        write_texts({file: write(table) for file, write in files.items()})


def speed_table(runs: Sequence[Measured], study: str) -> Table | None:
    """Seconds of a run and images a second, by stage; None without runs."""
    blocks = []
    for kind in dict.fromkeys(run.kind for run in runs):
        rows: list[Sequence[Cell]] = []
        for what in dict.fromkeys(run.what for run in runs if run.kind == kind):
            same = [run for run in runs if (run.kind, run.what) == (kind, what)]
            images = [run.images for run in same if run.images is not None]
            total, seconds = sum(images), sum(run.seconds for run in same)
            mean = Value(fmean(run.seconds for run in same), scale=1, digits=1)
            rate = Value(total / seconds, scale=1, digits=1) if images and seconds else None
            machines = "; ".join(dict.fromkeys(run.machine for run in same))
            rows.append([what, len(same), total if images else None, mean, rate, machines])
        blocks.append(Block(kind, rows))
    header = ["what", "runs", "images", "seconds a run", "images a second", "machine"]
    notes = [
        "Wall time as this machine wrote it down when it made the files at hand, other load on it included; a run that "
        "was stopped counts from where it went on. Images are counted once a view.",
        "extraction: from image files to features. training: from features to one head. scoring: one head on the "
        "features of every view of one corpus.",
    ]
    return Table(f"{study}: speed", header, blocks, block_name="stage", notes=notes) if blocks else None
