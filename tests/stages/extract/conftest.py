"""Small image files, and backbones small enough to run in a test."""

import pytest

from stages.extract.registry import BACKBONES, BackboneCard
from stages.extract.run import run
from stages.extract.settings import ExtractSettings, Runtime
from stages.scan.run import run as scan
from storage.features import FeatureTable


@pytest.fixture
def folder(tmp_path):
    """Where a test puts its images."""
    images = tmp_path / "images"
    images.mkdir()
    return images


@pytest.fixture
def tiny(monkeypatch):
    """A registered open_clip ViT of 3 blocks and 32 pixels, so that runs take no time."""
    import open_clip

    config = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1},
    }
    for name, quick in (("tiny", True), ("tiny-gelu", False)):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config | {"quick_gelu": quick})
        card = BackboneCard(
            name=name,
            library="open_clip",
            model=name,
            activation="quickgelu" if quick else "gelu",
            blocks=3,
            width=32,
            embedding=16,
            size=32,
            patch=16,
            licence="none",
        )
        monkeypatch.setitem(BACKBONES, name, card)
    return BACKBONES["tiny"]


@pytest.fixture
def extract(tmp_path, reporter, monkeypatch):
    """Extract a folder with the tiny backbone and open the first view."""
    monkeypatch.setenv("LTDPIPE_STORE", str(tmp_path / "store"))

    def extracted(folder, *, out="out", views=("clean",), store="store", runtime=None, **settings):
        manifest, _ = scan(corpus="c", root=folder, layout="auto")
        chosen = {"backbone": "tiny", "weights": "random:0"} | settings
        summary = run(
            corpus="c",
            root=folder,
            manifest=manifest,
            settings=ExtractSettings(**chosen),
            geometry="crop224-pad",
            views=views,
            store=tmp_path / store,
            out=tmp_path / out,
            reporter=reporter,
            runtime=runtime or Runtime(loaders=0),
        )
        return summary, FeatureTable.open(tmp_path / out / next(iter(summary.keys)))

    return extracted
