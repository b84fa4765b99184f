"""Settings of any family to its head: one case a family."""

from stages.train.heads.head import Head, Reads
from stages.train.heads.layer_transformer import LayerTransformerHead
from stages.train.heads.linear import LinearHead, build_linear
from stages.train.heads.ltd import LtdHead
from stages.train.heads.rine import RineHead
from stages.train.heads.settings import (
    HeadSettings,
    LayerTransformerSettings,
    LinearSettings,
    LtdSettings,
    RineSettings,
    UnivfdSettings,
)


def build_head(settings: HeadSettings, *, blocks: int, width: int, embedding: int) -> Head:
    """Return a freshly initialised head; all draws come from torch's global generator.

    Args:
        settings: of any family.
        blocks: L, the number of transformer blocks of the backbone.
        width: D, the width of its CLS tokens.
        embedding: E, the width of its final embedding.

    Raises:
        SettingError: the settings do not fit the backbone; the message has the numbers.
    """
    match settings:
        case LtdSettings():
            return LtdHead(settings, blocks=blocks, width=width)
        case LinearSettings():
            return build_linear(settings, blocks=blocks, width=width)
        case UnivfdSettings():
            return LinearHead(Reads(settings.tap), (embedding,))
        case RineSettings():
            return RineHead(settings, blocks=blocks, width=width)
        case LayerTransformerSettings():
            return LayerTransformerHead(settings, blocks=blocks, width=width)
