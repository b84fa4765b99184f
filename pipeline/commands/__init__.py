"""The commands, each a thin layer over one stage function: by name from params.yaml, or by hand with paths.

torch, open_clip and the like are imported inside the commands that need them, so that help and typos answer at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.commands.data import demo_images, export, extract, scan
from pipeline.commands.detector import bundle, calibrate, explain, predict, show
from pipeline.commands.heads import import_head, sweep, train
from pipeline.commands.machine import backbones, doctor, fetch
from pipeline.commands.profile import profile
from pipeline.commands.scores import evaluate, import_scores
from pipeline.commands.store import status, store, verify
from pipeline.commands.study import analyse, audit, compare, report

if TYPE_CHECKING:
    import click

COMMANDS: tuple[click.Command, ...] = (
    *(demo_images, scan, extract, export, backbones, fetch, doctor, audit),
    *(train, sweep, import_head, show, evaluate, import_scores, analyse, report, compare),
    *(bundle, calibrate, predict, explain),
    *(profile, status, verify, store),
)
