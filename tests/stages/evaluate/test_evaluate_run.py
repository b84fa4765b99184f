import json

import numpy as np
import pytest
import torch
from small_features import spec_of, write_view

from planted import change_column
from stages.audit.match import matched_sets
from stages.evaluate.run import HeadToScore, run, run_views
from stages.evaluate.scores import ScoreCard, read_scores
from stages.heads.file import build_head
from stages.heads.settings import LinearSettings, LtdSettings, TrainSettings
from stages.predict.make import run as make_bundle
from stages.train.data import split_rows
from storage.atomic import sha256_of
from storage.errors import DataError
from storage.features import FeatureTable
from storage.headfile import load_head, save_head

SETTINGS = TrainSettings(validation_share=0.3, validation_view="val")


@pytest.fixture
def make_head(tmp_path):
    """Write the file of an untrained head with the given settings."""

    def make(settings, **facts):
        torch.manual_seed(0)
        module = build_head(settings, blocks=3, width=8, embedding=4)
        metadata = {
            "head": "probe", "seed": 7, "settings": settings.model_dump(mode="json"), "corpus": "training",
            "train": SETTINGS.model_dump(mode="json"), "feature_key": spec_of("train-0").key,
            "feature_spec": spec_of("train-0").to_json(), "facts": facts,
        }  # fmt: skip
        save_head(tmp_path / "head.safetensors", module.state_dict(), metadata)
        return tmp_path / "head.safetensors"

    return make


@pytest.fixture
def head(make_head):
    return make_head(LinearSettings(block="last"), window_start=None)


def score_views(features, head, out, trained_on=None, **more):
    """Score one head and return view -> number of images."""
    (summary,) = run_views(
        features=features, heads=[HeadToScore(head, out, trained_on)], finished=out.with_name("finished"), **more
    )
    counts = {path.stem: len(read_scores(path)) for path in sorted(out.iterdir())}
    assert summary == (len(counts), sum(counts.values()), 0)
    return counts


def _logits_by_hand(head, tokens):
    weights, _ = load_head(head)
    weight, bias = (next(w for name, w in weights.items() if name.endswith(end)) for end in ("weight", "bias"))
    return tokens[:, -1].astype(np.float32) @ weight.numpy()[0] + bias.numpy()[0]


def test_every_view_is_scored_and_training_views_are_not(tmp_path, head, monkeypatch):
    monkeypatch.setattr("stages.heads.file._BATCH", 16)  # of 60 images, the last batch being a rest
    tokens = {name: write_view(tmp_path / "features" / name, seed=i) for i, name in enumerate(("clean", "jpeg-70"))}
    for name in ("train-0", "train-1", "val"):
        write_view(tmp_path / "features" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "blur-9.parquet").write_text("of a view that is no longer there")
    counts = score_views(tmp_path / "features", head, tmp_path / "out")
    assert counts == {"clean": 60, "jpeg-70": 60}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clean.parquet", "jpeg-70.parquet"]
    for name, of_view in tokens.items():
        scores = read_scores(tmp_path / "out" / f"{name}.parquet")
        np.testing.assert_allclose(scores.logit, _logits_by_hand(head, of_view), atol=1e-5)
        assert scores.card == ScoreCard(
            head="probe", seed=7, corpus="corpus", view=name, failed=0, head_sha256=sha256_of(head),
            feature_key=FeatureTable.open(tmp_path / "features" / name).key,
            facts={"window_start": None, "trained_on": "training"},
        )  # fmt: skip


@pytest.mark.parametrize(("views", "seen"), [(["clean", "val", "train-0"], "clean"), (["val", "train-0"], "val")])
def test_the_images_held_out_of_training_are_scored_as_test_images_are_seen(tmp_path, head, views, seen):
    write_view(tmp_path / "features" / "clean")
    tokens = {
        view: write_view(tmp_path / "training" / view, corpus="training", prefix="t", images=80, seed=i)
        for i, view in enumerate(views)
    }
    counts = score_views(tmp_path / "features", head, tmp_path / "out", tmp_path / "training")
    scores = read_scores(tmp_path / "out" / "held-out.parquet")
    table = FeatureTable.open(tmp_path / "training" / seen)
    rows = split_rows(table, SETTINGS).validation
    assert scores.path.tolist() == table.index["path"].take(rows).to_pylist()
    np.testing.assert_allclose(scores.logit, _logits_by_hand(head, tokens[seen][rows]), atol=1e-5)
    assert 0 < counts["held-out"] == len(rows) < 80
    assert (scores.card.corpus, scores.card.view) == ("training", "held-out")


