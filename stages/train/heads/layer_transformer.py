"""Attention over the CLS tokens of all blocks, in place of a window of them.

A variant of this project: the aggregation of ForgeLens in kind, but one layer, and on the features of an unadapted
backbone. ForgeLens trains adapters inside the backbone, so its own numbers cannot be had from cached features.
"""

from pydantic import JsonValue

from stages.train.heads.ltd import LtdHead
from stages.train.heads.settings import LayerTransformerSettings, LtdSettings


class LayerTransformerHead(LtdHead):
    """The raw branch of the LTD head with all L ``blocks`` as its fixed window, of which there is nothing to tell."""

    def __init__(self, settings: LayerTransformerSettings, *, blocks: int, width: int) -> None:
        window = LtdSettings(
            window=blocks,
            selection="fixed:0",
            branches=("raw",),
            position=settings.position,
            heads=settings.heads,
            dropout=settings.dropout,
        )
        super().__init__(window, blocks=blocks, width=width)

    def describe(self) -> dict[str, JsonValue]:  # noqa: D102 - as the base
        return {}
