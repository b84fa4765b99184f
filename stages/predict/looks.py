"""The views in which a detector looks at an image: the plain one alone, ten crops, or with the stability check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.extract.view_names import View, expand_views
from stages.predict.calibration import REAL, SYNTHETIC, UNSURE
from storage.errors import SettingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.predict.calibration import Calibration

# Mild changes that an image meets on its way through platforms; a sound verdict survives them.
CHECK_VIEWS = ("jpeg:95", "jpeg:85", "webp:90", "scale:0.9", "scale:1.1")


@dataclass(frozen=True)
class Looks:
    """Which views are scored and how their logits become one result.

    Attributes:
        check: whether the stability check is made.
        tencrop: whether the logit is the mean over ten crops.
    """

    check: bool = False
    tencrop: bool = False

    def __post_init__(self) -> None:
        if self.check and self.tencrop:
            raise SettingError("--check and --tta cannot be combined; choose one")

    @property
    def views(self) -> tuple[View, ...]:
        """The views of every image, the plain one first where there is one."""
        if self.tencrop:
            return expand_views(["tencrop"])
        return expand_views(["clean", *(CHECK_VIEWS if self.check else ())])

    @property
    def suffix(self) -> str:
        """What is added to the name of the detector in results."""
        return "+tencrop" if self.tencrop else "+check" if self.check else ""

    def judge(
        self, logits: NDArray[np.float64], calibration: Calibration
    ) -> tuple[float, float, str, float | None, str | None]:
        """Return (logit, probability, verdict, spread, flipped) of one image.

        Args:
            logits: (V,) of its views; NaN where a view could not be made of it.
            calibration: how logits are read.
        """
        logit = float(logits.mean() if self.tencrop else logits[0])
        probability = float(calibration.probabilities(np.array([logit]))[0])
        verdict = calibration.verdicts(np.array([logit]))[0]
        if not self.check:
            return logit, probability, verdict, None, None
        made = np.flatnonzero(np.isfinite(logits))
        probabilities = calibration.probabilities(logits[made])
        opposite = {REAL: SYNTHETIC, SYNTHETIC: REAL}.get(verdict)
        verdicts = calibration.verdicts(logits[made])
        flips = [CHECK_VIEWS[view - 1] for view, word in zip(made, verdicts, strict=True) if word == opposite]
        return (
            logit,
            probability,
            UNSURE if flips else verdict,
            float(probabilities.max() - probabilities.min()),
            " ".join(flips),
        )
