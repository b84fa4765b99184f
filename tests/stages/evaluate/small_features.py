"""Small extracted views on disk, with a signal that a linear head finds."""

import hashlib

import numpy as np
import pyarrow as pa

from storage.index import INDEX_NAME, INDEX_SCHEMA, Index, ShardRecord, write_index
from storage.shard import write_shard
from storage.spec import FeatureSpec

BLOCKS, WIDTH = 3, 8


def spec_of(view, /, **settings):
    plain = {
        "backbone": "toy", "weights": "0" * 64, "activation": "quickgelu", "blocks": BLOCKS,
        "stored_blocks": tuple(range(BLOCKS)), "width": WIDTH, "embedding": 4, "taps": ("cls",),
        "view": {"decoder": "pillow", "geometry": "crop", "name": view}, "mean": (0, 0, 0), "std": (1, 1, 1),
        "precision": "fp32", "extractor": 1,
    }  # fmt: skip
    return FeatureSpec(**{**plain, **settings})


def write_view(
    folder, *, images=60, seed=0, corpus="corpus", prefix="", labelled=True, failed=0, splits=(None,), **settings
):
    """Write one view named as its folder; labels alternate, synthetic images are shifted in the last block."""
    folder.mkdir(parents=True)
    spec = spec_of(folder.name, **settings)
    labels = np.arange(images) % 2
    tokens = np.random.default_rng([seed, len(prefix)]).normal(size=(images, BLOCKS, WIDTH))
    tokens[:, -1, 0] += 3 * labels
    name = "shard-00000.h5"
    sha256 = write_shard(folder / name, {"cls": tokens.transpose(1, 0, 2).astype(np.float16)}, spec)
    rows = [
        {"path": f"{prefix}{i:04d}.png", "label": int(label) if labelled else None,
         "generator": "gan" if label else None, "split": splits[i // 2 % len(splits)],
         "sets": ["gan"], "size_bytes": 1, "mtime_ns": 1,
         "status": "ok", "shard": name, "row": i,
         "format": "JPEG" if i % 3 else "PNG", "width": 200 + 100 * (i % 4), "height": 200,
         "sha256": hashlib.sha256(f"{prefix}{i}".encode()).hexdigest()}
        for i, label in enumerate(labels)
    ]  # fmt: skip
    rows += [
        {"path": f"x{i}.png", "label": 0, "sets": [], "size_bytes": 1, "mtime_ns": 1, "status": "failed"}
        for i in range(failed)
    ]
    record = ShardRecord(name, (folder / name).stat().st_size, sha256, images)
    write_index(folder / INDEX_NAME, Index(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), spec, corpus, (record,)))
    return tokens.astype(np.float16)
