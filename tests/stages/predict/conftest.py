"""One miniature demo study, made once: images, features, a head, its bundle, and the scores that evaluation gives."""

import fcntl
from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.demo.images import run as make_images
from stages.demo.settings import DemoCorpus
from stages.evaluate.run import run as evaluate
from stages.extract.run import run as extract
from stages.extract.settings import ExtractSettings
from stages.heads.settings import LtdSettings, TrainSettings
from stages.predict.detector import Detector
from stages.predict.make import run as make_bundle
from stages.reporter import SilentReporter
from stages.scan.run import run as scan
from stages.train.run import HeadToTrain
from stages.train.run import run as train

GEOMETRY = "crop224-pad"
_CORPORA = {"train": ("left", 0, 40), "held": ("right", 1, 30), "test": ("right", 2, 20)}


@dataclass(frozen=True)
class Study:
    """Where the files of the study lie."""

    root: Path

    @property
    def head(self):
        return self.root / "head.safetensors"

    @property
    def bundle(self):
        return self.root / "detector.ltd"

    def images(self, corpus):
        return self.root / "images" / corpus

    def features(self, corpus):
        return self.root / "features" / corpus / "clean"

    def scores(self, corpus):
        return self.root / f"{corpus}.parquet"


def _make(made):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTDPIPE_STORE", str(made.root / "store"))
        reporter = SilentReporter()
        for name, (half, seed, per_set) in _CORPORA.items():
            corpus = DemoCorpus(half=half, generators=("nearest",), per_set=per_set, seed=seed)
            make_images(corpus=corpus, out=made.images(name))
            manifest, _ = scan(corpus=name, root=made.images(name), layout="folder")
            extract(
                corpus=name,
                root=made.images(name),
                manifest=manifest,
                settings=ExtractSettings(backbone="demo-vit", taps=("cls", "embedding", "ln2_cls")),
                geometry=GEOMETRY,
                store=made.root / "store",
                out=made.root / "features" / name,
                reporter=reporter,
            )
        train(
            views=[made.features("train")],
            validation_view=made.features("train"),
            heads=[HeadToTrain(name="ltd", settings=LtdSettings(), seed=0, out=made.head)],
            settings=TrainSettings(lr=1e-3, epochs=20, batch=32, validation_share=0.2),
            reporter=reporter,
        )
        for name in ("train", "held", "test"):
            evaluate(features=made.features(name), head=made.head, out=made.scores(name))
        make_bundle(head=made.head, out=made.bundle, features=made.features("train"))


@pytest.fixture(scope="session")
def study(tmp_path_factory, worker_id):
    """The study, made by the first of the processes that run tests side by side, and read by all."""
    own = tmp_path_factory.getbasetemp()
    made = Study((own if worker_id == "master" else own.parent) / "predict-study")
    made.root.mkdir(exist_ok=True)
    with (made.root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.bundle.exists():
            _make(made)
    return made


@pytest.fixture(scope="session")
def detector(study):
    return Detector.load(study.bundle)
