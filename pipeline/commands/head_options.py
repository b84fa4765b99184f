"""What the commands about heads share: settings given by hand, sizes of memory, and which views are read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from storage.errors import SettingError
from storage.views import view_directories

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stages.heads.settings import HeadSettings, TrainSettings

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class _Memory(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in newer click
    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]B)?", str(value), re.IGNORECASE)
        if found is None:
            self.fail(f"{value!r} is no size; write it as 2GB or 500MB", param, ctx)
        return int(float(found[1]) * _UNITS[(found[2] or "").upper()])


assignments_option = click.option(
    "--set", "assignments", metavar="KEY=VALUE", multiple=True, help="A setting of training or of the head; repeatable."
)
memory_option = click.option(
    "--memory", type=_Memory(), help="Features to hold in memory, as 2GB; the rest is streamed. Changes no result."
)
threads_option = click.option("--threads", type=click.IntRange(min=1), help="CPU threads of training.")


def head_of_family(family: str) -> HeadSettings:
    """Return the default settings of a family, as ``ltd``; ``linear:BLOCK`` and ``linear-all`` name linear probes.

    Raises:
        SettingError: there is no such family, or its block is none.
    """
    from pydantic import BaseModel

    from pipeline.validation import load_yaml, settings_from
    from stages.heads.settings import HeadSettings

    class Option(BaseModel):
        head: HeadSettings

    kind, _, block = family.partition(":")
    values: dict[str, Any] = {"type": kind}
    if family == "linear-all":
        values = {"type": "linear", "block": "all"}
    elif block:
        values["block"] = load_yaml(block, f"the block {block!r} of --head {family}")
    return settings_from(Option, {"head": values}, source="--").head


def with_assignments(
    head: HeadSettings, settings: TrainSettings, assignments: Sequence[str]
) -> tuple[HeadSettings, TrainSettings]:
    """Return both settings with ``KEY=VALUE`` put in; values are YAML, and go before what the method sets.

    Raises:
        SettingError: a key belongs to neither, or a value is wrong.
    """
    from pipeline.validation import parsed_assignment, settings_from
    from stages.heads.settings import Overrides, TrainSettings

    head_values, train_values = head.model_dump(), settings.model_dump()
    known = sorted({*head_values, *train_values} - {"type", "train"})
    for assignment in assignments:
        key, value = parsed_assignment(assignment, "--set")
        if key not in known:
            raise SettingError(
                f"--set {assignment}: no setting of training or of this head; allowed: {', '.join(known)}"
            )
        if key in Overrides.model_fields:
            head_values["train"][key] = value
        else:
            (head_values if key in head_values else train_values)[key] = value
    head = settings_from(type(head), head_values, source="--set ")
    return head, settings_from(TrainSettings, train_values, source="--set ")


def training_views(features: Path, settings: TrainSettings) -> tuple[list[Path], Path]:
    """Return the directories of the views that train and of the one that validates.

    Args:
        features: an extracted corpus, with one folder a view; or one view of it, which then serves for both.
        settings: name the views of a corpus.
    """
    from storage.index import INDEX_NAME

    if (features / INDEX_NAME).exists():
        return [features], features
    (validation,) = view_directories([settings.validation_view])
    return [features / name for name in view_directories(settings.views)], features / validation
