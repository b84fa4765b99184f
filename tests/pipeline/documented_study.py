"""A folder in which the commands of README and docs can be typed as they stand: small data under the names they use."""

import re
import shutil
import zipfile

import yaml

from running import PROJECT, commit, git
from stages.demo.images import run as make_images
from stages.demo.miniatures import run as make_miniatures
from stages.demo.settings import DemoCorpus

# name of a folder of images -> what is in it; a threshold at 1 % needs 99 real ones, a sweep over generators two
_IMAGES = {
    "PHOTOS": DemoCorpus(half="left", generators=("nearest",), per_set=20, seed=3),
    "mine/train": DemoCorpus(half="left", generators=("nearest", "grid"), per_set=20, seed=0),
    "mine/test": DemoCorpus(half="right", generators=("nearest",), per_set=100, seed=1),
}
# what a page calls it -> what it is here
_ALIASES = {
    "project": {
        **dict.fromkeys(("FOLDER", "photos"), "PHOTOS"),
        "reals": "PHOTOS/real",
        "one.jpg": "PHOTOS/real/00000.png",
        "UFD": "../data/ufd",
        "ROOT": "../data",
        "heads/demo-train": "heads/mine-train",
        "scores/demo-test/demo-train": "scores/mine-test/mine-train",
        **{f"data/features/{name}": "data/features/mine-train" for name in ("demo-train", "progan")},
    },
    "home": {"UFD": "../data/ufd", "DRCT-2M": "../data/drct-2m", "MSCOCO": "../data/coco"},
}


def make(folder):
    """Write data, a home and the project that the README describes, and return the project; nothing has run in it."""
    make_miniatures(root=folder / "data", test_images=1, training_images=2)
    project = folder / "project"
    for name, corpus in _IMAGES.items():
        make_images(corpus=corpus, out=project / name)
    for home, aliases in _ALIASES.items():
        for name, target in aliases.items():
            (folder / home / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / home / name).symlink_to(folder / home / target)
    picture = project / "PHOTOS" / "real" / "00000.png"
    with zipfile.ZipFile(project / "more.zip", "w") as archive:
        archive.write(picture, "a/1.png")
    classes = ("TestSet/real_a", "TestSet/b", *(f"shots/{name}" for name in ("camera", "sdxl", "flux", "tampered")))
    for place in (*classes, "archive", "RAISE", "Synthbuster/dalle2", "Synthbuster/firefly"):
        (project / place).mkdir(parents=True)
        shutil.copy(picture, project / place)
    (project / "archive" / picture.name).rename(project / "archive" / "1.jpg")
    shutil.copytree(PROJECT / "profiles", project / "profiles")
    paper = yaml.safe_load((PROJECT / "profiles" / "paper.yaml").read_text())
    paper["extract"]["backbone"] = "demo-vit"
    (project / "profiles" / "paper.yaml").write_text(yaml.safe_dump(paper))
    (project / "params.yaml").write_text(yaml.safe_dump(_params(), sort_keys=False), encoding="utf-8")
    (project / ".gitignore").write_text("*\n!params.yaml\n!profiles\n!profiles/*\n", encoding="utf-8")
    git(project, "init", "-q")
    commit(project, "start")
    return project


def _params():
    """The study of the README's own images, with two corpora of the paper, few heads and little training."""
    demo, paper = (yaml.safe_load((PROJECT / "profiles" / f"{name}.yaml").read_text()) for name in ("demo", "paper"))
    (block,) = re.findall(r"^```yaml\n(.*?)^```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    params = demo | {"demo": {}} | yaml.safe_load(block) | {"seeds": [3407, 0], "extract": demo["extract"]}
    params["corpora"] |= {name: paper["corpora"][name] | {"views": ["clean"]} for name in ("ufd", "genimage")}
    params["heads"] = {"ltd": {"type": "ltd", "candidates": [0, 6]}, "rine": {"type": "rine", "project": 8}}
    params["extract"]["taps"] = ["cls", "ln2_cls", "embedding"]
    params["train"] |= {"epochs": 1, "validation_share": 0.2}
    return params
