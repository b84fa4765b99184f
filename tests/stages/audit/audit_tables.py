"""Index tables as extraction writes them, from short descriptions of images."""

import pyarrow as pa

from storage.index import INDEX_SCHEMA


def index_of(*images):
    """Make an index; an image is a mapping of the columns that matter, the others have usual values."""
    usual = {
        "generator": None,
        "split": None,
        "category": None,
        "size_bytes": 1,
        "mtime_ns": 1,
        "format": "PNG",
        "width": 256,
        "height": 256,
        "mode": "RGB",
        "jpeg_quality": None,
        "status": "ok",
        "error": None,
        "shard": "shard-00000.h5",
        "row": 0,
        "sets": ["s"],
    }
    rows = [
        usual | {"path": f"{number:04d}.png", "sha256": f"{number:064d}"} | image for number, image in enumerate(images)
    ]
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
