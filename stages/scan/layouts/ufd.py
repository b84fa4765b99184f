"""The benchmark of UniversalFakeDetect (Ojha et al. 2023): ForenSynths and eight sets of diffusion models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.scan.classes import class_at, split_of
from stages.scan.layouts.forensynths import ForenSynthsLayout, place_nested
from stages.scan.layouts.layout import Place

if TYPE_CHECKING:
    from stages.scan.found import Folder

# Diffusion set -> the shared real images it is tested against in the authors' archive.
_REALS_OF = {"guided": "imagenet"} | dict.fromkeys(
    ("ldm_200", "ldm_200_cfg", "ldm_100", "glide_100_27", "glide_50_27", "glide_100_10", "dalle"), "laion"
)
DIFFUSION_KEYS = {name: name for name in _REALS_OF}


class UfdLayout:
    """ForenSynths, and beside it the diffusion sets in either of their two distributions.

    ::

        root/[diffusion_datasets/]{imagenet,laion}/0_real/*.png                                  (the authors' archive)
        root/[diffusion_datasets/]{guided,ldm_200,ldm_200_cfg,ldm_100}/1_fake/*.png
        root/[diffusion_datasets/]{glide_100_27,glide_50_27,glide_100_10,dalle}/1_fake/*.png

        root/[<anything>/]<diffusion set>/{0_real,1_fake}/*.png                                  (a common re-pack)

    In the authors' archive the fakes have no reals beside them: ``guided`` is tested against ``imagenet``, the seven
    others against ``laion``. These reals are listed once, as members of all those sets.
    """

    expects = (
        "the folders of ForenSynths, and {imagenet,laion}/0_real with <diffusion set>/1_fake, "
        "or <diffusion set>/{0_real,1_fake}"
    )

    def place(self, folder: Folder, corpus: str) -> Place | None:
        """See :class:`stages.scan.layouts.layout.Layout`."""
        folders = folder.folders
        found = class_at(folders)
        if found is not None and found[0] > 0 and folders[found[0] - 1].casefold() in ("imagenet", "laion"):
            pool = folders[found[0] - 1].casefold()
            return None if found[1] else Place(0, split=split_of(folders[: found[0] - 1]), pool=pool)
        diffusion = place_nested(folders, DIFFUSION_KEYS)
        if diffusion is None:
            return ForenSynthsLayout().place(folder, corpus)
        if diffusion.label == 0:
            return diffusion
        key = diffusion.sets[0]
        return Place(1, key, diffusion.split, (key,), diffusion.category, _REALS_OF[key])