def test_heads_are_scored_together_as_alone_and_only_where_something_is_new(tmp_path, make_head):
    """Heads of different blocks and settings, on two views, a matched one and what is held out of training."""
    features, trained_on, finished = tmp_path / "features", tmp_path / "training", tmp_path / "finished"
    for number, view in enumerate(("clean", "jpeg-70")):
        write_view(features / view, seed=number)
    write_view(trained_on / "clean", corpus="training", prefix="t", images=80)
    kinds = {
        "last": LinearSettings(block="last"),
        "first": LinearSettings(block=0),
        "all": LinearSettings(block="all"),
        "ltd": LtdSettings(candidates=(1, 2), window=2),
    }
    files = {name: make_head(settings).rename(tmp_path / f"{name}.safetensors") for name, settings in kinds.items()}

    def score_all(*names, folder="together", **more):
        heads = [HeadToScore(files[name], tmp_path / folder / name, trained_on) for name in names]
        given = {"features": features, "finished": finished, "match": ["size"], **more}
        return [(each.scored > 0, each.kept > 0) for each in run_views(heads=heads, **given)]

    assert score_all(*kinds) == [(True, False)] * 4
    for name in kinds:
        score_all(name, folder="alone", finished=tmp_path / f"finished-{name}")
    together, alone = (
        {path.relative_to(tmp_path / folder): path.read_bytes() for path in (tmp_path / folder).rglob("*.parquet")}
        for folder in ("together", "alone")
    )
    assert together == alone
    assert len(together) == 4 * 4
    assert score_all(*kinds) == [(False, True)] * 4
    write_view(features / "blur-2", seed=7)
    assert score_all("first", "ltd") == [(True, True)] * 2
    files["first"] = make_head(LinearSettings(block=1))
    assert score_all("first", "ltd") == [(True, False), (False, True)]
    change_column(features / "clean", "label", [1 - row % 2 for row in range(60)])
    assert score_all("ltd") == [(True, True)]
    damaged = next(
        path for path in finished.iterdir() if path.samefile(tmp_path / "together" / "ltd" / "blur-2.parquet")
    )
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert score_all("ltd") == [(True, True)]
    assert len(read_scores(tmp_path / "together" / "ltd" / "blur-2.parquet")) == 60


def test_a_head_of_another_version_s_features_is_refused_with_the_setting_that_is_not_known(tmp_path, head):
    weights, metadata = load_head(head)
    spec = json.dumps(json.loads(metadata["feature_spec"]) | {"grid": 7})
    save_head(tmp_path / "newer", weights, metadata | {"feature_spec": spec})
    write_view(tmp_path / "clean")
    for use in (
        lambda: run(features=tmp_path / "clean", head=tmp_path / "newer", out=tmp_path / "s.parquet"),
        lambda: make_bundle(head=tmp_path / "newer", out=tmp_path / "b.ltd"),
    ):
        with pytest.raises(DataError, match=r"head \S+newer was written by another version .* setting\(s\) grid;"):
            use()


def test_ten_crops_are_one_view_with_the_mean_of_their_logits(tmp_path, head):
    crops = [write_view(tmp_path / "features" / f"tencrop-{i}", seed=i) for i in range(3)]
    assert score_views(tmp_path / "features", head, tmp_path / "out") == {"tencrop": 60}
    expected = np.mean([_logits_by_hand(head, crop) for crop in crops], axis=0)
    np.testing.assert_allclose(read_scores(tmp_path / "out" / "tencrop.parquet").logit, expected, atol=1e-5)
    write_view(tmp_path / "other" / "tencrop-0")
    write_view(tmp_path / "other" / "tencrop-1", prefix="x")
    with pytest.raises(DataError, match="different images"):
        score_views(tmp_path / "other", head, tmp_path / "out")


def test_another_view_of_the_same_backbone_is_scored_and_another_backbone_is_not(tmp_path, head):
    write_view(tmp_path / "squashed", view={"decoder": "pillow", "geometry": "squash"})
    assert run(features=tmp_path / "squashed", head=head, out=tmp_path / "s.parquet") == 60
    write_view(tmp_path / "more", patches=4)  # what else is stored is no matter of the head's
    assert run(features=tmp_path / "more", head=head, out=tmp_path / "s.parquet") == 60
    write_view(tmp_path / "gelu", activation="gelu")
    with pytest.raises(DataError, match="activation: quickgelu here, gelu there"):
        run(features=tmp_path / "gelu", head=head, out=tmp_path / "s.parquet")


