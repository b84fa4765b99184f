"""How corpora lie on disk: one function a layout, from the folders of an image to its label, generator and test set.

Which sets a benchmark has is in ``protocols.yaml``. A function returns None where the folder does not fit, and the kind
that images are counted as where they are no part of the corpus.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from stages.scan.classes import how_to_name, is_class_spelling, split_word
from stages.scan.folder import LSUN_CLASSES, FolderLabels
from stages.scan.protocols import diffusion_sets, known_sets
from storage.errors import DataError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from stages.scan.classes import ClassNames
    from stages.scan.folder import Folder

# Folders of benchmarks and of their re-packs -> name of the set in tables.
_OTHER_SPELLINGS = {
    "seeingdark": "sitd",
    "glid": "glide",
    **dict.fromkeys(("stable_diffusion_v_1_4", "sdv14", "sdv4"), "sdv1.4"),
    **dict.fromkeys(("stable_diffusion_v_1_5", "sdv15", "sdv5"), "sdv1.5"),
}
# The folder inside that of a generator of GenImage: imagenet_ai_0419_sdv4, imagenet_midjourney ...; the numbers differ
# between mirrors.
_GENIMAGE_INNER = re.compile(r"imagenet_(?:ai_\d+_)?(?P<name>[a-z0-9]+)")
_RAISE_NAMES = frozenset({"real_raise_1k", "raise_1k", "raise-1k", "raise1k", "raise"})


class Layout(NamedTuple):
    """A layout: its function, and the folders it knows, in one line for messages."""

    labels: Callable[[Folder], FolderLabels | str | None]
    expects: str


def set_at(folders: Sequence[str], sets: Collection[str]) -> tuple[int, str] | None:
    """Return (position, name of the set) of the deepest folder that is called like one of ``sets``, or None."""
    for position in range(len(folders) - 1, -1, -1):
        spelled = folders[position].casefold()
        name = _OTHER_SPELLINGS.get(spelled, spelled)
        if name in sets:
            return position, name
    return None


def _set_above(folder: Folder, sets: Collection[str]) -> FolderLabels | None:
    """Label ``<known set>/[<category>/]<class folder>``."""
    known = None if folder.label is None else set_at(folder.above, sets)
    if known is None:
        return None
    at, name = known
    between = folder.above[at + 1 :]
    generator = name if folder.label else None
    return FolderLabels(folder.label, generator, folder.split, (name,), between[-1] if between else None)


def _forensynths(folder: Folder) -> FolderLabels | None:
    """ForenSynths, the test and training sets of CNNDetection (Wang et al. 2020).

    ::

        root/[test/]{progan,stylegan,stylegan2,cyclegan}/<category>/{0_real,1_fake}/*.png
        root/[test/]{biggan,stargan,gaugan,crn,imle,seeingdark,san,deepfake,whichfaceisreal}/{0_real,1_fake}/*.png
        root/[train|val/][progan/]<one of 20 LSUN categories>/{0_real,1_fake}/*.png

    ``seeingdark`` is called ``sitd``, as in the field's tables. One of the categories is called ``train``.
    """
    labels = _set_above(folder, known_sets("forensynths"))
    if labels is not None or folder.class_name is None or not folder.above:
        return labels
    # {cat,dog}/{real,fake} is anyone's corpus
    if folder.above[-1].casefold() not in LSUN_CLASSES or not is_class_spelling(folder.class_name):
        return None
    return FolderLabels(folder.label, "progan" if folder.label else None, folder.split, ("progan",), folder.above[-1])


def _ufd(folder: Folder) -> FolderLabels | None:
    """UniversalFakeDetect (Ojha et al. 2023): ForenSynths and diffusion sets, in either of their two distributions.

    ::

        root/[diffusion_datasets/]{imagenet,laion}/0_real/*.png                                  (the authors' archive)
        root/[diffusion_datasets/]{guided,ldm_200,ldm_200_cfg,ldm_100}/1_fake/*.png
        root/[diffusion_datasets/]{glide_100_27,glide_50_27,glide_100_10,dalle}/1_fake/*.png

        root/[<anything>/]<diffusion set>/{0_real,1_fake}/*.png                                  (a common re-pack)

    In the authors' archive the fakes have no reals beside them: ``guided`` is tested against ``imagenet``, the seven
    others against ``laion``. These reals are listed once, as members of all those sets.
    """
    pool = folder.above[-1].casefold() if folder.class_name is not None and folder.above else ""
    if pool in {"imagenet", "laion"}:
        return None if folder.label else FolderLabels(0, split=folder.split, pool=pool)
    diffusion = _set_above(folder, diffusion_sets())
    if diffusion is None or diffusion.label == 0:
        return diffusion or _forensynths(folder)
    pool = "imagenet" if diffusion.sets == ("guided",) else "laion"
    return FolderLabels(1, diffusion.generator, diffusion.split, diffusion.sets, diffusion.category, pool)


def _genimage(folder: Folder) -> FolderLabels | None:
    """GenImage (Zhu et al. 2023): eight generators against ImageNet.

    ::

        root/<generator>/<any inner name>/{train,val}/{ai,nature}/*.png          (the archives; val is the test split)
        root/<generator>/[val/]{0_real,1_fake}/*.png                             (re-packs, with short names too)

    The generator is one of ``Midjourney stable_diffusion_v_1_4 stable_diffusion_v_1_5 ADM glide wukong VQDM BigGAN``,
    in any case. Where its folder is missing, an inner name such as ``imagenet_ai_0419_sdv4`` tells it.
    """
    if folder.label is None:
        return None
    inner = [match["name"] for name in folder.above if (match := _GENIMAGE_INNER.fullmatch(name.casefold()))]
    known = set_at(folder.above, known_sets("genimage")) or set_at(inner, known_sets("genimage"))
    if known is None:
        return None
    return FolderLabels(folder.label, known[1] if folder.label else None, folder.split, (known[1],))


def _drct(folder: Folder) -> FolderLabels | str | None:
    """DRCT-2M (Chen et al. 2024): sixteen Stable Diffusion variants; its own archives hold fakes only.

    ::

        root/[images/]<generator>[.zip]/{train2017,val2017}/*.png              (val2017 is the test split)
        root/fake_rec_images/<generator>[.zip]/**/*.png                        (reconstructions of reals, for training)
        reals/{train2017,val2017}/*.jpg                                        (MSCOCO, the second root)

        root/<generator>/[val/]{0_real,1_fake}/*.png                           (re-arranged)

    The reals of a split are listed once, as members of the sets of all generators that have no reals of their own.
    Other folders below the second root, such as MSCOCO's ``test2017``, are left out.
    """
    known = set_at(folder.parts, known_sets("drct-2m"))
    if known is None:
        return None
    at, name = known
    if "fake_rec_images" in map(str.casefold, folder.parts[:at]):
        return "reconstruction of a real image"
    if folder.label is None and folder.split is None:
        return None
    label = 1 if folder.label is None else folder.label
    return FolderLabels(label, name if label else None, folder.split, (name,))


def _aigcdetect(folder: Folder) -> FolderLabels | None:
    """AIGCDetectBenchmark (Zhong et al. 2023): 16 sets, and ``sd_xl`` which came later.

    ::

        root/[test/]<set>/[<category>/]{0_real,1_fake}/*.png

    A set is flat or divided by category. ``biggan`` is that of ForenSynths, not that of GenImage.
    """
    return _set_above(folder, known_sets("aigcdetect"))


def _chameleon(folder: Folder) -> FolderLabels | None:
    """Chameleon (Yan et al. 2024): one test set of images that people took for photographs.

    ::

        root/[test/]{0_real,1_fake}/*.png
    """
    if folder.label is None or {name.casefold() for name in folder.above} - {"chameleon"}:
        return None
    return FolderLabels(folder.label, "chameleon" if folder.label else None, folder.split, ("chameleon",))


def _synthbuster(folder: Folder) -> FolderLabels | None:
    """Synthbuster (Bammey 2023): nine generators, fakes only.

    ::

        root/[synthbuster/]<generator>/*.png         (1,000 each; text files and scripts lie among them)
        reals/**/*.png                               (RAISE-1k, the second root)
        root/{real_RAISE_1k,RAISE-1k}/**/*.png       (or the reals beside the generators)

    The reals are listed once, as members of all nine sets.
    """
    is_real = any(name.casefold() in _RAISE_NAMES for name in folder.parts)
    known = set_at(folder.parts, known_sets("synthbuster"))
    if is_real == (known is not None) or folder.label is not None:
        return None
    if known is None:
        return FolderLabels(0, split=folder.split, pool="raise")
    return FolderLabels(1, known[1], folder.split, (known[1],), pool="raise")


def _folder(folder: Folder) -> FolderLabels | None:
    """Class folders at any depth, in any case.

    ::

        root/[train|val|test/][<set>/]{real|0_real|nature|photo...}/[<anything>/]*.png
        root/[train|val|test/][<set>/]{fake|1_fake|ai|synthetic...}/[<generator>/]*.png

    What lies between the root and the class folder, and below the fake class folder, names the generator and its
    test set. Real images belong to every set whose fakes lie beside them, so in ``{real, fake/a, fake/b}`` the reals
    are shared by the sets ``a`` and ``b``. A corpus without such names is one set, called like the corpus.
    """
    if folder.label is None:
        return None
    own = "/".join(folder.above + folder.below if folder.label else folder.above)
    return FolderLabels(folder.label, own if folder.label else None, folder.split, (own,), pool="/".join(folder.above))


def _community_forensics(folder: Folder) -> FolderLabels | None:
    """Community Forensics (Park and Owens 2025), and archives in general that state a label image by image.

    ::

        root/[data/]<split>-00000-of-00100.parquet       columns: image_data, label, model_name [, image_name, split]
        root/<generator>/{real|fake}/*.png

    The sets of Parquet files are their splits (``Systematic``, ``Manual``, ``PublicEval``, ``Commercial``): with 4,803
    models, a set a model would say nothing. Reals are not part of the full release; name them as the second root.
    """
    stated = folder.stated
    if stated is None:
        return _folder(folder) if folder.above else None
    label = folder.label if stated.label is None else stated.label
    if label is None:
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
        _forensynths,
        "[test/]<one of the 13 sets>/[<category>/]{0_real,1_fake}, or train/[progan/]<category>/{0_real,1_fake}",
    ),
    "ufd": Layout(
        _ufd,
        "the folders of ForenSynths, and {imagenet,laion}/0_real with <diffusion set>/1_fake, or "
        "<diffusion set>/{0_real,1_fake}",
    ),
    "genimage": Layout(
        _genimage, "<generator>/<any inner name>/{train,val}/{ai,nature}, or <generator>/{0_real,1_fake}"
    ),
    "drct-2m": Layout(
        _drct, "[images/]<one of the 16 generators>/{train2017,val2017}, or <generator>/[val/]{0_real,1_fake}"
    ),
    "aigcdetect": Layout(_aigcdetect, "<one of the 17 sets>/[<category>/]{0_real,1_fake}"),
    "chameleon": Layout(_chameleon, "[test/]{0_real,1_fake}, and no other folder between"),
    "synthbuster": Layout(
        _synthbuster, "<one of the 9 generators>/*.png, with the reals in real_RAISE_1k or below the second root"
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
_BENCHMARKS = ("drct-2m", "synthbuster", "genimage", "forensynths", "aigcdetect", "ufd")
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


def recognise(folders: Sequence[Folder], names: ClassNames, corpus: str, root_name: str) -> tuple[str, str]:
    """Choose a layout for a corpus of unknown make.

    Args:
        folders: the folders with images, without those below the second root.
        names: names of the classes.
        corpus: name of the corpus.
        root_name: name of its folder.

    Returns:
        The name of the layout, and how it was decided, in one line.
    """
    if any(folder.stated is not None and folder.stated.label is not None for folder in folders):
        return "community-forensics", "archives state a label for each image"
    if names.is_given:
        return "folder", "names of the classes were given"
    plain = "/".join((root_name, corpus, *folders[0].folders)).casefold().replace("-", "").replace("_", "")
    for name, word in _NAMED.items():
        if word in plain and _fits(name, folders):
            return name, f"{word!r} is part of the name, and every folder fits {LAYOUTS[name].expects}"
    fitting = [name for name in _BENCHMARKS if _fits(name, folders)]
    if fitting:
        also = f"; {' and '.join(fitting[1:])} would fit too" if fitting[1:] else ""
        return fitting[0], f"every folder fits {LAYOUTS[fitting[0]].expects}{also}"
    class_name = next((folder.class_name for folder in folders if folder.class_name is not None), None)
    if class_name is not None:
        return "folder", f"no benchmark fits, and the folder {class_name!r} is called like a class"
    return "unlabelled", "no folder is called like a class, so no label is known" + how_to_name(unnamed(folders))


def unnamed(folders: Sequence[Folder]) -> list[str]:
    """Return the names of the innermost folders where no name on the path says a class."""
    return [folder.folders[-1] for folder in folders if folder.label is None and folder.folders]


def _fits(name: str, folders: Sequence[Folder]) -> bool:
    """Whether a layout can label every folder."""
    return all(LAYOUTS[name].labels(folder) is not None for folder in folders)
