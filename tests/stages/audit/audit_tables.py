"""Indexes and features as extraction writes them, from short descriptions of images."""

import numpy as np
import pyarrow as pa

from storage.index import INDEX_NAME, INDEX_SCHEMA, Index, ShardRecord, write_index
from storage.shard import write_shard
from storage.spec import FeatureSpec

USUAL = {
    **dict.fromkeys(("generator", "split", "category", "jpeg_quality", "error")),
    "size_bytes": 1,
    "mtime_ns": 1,
    "format": "PNG",
    "width": 256,
    "height": 256,
    "mode": "RGB",
    "status": "ok",
    "shard": "shard-00000.h5",
    "row": 0,
    "sets": ["s"],
}


def index_of(*images):
    """Make an index; an image is a mapping of the columns that matter, the others have usual values."""
    rows = [
        USUAL | {"path": f"{number:04d}.png", "sha256": f"{number:064d}"} | image for number, image in enumerate(images)
    ]
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def write_features(folder, *images, size=224, geometry="crop224-pad"):
    """Write a view of images that look all different, but those with the same ``like`` nearly the same."""
    usable = [image for image in images if image.get("status") != "failed"]
    embedding = np.eye(len(usable), 64, dtype=np.float16)
    for row, image in enumerate(usable):
        if "like" in image:
            embedding[row] = 0.02 * embedding[row] + np.eye(64, dtype=np.float16)[63 - image["like"]]
    spec = FeatureSpec(
        backbone="clip-vit-l-14", weights="0" * 64, activation="quickgelu", blocks=2, stored_blocks=(0, 1), width=4,
        embedding=64, taps=("embedding",), view={"geometry": geometry, "size": size}, mean=(0, 0, 0), std=(1, 1, 1),
        precision="fp32", extractor=1,
    )  # fmt: skip
    sha256 = write_shard(folder / "shard-00000.h5", {"embedding": embedding}, spec)
    rows = iter(range(len(usable)))
    described = [{key: value for key, value in image.items() if key != "like"} for image in images]
    table = index_of(
        *[
            image | ({"row": None, "shard": None} if image.get("status") == "failed" else {"row": next(rows)})
            for image in described
        ]
    )
    record = ShardRecord("shard-00000.h5", (folder / "shard-00000.h5").stat().st_size, sha256, len(usable))
    write_index(folder / INDEX_NAME, Index(table, spec, "toy", (record,)))
    return folder
