import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.analyse.files import (
    PROFILE_SCHEMA,
    PROJECTION_SCHEMA,
    WINDOW_SCHEMA,
    projection_path,
    read_analysis,
    windows_path,
    write_analysis,
)
from stages.analyse.profiles import transition_profiles, window_aucs
from stages.analyse.projection import project
from stages.analyse.run import run
from storage.errors import DataError
from storage.features import FeatureTable


@pytest.fixture
def tokens():
    return np.random.default_rng(2).normal(1, 1, (7, 5, 8)).astype(np.float16)


ROWS = [
    ("a", 1, "zeta"),
    ("b", 0, None),
    ("c", 1, "alpha"),
    ("d", 0, None),
    ("e", 1, "zeta"),
    ("f", 1, None),
    ("g", 1, "real"),
]


def test_profiles_of_reals_and_each_generator_are_written(tmp_path, tokens, write):
    spec = write(tmp_path / "demo" / "test", ROWS, tokens)
    run(features=tmp_path / "demo" / "test", out=tmp_path / "analysis" / "demo.parquet")
    profile = read_analysis(tmp_path / "analysis" / "demo.parquet", PROFILE_SCHEMA)
    assert (profile.corpus, profile.view, profile.feature_key) == ("demo", "test", spec.key)
    rows = profile.table.to_pylist()
    groups = list(dict.fromkeys((row["label"], row["group"], row["n"]) for row in rows))
    assert groups == [(0, "real", 2), (1, "alpha", 1), (1, "real", 1), (1, "unnamed generator", 1), (1, "zeta", 2)]
    direct = transition_profiles([(tokens[[1, 3]], np.zeros(2, int))], blocks=range(5), groups=1)
    reals = [row for row in rows if row["label"] == 0]
    assert [row["transition"] for row in reals] == [0, 1, 2, 3]
    assert [row["cosine_mean"] for row in reals] == direct.mean[0, :, 0].tolist()
    assert [row["cosine_std"] for row in reals] == direct.std[0, :, 0].tolist()
    assert [row["l2_mean"] for row in reals] == direct.mean[0, :, 1].tolist()
    assert [row["l2_std"] for row in reals] == direct.std[0, :, 1].tolist()
    assert all(row["l2_std"] is None for row in rows if row["n"] == 1)


