"""What an audit warns of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing to look at before a number is trusted.

    Attributes:
        kind: "counts", "missing-set", "one-class", "format-bias", "unreadable", "below-crop", "duplicates",
            "train-test-duplicates", "train-test-near-duplicates" or "label-noise".
        set: the test set it is about; None where it is about the corpus.
        text: what was found, in one line.
    """

    kind: str
    set: str | None
    text: str
