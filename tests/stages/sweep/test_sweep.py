import re
from collections import Counter

import pytest
import torch
import yaml
from sklearn.metrics import average_precision_score

from planted import in_transitions, write_view
from running import demo_params, invoke, read_csv
from stages.heads.file import build_head
from stages.heads.settings import (
    LinearSettings,
    LtdSettings,
    Overrides,
    TrainSettings,
)
from stages.scan.protocols import set_lists
from stages.sweep import run as sweep_run
from stages.sweep.variants import Variant, generator_sweep, layer_sweep, releases, window_sweep
from stages.train import run as train_run
from stages.train.data import TrainingData
from stages.train.loop import train_together
from storage.errors import DataError
from storage.features import FeatureTable
from storage.headfile import load_head

SETTINGS = TrainSettings(lr=2e-3, epochs=2, batch=32, validation_share=0.25)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTDPIPE_STORE", str(folder / "store"))
        write_view(folder / "train" / "clean", *in_transitions(160, seed=0))
        write_view(folder / "test" / "clean", *in_transitions(120, seed=5), sets=("a", "b"), seed=5)
    return folder


def sweep(corpora, out, reporter, variants, **more):
    clean = corpora / "train" / "clean"
    given = {"evaluation": [corpora / "test" / "clean"], "settings": SETTINGS, "seeds": [0, 1], **more}
    return sweep_run.run(
        views=[clean],
        validation_view=clean,
        variants=variants,
        out=out,
        reporter=reporter,
        **given,
    )


def test_sweeps_have_every_start_of_every_length_and_every_block():
    whole = window_sweep(LtdSettings(dropout=0.1), 24)
    assert len(whole) == sum(24 - n + 1 for n in range(3, 10)) == 133
    assert {variant.head.dropout for variant in whole if isinstance(variant.head, LtdSettings)} == {0.1}
    some = window_sweep(LtdSettings(candidates=(11, 14), selection_lr=0.1, anneal=(0.1, 5)), 24)
    found = [(variant.coordinates["n"], variant.coordinates["start"]) for variant in some]
    assert found == [(3, 11), (3, 12), (4, 11)]
    reads = [build_head(variant.head, blocks=24, width=32, embedding=8).reads.blocks for variant in some]
    assert reads == [(11, 12, 13), (12, 13, 14), (11, 12, 13, 14)]
    probes = layer_sweep(LinearSettings(train=Overrides(lr=0.5)), 4)
    assert [(probe.coordinates["block"], probe.head.train.lr) for probe in probes] == [(n, 0.5) for n in range(4)]


def test_a_swept_head_is_the_head_that_train_makes(corpora, tmp_path, reporter):
    head = LtdSettings(heads=4, window=4, selection="fixed:15")
    others = [LtdSettings(heads=4, window=4, selection="fixed:3"), LinearSettings(train=Overrides(epochs=1))]
    variants = [Variant(each, {"number": number}) for number, each in enumerate([*others, head])]
    rows = sweep(corpora, tmp_path / "s", reporter, variants)
    (found,) = [row for row in rows if (row["number"], row["seed"], row["set"]) == (2, 1, "b")]

    clean = corpora / "train" / "clean"
    out = tmp_path / "head.safetensors"
    train_run.run(
        views=[clean],
        validation_view=clean,
        heads=[train_run.HeadToTrain(name="x", settings=head, seed=1, out=out)],
        settings=SETTINGS,
        reporter=reporter,
    )
    module, test = build_head(head, blocks=24, width=32, embedding=16), FeatureTable.open(corpora / "test" / "clean")
    module.load_state_dict(load_head(out)[0])
    with torch.inference_mode():
        logits = module.eval()(torch.from_numpy(test.read("cls", blocks=module.reads.blocks)).float()).numpy()
    labels = test.index["label"].to_numpy()
    assert found["ap"] == pytest.approx(average_precision_score(labels, logits), abs=1e-12)
    assert found["accuracy"] == ((logits > 0) == labels).mean()
    assert found["images"] == 120


