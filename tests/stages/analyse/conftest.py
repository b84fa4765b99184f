"""A small extracted view on disk."""

from dataclasses import replace

import pytest

from planted import SPEC, write_rows


@pytest.fixture
def write():
    """Write a view: rows are (path, label, generator), cls is (N, L, D), attention (N, L, P); one more image failed."""

    def write_features(folder, rows, cls, blocks=range(5), attention=None):
        patches = None if attention is None else attention.shape[2]
        taps = ("cls", "attention") if patches else ("cls",)
        small = {"blocks": 6, "stored_blocks": tuple(blocks), "width": 8, "taps": taps, "patches": patches}
        stored = {tap: {"cls": cls, "attention": attention}[tap].transpose(1, 0, 2) for tap in taps}
        images = [{"path": path, "label": label, "generator": generator} for path, label, generator in rows]
        images.append({"path": "z", "label": 0, "status": "failed"})
        write_rows(folder, replace(SPEC, **small), stored, images, corpus="demo")

    return write_features
