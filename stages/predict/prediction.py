"""What is said of one image, and the order in which it is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from storage.names import printable

COLUMNS = ("path", "status", "verdict", "probability", "logit", "error", "detector")
CHECK_COLUMNS = ("spread", "flipped")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One image's result.

    Attributes:
        path: the image, as it was given or found; None for one that came from memory.
        status: "ok" or "failed".
        verdict: "real", "synthetic" or "unsure"; None where the image could not be read.
        probability: that it is synthetic, as calibrated.
        logit: of the head, not calibrated; its sigmoid is the score that ``ltdpipe evaluate`` stores.
        error: why it could not be read, or which view of the check could not be made of it.
        detector: which bundle, and how it looked.
        spread: greatest minus least probability over the views of the check; None without it.
        flipped: views of the check in which the verdict is the opposite one.
    """

    path: str | None
    status: str
    verdict: str | None = None
    probability: float | None = None
    logit: float | None = None
    error: str | None = None
    detector: str = ""
    spread: float | None = None
    flipped: str | None = None

    def row(self, *, check: bool) -> dict[str, Any]:
        """Return its values by column."""
        values = asdict(self)
        if self.error is not None:
            values["error"] = printable(self.error)
        return {name: values[name] for name in columns(check=check)}


def columns(*, check: bool) -> tuple[str, ...]:
    """Return the names of the columns, with those of the stability check where it is made."""
    return (*COLUMNS, *CHECK_COLUMNS) if check else COLUMNS
