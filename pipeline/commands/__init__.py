"""The commands, each a thin layer over one stage function: by name from params.yaml, or by hand with paths.

torch, open_clip and the like are imported inside the commands that need them, so that help and typos answer at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.commands.analyse import analyse
from pipeline.commands.audit import audit
from pipeline.commands.compare import compare
from pipeline.commands.demo import demo_images
from pipeline.commands.evaluate import evaluate
from pipeline.commands.extract import extract
from pipeline.commands.profile import profile
from pipeline.commands.report import report
from pipeline.commands.scan import scan
from pipeline.commands.train import train

if TYPE_CHECKING:
    import click

COMMANDS: tuple[click.Command, ...] = (
    demo_images,
    scan,
    extract,
    audit,
    train,
    evaluate,
    analyse,
    report,
    compare,
    profile,
)
