"""Community Forensics (Park and Owens 2025), and Parquet files of images in general."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stages.scan.classes import SPLITS, class_at, split_of
from stages.scan.layouts.folder import FolderLayout
from stages.scan.layouts.layout import Place

if TYPE_CHECKING:
    from stages.scan.found import Folder

_SHARD = re.compile(r"(?P<split>.+?)-\d+(?:-of-\d+)?\.parquet!", re.IGNORECASE)


class CommunityForensicsLayout:
    """Images in Parquet files that state label and generator row by row, or the same in folders.

    ::

        root/[data/]<split>-00000-of-00100.parquet       columns: image_data, label, model_name [, image_name, split]
        root/<generator>/{real|fake}/*.png

    The sets of Parquet files are their splits (``Systematic``, ``Manual``, ``PublicEval``, ``Commercial``): with 4,803
    models, a set a model would say nothing. Reals are not part of the full release; name them as the second root.
    """

    expects = "Parquet files with image bytes and a column label, or <generator>/{real,fake}"

    def place(self, folder: Folder, corpus: str) -> Place | None:
        """See :class:`stages.scan.layouts.layout.Layout`."""
        stated = folder.stated
        if stated is None:
            found = class_at(folder.folders)
            inside = found is not None and found[0] > 0
            return FolderLayout().place(folder, corpus) if inside else None
        label = stated.label
        if label is None:
            found = class_at(folder.folders)
            if found is None:
                return None
            label = found[1]
        shard = _SHARD.fullmatch(folder.place.rpartition("/")[2])
        part = stated.split or (shard["split"] if shard else "")
        is_split = part.casefold() in SPLITS
        split = split_of((part,)) if is_split else None
        name = corpus if is_split or not part else part
        return Place(label, (stated.generator or name) if label else None, split, (name,))