def test_the_csv_holds_the_same_rows(tmp_path, tokens, write):
    write(tmp_path / "v", ROWS, tokens)
    run(features=tmp_path / "v", out=tmp_path / "p.parquet")
    with (tmp_path / "p.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert list(read[0]) == PROFILE_SCHEMA.names
    assert [row["cosine_mean"] for row in read] == [repr(row["cosine_mean"]) for row in rows]
    assert [row["cosine_std"] for row in read if row["n"] == "1"] == [""] * 12


def test_windows_and_a_projection_lie_beside_the_profiles(tmp_path, tokens, write):
    spec = write(tmp_path / "v", ROWS, tokens)
    run(features=tmp_path / "v", out=tmp_path / "p.parquet")
    windows = read_analysis(windows_path(tmp_path / "p.parquet"), WINDOW_SCHEMA)
    rows = windows.table.to_pylist()
    groups = list(dict.fromkeys((row["generator"], row["n_real"], row["n_fake"]) for row in rows))
    assert groups == [(None, 2, 5), ("alpha", 2, 1), ("real", 2, 1), ("unnamed generator", 2, 1), ("zeta", 2, 2)]
    assert {(row["start"], row["blocks"]) for row in rows} == {
        (start, n) for n in (2, 3, 4, 5) for start in range(6 - n)
    }
    projection = read_analysis(projection_path(tmp_path / "p.parquet"), PROJECTION_SCHEMA)
    assert projection.feature_key == windows.feature_key == spec.key
    assert projection.facts["images"] == 7
    direct = project(FeatureTable.open(tmp_path / "v"), np.arange(7), np.arange(7))
    points = [[row[name] for name in ("raw_x", "raw_y", "ltd_x", "ltd_y")] for row in projection.table.to_pylist()]
    np.testing.assert_allclose(points, direct.points.reshape(7, 4))
    np.testing.assert_allclose([projection.facts["explained"][name] for name in ("raw", "ltd")], direct.explained)
    assert projection.facts["blocks"] == list(direct.blocks)
    assert [row["path"] for row in projection.table.to_pylist()] == list("abcdefg")
    assert [row["label"] for row in projection.table.to_pylist()] == [1, 0, 1, 0, 1, 1, 1]


def test_batches_change_nothing_and_windows_tell_synthetic_from_real_images(tmp_path, tokens, write, monkeypatch):
    write(tmp_path / "v", ROWS, tokens)
    run(features=tmp_path / "v", out=tmp_path / "one.parquet")
    monkeypatch.setattr("stages.analyse.run._BATCH", 3)  # of 7 images, the last batch being a rest
    run(features=tmp_path / "v", out=tmp_path / "batched.parquet")
    moves = []
    transition_profiles([(tokens, np.zeros(7, int))], blocks=range(5), groups=1, on_moves=moves.append)
    real = np.array([label == 0 for _, label, _ in ROWS])
    zeta = np.array([generator == "zeta" for _, _, generator in ROWS])
    for out in (tmp_path / "one.parquet", tmp_path / "batched.parquet"):
        rows = read_analysis(windows_path(out), WINDOW_SCHEMA).table.to_pylist()
        for generator, fake in ((None, ~real), ("zeta", zeta)):
            found = [tuple(row.values())[1:5] for row in rows if row["generator"] == generator]
            assert found == list(window_aucs(moves[0].astype(np.float32), range(4), real, fake))
    one, batched = (read_analysis(tmp_path / f"{name}.parquet", PROFILE_SCHEMA).table for name in ("one", "batched"))
    for name in PROFILE_SCHEMA.names:
        if one[name].type == pa.float64():
            np.testing.assert_allclose(batched[name].to_numpy(), one[name].to_numpy(), rtol=1e-9)
        else:
            assert batched[name].equals(one[name])


def test_unlabelled_images_are_a_group_behind_the_others_and_count_as_neither_class(tmp_path, tokens, write):
    write(tmp_path / "v", [("a", None, None), *ROWS[1:]], tokens)
    run(features=tmp_path / "v", out=tmp_path / "p.parquet")
    rows = read_analysis(tmp_path / "p.parquet", PROFILE_SCHEMA).table.to_pylist()
    groups = list(dict.fromkeys((row["label"], row["group"]) for row in rows))
    assert (groups[0], groups[-1]) == ((0, "real"), (None, "unlabelled"))
    windows = read_analysis(windows_path(tmp_path / "p.parquet"), WINDOW_SCHEMA).table.to_pylist()
    together = windows[0]
    assert {row["generator"] for row in windows} == {None, "alpha", "real", "unnamed generator", "zeta"}
    assert (together["generator"], together["n_real"], together["n_fake"]) == (None, 2, 4)


def test_without_real_images_no_window_can_be_judged(tmp_path, tokens, write):
    write(tmp_path / "v", [(path, 1, "gan") for path, _, _ in ROWS], tokens)
    run(features=tmp_path / "v", out=tmp_path / "p.parquet")
    assert read_analysis(windows_path(tmp_path / "p.parquet"), WINDOW_SCHEMA).table.num_rows == 0
    assert len(read_analysis(tmp_path / "p.parquet", PROFILE_SCHEMA).table) == 4


def test_running_twice_gives_the_same_bytes(tmp_path, tokens, write):
    write(tmp_path / "v", ROWS, tokens)
    for name in ("one", "two"):
        run(features=tmp_path / "v", out=tmp_path / name / "p.parquet")
    for suffix in (".parquet", ".csv", ".windows.parquet", ".projection.parquet"):
        one, two = (tmp_path / name / f"p{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_features_without_neighbouring_blocks_or_images_are_refused(tmp_path, tokens, write):
    write(tmp_path / "gaps", ROWS, tokens[:, :2], blocks=[1, 4])
    with pytest.raises(DataError, match=r"blocks \[1, 4\]"):
        run(features=tmp_path / "gaps", out=tmp_path / "p.parquet")
    write(tmp_path / "empty", [], tokens[:0])
    with pytest.raises(DataError, match="no usable image"):
        run(features=tmp_path / "empty", out=tmp_path / "p.parquet")


def test_images_that_are_all_alike_have_a_projection_without_extent(tmp_path, tokens, write):
    write(tmp_path / "v", ROWS, tokens[:1].repeat(7, axis=0))
    run(features=tmp_path / "v", out=tmp_path / "p.parquet")
    projection = read_analysis(projection_path(tmp_path / "p.parquet"), PROJECTION_SCHEMA)
    assert projection.facts["explained"] == {"raw": [0.0, 0.0], "ltd": [0.0, 0.0]}
    assert projection.table.num_rows == 7
    windows = read_analysis(windows_path(tmp_path / "p.parquet"), WINDOW_SCHEMA).table
    assert set(windows["auc_cosine"].to_pylist()) == {0.5}


def test_small_differences_of_direction_are_told_apart(tmp_path, write):
    tokens = np.ones((len(ROWS), 5, 8), np.float16)
    for row, (_, label, _) in enumerate(ROWS):
        tokens[row, ::2, 0] = 1.0625 if label else 1.03125  # cosines of 0.9998 and 0.9999
    write(tmp_path / "v", ROWS, tokens)
    run(features=tmp_path / "v", out=tmp_path / "p.parquet")
    windows = read_analysis(windows_path(tmp_path / "p.parquet"), WINDOW_SCHEMA).table
    assert set(windows["auc_cosine"].to_pylist()) == {1.0}


def test_one_pair_of_neighbouring_blocks_is_enough(tmp_path, tokens, write):
    write(tmp_path / "v", ROWS, tokens[:, :3], blocks=[1, 4, 5])
    run(features=tmp_path / "v", out=tmp_path / "p.parquet")
    rows = read_analysis(tmp_path / "p.parquet", PROFILE_SCHEMA).table.to_pylist()
    assert {row["transition"] for row in rows} == {4}


def test_a_damaged_token_names_the_features(tmp_path, tokens, write):
    tokens[2, 3] = 0
    write(tmp_path / "v", ROWS, tokens)
    with pytest.raises(DataError, match=r"v: row 2: .* block 3 .* extract again"):
        run(features=tmp_path / "v", out=tmp_path / "p.parquet")
    assert not (tmp_path / "p.parquet").exists()


def test_columns_and_facts_that_others_added_are_passed_over_and_missing_ones_are_named(tmp_path, tokens, write):
    write(tmp_path / "v", ROWS, tokens)
    run(features=tmp_path / "v", out=tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    facts = json.loads(table.schema.metadata[b"ltdpipe"])
    more = table.select(table.column_names[::-1]).append_column("note", pa.array(["mine"] * len(table)))
    pq.write_table(more.replace_schema_metadata({b"ltdpipe": json.dumps(facts)}), tmp_path / "more.parquet")
    assert read_analysis(tmp_path / "more.parquet", PROFILE_SCHEMA).table.column_names == PROFILE_SCHEMA.names
    for name in ("corpus", "view", "feature_key"):
        less = json.dumps({key: facts[key] for key in facts if key != name})
        pq.write_table(table.replace_schema_metadata({b"ltdpipe": less}), tmp_path / "less.parquet")
        with pytest.raises(DataError, match=f"it lacks {name}; run `ltdpipe analyse` again"):
            read_analysis(tmp_path / "less.parquet", PROFILE_SCHEMA)


def test_facts_that_json_does_not_know_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_analysis(tmp_path / "p.parquet", [], PROFILE_SCHEMA, {"share": float("nan")})
    assert not list(tmp_path.iterdir())


def test_other_files_are_not_taken_for_an_analysis(tmp_path, tokens, write):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"no such file of `ltdpipe analyse`: it lacks corpus.*, group, label"):
        read_analysis(tmp_path / "other.parquet", PROFILE_SCHEMA)
    with pytest.raises(DataError, match=r"none\.parquet does not exist; run `ltdpipe analyse` again"):
        read_analysis(tmp_path / "none.parquet", PROFILE_SCHEMA)
    write(tmp_path / "v", ROWS, tokens)
    run(features=tmp_path / "v", out=tmp_path / "p.parquet")
    with pytest.raises(DataError, match="it lacks generator, start, blocks"):
        read_analysis(tmp_path / "p.parquet", WINDOW_SCHEMA)
