"""Tiny copies of every benchmark as it lies on disk, with the traps that users met."""

import io
import re
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from running import PROJECT
from stages.demo.miniatures import DRCT, GENIMAGE, UFD_LAION
from stages.scan.protocols import set_list
from stages.scan.run import run
from storage.errors import DataError

FIELD = PROJECT / "tests" / "data" / "field"

NESTED = ("progan", "stylegan", "stylegan2", "cyclegan")
FLAT = ("biggan", "stargan", "gaugan", "crn", "imle", "seeingdark", "san", "deepfake", "whichfaceisreal")
AIGC_FLAT = (
    *("biggan", "stargan", "gaugan", "whichfaceisreal", "ADM", "Glide", "Midjourney", "stable_diffusion_v_1_4"),
    *("stable_diffusion_v_1_5", "VQDM", "wukong", "DALLE2"),
)
SYNTHBUSTER = (
    *("dalle2", "dalle3", "stable-diffusion-1-3", "stable-diffusion-1-4", "stable-diffusion-2"),
    *("stable-diffusion-xl", "glide", "firefly", "midjourney-v5"),
)


def scanned(root, layout="auto", **options):
    """Scan as the corpus `mini`: path -> row of the manifest, and the summary."""
    table, summary = run(corpus="mini", root=root, layout=layout, **options)
    return {row["path"]: row for row in table.to_pylist()}, summary


def labels(root, layout="auto", **options):
    """Folder -> label of its images."""
    rows, _ = scanned(root, layout, **options)
    return {path.rpartition("/")[0]: row["label"] for path, row in rows.items()}


def members(rows):
    """Set -> [real, synthetic] images."""
    found = {}
    for row in rows.values():
        for name in row["sets"]:
            found.setdefault(name, [0, 0])[row["label"]] += 1
    return found


