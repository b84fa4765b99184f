"""ForenSynths, the test and training sets of CNNDetection (Wang et al. 2020), and what is built like it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.scan.classes import class_at, split_of
from stages.scan.layouts.layout import Place, known_at

if TYPE_CHECKING:
    from stages.scan.found import Folder

# Name of the folder in lower case -> name of the set in tables.
FORENSYNTHS_KEYS = {
    name: name
    for name in (
        *("progan", "stylegan", "stylegan2", "biggan", "cyclegan", "stargan", "gaugan"),
        *("deepfake", "san", "crn", "imle", "whichfaceisreal", "sitd"),
    )
} | {"seeingdark": "sitd"}
LSUN_CLASSES = frozenset(
    {
        *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    }
)


class ForenSynthsLayout:
    """ForenSynths.

    ::

        root/[test/]{progan,stylegan,stylegan2,cyclegan}/<category>/{0_real,1_fake}/*.png
        root/[test/]{biggan,stargan,gaugan,crn,imle,seeingdark,san,deepfake,whichfaceisreal}/{0_real,1_fake}/*.png
        root/[train|val/][progan/]<one of 20 LSUN categories>/{0_real,1_fake}/*.png

    ``seeingdark`` is called ``sitd``, as in the field's tables. One of the categories is called ``train``: a split is
    looked for above the generator, or above the category, only.
    """

    expects = "[test/]<one of the 13 sets>/[<category>/]{0_real,1_fake}, or train/[progan/]<category>/{0_real,1_fake}"

    def place(self, folder: Folder, corpus: str) -> Place | None:  # noqa: ARG002 - the sets have names of their own
        """See :class:`stages.scan.layouts.layout.Layout`."""
        nested = place_nested(folder.folders, FORENSYNTHS_KEYS)
        if nested is not None:
            return nested
        found = class_at(folder.folders)
        if found is None or found[0] == 0 or folder.folders[found[0] - 1].casefold() not in LSUN_CLASSES:
            return None
        at, label = found
        split = split_of(folder.folders[: at - 1])
        return Place(label, "progan" if label else None, split, ("progan",), folder.folders[at - 1])


def place_nested(folders: tuple[str, ...], keys: dict[str, str]) -> Place | None:
    """Place a folder of ``[split/]<known set>/[split/][<category>/]<class folder>``, or return None.

    Args:
        folders: from the root down.
        keys: folder name in lower case -> name of the set.
    """
    found = class_at(folders)
    known = None if found is None else known_at(folders[: found[0]], keys)
    if found is None or known is None:
        return None
    (at, label), (top, key) = found, known
    between = folders[top + 1 : at]
    split = split_of(folders[:top])
    # one of the categories is called train
    if split is None and between and (len(between) > 1 or between[0].casefold() != "train"):
        split = split_of(between[:1])
        between = between if split is None else between[1:]
    return Place(label, key if label else None, split, (key,), between[-1] if between else None)
