"""The commands, each a thin layer over one stage function: by name from params.yaml, or by hand with paths.

torch, open_clip and the like are imported inside the commands that need them, so that help and typos answer at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.commands.analyse import analyse
from pipeline.commands.audit import audit
from pipeline.commands.backbones import backbones, fetch
from pipeline.commands.bundle import bundle
from pipeline.commands.calibrate import calibrate
from pipeline.commands.compare import compare
from pipeline.commands.demo import demo_images
from pipeline.commands.doctor import doctor
from pipeline.commands.evaluate import evaluate
from pipeline.commands.explain import explain
from pipeline.commands.extract import extract
from pipeline.commands.import_head import import_head
from pipeline.commands.predict import predict
from pipeline.commands.profile import profile
from pipeline.commands.report import report
from pipeline.commands.scan import scan
from pipeline.commands.show import show
from pipeline.commands.status import status
from pipeline.commands.store import store
from pipeline.commands.sweep import sweep
from pipeline.commands.train import train
from pipeline.commands.verify import verify

if TYPE_CHECKING:
    import click

COMMANDS: tuple[click.Command, ...] = (
    demo_images,
    scan,
    extract,
    backbones,
    fetch,
    doctor,
    audit,
    train,
    sweep,
    import_head,
    show,
    evaluate,
    analyse,
    report,
    compare,
    bundle,
    calibrate,
    predict,
    explain,
    profile,
    status,
    verify,
    store,
)
