"""Indexes and features as extraction writes them, from short descriptions of images."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from planted import SPEC, write_rows
from storage.index import INDEX_SCHEMA

USUAL = {"format": "PNG", "width": 256, "height": 256, "mode": "RGB", "status": "ok", "sets": ["s"], "size_bytes": 1}
EMBEDDING = 64


def described(images):
    """Rows of an index; an image is a mapping of the columns that matter, the others have usual values."""
    return [
        USUAL | {"mtime_ns": 1, "path": f"{number:04d}.png", "sha256": f"{number:064d}"} | image
        for number, image in enumerate(images)
    ]


def index_of(*images):
    return pa.Table.from_pylist(described(images), schema=INDEX_SCHEMA)


def write_features(folder, *images, size=224, geometry="crop224-pad"):
    """Write a view of images that look all different, but those with the same ``like`` nearly the same."""
    usable = [image for image in images if image.get("status") != "failed"]
    embedding = np.eye(len(usable), EMBEDDING, dtype=np.float16)
    for row, image in enumerate(usable):
        if "like" in image:
            embedding[row] = 0.02 * embedding[row] + np.eye(EMBEDDING, dtype=np.float16)[EMBEDDING - 1 - image["like"]]
    view = {"geometry": geometry, "size": size}
    spec = replace(SPEC, backbone="clip-vit-l-14", embedding=EMBEDDING, taps=("embedding",), view=view)
    rows = described([{key: value for key, value in image.items() if key != "like"} for image in images])
    return write_rows(folder, spec, {"embedding": embedding}, rows, corpus="toy")
