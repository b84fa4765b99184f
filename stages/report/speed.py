"""How long a study took on the machine that ran it: beside the report, as no two runs take equally long."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from stages.report.html import table_page
from stages.report.table import WRITERS, Block, Table, Value
from storage.atomic import remove, write_texts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stages.report.table import Rows


class Measured(NamedTuple):
    """One run of a kind of stage: ``what`` it worked on, as the tables call it, and the wall time.

    ``images`` are those it went through, each view counted; ``parameters`` those of the head that it trained.
    """

    kind: str
    what: str
    seconds: float
    images: int | None
    machine: str
    parameters: int | None = None


def write_speed(runs: Sequence[Measured], out: Path, study: str) -> None:
    """Write ``speed.html`` and its table in all formats; remove stale ones if nothing was measured."""
    table = speed_table(runs, study)
    files = {out / f"speed.{suffix}": write for suffix, write in {**WRITERS, "html": table_page}.items()}
    if table is None:
        remove(*files)
    else:
        write_texts({file: write(table) for file, write in files.items()})


def speed_table(runs: Sequence[Measured], study: str) -> Table | None:
    """Seconds per run and images per second, by stage; None without runs."""
    frame = pd.DataFrame(runs, columns=Measured._fields)
    blocks = []
    for kind, of_kind in frame.groupby("kind", sort=False):
        rows: Rows = []
        for what, same in of_kind.groupby("what", sort=False):
            images, seconds = same["images"].dropna(), float(same["seconds"].sum())
            rate = Value(float(images.sum()) / seconds, scale=1, digits=1) if len(images) and seconds else None
            mean, total = Value(seconds / len(same), scale=1, digits=1), int(images.sum()) if len(images) else None
            latency = Value(1000 / rate.value, scale=1, digits=3) if rate and rate.value else None
            sizes = same["parameters"].dropna()
            size = int(sizes.iloc[0]) if len(sizes) else None
            rows.append([str(what), len(same), total, mean, rate, latency, size, "; ".join(same["machine"].unique())])
        blocks.append(Block(str(kind), rows))
    header = ["what", "runs", "images", "seconds per run", "images a second", "ms an image", "parameters", "machine"]
    notes = [
        "Wall time as this machine wrote it down when it made the files at hand, other load on it included; a run that "
        "was stopped counts from where it resumed. Images are counted once per view.",
        "extraction: from image files to features. training: from features to one head. scoring: one head on the "
        "features of every view of one corpus. Heads of one pass share its time: in training equally, in scoring by "
        "the images of each. parameters: those that training moves, without the backbone's.",
    ]
    return Table(f"{study}: speed", header, blocks, block_name="stage", notes=notes) if blocks else None
