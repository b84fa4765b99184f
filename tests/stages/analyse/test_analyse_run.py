"""The files of the analyse stage, from a real view on disk."""

import shutil

import numpy as np
import pytest

from running import read_csv
from stages.analyse.files import (
    PROFILE_SCHEMA,
    PROJECTION_SCHEMA,
    WINDOW_SCHEMA,
    projection_path,
    read_analysis,
    windows_path,
)
from stages.analyse.run import run
from stages.analyse.transitions import divergences, principal_components, transitions, window_aucs
from storage.errors import DataError

ROWS = [
    ("a", 1, "zeta"),
    ("b", 0, None),
    ("c", 1, "alpha"),
    ("d", 0, None),
    ("e", 1, "zeta"),
    ("f", 1, None),
    ("g", 1, "real"),
]


@pytest.fixture
def tokens():
    return np.random.default_rng(2).normal(1, 1, (7, 5, 8)).astype(np.float16)


@pytest.fixture
def analyse(tmp_path, write):
    """Write a view, analyse it and return the path of the profiles."""

    def of(rows, tokens, **settings):
        write(tmp_path / "v", rows, tokens, **settings)
        out = tmp_path / "out" / "p.parquet"
        run(features=tmp_path / "v", out=out)
        return out

    return of


def _rows(path, schema):
    return read_analysis(path, schema).table.to_pylist()


def test_profiles_of_reals_and_each_generator_are_written_and_the_csv_holds_the_same_rows(analyse, tokens):
    out = analyse(ROWS, tokens)
    profile = read_analysis(out, PROFILE_SCHEMA)
    assert (profile.corpus, profile.view, profile.facts["images"]) == ("demo", "v", 7)
    rows = profile.table.to_pylist()
    groups = list(dict.fromkeys((row["label"], row["group"], row["n"]) for row in rows))
    assert groups == [(0, "real", 2), (1, "alpha", 1), (1, "real", 1), (1, "unnamed generator", 1), (1, "zeta", 2)]
    moved = transitions(tokens[[1, 3]], range(5))
    reals = [row for row in rows if row["label"] == 0]
    assert [row["transition"] for row in reals] == [0, 1, 2, 3]
    for at, name in enumerate(("cosine", "l2")):
        assert [row[f"{name}_mean"] for row in reals] == pytest.approx(moved[:, :, at].mean(axis=0), rel=1e-12)
        assert [row[f"{name}_std"] for row in reals] == pytest.approx(moved[:, :, at].std(axis=0, ddof=1), rel=1e-9)
    assert all(row["l2_std"] is None for row in rows if row["n"] == 1)
    read = read_csv(out.with_suffix(".csv"))
    assert [{name: value or None for name, value in row.items()} for row in read] == [
        {name: value if value is None else str(value) for name, value in row.items()} for row in rows
    ]


def test_where_attention_was_extracted_the_profile_has_its_divergence_and_the_rest_is_the_same(
    analyse, tokens, tmp_path
):
    without = _rows(analyse(ROWS, tokens), PROFILE_SCHEMA)
    attention = np.random.default_rng(3).dirichlet(np.ones(9), (7, 5)).astype(np.float16)
    shutil.rmtree(tmp_path / "v")
    out = analyse(ROWS, tokens, attention=attention)
    rows = _rows(out, PROFILE_SCHEMA)
    reals = [row for row in rows if row["label"] == 0]
    measured = divergences(attention[[1, 3]], range(5))
    assert [row["attention_mean"] for row in reals] == pytest.approx(measured.mean(axis=0))
    assert [row["attention_std"] for row in reals] == pytest.approx(measured.std(axis=0, ddof=1))
    names = ("attention_mean", "attention_std")
    assert [{name: value for name, value in row.items() if name not in names} for row in rows] == without
    table = read_csv(out.with_suffix(".csv"))
    assert [float(row["attention_mean"]) for row in table] == [row["attention_mean"] for row in rows]


