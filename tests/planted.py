"""Feature tables on disk whose class signal lies where a test puts it."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pyarrow as pa

from storage.corpus_folder import CorpusFolder
from storage.index import INDEX_NAME, INDEX_SCHEMA, Index, ShardRecord, read_index, write_index
from storage.manifest import manifest_table
from storage.shard import write_shard
from storage.spec import FeatureSpec

SPEC = FeatureSpec(
    backbone="planted",
    weights="0" * 64,
    activation="gelu",
    blocks=24,
    stored_blocks=tuple(range(24)),
    width=32,
    embedding=16,
    taps=("cls", "ln2_cls", "embedding"),
    view={"decoder": "none"},
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    precision="fp32",
    extractor=1,
)
SHARD_ROWS = 100
SHARD = "shard-00000.h5"


def labels_of(images):
    return np.arange(images) % 2


def noise(images, seed=0, blocks=24, width=32):
    """CLS tokens (N, L, D) of a random walk over the blocks: no block and no transition knows the class."""
    draws = np.random.default_rng(seed).normal(size=(images, blocks, width))
    return np.concatenate([3 * draws[:, :1], 0.3 * draws[:, 1:]], axis=1).cumsum(axis=1)


def in_transitions(images, seed, *, first=14, other=None, jump=6, width=32):
    """CLS tokens whose class shows in blocks first..first+4 alone, and only where all their transitions are seen.

    Between the first two of these blocks each token jumps one way or the other; between the last two a synthetic
    image's jumps the same way again and a photograph's the other way. Which way is chance, so no single block or
    transition knows the class. Where a token starts on the line of the jumps varies much more than they are long: a
    block after a jump does not show which way it went, so a window without the transition cannot make up for it.

    With ``other``, half of the synthetic images are of another generator, whose trace lies in blocks other..other+4;
    in the blocks of the first they are like photographs, and the other way round.
    """
    labels, tokens = labels_of(images), noise(images, seed, width=width)
    direction = np.random.default_rng(99).normal(size=width)
    direction /= np.linalg.norm(direction)
    random = np.random.default_rng(seed + 7)
    way = random.choice([-1, 1], size=images)
    along = np.zeros(tokens.shape[:2])
    along[:, 0] = 20 * random.normal(size=images)
    traces = [first] if other is None else [first, other]
    generator = np.where(labels == 1, np.arange(images) // 2 % len(traces), -1)
    for number, start in enumerate(traces):
        along[:, start + 1] += jump * way
        along[:, start + 4] += jump * np.where(generator == number, way, -way)
        way = random.choice([-1, 1], size=images)
    return tokens + along.cumsum(axis=1)[:, :, None] * direction, labels


def in_raw_tokens(images, seed):
    """CLS tokens that differ between the classes by the same vector in every block: no transition knows the class."""
    labels, tokens = labels_of(images), noise(images, seed)
    direction = np.random.default_rng(99).normal(size=tokens.shape[2])
    return tokens + 1.2 * (2 * labels - 1)[:, None, None] * direction, labels


def write_random_view(directory, images, *, blocks, of, width):
    """Write a view of random CLS tokens of some blocks, shard by shard: it may be larger than memory."""
    spec = replace(SPEC, width=width, blocks=of, stored_blocks=tuple(blocks), taps=("cls",))
    folder = _Folder(directory, spec)
    random = np.random.default_rng(0)
    for start in range(0, images, 2048):
        count = min(2048, images - start)
        tokens = random.standard_normal((len(blocks), count, width), dtype=np.float32).astype(np.float16)
        folder.add({"cls": tokens}, count)
    return folder.finish(labels_of(images))


def write_view(
    directory,
    cls,
    labels,
    *,
    view="clean",
    split=None,
    sets=(),
    synthetic_sets=(),
    spec=SPEC,
    seed=0,
    images_in="img",
    generators=(),
):
    """Write CLS tokens (N, L, D) as an extracted view, ``ln2_cls`` as their halves, the embedding as noise.

    Label -1: it has none. All images are in ``sets``, the synthetic ones in ``synthetic_sets`` too. The synthetic ones
    are of ``generators`` in turn, each in a set of its name with all real images.
    """
    spec = replace(spec, width=cls.shape[2], blocks=cls.shape[1], stored_blocks=tuple(range(cls.shape[1])))
    spec = replace(spec, view={**spec.view, "name": view})
    images = len(labels)
    embedding = np.random.default_rng(seed + 1).normal(size=(images, spec.embedding))
    taps = {"cls": cls.transpose(1, 0, 2), "ln2_cls": cls.transpose(1, 0, 2) / 2}
    folder = _Folder(directory, spec, images_in)
    for start in range(0, images, SHARD_ROWS):
        part = slice(start, start + SHARD_ROWS)
        arrays = {name: np.ascontiguousarray(tap[:, part]).astype(np.float16) for name, tap in taps.items()}
        folder.add({**arrays, "embedding": embedding[part].astype(np.float16)}, len(embedding[part]))
    return folder.finish(labels, split=split, sets=sets, synthetic_sets=synthetic_sets, generators=generators)


def write_rows(folder, spec, taps, rows, corpus="planted"):
    """Write taps as one shard with an index of ``rows``; what a row does not say is usual, its place by its order."""
    folder.mkdir(parents=True, exist_ok=True)
    sha256, place = write_shard(folder / SHARD, taps, spec), itertools.count()
    usual = {"sets": [], "size_bytes": 1, "mtime_ns": 1, "status": "ok"}
    table = pa.Table.from_pylist([usual | row for row in rows], schema=INDEX_SCHEMA).to_pylist()
    for row in table:
        if row["status"] == "ok":
            row |= {"shard": SHARD, "row": next(place)}
    table = pa.Table.from_pylist(table, schema=INDEX_SCHEMA)
    record = ShardRecord(SHARD, (folder / SHARD).stat().st_size, sha256, next(place))
    write_index(folder / INDEX_NAME, Index(table, spec, corpus, (record,)))
    return folder


def change_column(view, name, values):
    """Write other values into a column of a view's index."""
    index = read_index(view / INDEX_NAME)
    at = index.table.column_names.index(name)
    field = index.table.schema.field(at)
    table = index.table.set_column(at, field, pa.array(values, field.type))
    (view / INDEX_NAME).unlink()
    write_index(view / INDEX_NAME, Index(table, index.spec, index.corpus, index.shards))


