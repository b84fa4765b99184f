"""GenImage (Zhu et al. 2023): eight generators against ImageNet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stages.scan.classes import class_at, split_of
from stages.scan.layouts.layout import Place, known_at

if TYPE_CHECKING:
    from stages.scan.found import Folder

# Name of the folder in lower case -> name of the set: the archive's names, and those of common re-packs.
GENIMAGE_KEYS = {
    "midjourney": "midjourney",
    "stable_diffusion_v_1_4": "sdv1.4",
    "sdv1.4": "sdv1.4",
    "sdv14": "sdv1.4",
    "stable_diffusion_v_1_5": "sdv1.5",
    "sdv1.5": "sdv1.5",
    "sdv15": "sdv1.5",
    "adm": "adm",
    "glide": "glide",
    "glid": "glide",
    "wukong": "wukong",
    "vqdm": "vqdm",
    "biggan": "biggan",
}
# The folder inside a generator's: imagenet_ai_0419_sdv4, imagenet_midjourney ...; the numbers differ between mirrors.
_INNER = re.compile(r"imagenet_(?:ai_\d+_)?(?P<name>[a-z0-9]+)")
_INNER_KEYS = GENIMAGE_KEYS | {"sdv4": "sdv1.4", "sdv5": "sdv1.5"}


class GenImageLayout:
    """GenImage.

    ::

        root/<generator>/<any inner name>/{train,val}/{ai,nature}/*.png          (the archives; val is the test split)
        root/<generator>/[val/]{0_real,1_fake}/*.png                             (re-packs, with short names too)

    The generator is one of ``Midjourney stable_diffusion_v_1_4 stable_diffusion_v_1_5 ADM glide wukong VQDM BigGAN``,
    in any case. Where its folder is missing, an inner name such as ``imagenet_ai_0419_sdv4`` tells it.
    """

    expects = "<generator>/<any inner name>/{train,val}/{ai,nature}, or <generator>/{0_real,1_fake}"

    def place(self, folder: Folder, corpus: str) -> Place | None:  # noqa: ARG002 - the sets have names of their own
        """See :class:`stages.scan.layouts.layout.Layout`."""
        found = class_at(folder.folders)
        if found is None:
            return None
        at, label = found
        above = folder.folders[:at]
        known = known_at(above, GENIMAGE_KEYS)
        key = known[1] if known else next(filter(None, map(_inner_key, above)), None)
        return None if key is None else Place(label, key if label else None, split_of(above), (key,))


def _inner_key(folder: str) -> str | None:
    match = _INNER.fullmatch(folder.casefold())
    return None if match is None else _INNER_KEYS.get(match["name"])
