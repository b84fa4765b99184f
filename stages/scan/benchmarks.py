"""How the field's benchmarks lie on disk: one function per benchmark, from the folders of an image to what it is.

Which sets a benchmark has is in ``protocols.yaml``. A function returns None where the folder does not fit, and the kind
that images are counted as where they are no part of the corpus.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stages.scan.folder import LSUN_CLASSES, FolderLabels
from stages.scan.protocols import diffusion_sets, known_sets

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stages.scan.folder import Folder

CLASS_FOLDERS = frozenset({"0_real", "1_fake"})  # as the field's benchmarks call them
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
_FEW_SETS = 5  # of the nine of Synthbuster: folders called `glide` and `firefly` may hold anything


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


def forensynths(folder: Folder) -> FolderLabels | None:
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
    if folder.above[-1].casefold() not in LSUN_CLASSES or folder.class_name.casefold() not in CLASS_FOLDERS:
        return None
    return FolderLabels(folder.label, "progan" if folder.label else None, folder.split, ("progan",), folder.above[-1])


def ufd(folder: Folder) -> FolderLabels | None:
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
        return diffusion or forensynths(folder)
    pool = "imagenet" if diffusion.sets == ("guided",) else "laion"
    return FolderLabels(1, diffusion.generator, diffusion.split, diffusion.sets, diffusion.category, pool)


def genimage(folder: Folder) -> FolderLabels | None:
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


def drct(folder: Folder) -> FolderLabels | str | None:
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


def aigcdetect(folder: Folder) -> FolderLabels | None:
    """AIGCDetectBenchmark (Zhong et al. 2023): 16 sets, and ``sd_xl`` which came later.

    ::

        root/[test/]<set>/[<category>/]{0_real,1_fake}/*.png

    A set is flat or divided by category. ``biggan`` is that of ForenSynths, not that of GenImage.
    """
    return _set_above(folder, known_sets("aigcdetect"))


def aigibench(folder: Folder) -> FolderLabels | None:
    """AIGIBench (Li et al. 2025): 25 test sets, among them faces that were swapped and images from social media.

    ::

        root/[test/]<set>/{0_real,1_fake}/*
    """
    return _set_above(folder, known_sets("aigibench"))


def chameleon(folder: Folder) -> FolderLabels | None:
    """Chameleon (Yan et al. 2024): one test set of images that people took for photographs.

    ::

        root/[test/]{0_real,1_fake}/*.png
    """
    if folder.label is None or {name.casefold() for name in folder.above} - {"chameleon"}:
        return None
    return FolderLabels(folder.label, "chameleon" if folder.label else None, folder.split, ("chameleon",))


def synthbuster(folder: Folder) -> FolderLabels | None:
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


def is_synthbuster(folders: Sequence[Folder]) -> bool:
    """Tell whether folders called like Synthbuster's generators are its own: the reals lie beside them, or most do."""
    names = {name.casefold() for folder in folders for name in folder.parts}
    return not names.isdisjoint(_RAISE_NAMES) or len(names & known_sets("synthbuster")) >= _FEW_SETS