class _Folder:
    """A view that is written shard by shard; images are numbered."""

    def __init__(self, directory, spec, images_in="img"):
        directory.mkdir(parents=True)
        self._images_in = images_in
        self._folder = CorpusFolder(directory, spec, corpus="planted")
        self._shards, self._paths = 0, list[str]()

    def add(self, arrays, count):
        paths = [f"{self._images_in}/{len(self._paths) + row:06d}.png" for row in range(count)]
        self._folder.add(self._shards, arrays, [_row(path, row) for row, path in enumerate(paths)])
        self._shards += 1
        self._paths += paths

    def finish(
        self,
        labels,
        *,
        split=None,
        sets=(),
        synthetic_sets=(),
        generators=(),
    ):
        turns = itertools.cycle(generators or (None,))
        of = [next(turns) if label == 1 else None for label in labels]
        manifest = manifest_table(
            {
                "path": path,
                "label": None if label < 0 else int(label),
                "generator": generator,
                "split": split,
                "sets": [*sets, *(synthetic_sets if label == 1 else ()), *([generator] if generator else generators)],
                "category": None,
                "size_bytes": 1,
                "mtime_ns": 1,
            }
            for path, label, generator in zip(self._paths, labels, of, strict=True)
        )
        self._folder.clean(lambda line: None)
        self._folder.write_index(manifest)
        return self._folder.directory


def _row(path, row):
    return {
        "path": path,
        "size_bytes": 1,
        "mtime_ns": 1,
        "sha256": hashlib.sha256(path.encode()).hexdigest(),
        "format": "PNG",
        "width": 224,
        "height": 224,
        "mode": "RGB",
        "jpeg_quality": None,
        "status": "ok",
        "error": None,
        "row": row,
    }