def test_results_are_a_table(corpora, tmp_path, reporter):
    variants = window_sweep(LtdSettings(heads=4, candidates=(13, 17)), 24)
    rows = sweep(corpora, tmp_path / "s", reporter, variants)
    table = read_csv(tmp_path / "s" / "results.csv")
    assert len(table) == len(rows) == 6 * 2 * 3  # windows, seeds, two sets and their mean
    assert [float(row["ap"]) for row in table] == [row["ap"] for row in rows]
    for row in rows:
        if row["set"] == "mean of sets":
            same = [r for r in rows if all(r[key] == row[key] for key in ("n", "start", "seed")) and r["set"] in "ab"]
            assert row["ap"] == pytest.approx(sum(r["ap"] for r in same) / 2)
    assert reporter.done == 12


def test_a_stopped_sweep_trains_only_what_is_missing(corpora, tmp_path, reporter, monkeypatch):
    variants = layer_sweep(LinearSettings(), 3)
    whole = sweep(corpora, tmp_path / "whole", reporter, variants)
    trained = []

    def counting(*arguments, **more):
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append(1)
        return train_together(*arguments, **more)

    monkeypatch.setattr(sweep_run, "train_together", counting)
    with pytest.raises(KeyboardInterrupt):
        sweep(corpora, tmp_path / "s", reporter, variants)
    trained[:] = []
    assert sweep(corpora, tmp_path / "s", reporter, variants) == whole
    assert len(trained) == 2
    trained[:] = [1] * 4
    others = [
        {"settings": SETTINGS.model_copy(update={"lr": 0.1})},
        {"threads": 2},
        {"evaluation": [corpora / "train" / "clean"]},
    ]
    for other in others:
        with pytest.raises(KeyboardInterrupt):  # nothing of what was found otherwise may be used
            sweep(corpora, tmp_path / "s", reporter, variants, **other)
    trained[:] = []
    (tmp_path / "s" / "sweep.json").write_text("{")
    with pytest.raises(KeyboardInterrupt):
        sweep(corpora, tmp_path / "s", reporter, variants)


def test_sets_of_one_class_are_told_and_left_out_and_a_corpus_without_sets_is_one(corpora, tmp_path, reporter):
    trained, (tokens, labels) = FeatureTable.open(corpora / "train" / "clean"), in_transitions(40, seed=1)
    some = write_view(tmp_path / "some", tokens, labels, sets=("a",), synthetic_sets=("fakes",))
    assert list(sweep_run.open_tested(some, trained, reporter).sets) == ["a"]
    assert reporter.warnings == [f"{some}: sets of one class have no accuracy or AP here: fakes"]
    without = sweep_run.open_tested(write_view(tmp_path / "none", tokens, labels), trained, reporter)
    assert {name: len(rows) for name, rows in without.sets.items()} == {"planted": 40}


GENERATORS = ("progan", "sdv1.4")


@pytest.fixture(scope="module")
def two_generators(tmp_path_factory):
    """Generators whose traces lie in different blocks, the tested one by the name of another benchmark."""
    folder = tmp_path_factory.mktemp("generators")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTDPIPE_STORE", str(folder / "store"))
        for name, images, seed in (("train", 400, 0), ("test", 200, 5)):
            names = GENERATORS if name == "train" else ("progan", "stable-diffusion-v1-4")
            write_view(folder / name / "clean", *in_transitions(images, seed, other=3), generators=names, seed=seed)
    return folder


