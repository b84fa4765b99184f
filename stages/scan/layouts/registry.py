"""All layouts by name, and the choice among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.scan.classes import class_at
from stages.scan.layouts.community_forensics import CommunityForensicsLayout
from stages.scan.layouts.drct import DrctLayout
from stages.scan.layouts.flat_sets import AigcDetectLayout, ChameleonLayout, SynthbusterLayout
from stages.scan.layouts.folder import FolderLayout, UnlabelledLayout
from stages.scan.layouts.forensynths import ForenSynthsLayout
from stages.scan.layouts.genimage import GenImageLayout
from stages.scan.layouts.ufd import UfdLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.scan.found import Folder
    from stages.scan.layouts.layout import Layout

LAYOUTS: dict[str, Layout] = {
    "forensynths": ForenSynthsLayout(),
    "ufd": UfdLayout(),
    "genimage": GenImageLayout(),
    "drct-2m": DrctLayout(),
    "aigcdetect": AigcDetectLayout(),
    "chameleon": ChameleonLayout(),
    "synthbuster": SynthbusterLayout(),
    "community-forensics": CommunityForensicsLayout(),
    "folder": FolderLayout(),
    "unlabelled": UnlabelledLayout(),
}
# Smaller benchmarks first: a corpus of a few sets then gets the name of the benchmark that is about these sets.
_BENCHMARKS = ("drct-2m", "synthbuster", "genimage", "forensynths", "aigcdetect", "ufd")
# Without sets of their own, these two look like any other folder; the name of the corpus or a folder tells them.
_NAMED = {"chameleon": "chameleon", "community-forensics": "communityforensics"}


def recognise(folders: Sequence[Folder], corpus: str, root_name: str) -> tuple[str, str]:
    """Choose a layout for a corpus of unknown make.

    Args:
        folders: the folders with images, without those below the second root.
        corpus: name of the corpus.
        root_name: name of its folder.

    Returns:
        The name of the layout, and how it was decided, in one line.
    """
    if any(folder.stated is not None and folder.stated.label is not None for folder in folders):
        return "community-forensics", "Parquet files state a label for each image"
    words = "/".join((root_name, corpus, *(folders[0].folders if folders else ()))).casefold()
    plain = words.replace("-", "").replace("_", "")
    for name, word in _NAMED.items():
        if word in plain and _fits(name, folders, corpus):
            return name, f"{word!r} is part of the name, and every folder fits {LAYOUTS[name].expects}"
    fitting = [name for name in _BENCHMARKS if _fits(name, folders, corpus)]
    if fitting:
        also = f"; {' and '.join(fitting[1:])} would fit too" if fitting[1:] else ""
        return fitting[0], f"every folder fits {LAYOUTS[fitting[0]].expects}{also}"
    for folder in folders:
        found = class_at(folder.folders)
        if found is not None:
            return "folder", f"no benchmark fits, and the folder {folder.folders[found[0]]!r} is called like a class"
    return "unlabelled", "no folder is called like a class, so no label is known"


def _fits(name: str, folders: Sequence[Folder], corpus: str) -> bool:
    """Whether a layout can tell every folder."""
    return all(LAYOUTS[name].place(folder, corpus) is not None for folder in folders)
