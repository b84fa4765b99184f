"""One small file that stands for the thousands that hold the features of a corpus: later stages depend on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from storage.atomic import sha256_of, write_text
from storage.index import INDEX_NAME

if TYPE_CHECKING:
    from pathlib import Path


def write_contents(features: Path, out: Path) -> None:
    """Write the hashes of every view's index and sidecars, which have those of the images and of the shards in them.

    Whoever depends on this file depends on every feature: it changes with any of them, and is as small to check as one
    file is.

    Args:
        features: directory of an extracted corpus, one folder a view.
        out: the file to write.
    """
    contents = {
        index.parent.name: {file.name: sha256_of(file) for file in sorted(index.parent.glob("*.parquet"))}
        for index in sorted(features.glob(f"*/{INDEX_NAME}"))
    }
    write_text(out, json.dumps(contents, indent=0) + "\n")