def test_heads_are_trained_without_some_generators_and_tested_on_each(two_generators, tmp_path, reporter):
    head = LtdSettings(heads=4, selection="fixed:14", train=Overrides(epochs=6))
    alone, but_one = "one generator alone", "all generators but one"
    few = f"{but_one}, and a few images of it"
    variants = generator_sweep(head, {"progan": 135, "sdv1.4": 135})
    found = [tuple(variant.coordinates.values()) for variant in variants]
    assert found == [
        ("all generators", "", 0),
        *[(training, name, 0) for training in (alone, but_one) for name in GENERATORS],
        ("generators shown until a month", "2017-10", 0),
        *[(few, name, k) for name in GENERATORS for k in (10, 100)],
    ]
    variants = [
        each for each in variants if each.coordinates["few"] != 100 and each.coordinates["generator"] != "sdv1.4"
    ]
    rows = sweep(two_generators, tmp_path / "s", reporter, variants, seeds=[0])
    ap = {(row["training"], row["generator"], row["few"], row["set"]): (row["ap"], row["seen"]) for row in rows}
    assert ap[alone, "progan", 0, "progan"][0] > ap[but_one, "progan", 0, "progan"][0] + 0.2
    other = "stable-diffusion-v1-4"
    found = [ap[training, "progan", 0, test][1] for training in (alone, but_one) for test in ("progan", other)]
    assert found == [1, 0, 0, 1]
    assert ap["generators shown until a month", "2017-10", 0, other] == ap[alone, "progan", 0, other]  # the same head
    assert ap[few, "progan", 10, "progan"][1] == 1
    assert ap["all generators", "", 0, "mean of sets"][1] is None
    assert reporter.done == 4


def test_of_the_images_only_the_chosen_generators_train_and_real_ones_keep_the_balance(two_generators):
    view = two_generators / "train" / "clean"
    data = TrainingData.open([view], view, SETTINGS)
    index = data.views[0].index
    generator, label = index["generator"].to_pylist(), index["label"].to_numpy()
    few = sweep_run.split_of(data, Variant(LtdSettings(), {}, {"progan": None, "sdv1.4": 10}))
    count = Counter(generator[row] for row in few.training)
    assert count["sdv1.4"] == 10
    assert count["progan"] == sum(generator[row] == "progan" for row in data.split.training)
    share = (count["progan"] + 10) / label[data.split.training].sum()
    assert count[None] == round(share * (label[data.split.training] == 0).sum())
    assert {generator[row] for row in few.validation} == {"progan", None}  # of ten images none chooses an epoch
    with pytest.raises(DataError, match="has no synthetic image of dalle2 on the training side"):
        sweep_run.split_of(data, Variant(LtdSettings(), {}, {"dalle2": None}))


def test_every_release_has_a_month_and_a_source_and_is_a_generator_of_a_benchmark():
    known = {name for found in set_lists().values() for name in found.members} | {"guided", "dalle2", "sd_xl"}
    assert {name for name in releases() if not name.startswith(("stable-diffusion", "midjourney-v5"))} <= known
    assert all(re.fullmatch(r"20[12]\d-[01]\d", month) for _, month in releases().values())


def test_the_command_sweeps_the_head_of_the_study(corpora, two_generators, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = demo_params()
    study["heads"] = {"ltd": {"type": "ltd", "heads": 4, "candidates": [13, 16], "train": {"epochs": 1}}}

    def write(**heads):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({**study, "heads": {**study["heads"], **heads}}))

    write()
    for name, source in (("demo-train", "train"), ("demo-test", "test")):
        (tmp_path / "data" / "features").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "features" / name).symlink_to(corpora / source)
    done = invoke("sweep", "window")
    assert done.exit_code == 0, done.exception
    table = tmp_path / "sweeps" / "demo-train" / "window" / "results.csv"
    assert len(table.read_text().splitlines()) == 1 + 3 * 2 * 3  # windows, seeds, two sets and their mean
    write(ltd={"type": "ltd", "candidates": [3, 4], "window": 2})
    assert "hold no 3 blocks" in str(invoke("sweep", "window").exception)
    assert "two generators or more, planted has none" in str(invoke("sweep", "generators").exception)
    for name, source in (("demo-train", "train"), ("demo-test", "test")):
        (tmp_path / "data" / "features" / name).unlink()
        (tmp_path / "data" / "features" / name).symlink_to(two_generators / source)
    study["seeds"] = [0]
    write(ltd={"type": "linear"})
    done = invoke("sweep", "generators")
    assert done.exit_code == 0, done.exception
    table = tmp_path / "sweeps" / "demo-train" / "generators" / "results.csv"
    # all, one alone, all but one, until a month, a few images: two sets and their mean
    assert len(table.read_text().splitlines()) == 1 + (1 + 2 + 2 + 1 + 2) * 3
    write(ltd={"type": "univfd"})
    assert "heads.ltd of params.yaml to be of type ltd, found univfd" in str(invoke("sweep", "window").exception)
