from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.evaluate.scores import ScoreCard, read_card, read_scores, sigmoid, write_scores
from storage.errors import DataError

CARD = ScoreCard(
    head="ltd", seed=3, corpus="demo", view="test", feature_key="k" * 32, head_sha256="a" * 64, failed=2,
    facts={"window_start": 5},
)  # fmt: skip


def _images(**columns):
    plain = {
        "path": ["a.png", "b.png", "c.png", "d.png"],
        "sets": [["one", "two"], ["two"], ["one"], []],
        "generator": [None, None, "gan", "gan"],
        "label": pa.array([0, 0, 1, 1], pa.int8()),
    }
    return pa.table({**plain, **columns})


def _without_hash(table, original):
    """A table as another program writes it: with our metadata, without the hash of the file."""
    return table.replace_schema_metadata({b"ltdpipe": original.schema.metadata[b"ltdpipe"]})


def test_what_is_written_is_read_back_in_order_of_path(tmp_path):
    path = tmp_path / "scores" / "ltd-3.parquet"
    logits, order = np.array([-2.0, 1 / 3, np.nextafter(3.0, 4), 1e3]), [2, 0, 3, 1]
    write_scores(path, card=CARD, images=_images(size_bytes=[1, 2, 3, 4]).take(order), logits=logits[order])
    scores = read_scores(path)
    assert scores.card == read_card(path) == CARD
    assert len(scores) == 4
    assert scores.path.tolist() == ["a.png", "b.png", "c.png", "d.png"]
    assert scores.generator.tolist() == [None, None, "gan", "gan"]
    assert scores.label.tolist() == [0, 0, 1, 1]
    assert scores.logit.dtype == np.float64
    assert scores.logit.tolist() == logits.tolist()
    assert pq.read_table(path)["path"].to_pylist() == ["c.png", "a.png", "d.png", "b.png"]
    assert pq.read_table(path)["score"].to_pylist() == pytest.approx(sigmoid(logits[order]).tolist())
    assert {name: rows.tolist() for name, rows in scores.members.items()} == {"one": [0, 2], "two": [0, 1]}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_an_error_naming_image_and_file(tmp_path, bad):
    with pytest.raises(DataError, match=r"s\.parquet: the logit of 'c\.png' is (nan|-?inf)"):
        write_scores(tmp_path / "s.parquet", card=CARD, images=_images(), logits=np.array([0, 1, bad, 2.0]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": pa.array([0, 0, 2, 1], pa.int8())}, r"label of 'c\.png' is 2"),
        ({"label": pa.array([0, None, 1, 1], pa.int8())}, "`label` has 1 empty"),
        ({"path": ["a", None, "b", "c"]}, "`path` has 1 empty"),
        ({"path": ["a", "b", "a", "c"]}, "'a' is listed more than once"),
        ({"sets": [["x"], None, [], []]}, "`sets` has 1 empty"),
    ],
)
def test_images_that_cannot_be_evaluated_are_refused(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        write_scores(tmp_path / "s", card=CARD, images=_images(**columns), logits=np.zeros(4))


def test_files_that_are_no_scores_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("hello")
    pq.write_table(_images(), tmp_path / "other")
    for read in (read_scores, read_card):
        with pytest.raises(DataError, match="none does not exist; run `ltdpipe evaluate` again"):
            read(tmp_path / "none")
        with pytest.raises(DataError, match=r"text cannot be read .*; run `ltdpipe evaluate` again"):
            read(tmp_path / "text")
        with pytest.raises(DataError, match="no scores file: it lacks head, seed"):
            read(tmp_path / "other")
    with pytest.raises(DataError, match=r"lacks head, seed.*logit, score"):
        read_scores(tmp_path / "other")
    write_scores(tmp_path / "s", card=CARD, images=_images(), logits=np.zeros(4))
    table = pq.read_table(tmp_path / "s")
    pq.write_table(_without_hash(table.slice(0, 3), table), tmp_path / "cut")
    with pytest.raises(DataError, match="states 4 rows and has 3"):
        read_scores(tmp_path / "cut")


def test_a_file_damaged_anywhere_is_refused_or_gives_the_same_logits(tmp_path):
    path = tmp_path / "s.parquet"
    write_scores(path, card=CARD, images=_images(), logits=np.zeros(4))
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with suppress(DataError):
            read_card(path)
        with suppress(DataError):  # where the damage is in the mark of the hash, all else is sound
            assert read_scores(path).logit.tolist() == [0, 0, 0, 0]


def test_files_of_other_programs_are_read_where_they_hold_the_same_values(tmp_path):
    write_scores(tmp_path / "s", card=CARD, images=_images(), logits=np.arange(4.0))
    table = pq.read_table(tmp_path / "s")
    wide = table.set_column(3, "label", table["label"].cast(pa.int64()))
    wide = wide.set_column(4, "logit", table["logit"].cast(pa.float32()))
    pq.write_table(_without_hash(wide, table), tmp_path / "wide")
    scores = read_scores(tmp_path / "wide")
    assert (scores.label.dtype, scores.logit.dtype) == (np.int8, np.float64)
    assert scores.logit.tolist() == [0, 1, 2, 3]
    for at, name, values, message in (
        (3, "label", ["real", "real", "fake", "fake"], r"is no scores file: .*int8; run `ltdpipe evaluate` again"),
        (4, "logit", [0, np.nan, 0, 0.0], r"the logit of 'b\.png' is nan"),
        (4, "logit", [0, None, None, 0.0], "`logit` has 2 empty"),
    ):
        pq.write_table(_without_hash(table.set_column(at, name, pa.array(values)), table), tmp_path / "other")
        with pytest.raises(DataError, match=message):
            read_scores(tmp_path / "other")


def test_the_sigmoid_is_right_at_any_size():
    logits = np.array([-1e3, -30.0, -1e-9, 0.0, 1e-9, 30.0, 1e3])
    scores = sigmoid(logits)
    assert scores[[0, 3, 6]].tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_allclose(scores[1:6], 1 / (1 + np.exp(-logits[1:6])), rtol=1e-15)
    assert (np.diff(scores) > 0).all()
    assert sigmoid(np.array([30.0], np.float16)).dtype == np.float64
