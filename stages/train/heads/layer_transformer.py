"""Attention over the CLS tokens of all blocks, in place of a window of them.

A variant of this project: the aggregation of ForgeLens in kind, but one layer, and on the features of an unadapted
backbone. ForgeLens trains adapters inside the backbone, so its own numbers cannot be had from cached features.
"""

from pydantic import JsonValue

from stages.train.heads.ltd import LtdHead
from stages.train.heads.settings import LayerTransformerSettings
from stages.train.heads.window_selection import WindowSelection
from storage.errors import SettingError


class LayerTransformerHead(LtdHead):
    """The raw branch of the LTD head over all blocks; it has no window to tell of."""

    def describe(self) -> dict[str, JsonValue]:  # noqa: D102 - as the base
        return {}


def build_layer_transformer(settings: LayerTransformerSettings, *, blocks: int, width: int) -> LayerTransformerHead:
    """Return the raw branch of the LTD head with all L ``blocks`` of width D as its fixed window.

    Raises:
        SettingError: the attention heads do not divide the width.
    """
    if width % settings.heads:
        raise SettingError(
            f"head 'layer-transformer': {settings.heads} attention heads do not divide the backbone's width {width}; "
            "choose a divisor"
        )
    return LayerTransformerHead(
        0,
        WindowSelection(blocks, blocks),
        width,
        branches=("raw",),
        position=settings.position,
        heads=settings.heads,
        dropout=settings.dropout,
    )
