"""Layouts without a benchmark's fixed names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.scan.classes import SPLITS, class_at, split_of
from stages.scan.layouts.layout import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.scan.found import Folder


class FolderLayout:
    """Class folders at any depth, in any case.

    ::

        root/[train|val|test/][<set>/]{real|0_real|nature|photo...}/[<anything>/]*.png
        root/[train|val|test/][<set>/]{fake|1_fake|ai|synthetic...}/[<generator>/]*.png

    What lies between the root and the class folder, and below the fake class folder, names the generator and its
    test set. Real images belong to every set whose fakes lie beside them, so in ``{real, fake/a, fake/b}`` the reals
    are shared by the sets ``a`` and ``b``. A corpus without such names is one set, called like the corpus.
    """

    expects = "folders called real, 0_real, nature, photo ... and fake, 1_fake, ai, synthetic ... at any depth"

    def place(self, folder: Folder, corpus: str) -> Place | None:
        """See :class:`stages.scan.layouts.layout.Layout`."""
        found = class_at(folder.folders)
        if found is None:
            return None
        at, label = found
        above = tuple(name for name in folder.folders[:at] if name.casefold() not in SPLITS)
        below = tuple(name for name in folder.folders[at + 1 :] if name.casefold() not in SPLITS)
        split, pool = split_of(folder.folders), "/".join(above)
        if label == 0:
            return Place(0, split=split, sets=(_set_name(above, corpus),), pool=pool)
        own = _set_name(above + below, corpus)
        return Place(1, own, split, (own,), pool=pool)


class UnlabelledLayout:
    """Any folder of images of unknown origin: no label, no generator; the corpus is the only set.

    ::

        root/[<anything>/]*.png
    """

    expects = "images anywhere"

    def place(self, folder: Folder, corpus: str) -> Place:  # noqa: ARG002 - every folder is told
        """See :class:`stages.scan.layouts.layout.Layout`."""
        return Place(None, sets=(corpus,))


def _set_name(folders: Sequence[str], corpus: str) -> str:
    return "/".join(folders) or corpus
