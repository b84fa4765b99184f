"""DRCT-2M (Chen et al. 2024): sixteen Stable Diffusion variants against MSCOCO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.scan.classes import class_at, split_of
from stages.scan.layouts.layout import LeftOut, Place, known_at

if TYPE_CHECKING:
    from stages.scan.found import Folder

# In the order of the paper's table. The last three paint into a real photograph ("DR"); LTD leaves them out.
DRCT_GENERATORS = (
    "ldm-text2im-large-256",
    "stable-diffusion-v1-4",
    "stable-diffusion-v1-5",
    "stable-diffusion-2-1",
    "stable-diffusion-xl-base-1.0",
    "stable-diffusion-xl-refiner-1.0",
    "sd-turbo",
    "sdxl-turbo",
    "lcm-lora-sdv1-5",
    "lcm-lora-sdxl",
    "sd-controlnet-canny",
    "sd21-controlnet-canny",
    "controlnet-canny-sdxl-1.0",
    "stable-diffusion-inpainting",
    "stable-diffusion-2-inpainting",
    "stable-diffusion-xl-1.0-inpainting-0.1",
)
_KEYS = {name: name for name in DRCT_GENERATORS}


class DrctLayout:
    """DRCT-2M, whose own archives hold fakes only.

    ::

        root/[images/]<generator>[.zip]/{train2017,val2017}/*.png              (val2017 is the test split)
        root/fake_rec_images/<generator>[.zip]/**/*.png                        (reconstructions of reals, for training)
        reals/{train2017,val2017}/*.jpg                                        (MSCOCO, the second root)

        root/<generator>/[val/]{0_real,1_fake}/*.png                           (re-arranged)

    The reals of a split are listed once, as members of the sets of all generators that have no reals of their own.
    Other folders below the second root, such as MSCOCO's ``test2017``, are left out.
    """

    expects = "[images/]<one of the 16 generators>/{train2017,val2017}, or <generator>/[val/]{0_real,1_fake}"

    def place(self, folder: Folder, corpus: str) -> Place | LeftOut | None:  # noqa: ARG002 - the sets have own names
        """See :class:`stages.scan.layouts.layout.Layout`."""
        known = known_at(folder.folders, _KEYS)
        if known is None:
            return None
        above, below = folder.folders[: known[0]], folder.folders[known[0] + 1 :]
        split = split_of((*below, *above))
        if "fake_rec_images" in (name.casefold() for name in above):
            return LeftOut("reconstruction of a real image")
        found = class_at(below)
        if found is not None:
            generator = known[1] if found[1] else None
            return Place(found[1], generator, split, (known[1],))
        return None if split is None else Place(1, known[1], split, (known[1],))
