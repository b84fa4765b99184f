"""The layouts without a benchmark's fixed names, all layouts by name, and the choice among them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stages.scan.benchmarks import (
    AigcDetectLayout,
    ChameleonLayout,
    DrctLayout,
    ForenSynthsLayout,
    GenImageLayout,
    SynthbusterLayout,
    UfdLayout,
)
from stages.scan.place import Layout, Place, class_at, split_word
from storage.errors import DataError, SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.scan.found import Folder

_SHARD = re.compile(r"(?P<split>.+?)-\d+(?:-of-\d+)?\.parquet!", re.IGNORECASE)


class FolderLayout(Layout):
    """Class folders at any depth, in any case; the outermost one counts.

    ::

        root/[train|val|test/][<set>/]{real|0_real|nature|photo...}/[<anything>/]*.png
        root/[train|val|test/][<set>/]{fake|1_fake|ai|synthetic...}/[<generator>/]*.png

    What lies between the root and the class folder, and below the fake class folder, names the generator and its
    test set. Real images belong to every set whose fakes lie beside them, so in ``{real, fake/a, fake/b}`` the reals
    are shared by the sets ``a`` and ``b``. A corpus without such names is one set, called like the corpus.
    """

    expects = "folders called real, 0_real, nature, photo ... and fake, 1_fake, ai, synthetic ... at any depth"

    def place(self, folder: Folder) -> Place | None:
        """Place what lies below a class folder."""
        found = class_at(folder.parts)
        if found is None:
            return None
        at, label = found
        above = folder.parts[:at]
        own = "/".join(above + folder.parts[at + 1 :] if label else above)
        return Place(label, own if label else None, folder.split, (own,), pool="/".join(above))


class CommunityForensicsLayout(FolderLayout):
    """Community Forensics (Park and Owens 2025), and Parquet files in general that state a label row by row.

    ::

        root/[data/]<split>-00000-of-00100.parquet       columns: image_data, label, model_name [, image_name, split]
        root/<generator>/{real|fake}/*.png

    The sets of Parquet files are their splits (``Systematic``, ``Manual``, ``PublicEval``, ``Commercial``): with 4,803
    models, a set a model would say nothing. Reals are not part of the full release; name them as the second root.
    """

    expects = "Parquet files with image bytes and a column label, or <generator>/{real,fake}"

    def place(self, folder: Folder) -> Place | None:
        """Place rows of equal statements, or a generator's class folder."""
        found = class_at(folder.parts)
        stated = folder.stated
        if stated is None:
            return super().place(folder) if found is not None and found[0] > 0 else None
        label = stated.label if stated.label is not None or found is None else found[1]
        if label is None:
            return None
        shard = _SHARD.fullmatch(folder.place.rpartition("/")[2])
        part = stated.split or (shard["split"] if shard else "")
        split = split_word(part)
        if split is not None and folder.split not in (None, split):
            raise DataError(
                f"{folder.place}: its rows are of the split {part!r}, but its folder is that of {folder.split!r}; "
                "rename the folder or the file"
            )
        name = "" if split else part
        return Place(label, (stated.generator or name) if label else None, split or folder.split, (name,))


class UnlabelledLayout(Layout):
    """Any folder of images of unknown origin: no label, no generator; the corpus is the only set.

    ::

        root/[<anything>/]*.png
    """

    expects = "images anywhere"

    def place(self, folder: Folder) -> Place:  # noqa: ARG002 - every folder is told
        """Place any folder."""
        return Place(None, sets=("",))


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
# Beside them: decide by what is there, and a file that names every image.
_OTHERS = ("auto", "list")
# Smaller benchmarks first: a corpus of a few sets then gets the name of the benchmark that is about these sets.
_BENCHMARKS = ("drct-2m", "synthbuster", "genimage", "forensynths", "aigcdetect", "ufd")
# Without sets of their own, these two look like any other folder; the name of the corpus or a folder tells them.
_NAMED = {"chameleon": "chameleon", "community-forensics": "communityforensics"}


def layout_name(name: str) -> str:
    """Return the name of a layout as it is.

    Raises:
        SettingError: there is none of that name.
    """
    if name not in LAYOUTS and name not in _OTHERS:
        raise SettingError(f"layout {name!r} is not known; choose from {', '.join((*_OTHERS, *LAYOUTS))}")
    return name


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
    plain = "/".join((root_name, corpus, *folders[0].folders)).casefold().replace("-", "").replace("_", "")
    for name, word in _NAMED.items():
        if word in plain and _fits(name, folders):
            return name, f"{word!r} is part of the name, and every folder fits {LAYOUTS[name].expects}"
    fitting = [name for name in _BENCHMARKS if _fits(name, folders)]
    if fitting:
        also = f"; {' and '.join(fitting[1:])} would fit too" if fitting[1:] else ""
        return fitting[0], f"every folder fits {LAYOUTS[fitting[0]].expects}{also}"
    for folder in folders:
        found = class_at(folder.parts)
        if found is not None:
            return "folder", f"no benchmark fits, and the folder {folder.parts[found[0]]!r} is called like a class"
    return "unlabelled", "no folder is called like a class, so no label is known"


def _fits(name: str, folders: Sequence[Folder]) -> bool:
    """Whether a layout can tell every folder."""
    return all(LAYOUTS[name].place(folder) is not None for folder in folders)