def test_images_without_labels_and_folders_without_views_are_refused(tmp_path, head):
    write_view(tmp_path / "clean", labelled=False)
    with pytest.raises(DataError, match="without a label"):
        run(features=tmp_path / "clean", head=head, out=tmp_path / "s.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no view to evaluate"):
        score_views(tmp_path / "empty", head, tmp_path / "out")


def test_scoring_draws_nothing_and_counts_what_could_not_be_read(tmp_path, make_head):
    """A head with dropout and a learned window, which training draws."""
    head = make_head(LtdSettings(candidates=(0, 2), window=2, dropout=0.5), window_start=0, pi=[0.9, 0.1])
    write_view(tmp_path / "clean", failed=3)
    for name in ("one", "two"):
        assert run(features=tmp_path / "clean", head=head, out=tmp_path / name) == 60
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    card = read_scores(tmp_path / "one").card
    assert card.failed == 3
    assert card.facts == {"window_start": 0, "window": 2, "trained_on": "training"}  # of what training noted, this


@pytest.mark.parametrize("match", ["size", "jpeg+size"])
def test_a_matched_subset_is_a_view_of_its_own_with_the_same_logits(tmp_path, head, match):
    write_view(tmp_path / "features" / "clean")
    change_column(tmp_path / "features" / "clean", "width", [300 if row % 4 == 0 else 200 for row in range(60)])
    sets = [["gan"] if row % 4 == 1 else ["gan", "part"] for row in range(60)]  # in the second, others are alike
    change_column(tmp_path / "features" / "clean", "sets", sets)
    score_views(tmp_path / "features", head, tmp_path / "out", match=[match])
    clean, matched = (read_scores(tmp_path / "out" / f"{name}.parquet") for name in ("clean", f"matched-{match}"))
    table = FeatureTable.open(tmp_path / "features" / "clean")
    for name, rows in matched_sets(table.index, match).items():
        members = matched.members.get(name, np.empty(0, int))
        assert matched.path[members].tolist() == table.index["path"].take(rows).to_pylist()
        assert (matched.label[members] == 0).sum() == (matched.label[members] == 1).sum()
    logits = dict(zip(clean.path, clean.logit, strict=True))
    assert [logits[path] for path in matched.path] == pytest.approx(matched.logit.tolist(), abs=1e-6)
    assert 20 < len(matched) < 40


@pytest.mark.parametrize(
    ("splits", "tested"),
    [(("train", "test"), "test"), (("train", "val", "test"), "test"), (("train",), "train")],
)
def test_only_images_of_the_evaluated_split_are_scored(tmp_path, head, splits, tested):
    write_view(tmp_path / "features" / "clean", splits=splits)
    score_views(tmp_path / "features", head, tmp_path / "scores", match=("size",))
    index = FeatureTable.open(tmp_path / "features" / "clean").index
    expected = {path for path, split in zip(*map(index.__getitem__, ("path", "split")), strict=True)
                if split.as_py() == tested for path in [path.as_py()]}  # fmt: skip
    assert set(read_scores(tmp_path / "scores" / "clean.parquet").path) == expected
    assert set(read_scores(tmp_path / "scores" / "matched-size.parquet").path) <= expected


@pytest.mark.parametrize(
    ("corpus", "splits", "validation", "use"),
    [
        ("training", (None,), "held-out", "trained"),
        ("training", ("train", "test"), "test", "chose the epoch of"),
        ("another", (None,), "held-out", None),
    ],
)
def test_scores_say_what_the_tested_images_did_to_the_head(tmp_path, head, *, corpus, splits, validation, use):
    weights, metadata = load_head(head)
    metadata["train"] |= {"validation": validation, "optimizer": "adamw"}  # as an earlier version wrote it
    save_head(head, weights, metadata)
    write_view(tmp_path / "features" / "clean", splits=splits, corpus=corpus)
    score_views(tmp_path / "features", head, tmp_path / "scores")
    assert read_scores(tmp_path / "scores" / "clean.parquet").card.facts.get("tested_images") == use
