"""Small features that are known beforehand: those of an image follow from its path alone."""

import zlib
from dataclasses import replace

import numpy as np

from storage.corpus_folder import CorpusFolder
from storage.index import INDEX_NAME, read_index
from storage.manifest import manifest_table
from storage.published import publish
from storage.spec import FeatureSpec
from storage.store import project_root

SPEC = FeatureSpec(
    backbone="toy",
    weights="0" * 64,
    activation="quickgelu",
    blocks=6,
    stored_blocks=(1, 2, 3, 4),
    width=8,
    embedding=5,
    taps=("cls", "embedding", "attention"),
    view={"decoder": "none", "geometry": "toy", "augmentation": "none"},
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    precision="fp32",
    extractor=1,
    patches=9,
)


def spec(**changes):
    return replace(SPEC, **changes)


def features(paths, spec=SPEC):
    """Tap -> features of the images, (L, N, D) or (N, E)."""
    arrays = {}
    for tap in spec.taps:
        axis = 0 if tap == "embedding" else 1
        each = [
            np.random.default_rng(zlib.crc32(f"{tap}{path}".encode())).standard_normal(spec.tap_shape(tap, 1))
            for path in paths
        ]
        arrays[tap] = np.concatenate([np.empty(spec.tap_shape(tap, 0)), *each], axis=axis).astype(np.float16)
    return arrays


def manifest(paths, **columns):
    """A manifest of made-up files; every third is real."""
    rows = [
        {"path": path, "label": int(i % 3 > 0), "generator": "toy" if i % 3 else None, "split": "train",
         "sets": ["toy"], "category": None, "size_bytes": 100 + len(path), "mtime_ns": 7, **columns}
        for i, path in enumerate(sorted(paths))
    ]  # fmt: skip
    return manifest_table(rows)


def shard_rows(manifest_rows, broken=()):
    """Sidecar rows as extraction makes them; images in ``broken`` could not be read."""
    rows, usable = [], 0
    for row in manifest_rows:
        failed = row["path"] in broken
        rows.append(
            {
                **{name: row[name] for name in ("path", "size_bytes", "mtime_ns")},
                "sha256": f"{zlib.crc32(row['path'].encode()):064x}",
                "format": None if failed else "PNG",
                "status": "failed" if failed else "ok",
                "error": "UnidentifiedImageError: not an image" if failed else None,
                "row": None if failed else usable,
            }
        )
        usable += not failed
    return rows


def extract(store, table, *, spec=SPEC, corpus="toy", out=None, size=4, broken=(), tell=lambda _: None):
    """The loop of the extraction stage with made-up features; returns (index, paths extracted now)."""
    folder = CorpusFolder(store / spec.key / corpus, spec, corpus=corpus, owner=str(project_root()))
    with folder.lock(tell):
        folder.clean(tell)
        pending = table.take(folder.missing(table)).to_pylist()
        numbers = folder.free_numbers()
        for start in range(0, len(pending), size):
            rows = shard_rows(pending[start : start + size], broken)
            usable = [row["path"] for row in rows if row["row"] is not None]
            folder.add(next(numbers), features(usable, spec), rows)
        folder.clean(tell)
        shards = folder.write_index(table)
        if out is not None:
            publish(folder, out, shards, tell)
    return read_index(folder.directory / INDEX_NAME), [row["path"] for row in pending]


def names(count):
    return [f"fake/{i:03d}.png" for i in range(count)]
