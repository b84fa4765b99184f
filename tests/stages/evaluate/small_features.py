"""Small extracted views on disk, with a signal that a linear head finds."""

import hashlib
from dataclasses import replace

import numpy as np

from planted import SPEC, write_rows

BLOCKS, WIDTH = 3, 8


def spec_of(view, /, **settings):
    small = {"blocks": BLOCKS, "stored_blocks": tuple(range(BLOCKS)), "width": WIDTH, "embedding": 4, "taps": ("cls",)}
    named = {"activation": "quickgelu", "view": {"decoder": "pillow", "geometry": "crop", "name": view}}
    return replace(SPEC, **{**small, **named, **settings})


def write_view(
    folder, *, images=60, seed=0, corpus="corpus", prefix="", labelled=True, failed=0, splits=(None,), **settings
):
    """Write one view named as its folder; labels alternate, synthetic images are shifted in the last block."""
    labels = np.arange(images) % 2
    tokens = np.random.default_rng([seed, len(prefix)]).normal(size=(images, BLOCKS, WIDTH))
    tokens[:, -1, 0] += 3 * labels
    rows = [
        {"path": f"{prefix}{i:04d}.png", "label": int(label) if labelled else None,
         "generator": "gan" if label else None, "split": splits[i // 2 % len(splits)], "sets": ["gan"],
         "format": "JPEG" if i % 3 else "PNG", "width": 200 + 100 * (i % 4), "height": 200,
         "sha256": hashlib.sha256(f"{prefix}{i}".encode()).hexdigest()}
        for i, label in enumerate(labels)
    ]  # fmt: skip
    rows += [{"path": f"x{i}.png", "label": 0, "status": "failed"} for i in range(failed)]
    taps = {"cls": tokens.transpose(1, 0, 2).astype(np.float16)}
    write_rows(folder, spec_of(folder.name, **settings), taps, rows, corpus)
    return tokens.astype(np.float16)
