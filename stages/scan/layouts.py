"""How a corpus lies on disk: a layout tells label, generator, split and sets of every file from its path."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol

from storage import names
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.scan.walk import FoundFile

REAL_NAMES = frozenset({"real", "0_real", "reals", "nature", "natural", "photo", "photos"})
FAKE_NAMES = frozenset({"fake", "1_fake", "fakes", "ai", "synthetic", "generated"})
SPLIT_NAMES = frozenset({"train", "val", "valid", "validation", "test"})


class Layout(Protocol):
    """Tells the manifest columns ``label, generator, split, sets`` of all files of a corpus."""

    def label(self, files: Sequence[FoundFile], corpus: str) -> list[dict[str, Any]]:
        """Return one mapping a file, in the order given."""


class FolderLayout:
    """Class folders at any depth, in any case.

    ::

        root/[train|val|test/][<set>/]{real|0_real|nature|photo...}/[<anything>/]*.png
        root/[train|val|test/][<set>/]{fake|1_fake|ai|synthetic...}/[<generator>/]*.png

    What lies between the root and the class folder, and below the fake class folder, names the generator and its
    test set. Real images belong to every set whose fakes lie beside them, so in ``{real, fake/a, fake/b}`` the reals
    are shared by the sets ``a`` and ``b``. A corpus without such names is one set, called like the corpus.
    """

    def label(self, files: Sequence[FoundFile], corpus: str) -> list[dict[str, Any]]:
        """See :class:`Layout`.

        Raises:
            DataError: a file lies in no class folder.
        """
        placed = [_place(file) for file in files]
        fakes_beside = defaultdict(set)
        for above, label, below, _ in placed:
            if label == 1:
                fakes_beside[above].add(_set_name(above + below, corpus))
        rows = []
        for above, label, below, split in placed:
            own = _set_name(above + below, corpus) if label == 1 else _set_name(above, corpus)
            sets = [own] if label == 1 else sorted(fakes_beside.get(above, {own}))
            rows.append({"label": label, "generator": own if label == 1 else None, "split": split, "sets": sets})
        return rows


class UnlabelledLayout:
    """Any folder of images of unknown origin: no label, no generator; the corpus is the only set."""

    def label(self, files: Sequence[FoundFile], corpus: str) -> list[dict[str, Any]]:
        """See :class:`Layout`."""
        return [{"label": None, "generator": None, "split": None, "sets": [corpus]} for _ in files]


class AutoLayout:
    """``folder`` where a folder's name tells a class, ``unlabelled`` where none does."""

    def label(self, files: Sequence[FoundFile], corpus: str) -> list[dict[str, Any]]:
        """See :class:`Layout`."""
        told = any(part.casefold() in REAL_NAMES | FAKE_NAMES for file in files for part in file.parts[:-1])
        layout = FolderLayout() if told else UnlabelledLayout()
        return layout.label(files, corpus)


LAYOUTS: dict[str, Layout] = {"folder": FolderLayout(), "unlabelled": UnlabelledLayout(), "auto": AutoLayout()}


def _place(file: FoundFile) -> tuple[tuple[str, ...], int, tuple[str, ...], str | None]:
    """Return (folders above the class folder without the split, label, folders below it, split)."""
    folders = [names.to_text(part) for part in file.parts[:-1]]
    classes = [position for position, folder in enumerate(folders) if folder.casefold() in REAL_NAMES | FAKE_NAMES]
    if not classes:
        raise DataError(
            f"cannot tell whether {'/'.join(folders) or 'the root'}/{names.to_text(file.parts[-1])} is real or "
            f"synthetic: none of its folders is called {', '.join(sorted(REAL_NAMES))} or "
            f"{', '.join(sorted(FAKE_NAMES))}; rename the folder, or scan with --layout unlabelled"
        )
    at = classes[-1]
    split = next((folder.casefold() for folder in folders if folder.casefold() in SPLIT_NAMES), None)
    above = tuple(folder for folder in folders[:at] if folder.casefold() not in SPLIT_NAMES)
    return above, int(folders[at].casefold() in FAKE_NAMES), tuple(folders[at + 1 :]), split


def _set_name(folders: Sequence[str], corpus: str) -> str:
    return "/".join(folders) or corpus
