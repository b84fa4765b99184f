"""Miniatures are scanned, extracted with the demonstration backbone and evaluated by the stages themselves."""

import math

import miniatures
import pytest

from stages.evaluate.run import run as evaluate
from stages.evaluate.scores import read_scores
from stages.extract.run import run as extract
from stages.extract.settings import ExtractSettings, Runtime
from stages.heads.settings import LinearSettings, TrainSettings
from stages.measure.frame import measure_sets
from stages.scan.protocols import set_list
from stages.scan.run import run as scan
from stages.train.run import run as train

# name -> (writer, whether it takes a second root of reals): shared reals in a folder, in a second root and in archives
BENCHMARKS = {
    "ufd": (miniatures.ufd_archive, False),
    "drct": (miniatures.drct, True),
    "synthbuster": (miniatures.synthbuster, True),
    "community-parquet": (miniatures.community_parquet, False),
}


class Study:
    """Takes miniatures through all stages, in one folder with one head."""

    def __init__(self, root, reporter):
        self.root, self.reporter = root, reporter

    def extracted(self, name, writer, *, with_reals, named=None):
        """Write, scan and extract a miniature; ``named`` overrides which second root is named."""
        root, reals = self.root / "images" / name, self.root / "images" / f"{name}-reals"
        if not root.exists():
            root.mkdir(parents=True)
            writer(root, reals) if with_reals else writer(root)
        named = (reals if with_reals else None) if named is None else named
        manifest, summary = scan(corpus=name, root=root, layout="auto", reals=named or None)
        done = extract(
            corpus=name,
            root=root,
            reals=named or None,
            manifest=manifest,
            settings=ExtractSettings(backbone="demo-vit"),
            geometry="crop224-pad",
            store=self.root / "store",
            out=self.root / "features" / name,
            reporter=self.reporter,
            runtime=Runtime(loaders=0, batch=64),
        )
        return manifest, summary, done

    def measured(self, name, head):
        """Evaluate a miniature's features with a head: a row for each set, a column for each metric."""
        out = self.root / "scores" / f"{name}.parquet"
        evaluate(features=self.root / "features" / name / "clean", head=head, out=out)
        frame = measure_sets(read_scores(out))
        return frame.pivot(index=["set", "n_real", "n_fake"], columns="metric", values="value").reset_index([1, 2])

    def head(self, name):
        """Train a linear head on a miniature's features."""
        features = self.root / "features" / name / "clean"
        train(
            views=[features],
            validation_view=features,
            name="linear",
            head=LinearSettings(),
            settings=TrainSettings(epochs=1, validation_share=0.3),
            seed=0,
            out=self.root / "head.safetensors",
            reporter=self.reporter,
            memory=10**9,
        )
        return self.root / "head.safetensors"


@pytest.fixture(scope="module")
def study(tmp_path_factory, quiet_reporter):
    root = tmp_path_factory.mktemp("benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTDPIPE_STORE", str(root / "store"))
        yield Study(root, quiet_reporter)


@pytest.fixture(scope="module")
def head(study):
    study.extracted("forensynths", miniatures.forensynths, with_reals=False)
    return study.head("forensynths")


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_a_benchmark_goes_through_all_stages(study, head, name):
    writer, with_reals = BENCHMARKS[name]
    manifest, summary, done = study.extracted(name, writer, with_reals=with_reals)
    assert not [warning for warning in summary.warnings if "unpacked there" not in warning]
    assert done.failed == {}
    assert done.usable == manifest.num_rows  # shared reals once
    measured = study.measured(name, head)
    assert set(measured.index) == {name for name in summary.sets if not name.startswith("train/")}
    assert (measured[["n_real", "n_fake"]] > 0).all(axis=None)
    assert measured["ap"].between(0, 1, inclusive="right").all()
    assert measured["accuracy"].notna().all()


def test_fakes_without_reals_give_no_numbers_and_true_ones_with_the_reals(study, head):
    """Posted tables of such folders show AP -0.00 as if it were a result."""

    def writer(root, reals):
        miniatures.write(root, "images/sd-turbo/val2017/1.png", "images/sdxl-turbo/val/1_fake/1.png")
        miniatures.write(root, "images/sdxl-turbo/val/0_real/1.png")
        miniatures.write(reals, "val2017/1.jpg", "val2017/2.jpg")

    _, summary, _ = study.extracted("lacking", writer, with_reals=True, named=False)
    assert any("set sd-turbo has no real image" in warning for warning in summary.warnings)
    measured = study.measured("lacking", head)
    lonely = measured.loc["sd-turbo"]
    assert lonely[["ap", "roc_auc", "accuracy_real"]].isna().all()
    assert not math.isnan(lonely["accuracy_fake"])
    assert set_list("drct16").covered(["sdxl-turbo"]) == "drct16, 1 of 16 sets"

    study.extracted("lacking", writer, with_reals=True)
    measured = study.measured("lacking", head)
    assert measured["n_real"].to_dict() == {"sd-turbo": 2, "sdxl-turbo": 1}  # the latter has reals of its own
    assert measured.loc["sd-turbo", "ap"] > 0
    assert not math.isnan(measured.loc["sd-turbo", "accuracy"])
