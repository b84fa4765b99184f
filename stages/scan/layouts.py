"""The layouts without a benchmark's fixed names, all layouts by name, and the choice among them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from stages.scan import benchmarks
from stages.scan.benchmarks import CLASS_FOLDERS
from stages.scan.classes import how_to_name, split_word
from stages.scan.folder import FolderLabels
from storage.errors import DataError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stages.scan.classes import ClassNames
    from stages.scan.folder import Folder

_COMMUNITY_SETS = frozenset({"systematic", "manual", "publiceval", "commercial"})


class Layout(NamedTuple):
    """A layout: its function, and the folders it knows, in one line for messages.

    ``evidence`` are the names, in lower case, of which each path of a benchmark has one: without them its sets are
    anyone's folders of the same names.
    """

    labels: Callable[[Folder], FolderLabels | str | None]
    expects: str
    evidence: frozenset[str] = frozenset()


def _folder(folder: Folder) -> FolderLabels | None:
    """Class folders at any depth, in any case, or archives that state a label image by image.

    ::

        root/[train|val|test/][<set>/]{real|0_real|nature|photo...}/[<anything>/]*.png
        root/[train|val|test/][<set>/]{fake|1_fake|ai|synthetic...}/[<generator>/]*.png

    What lies between the root and the class folder, and below the fake class folder, names the generator and its
    test set. Real images belong to every set whose fakes lie beside them, so in ``{real, fake/a, fake/b}`` the reals
    are shared by the sets ``a`` and ``b``. A corpus without such names is one set, called like the corpus.
    """
    if folder.label is None:
        return _stated(folder)
    own = "/".join(folder.above + folder.below if folder.label else folder.above)
    generator = folder.stated.generator if folder.stated else None
    split = folder.split or (split_word(folder.stated.split or "") if folder.stated else None)
    pool = "/".join(folder.above)
    return FolderLabels(folder.label, (generator or own) if folder.label else None, split, (own,), pool=pool)


def _community_forensics(folder: Folder) -> FolderLabels | None:
    """Community Forensics (Park and Owens 2025).

    ::

        root/[data/]<split>-00000-of-00100.parquet       columns: image_data, label, model_name [, image_name, split]
        root/<generator>/{real|fake}/*.png

    The sets of Parquet files are their splits (``Systematic``, ``Manual``, ``PublicEval``, ``Commercial``): with 4,803
    models, a set a model would say nothing. Reals are not part of the full release; name them as the second root.
    """
    if folder.stated is not None:
        return _stated(folder)
    return _folder(folder) if folder.above else None


def _stated(folder: Folder) -> FolderLabels | None:
    """Label images by what their archive states, or else the folder it lies in."""
    stated = folder.stated
    label = folder.label if stated is None or stated.label is None else stated.label
    if stated is None or label is None:
        return None
    part = stated.split or (folder.shard if ".parquet!" in folder.prefix.lower() else "") or ""
    split = split_word(part)
    if split is not None and folder.split not in (None, split):
        raise DataError(
            f"{folder.prefix}: its rows are of the split {part!r}, but its folder is that of {folder.split!r}; "
            "rename the folder or the file"
        )
    name = "" if split else part
    return FolderLabels(label, (stated.generator or name) if label else None, split or folder.split, (name,))


def _unlabelled(_folder: Folder) -> FolderLabels:
    """Any folder of images of unknown origin: no label, no generator; the corpus is the only set.

    ::

        root/[<anything>/]*.png
    """
    return FolderLabels(None, sets=("",))


LAYOUTS = {
    "forensynths": Layout(
        benchmarks.forensynths,
        "[test/]<one of the 13 sets>/[<category>/]{0_real,1_fake}, or train/[progan/]<category>/{0_real,1_fake}",
        CLASS_FOLDERS,
    ),
    "ufd": Layout(
        benchmarks.ufd,
        "the folders of ForenSynths, and {imagenet,laion}/0_real with <diffusion set>/1_fake, or "
        "<diffusion set>/{0_real,1_fake}",
        CLASS_FOLDERS,
    ),
    "genimage": Layout(
        benchmarks.genimage,
        "<generator>/<any inner name>/{train,val}/{ai,nature}, or <generator>/{0_real,1_fake}",
        CLASS_FOLDERS | {"ai", "nature"},
    ),
    "drct-2m": Layout(
        benchmarks.drct,
        "[images/]<one of the 16 generators>/{train2017,val2017}, or <generator>/[val/]{0_real,1_fake}",
        CLASS_FOLDERS | {"train2017", "val2017"},
    ),
    "aigcdetect": Layout(benchmarks.aigcdetect, "<one of the 17 sets>/[<category>/]{0_real,1_fake}", CLASS_FOLDERS),
    "aigibench": Layout(benchmarks.aigibench, "[test/]<one of the 25 sets>/{0_real,1_fake}", CLASS_FOLDERS),
    "chameleon": Layout(benchmarks.chameleon, "[test/]{0_real,1_fake}, and no other folder between", CLASS_FOLDERS),
    "synthbuster": Layout(
        benchmarks.synthbuster,
        "<one of the 9 generators>/*.png, with the reals in real_RAISE_1k or below the second root",
    ),
    "community-forensics": Layout(
        _community_forensics, "Parquet files with image bytes and a column label, or <generator>/{real,fake}"
    ),
    "folder": Layout(
        _folder, "folders called real, 0_real, nature, photo ... and fake, 1_fake, ai, synthetic ... at any depth"
    ),
    "unlabelled": Layout(_unlabelled, "images anywhere"),
}
# Beside them: decide by what is there, and a file that names every image.
_OTHERS = ("auto", "list")
# Smaller benchmarks first: a corpus of a few sets then gets the name of the benchmark that is about these sets.
_BENCHMARKS = ("drct-2m", "synthbuster", "genimage", "forensynths", "aigcdetect", "ufd", "aigibench")
# Without sets of their own, these two look like any other folder; they are recognised by name.
_NAMED = {"chameleon": "chameleon", "community-forensics": "communityforensics"}


def layout_name(name: str) -> str:
    """Return the name of a layout as it is.

    Raises:
        SettingError: there is none of that name.
    """
    if name not in LAYOUTS and name not in _OTHERS:
        raise SettingError(f"layout {name!r} is not known; choose from {', '.join((*_OTHERS, *LAYOUTS))}")
    return name


def recognise(
    folders: Sequence[Folder], names: ClassNames, corpus: str, root_name: str, *, has_reals: bool
) -> tuple[str, str]:
    """Choose a layout for a corpus of unknown make.

    Args:
        folders: the folders with images, without those below the second root.
        names: names of the classes.
        corpus: name of the corpus.
        root_name: name of its folder.
        has_reals: whether there is a second root.

    Returns:
        The name of the layout, and how it was decided, in one line.
    """
    stated = [folder for folder in folders if folder.stated is not None and folder.stated.label is not None]
    if stated:
        parts = {(folder.stated.split or folder.shard or "").casefold() for folder in stated if folder.stated}
        is_community = bool(parts & _COMMUNITY_SETS)
        return "community-forensics" if is_community else "folder", "archives state a label for each image"
    if names.is_given:
        return "folder", "names of the classes were given"
    plain = re.sub("[-_]", "", "/".join((root_name, corpus, *folders[0].folders)).casefold())
    for name, word in _NAMED.items():
        if word in plain and _fits(name, folders):
            return name, f"{word!r} is part of the name, and every folder fits {LAYOUTS[name].expects}"
    fitting = [name for name in _BENCHMARKS if _fits(name, folders)]
    if "synthbuster" in fitting and not (has_reals or "synthbuster" in plain or benchmarks.is_synthbuster(folders)):
        fitting.remove("synthbuster")
    if fitting:
        also = f"; {' and '.join(fitting[1:])} would fit too" if fitting[1:] else ""
        return fitting[0], f"every folder fits {LAYOUTS[fitting[0]].expects}{also}"
    class_name = next((folder.class_name for folder in folders if folder.class_name is not None), None)
    if class_name is not None:
        return "folder", f"no benchmark fits; found the class folder {class_name!r}"
    return "unlabelled", "no real/fake folders found; images are unlabelled" + how_to_name(unnamed(folders))


def unnamed(folders: Sequence[Folder]) -> list[str]:
    """Return the names of the innermost folders where no name on the path says a class."""
    return [folder.folders[-1] for folder in folders if folder.label is None and folder.folders]


def _fits(name: str, folders: Sequence[Folder]) -> bool:
    """Whether a layout can label every folder, and each has a name that the benchmark's own copies have."""
    layout = LAYOUTS[name]
    return all(
        layout.labels(folder) is not None
        and (not layout.evidence or not layout.evidence.isdisjoint(map(str.casefold, folder.folders)))
        for folder in folders
    )
