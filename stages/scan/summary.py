"""What a scan found, in a few lines for the terminal."""

from __future__ import annotations

from dataclasses import dataclass

KINDS_SHOWN = 20
_SETS_SHOWN = 40


@dataclass(frozen=True)
class ScanSummary:
    """What a scan found.

    Attributes:
        real: number of real images.
        fake: number of synthetic images.
        unlabelled: number of images without a label.
        sets: names of the test sets.
        skipped: what was left out: kind -> number of entries.
        layout: the layout used.
        decided: how it was chosen; empty where it was named.
        warnings: what the user should look at before trusting numbers, one line each.
        is_divided: whether any image is of a split, or no image could be trained on.
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
        """A few lines for the terminal."""
        counts = f"{self.real} real, {self.fake} synthetic"
        counts += f", {self.unlabelled} unlabelled" if self.unlabelled else ""
        kinds = [f"{count} {kind}" for kind, count in sorted(self.skipped.items())]
        left_out = ", ".join(kinds[:KINDS_SHOWN]) + (", ..." if len(kinds) > KINDS_SHOWN else "")
        more = f" and {len(self.sets) - _SETS_SHOWN} more" if len(self.sets) > _SETS_SHOWN else ""
        sets = (
            f"{len(self.sets)} {'set' if len(self.sets) == 1 else 'sets'}: {', '.join(self.sets[:_SETS_SHOWN])}{more}"
        )
        lines = [f"{counts}; {sets}" + (f"; left out: {left_out}" if left_out else "")]
        if self.decided:
            lines.insert(0, f"layout {self.layout}: {self.decided}")
        if not self.is_divided:
            lines.append(
                "no split: if `train_on` names this corpus, all its images but the share held out for validation "
                "are trained on; do not evaluate on it then (docs/data.md lists the names of splits)"
            )
        return "\n".join(lines)