def refusal(root, pattern, layout="auto", **options):
    """Check that a scan is refused in one line."""
    with pytest.raises(DataError) as caught:
        run(corpus="mini", root=root, layout=layout, **options)
    assert re.search(pattern, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def picture(name, *, size=(12, 10), kind="PNG"):
    """Encoded noise that is different for every name."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    pixels = draw.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write(root, *paths):
    """Write one picture per path; its bytes are decided by the path, the encoder by the extension."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = "JPEG" if path.lower().endswith((".jpg", ".jpeg")) else "PNG"
        file.write_bytes(picture(path, kind=kind))


def forensynths(root):
    """Test and training sets; the categories include the one that is called `train`."""
    for name in NESTED:
        for category in ("horse", "train"):
            write(root, f"test/{name}/{category}/0_real/00.png", f"test/{name}/{category}/1_fake/00.PNG")
    for name in FLAT:
        write(root, f"test/{name}/0_real/n01440764.10026.jpg", f"test/{name}/1_fake/x.png.jpg")
    write(root, "train/chair/0_real/1.png", "train/chair/1_fake/2.png", "train/train/1_fake/3.png")
    write(root, "train/train/0_real/4.png")
    (root / "test" / "progan" / "readme.txt").write_text("notes")


def ufd_archive(root):
    """The authors' distribution: fakes-only folders, two folders of shared reals."""
    write(root, *(f"{name}/0_real/a.png" for name in ("progan/car", "seeingdark")))
    write(root, *(f"{name}/1_fake/b.png" for name in ("progan/car", "seeingdark")))
    for pool in ("imagenet", "laion"):
        write(root, f"diffusion_datasets/{pool}/0_real/r1.jpg", f"diffusion_datasets/{pool}/0_real/r2.jpg")
    for name in ("guided", *UFD_LAION):
        write(root, f"diffusion_datasets/{name}/1_fake/1.png")


def ufd_repack(root):
    """Every diffusion set with reals of its own."""
    write(root, "biggan/0_real/1.png", "biggan/1_fake/2.png")
    for name in ("guided", *UFD_LAION):
        write(root, f"{name}/0_real/1.png", f"{name}/1_fake/1.png")


def genimage(root):
    """The archives, with inner names of several mirrors."""
    for generator, inner in (GENIMAGE | {"glide": "imagenet_ai_0123_glide", "VQDM": "some other name"}).items():
        write(
            root, f"{generator}/{inner}/val/nature/ILSVRC2012_val_1.JPEG", f"{generator}/{inner}/val/ai/1_sd.v1.4_2.png"
        )
    write(root, "ADM/imagenet_ai_0508_adm/train/nature/n1.JPEG", "ADM/imagenet_ai_0508_adm/train/ai/2.PNG")


def genimage_repack(root):
    """The short names of the LTD authors."""
    for key in ("adm", "midjourney", "sdv1.4", "sdv1.5", "glid", "vqdm", "wukong", "biggan"):
        write(root, f"{key}/0_real/1.jpg", f"{key}/1_fake/2.png")


def drct(root, reals):
    """Fakes only, some in archives, one archive beside its unpacked folder; reals from MSCOCO."""
    for name in DRCT[1:]:
        write(root, f"images/{name}/val2017/000000000139.png")
    write(root, f"images/{DRCT[1]}/train2017/1.png", "fake_rec_images/stable-diffusion-v1-4/train2017/1.png")
    packed = {f"{DRCT[0]}/val2017/1.png": picture("packed 1"), f"{DRCT[0]}/notes.txt": b"x"}
    pack(root / "images" / f"{DRCT[0]}.zip", packed)
    pack(root / "images" / f"{DRCT[2]}.zip", {f"{DRCT[2]}/val2017/000000000139.png": picture("twin")})
    write(reals, "val2017/000000000139.jpg", "val2017/000000000285.jpg", "train2017/000000000009.jpg")
    write(reals, "unlabeled2017/000000000008.jpg")


def drct_rearranged(root):
    """As LTD arranges it."""
    for name in DRCT:
        write(root, f"{name}/val/0_real/1.jpg", f"{name}/val/1_fake/2.png")


def aigcdetect(root):
    """Flat and class-nested sets."""
    for name in ("progan", "stylegan", "cyclegan", "stylegan2"):
        write(root, f"{name}/car/0_real/1.png", f"{name}/car/1_fake/2.png")
    for name in AIGC_FLAT:
        write(root, f"{name}/0_real/1.jpg", f"{name}/1_fake/2.PNG")


def aigibench(root):
    for name in set_list("aigibench25").members:
        write(root, f"test/{name.upper()}/0_real/1.png", f"test/{name.upper()}/1_fake/2.png")


def chameleon(root):
    write(root, "test/0_real/1.jpg", "test/0_real/2.jpeg", "test/1_fake/a.b.c.jpg")


def synthbuster(root, reals):
    """Stray text files and scripts; reals as a second root."""
    for name in SYNTHBUSTER:
        write(root, f"synthbuster/{name}/r0a1.v2.png")
        (root / "synthbuster" / name / "prompts.txt").write_text("a cat")
    (root / "synthbuster" / "make.py").write_text("pass")
    write(reals, "r0a1.PNG", "deeper/r0a2.png")


def community_folders(root):
    for name in ("stable.diffusion.v1.4", "dcgan"):
        write(root, f"{name}/real/1.png", f"{name}/fake/sd.v1.5_seed.42.png")


def community_parquet(root):
    """Two shards of different splits; rows in small groups."""
    for split, names in (("PublicEval", ("a", "b", "c")), ("Manual", ("d", "e"))):
        rows = [
            {
                "image_name": f"{name}.v1.png",
                "image_data": picture(name),
                "model_name": None if at == 0 else f"model.{name}",
                "label": "real" if at == 0 else "fake",
            }
            for at, name in enumerate(names)
        ]
        (root / "data").mkdir(exist_ok=True)
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, root / "data" / f"{split}-00000-of-00001.parquet", row_group_size=2)


def folders(root):
    """No benchmark: reals beside two generators, names in several cases and with dots."""
    write(root, "REAL/1.png", "Real_not/../REAL/2.png", "fake/stable.diffusion.v1.4/sd.v1.5_seed.42.png")
    write(root, "fake/other/x.png.jpg")


def pack(file, members):
    """Write a zip archive."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def tar_of(file, members, **fields):
    """Write a tar file of (name, content or ``TarInfo``)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", **fields) as archive:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if isinstance(content, bytes):
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)


def webdataset(file, *examples):
    """Write a tar file of examples: extension -> content, beside an image each."""
    tar_of(
        file,
        [
            (f"{number:06d}.{extension}", content)
            for number, example in enumerate(examples)
            for extension, content in (("png", picture(f"{number}")), *example.items())
        ],
    )