def test_windows_separate_all_generators_and_each_from_the_reals(analyse, tokens):
    out = analyse(ROWS, tokens)
    rows = _rows(windows_path(out), WINDOW_SCHEMA)
    groups = list(dict.fromkeys((row["generator"], row["n_real"], row["n_fake"]) for row in rows))
    assert groups == [(None, 2, 5), ("alpha", 2, 1), ("real", 2, 1), ("unnamed generator", 2, 1), ("zeta", 2, 2)]
    real = np.array([label == 0 for _, label, _ in ROWS])
    zeta = np.array([generator == "zeta" for _, _, generator in ROWS])
    moved = transitions(tokens, range(5)).astype(np.float32)
    for generator, fake in ((None, ~real), ("zeta", zeta)):
        found = [tuple(row.values())[1:5] for row in rows if row["generator"] == generator]
        assert found == list(window_aucs(moved, range(4), real, fake))


def test_the_projection_holds_raw_tokens_and_their_differences(analyse, tokens):
    out = analyse(ROWS, tokens)
    projection = read_analysis(projection_path(out), PROJECTION_SCHEMA)
    rows, blocks = projection.table.to_pylist(), projection.facts["blocks"]
    assert blocks == [2, 3, 4]  # the default candidates of six blocks
    assert [(row["path"], row["label"]) for row in rows] == [(path, label) for path, label, _ in ROWS]
    read = tokens[:, blocks].astype(np.float32)
    for name, features in (("raw", read), ("ltd", np.diff(read, axis=1))):
        points, shares = principal_components(features.reshape(7, -1))
        np.testing.assert_allclose([[row[f"{name}_x"], row[f"{name}_y"]] for row in rows], points)
        np.testing.assert_allclose(projection.facts["explained"][name], shares)


def test_batches_change_nothing_and_equal_features_give_equal_bytes(analyse, tokens, tmp_path, monkeypatch):
    out = analyse(ROWS, tokens)
    run(features=tmp_path / "v", out=tmp_path / "again" / "p.parquet")
    monkeypatch.setattr("stages.analyse.run._BATCH", 3)  # of 7 images, the last batch being a rest
    run(features=tmp_path / "v", out=tmp_path / "batched" / "p.parquet")
    for suffix in (".parquet", ".csv", ".windows.parquet", ".projection.parquet"):
        found = {out.with_suffix(suffix).read_bytes()}
        found |= {(tmp_path / name / f"p{suffix}").read_bytes() for name in ("again", "batched")}
        assert len(found) == 1


def test_unlabelled_images_are_a_group_behind_the_others_and_count_as_neither_class(analyse, tokens):
    out = analyse([("a", None, None), *ROWS[1:]], tokens)
    groups = list(dict.fromkeys((row["label"], row["group"]) for row in _rows(out, PROFILE_SCHEMA)))
    assert (groups[0], groups[-1]) == ((0, "real"), (None, "unlabelled"))
    windows = _rows(windows_path(out), WINDOW_SCHEMA)
    assert {row["generator"] for row in windows} == {None, "alpha", "real", "unnamed generator", "zeta"}
    assert (windows[0]["generator"], windows[0]["n_real"], windows[0]["n_fake"]) == (None, 2, 4)


def test_features_that_show_no_transition_are_refused_by_name(tmp_path, tokens, write):
    write(tmp_path / "gaps", ROWS, tokens[:, :2], blocks=[1, 4])
    write(tmp_path / "empty", [], tokens[:0])
    tokens[2, 3] = 0
    write(tmp_path / "damaged", ROWS, tokens)
    for name, complaint in (
        ("gaps", r"blocks \[1, 4\], no two of them neighbours"),
        ("empty", "no usable image"),
        ("damaged", "damaged: row 2: .* block 3 .* extract again"),
    ):
        with pytest.raises(DataError, match=complaint):
            run(features=tmp_path / name, out=tmp_path / "p.parquet")
    assert not (tmp_path / "p.parquet").exists()
