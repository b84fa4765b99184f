"""What a scan found, in a few lines for the terminal, and what to look at before trusting numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.scan.corpus import one_class_sets
from stages.scan.walk import CLOSED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.scan.folder import Folder, FolderLabels

KINDS_SHOWN = 20
_SETS_SHOWN = 40
_NO_SPLIT = (
    "no split: if `train_on` names this corpus, all its images but the share held out for validation are trained on; "
    "do not evaluate on it then (docs/data.md lists the names of splits)"
)


@dataclass(frozen=True)
class ScanSummary:
    """What a scan found; as text, a few lines for the terminal.

    ``skipped`` maps kinds of entries that were left out to their number. ``decided`` says how the layout was chosen,
    and is empty where it was named. ``is_divided``: any image is of a split, or none could be trained on.
    """

    real: int
    fake: int
    unlabelled: int
    sets: tuple[str, ...]
    skipped: dict[str, int]
    layout: str
    decided: str = ""
    warnings: tuple[str, ...] = ()
    is_divided: bool = True

    def __str__(self) -> str:
        counts = f"{self.real} real, {self.fake} synthetic"
        counts += f", {self.unlabelled} unlabelled" if self.unlabelled else ""
        sets = f"{len(self.sets)} {'set' if len(self.sets) == 1 else 'sets'}: {', '.join(self.sets[:_SETS_SHOWN])}"
        sets += f" and {len(self.sets) - _SETS_SHOWN} more" if len(self.sets) > _SETS_SHOWN else ""
        kinds = [f"{count} {kind}" for kind, count in sorted(self.skipped.items())]
        left_out = f"; left out: {', '.join(kinds[:KINDS_SHOWN])}" if kinds else ""
        left_out += ", ..." if len(kinds) > KINDS_SHOWN else ""
        decided = [f"layout {self.layout}: {self.decided}"] if self.decided else []
        return "\n".join([*decided, f"{counts}; {sets}{left_out}", *([] if self.is_divided else [_NO_SPLIT])])


def summarise(
    chosen: Sequence[tuple[Folder, FolderLabels]],
    order: Sequence[str],
    *,
    layout: str,
    decided: str,
    skipped: Counter[str],
    warnings: Sequence[str],
) -> ScanSummary:
    """Count what is listed, and add the warnings that the counts give; ``order`` is that of the sets asked for."""
    counts: Counter[int | None] = Counter()
    for folder, labels in chosen:
        counts[labels.label] += len(folder)
    sets = {name for _, labels in chosen for name in labels.sets}
    warnings = list(warnings)
    for name, lacks in one_class_sets(labels for _, labels in chosen).items():
        way_out = "; name the folder of its reals with --reals or in `reals`" if lacks == "real" else ""
        warnings.append(f"set {name} has no {lacks} image: AP, AUC and accuracy are undefined{way_out}")
    warnings += [f"set {name} was asked for and has no image" for name in order if name not in sets]
    if idle := sum(len(folder) for folder, labels in chosen if not labels.sets):
        warnings.append(f"{idle} image(s) are in no test set: they are real, and every set has real images of its own")
    if closed := skipped[CLOSED]:
        warnings.append(f"{closed} archive(s) cannot be read in place and were left out; unpack them and scan again")
    return ScanSummary(
        real=counts[0],
        fake=counts[1],
        unlabelled=counts[None],
        sets=tuple([name for name in order if name in sets] + sorted(sets - set(order))),
        skipped={kind: count for kind, count in skipped.items() if count},
        layout=layout,
        decided=decided,
        warnings=tuple(warnings),
        is_divided=any(labels.split for _, labels in chosen) or not (counts[0] or counts[1]),
    )
