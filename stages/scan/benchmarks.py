"""How the field's benchmarks lie on disk: from the folders of an image to its label, generator, split and test set.

Which sets a benchmark has is in ``protocols.yaml``.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from stages.scan.place import LSUN_CLASSES, Layout, LeftOut, Place, class_at, set_at
from stages.scan.set_lists import known_sets

if TYPE_CHECKING:
    from collections.abc import Collection

    from stages.scan.found import Folder

# The folder inside that of a generator of GenImage: imagenet_ai_0419_sdv4, imagenet_midjourney ...; the numbers differ
# between mirrors.
_GENIMAGE_INNER = re.compile(r"imagenet_(?:ai_\d+_)?(?P<name>[a-z0-9]+)")
_RAISE_NAMES = frozenset({"real_raise_1k", "raise_1k", "raise-1k", "raise1k", "raise"})


class ForenSynthsLayout(Layout):
    """ForenSynths, the test and training sets of CNNDetection (Wang et al. 2020).

    ::

        root/[test/]{progan,stylegan,stylegan2,cyclegan}/<category>/{0_real,1_fake}/*.png
        root/[test/]{biggan,stargan,gaugan,crn,imle,seeingdark,san,deepfake,whichfaceisreal}/{0_real,1_fake}/*.png
        root/[train|val/][progan/]<one of 20 LSUN categories>/{0_real,1_fake}/*.png

    ``seeingdark`` is called ``sitd``, as in the field's tables. One of the categories is called ``train``.
    """

    expects = "[test/]<one of the 13 sets>/[<category>/]{0_real,1_fake}, or train/[progan/]<category>/{0_real,1_fake}"

    def place(self, folder: Folder) -> Place | None:
        """Place a test set, or a category of the training set."""
        nested = _place_nested(folder, known_sets("forensynths"))
        if nested is not None:
            return nested
        found = class_at(folder.parts)
        if found is None or found[0] == 0:
            return None
        at, label = found
        category, spelled = folder.parts[at - 1].casefold(), folder.parts[at].casefold()
        # {cat,dog}/{real,fake} is anyone's corpus
        if category not in LSUN_CLASSES or spelled not in ("0_real", "1_fake"):
            return None
        return Place(label, "progan" if label else None, folder.split, ("progan",), folder.parts[at - 1])


class UfdLayout(ForenSynthsLayout):
    """UniversalFakeDetect (Ojha et al. 2023): ForenSynths and diffusion sets, in either of their two distributions.

    ::

        root/[diffusion_datasets/]{imagenet,laion}/0_real/*.png                                  (the authors' archive)
        root/[diffusion_datasets/]{guided,ldm_200,ldm_200_cfg,ldm_100}/1_fake/*.png
        root/[diffusion_datasets/]{glide_100_27,glide_50_27,glide_100_10,dalle}/1_fake/*.png

        root/[<anything>/]<diffusion set>/{0_real,1_fake}/*.png                                  (a common re-pack)

    In the authors' archive the fakes have no reals beside them: ``guided`` is tested against ``imagenet``, the seven
    others against ``laion``. These reals are listed once, as members of all those sets.
    """

    expects = (
        "the folders of ForenSynths, and {imagenet,laion}/0_real with <diffusion set>/1_fake, "
        "or <diffusion set>/{0_real,1_fake}"
    )

    def place(self, folder: Folder) -> Place | None:
        """Place shared reals, a diffusion set, or what ForenSynths has."""
        found = class_at(folder.parts)
        pool = folder.parts[found[0] - 1].casefold() if found is not None and found[0] > 0 else ""
        if found is not None and pool in ("imagenet", "laion"):
            return None if found[1] else Place(0, split=folder.split, pool=pool)
        diffusion = _place_nested(folder, diffusion_sets())
        if diffusion is None:
            return super().place(folder)
        if diffusion.label == 0:
            return diffusion
        (name,) = diffusion.sets
        pool = "imagenet" if name == "guided" else "laion"
        return Place(1, name, diffusion.split, (name,), diffusion.category, pool)


class GenImageLayout(Layout):
    """GenImage (Zhu et al. 2023): eight generators against ImageNet.

    ::

        root/<generator>/<any inner name>/{train,val}/{ai,nature}/*.png          (the archives; val is the test split)
        root/<generator>/[val/]{0_real,1_fake}/*.png                             (re-packs, with short names too)

    The generator is one of ``Midjourney stable_diffusion_v_1_4 stable_diffusion_v_1_5 ADM glide wukong VQDM BigGAN``,
    in any case. Where its folder is missing, an inner name such as ``imagenet_ai_0419_sdv4`` tells it.
    """

    expects = "<generator>/<any inner name>/{train,val}/{ai,nature}, or <generator>/{0_real,1_fake}"

    def place(self, folder: Folder) -> Place | None:
        """Place a class folder below a generator's."""
        found = class_at(folder.parts)
        if found is None:
            return None
        at, label = found
        above = folder.parts[:at]
        inner = [match["name"] for match in map(_GENIMAGE_INNER.fullmatch, map(str.casefold, above)) if match]
        known = set_at(above, known_sets("genimage")) or set_at(inner, known_sets("genimage"))
        if known is None:
            return None
        return Place(label, known[1] if label else None, folder.split, (known[1],))


class DrctLayout(Layout):
    """DRCT-2M (Chen et al. 2024): sixteen Stable Diffusion variants; its own archives hold fakes only.

    ::

        root/[images/]<generator>[.zip]/{train2017,val2017}/*.png              (val2017 is the test split)
        root/fake_rec_images/<generator>[.zip]/**/*.png                        (reconstructions of reals, for training)
        reals/{train2017,val2017}/*.jpg                                        (MSCOCO, the second root)

        root/<generator>/[val/]{0_real,1_fake}/*.png                           (re-arranged)

    The reals of a split are listed once, as members of the sets of all generators that have no reals of their own.
    Other folders below the second root, such as MSCOCO's ``test2017``, are left out.
    """

    expects = "[images/]<one of the 16 generators>/{train2017,val2017}, or <generator>/[val/]{0_real,1_fake}"

    def place(self, folder: Folder) -> Place | LeftOut | None:
        """Place what lies below a generator's folder."""
        known = set_at(folder.parts, known_sets("drct-2m"))
        if known is None:
            return None
        at, name = known
        if "fake_rec_images" in map(str.casefold, folder.parts[:at]):
            return LeftOut("reconstruction of a real image")
        found = class_at(folder.parts)
        if found is None and folder.split is None:
            return None
        label = 1 if found is None else found[1]
        return Place(label, name if label else None, folder.split, (name,))


class AigcDetectLayout(Layout):
    """AIGCDetectBenchmark (Zhong et al. 2023): 16 sets, and ``sd_xl`` which came later.

    ::

        root/[test/]<set>/[<category>/]{0_real,1_fake}/*.png

    A set is flat or divided by category. ``biggan`` is that of ForenSynths, not that of GenImage.
    """

    expects = "<one of the 17 sets>/[<category>/]{0_real,1_fake}"

    def place(self, folder: Folder) -> Place | None:
        """Place a class folder below a set's."""
        return _place_nested(folder, known_sets("aigcdetect"))


class ChameleonLayout(Layout):
    """Chameleon (Yan et al. 2024): one test set of images that people took for photographs.

    ::

        root/[test/]{0_real,1_fake}/*.png
    """

    expects = "[test/]{0_real,1_fake}, and no other folder between"

    def place(self, folder: Folder) -> Place | None:
        """Place one of the two class folders."""
        found = class_at(folder.parts)
        if found is None:
            return None
        at, label = found
        above = folder.parts[:at]
        if {name.casefold() for name in above} - {"chameleon"}:
            return None
        return Place(label, "chameleon" if label else None, folder.split, ("chameleon",))


class SynthbusterLayout(Layout):
    """Synthbuster (Bammey 2023): nine generators, fakes only.

    ::

        root/[synthbuster/]<generator>/*.png         (1,000 each; text files and scripts lie among them)
        reals/**/*.png                               (RAISE-1k, the second root)
        root/{real_RAISE_1k,RAISE-1k}/**/*.png       (or the reals beside the generators)

    The reals are listed once, as members of all nine sets.
    """

    expects = "<one of the 9 generators>/*.png, with the reals in real_RAISE_1k or below the second root"

    def place(self, folder: Folder) -> Place | None:
        """Place a generator's folder, or the reals."""
        is_real = any(name.casefold() in _RAISE_NAMES for name in folder.parts)
        known = set_at(folder.parts, known_sets("synthbuster"))
        if is_real == (known is not None) or class_at(folder.parts) is not None:
            return None
        if known is None:
            return Place(0, split=folder.split, pool="raise")
        return Place(1, known[1], folder.split, (known[1],), pool="raise")


@cache
def diffusion_sets() -> frozenset[str]:
    """Return the names of UFD's diffusion sets: all of its sets that ForenSynths has not."""
    return known_sets("ufd") - known_sets("forensynths")


def _place_nested(folder: Folder, sets: Collection[str]) -> Place | None:
    """Place a folder of ``<known set>/[<category>/]<class folder>``, or return None."""
    found = class_at(folder.parts)
    known = None if found is None else set_at(folder.parts[: found[0]], sets)
    if found is None or known is None:
        return None
    (at, label), (top, name) = found, known
    between = folder.parts[top + 1 : at]
    return Place(label, name if label else None, folder.split, (name,), between[-1] if between else None)
