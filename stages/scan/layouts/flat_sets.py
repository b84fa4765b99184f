"""Benchmarks of flat sets: AIGCDetectBenchmark, Chameleon, Synthbuster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.scan.classes import SPLITS, class_at, split_of
from stages.scan.layouts.forensynths import place_nested
from stages.scan.layouts.layout import Place, known_at

if TYPE_CHECKING:
    from stages.scan.found import Folder

AIGCDETECT_KEYS = {
    "progan": "progan",
    "stylegan": "stylegan",
    "biggan": "biggan",
    "cyclegan": "cyclegan",
    "stargan": "stargan",
    "gaugan": "gaugan",
    "stylegan2": "stylegan2",
    "whichfaceisreal": "whichfaceisreal",
    "adm": "adm",
    "glide": "glide",
    "midjourney": "midjourney",
    "stable_diffusion_v_1_4": "sdv1.4",
    "stable_diffusion_v_1_5": "sdv1.5",
    "vqdm": "vqdm",
    "wukong": "wukong",
    "dalle2": "dalle2",
    "sd_xl": "sd_xl",
}
SYNTHBUSTER_KEYS = {
    name: name
    for name in (
        *("dalle2", "dalle3", "stable-diffusion-1-3", "stable-diffusion-1-4", "stable-diffusion-2"),
        *("stable-diffusion-xl", "glide", "firefly", "midjourney-v5"),
    )
}
_RAISE_NAMES = frozenset({"real_raise_1k", "raise_1k", "raise-1k", "raise1k", "raise"})


class AigcDetectLayout:
    """AIGCDetectBenchmark (Zhong et al. 2023): 16 sets, and ``sd_xl`` which came later.

    ::

        root/[test/]<set>/[<category>/]{0_real,1_fake}/*.png

    A set is flat or divided by category. ``biggan`` is that of ForenSynths, not that of GenImage.
    """

    expects = "<one of the 17 sets>/[<category>/]{0_real,1_fake}"

    def place(self, folder: Folder, corpus: str) -> Place | None:  # noqa: ARG002 - the sets have names of their own
        """See :class:`stages.scan.layouts.layout.Layout`."""
        return place_nested(folder.folders, AIGCDETECT_KEYS)


class ChameleonLayout:
    """Chameleon (Yan et al. 2024): one test set of images that people took for photographs.

    ::

        root/[test/]{0_real,1_fake}/*.png
    """

    expects = "[test/]{0_real,1_fake}, and no other folder between"

    def place(self, folder: Folder, corpus: str) -> Place | None:  # noqa: ARG002 - the set has a name of its own
        """See :class:`stages.scan.layouts.layout.Layout`."""
        found = class_at(folder.folders)
        if found is None:
            return None
        at, label = found
        others = [name for name in folder.folders[:at] if name.casefold() not in {*SPLITS, "chameleon"}]
        if others:
            return None
        return Place(label, "chameleon" if label else None, split_of(folder.folders[:at]), ("chameleon",))


class SynthbusterLayout:
    """Synthbuster (Bammey 2023): nine generators, fakes only.

    ::

        root/[synthbuster/]<generator>/*.png         (1,000 each; text files and scripts lie among them)
        reals/**/*.png                               (RAISE-1k, the second root)
        root/{real_RAISE_1k,RAISE-1k}/**/*.png       (or the reals beside the generators)

    The reals are listed once, as members of all nine sets.
    """

    expects = "<one of the 9 generators>/*.png, with the reals in real_RAISE_1k or below the second root"

    def place(self, folder: Folder, corpus: str) -> Place | None:  # noqa: ARG002 - the sets have names of their own
        """See :class:`stages.scan.layouts.layout.Layout`."""
        if any(name.casefold() in _RAISE_NAMES for name in folder.folders):
            return Place(0, pool="raise")
        known = known_at(folder.folders, SYNTHBUSTER_KEYS)
        if known is None or class_at(folder.folders) is not None:
            return None
        return Place(1, known[1], sets=(known[1],), pool="raise")
