"""The audit of really extracted miniatures, through the stage function and through the command."""

import io
import json

import numpy as np
import pytest
import yaml
from audit_tables import index_of
from click.testing import CliRunner
from PIL import Image

from pipeline.cli import ltdpipe
from running import PROJECT
from stages.audit.run import run
from stages.extract.run import run as extract
from stages.extract.settings import ExtractSettings, Runtime
from stages.scan.run import run as scan
from storage.errors import DataError
from storage.index import INDEX_NAME, Index, ShardRecord, write_index
from storage.shard import write_shard
from storage.spec import FeatureSpec


def picture(seed, kind, *, brighter=0):
    """A random picture of 230 pixels a side; a slightly brighter one is a near copy."""
    small = np.random.default_rng(seed).integers(0, 250, (6, 6, 3), dtype=np.uint8) + np.uint8(brighter)
    file = io.BytesIO()
    options = {"quality": 92} if kind == "JPEG" else {}
    Image.fromarray(small).resize((230, 230), Image.Resampling.NEAREST).save(file, kind, **options)
    return file.getvalue()


def put(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, quiet_reporter):
    """Extracted corpora: biased by format, mixed, full of duplicates, for training alone, and one to train on."""
    root = tmp_path_factory.mktemp("audit")
    for number in range(10):
        put(root / "biased" / "real" / f"{number}.jpg", picture(number, "JPEG"))
        put(root / "biased" / "fake" / f"{number}.png", picture(100 + number, "PNG"))
        kind, end = (("JPEG", "jpg"), ("PNG", "png"))[number % 2]
        put(root / "mixed" / "real" / f"{number}.{end}", picture(200 + number, kind))
        put(root / "mixed" / "fake" / f"{number}.{end}", picture(300 + number, kind))
    for number in range(3):
        put(root / "copies" / "test" / "real" / f"{number}.png", picture(400 + number, "PNG"))
        put(root / "copies" / "test" / "fake" / f"{number}.png", picture(500 + number, "PNG"))
        put(root / "copies" / "train" / "fake" / f"{number}.png", picture(600 + number, "PNG"))
        put(root / "copies" / "train" / "real" / f"{number}.png", picture(700 + number, "PNG"))
        put(root / "other" / "fake" / f"{number}.png", picture(800 + number, "PNG"))
        put(root / "drill" / "train" / "real" / f"{number}.png", picture(900 + number, "PNG"))
        put(root / "drill" / "train" / "fake" / f"{number}.png", picture(910 + number, "PNG"))
    put(root / "drill" / "train" / "fake" / "near-real.png", picture(901, "PNG", brighter=1))  # of train/real/1
    put(root / "copies" / "test" / "fake" / "exact.png", picture(600, "PNG"))  # of train/fake/0
    put(root / "copies" / "test" / "fake" / "near-real.png", picture(401, "PNG", brighter=1))  # of test/real/1
    put(root / "copies" / "test" / "real" / "near-same.png", picture(400, "PNG", brighter=1))  # of test/real/0
    put(root / "copies" / "test" / "real" / "near-train.png", picture(701, "PNG", brighter=1))  # of train/real/1
    put(root / "copies" / "test" / "fake" / "both.png", picture(402, "PNG"))  # of test/real/2
    put(root / "copies" / "test" / "fake" / "broken.png", b"no image")
    put(root / "other" / "fake" / "8.png", picture(400, "PNG", brighter=2))
    put(root / "other" / "fake" / "9.png", picture(402, "PNG"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTDPIPE_STORE", str(root / "store"))
        for name in ("biased", "mixed", "copies", "drill", "other"):
            extract(
                corpus=name,
                root=root / name,
                manifest=scan(corpus=name, root=root / name, layout="folder")[0],
                settings=ExtractSettings(backbone="demo-vit", taps=("embedding",)),
                geometry="crop224-pad",
                store=root / "store",
                out=root / "features" / name,
                reporter=quiet_reporter,
                runtime=Runtime(loaders=0),
            )
        yield root


def audit(corpora, name, reporter, **options):
    out = corpora / "audit" / f"{name}.json"
    found = run(
        corpus=name,
        features=corpora / "features" / name / "clean",
        layout="folder",
        out=out,
        reporter=reporter,
        **options,
    )
    assert json.loads(out.read_text()) == found
    return found


def kinds(found):
    return {warning["kind"] for warning in found["warnings"]}


def test_jpeg_reals_and_png_fakes_are_warned_of(corpora, reporter):
    found = audit(corpora, "biased", reporter)
    assert found["sets"][0]["predictor"]["ap"] == found["predictor"]["ap"] == 1.0
    assert found["sets"][0]["matched"] == {"jpeg": 0, "size": 20, "jpeg+size": 0}
    warning = next(warning for warning in found["warnings"] if warning["kind"] == "format-bias")
    assert warning["set"] == "biased"
    assert "AP 1.000, guessing gives 0.500" in warning["text"]
    assert found["classes"]["real"]["jpeg_quality"] == {"90-94": 10}


def test_a_mixed_control_has_no_warning_at_all(corpora, reporter):
    found = audit(corpora, "mixed", reporter)
    assert found["warnings"] == []
    assert found["sets"][0]["predictor"]["ap"] < 0.6
    assert found["sets"][0]["matched"]["jpeg+size"] == 20


def test_duplicates_in_training_and_with_both_labels(corpora, reporter):
    found = audit(corpora, "copies", reporter)
    assert kinds(found) == {
        *("unreadable", "duplicates", "label-noise", "train-test-duplicates", "train-test-near-duplicates"),
    }
    exact, near, noise = found["duplicates"], found["near_duplicates"], found["label_noise"]
    assert exact["train_test_examples"] == [{"test": "test/fake/exact.png", "train": "train/fake/0.png"}]
    assert exact["with_both_labels"] == [["test/fake/both.png", "test/real/2.png"]]
    assert [(pair["first"], pair["second"]) for pair in near["train_test_examples"]] == [
        ("test/real/near-train.png", "train/real/1.png")
    ]
    assert [(pair["first"], pair["second"]) for pair in noise["candidates"]] == [
        ("test/fake/near-real.png", "test/real/1.png")
    ]
    assert near["pairs_in_test"] == 3  # with near-same and both
    assert found["unreadable"]["reasons"] == {"no image": 1}
    assert [example["path"] for example in found["unreadable"]["examples"]] == ["test/fake/broken.png"]
    own = corpora / "features" / "copies" / "clean"
    assert audit(corpora, "copies", reporter, train=own) == found  # its own training split counts then


def test_a_corpus_for_training_alone_is_audited_for_what_it_teaches(corpora, reporter):
    found = audit(corpora, "drill", reporter)
    assert kinds(found) == {"label-noise"}
    assert found["warnings"][0]["text"].startswith("2 images look nearly the same as one of the other class")
    assert found["near_duplicates"]["pairs_train_test"] == found["duplicates"]["train_test"] == 0


def test_duplicates_of_another_training_corpus(corpora, reporter):
    found = audit(corpora, "mixed", reporter, train=corpora / "features" / "other" / "clean")
    assert found["duplicates"]["train_test"] == 0
    found = audit(corpora, "copies", reporter, train=corpora / "features" / "other" / "clean")
    assert [pair["train"] for pair in found["duplicates"]["train_test_examples"]] == ["fake/9.png"] * 2
    assert {pair["second"] for pair in found["near_duplicates"]["train_test_examples"]} == {"fake/8.png"}


def test_near_duplicates_left_out_are_said_to_be(corpora, reporter):
    found = audit(corpora, "copies", reporter, near=None)
    assert found["near_duplicates"] == {"left_out": "left out as asked for"}
    assert "train-test-near-duplicates" not in kinds(found)


def test_training_images_of_another_geometry_are_compared_by_their_bytes_alone(corpora, reporter, tmp_path):
    manifest, _ = scan(corpus="other", root=corpora / "other", layout="folder")
    extract(
        corpus="other",
        root=corpora / "other",
        manifest=manifest,
        settings=ExtractSettings(backbone="demo-vit"),
        geometry="tile224",  # the same pixels of images that are large enough, under another name
        store=tmp_path / "store",
        out=tmp_path / "other",
        reporter=reporter,
    )
    found = audit(corpora, "copies", reporter, train=tmp_path / "other" / "clean")
    assert found["duplicates"]["train_test"] == 2
    assert found["near_duplicates"]["pairs_train_test"] == 0
    assert "view.geometry" in found["near_duplicates"]["train_test_left_out"]
    assert any("near duplicates of training images are not looked for" in warning for warning in reporter.warnings)
    assert found["label_noise"]["pairs"] > 0


def write_features(folder, images, *, size=224):
    """Write a view of images that look all different, described as index rows are."""
    spec = FeatureSpec(
        backbone="clip-vit-l-14", weights="0" * 64, activation="quickgelu", blocks=2, stored_blocks=(0, 1), width=4,
        embedding=len(images), taps=("embedding",), view={"geometry": "crop224-pad", "size": size}, mean=(0, 0, 0),
        std=(1, 1, 1), precision="fp32", extractor=1,
    )  # fmt: skip
    shard = "shard-00000.h5"
    sha256 = write_shard(folder / shard, {"embedding": np.eye(len(images), dtype=np.float16)}, spec)
    table = index_of(*[image | {"row": row} for row, image in enumerate(images)])
    record = ShardRecord(shard, (folder / shard).stat().st_size, sha256, len(images))
    write_index(folder / INDEX_NAME, Index(table, spec, "toy", (record,)))


def test_small_images_are_those_below_the_crop_of_the_features_themselves(tmp_path, reporter, own_store):
    sides = ((0, 335), (1, 336), (1, 300))
    write_features(tmp_path, [{"label": label, "width": side, "height": side} for label, side in sides], size=336)
    found = run(corpus="toy", features=tmp_path, layout="folder", out=tmp_path / "audit.json", reporter=reporter)
    assert found["sets"][0]["below_crop"] == {"real": 1, "synthetic": 1}
    assert found["classes"]["synthetic"]["width"] == [300.0, 309.0, 318.0, 327.0, 336.0]
    assert found["classes"]["synthetic"]["most_common_sizes"] == [["336x336", 1], ["300x300", 1]]
    assert "smaller than the crop of 336 pixels" in found["warnings"][0]["text"]


def test_each_set_is_warned_of_by_itself(tmp_path, reporter, own_store):
    alike = [{"label": n % 2, "sets": ["alike"]} for n in range(20)]
    biased = [{"label": n % 2, "sets": ["biased"], "format": ("JPEG", "PNG")[n % 2]} for n in range(20)]
    write_features(tmp_path, [*alike, *biased])
    out, asked = tmp_path / "audit.json", ("alike", "gone")
    options = {"corpus": "toy", "features": tmp_path, "layout": "folder", "out": out, "reporter": reporter}
    found = run(**options, asked=asked, missing=["fake/empty", "fake/sdxl"])
    assert found["warnings"][1]["text"].startswith("2 of 4 sets have images; means leave out fake/empty, fake/sdxl")
    assert [(warning["kind"], warning["set"]) for warning in found["warnings"]] == [
        ("missing-set", "gone"),
        ("missing-set", None),
        ("format-bias", "biased"),
    ]
    assert [entry["predictor"]["ap"] for entry in found["sets"]] == [0.5, 1.0]


def test_unlabelled_images_cannot_be_audited(corpora, reporter, tmp_path):
    manifest, _ = scan(corpus="mixed", root=corpora / "mixed", layout="unlabelled")
    extract(
        corpus="unlabelled",
        root=corpora / "mixed",
        manifest=manifest.slice(0, 1),
        settings=ExtractSettings(backbone="demo-vit", taps=("embedding",)),
        geometry="crop224-pad",
        store=corpora / "store",
        out=tmp_path / "features",
        reporter=reporter,
        runtime=Runtime(loaders=0),
    )
    with pytest.raises(DataError, match="without a label; an audit compares"):
        run(
            corpus="unlabelled",
            features=tmp_path / "features" / "clean",
            layout="folder",
            out=tmp_path / "a.json",
            reporter=reporter,
        )
    assert not (tmp_path / "a.json").exists()


def test_the_command_prints_a_table_and_the_warnings(corpora, tmp_path, monkeypatch):
    corpus = "{root: nowhere}"
    params = yaml.safe_load((PROJECT / "profiles" / "demo.yaml").read_text()) | {"demo": {}, "train_on": ["clean"]}
    params |= {"corpora": {name: yaml.safe_load(corpus) for name in ("biased", "clean")}}
    params["evaluate"]["corpora"] = ["biased"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    for name in params["corpora"]:
        (tmp_path / "data" / "features").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "features" / name).symlink_to(corpora / "features" / "biased")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(ltdpipe, ["audit", "--corpus", "biased"], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.exception or result.output
    assert "audit of biased" in result.output
    assert "10 + 0" not in result.output
    assert "1.000" in result.output
    assert "format-bias: set biased: format, size and JPEG quality" in result.output
    out = tmp_path / "audit" / "biased" / "clean.json"
    found = json.loads(out.read_text())
    assert (found["corpus"], found["near_duplicates"]["cosine"]) == ("biased", 0.98)
    CliRunner().invoke(ltdpipe, ["audit", "--corpus", "biased", "--no-near"])
    assert "left_out" in json.loads(out.read_text())["near_duplicates"]
