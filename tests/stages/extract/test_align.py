"""Aligned views: the class with fewer JPEG files is encoded as the other one is, once, and nothing else changes."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from extract_pictures import picture, save

from stages.extract.align import alignment
from stages.extract.settings import Runtime
from stages.extract.views import recompress
from storage.errors import SettingError
from storage.features import FeatureTable
from storage.index import INDEX_SCHEMA


def index(*classes):
    """An index of (count, label, format, quality[, sets])."""
    rows = []
    for count, label, kind, quality, *own in classes:
        facts = {"label": label, "format": kind, "jpeg_quality": quality, "sets": own[0] if own else ["a"]}
        stated = {"size_bytes": 1, "mtime_ns": 1, "status": "ok"}
        rows += [{"path": f"{label}/{len(rows) + at:05d}", **stated, **facts} for at in range(count)]
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def encoded(table):
    """(label, format, quality encoded at) -> images."""
    qualities, _ = alignment(table, "c")
    return Counter(zip(table["label"].to_pylist(), table["format"].to_pylist(), qualities.to_pylist(), strict=True))


def test_every_lossless_fake_becomes_a_jpeg_like_the_reals():
    found = encoded(index((300, 0, "JPEG", 75), (100, 0, "JPEG", 95), (1000, 1, "PNG", None)))
    assert found[0, "JPEG", None] == 400
    assert found[1, "PNG", 75] + found[1, "PNG", 95] == 1000
    assert found[1, "PNG", 75] == pytest.approx(750, abs=60)


def test_reals_are_encoded_where_they_are_the_rarer_ones():
    assert encoded(index((5, 0, "BMP", None), (5, 1, "JPEG", 80))) == {(0, "BMP", 80): 5, (1, "JPEG", None): 5}


def test_shares_of_jpeg_become_equal_and_lossy_files_stay():
    table = index((800, 0, "JPEG", 90), (200, 0, "PNG", None), (500, 1, "PNG", None), (300, 1, "JPEG", 60))
    found = encoded(pa.concat_tables([table, index((200, 1, "WEBP", None))]))
    assert found[1, "PNG", 90] == pytest.approx(500, abs=0)  # 80 % would take 500 of them: 300 are JPEG, 200 stay WebP
    found = encoded(index((500, 0, "JPEG", 90), (500, 0, "PNG", None), (1000, 1, "PNG", None)))
    assert found[1, "PNG", 90] == pytest.approx(500, abs=60)
    assert found[0, "PNG", None] == 500


def test_sets_are_aligned_apart_unless_they_share_images():
    apart = [
        (9, 0, "JPEG", 70, ["a"]),
        (9, 1, "PNG", None, ["a"]),
        (9, 0, "PNG", None, ["b"]),
        (9, 1, "PNG", None, ["b"]),
    ]
    found = encoded(index(*apart, (9, 1, "PNG", None, ["alone"])))
    assert found == {(0, "JPEG", None): 9, (1, "PNG", 70): 9, (0, "PNG", None): 9, (1, "PNG", None): 18}
    shared = [(9, 0, "JPEG", 70, ["a", "b"]), (9, 1, "PNG", None, ["a"]), (9, 1, "BMP", None, ["b"])]
    assert encoded(index(*shared)) == {(0, "JPEG", None): 9, (1, "PNG", 70): 9, (1, "BMP", 70): 9}


def test_a_draw_depends_on_the_image_alone_and_the_digest_on_the_distribution():
    table = index((50, 0, "JPEG", 75), (50, 0, "JPEG", 95), (60, 1, "PNG", None))
    qualities, digest = alignment(table, "c")
    order = np.random.default_rng(0).permutation(len(table))
    shuffled, same = alignment(table.take(order), "c")
    assert shuffled.equals(qualities.take(order))
    assert same == digest
    assert alignment(table.slice(1), "c")[1] != digest


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([(5, 0, "PNG", None), (5, 1, "PNG", None)], "would encode no image"),
        ([(5, 0, "JPEG", 75), (5, 1, "JPEG", 95)], "would encode no image"),
        ([(5, 0, "JPEG", 75), (5, 1, "WEBP", None)], "fewer of them, beside BMP, PNG, TIFF files"),
        ([(5, 1, "PNG", None)], "would encode no image"),
        ([(5, 0, "JPEG", 75), (5, None, "PNG", None)], "5 have no label"),
    ],
)
def test_where_nothing_can_be_aligned_one_line_says_why(classes, words):
    with pytest.raises(SettingError, match="corpus 'c': the view align") as error:
        alignment(index(*classes), "c")
    assert words in str(error.value)


VIEWS = ("clean", "train:1", "align", "align-train:1")


def labelled(folder, fakes=6):
    for number in range(6):
        save(folder / "0_real" / f"{number}.jpg", seed=number, quality=60)
    for number in range(fakes):
        save(folder / "1_fake" / f"{number}.png", seed=number)


@pytest.mark.parametrize("loaders", [0, 2])
def test_extraction_encodes_the_fakes_alone_and_once(tiny, folder, extract, tmp_path, loaders):
    labelled(folder)
    summary, clean = extract(folder, views=VIEWS, runtime=Runtime(loaders=loaders, batch=1))
    plain, align, training = (
        FeatureTable.open(tmp_path / "out" / name) for name in ("train-0", "align", "align-train-0")
    )
    assert list(summary.views.values()) == [12] * 4
    is_real = clean.index["label"].to_numpy() == 0
    for before, after in ((clean, align), (plain, training)):
        same = (before.read() == after.read()).all(axis=(1, 2))
        assert np.array_equal(same, is_real)
        assert before.key != after.key
    by_hand = folder.parent / "by-hand"
    for number in range(6):
        (by_hand / "1_fake").mkdir(parents=True, exist_ok=True)
        recompress(picture(seed=number), "JPEG", 60).save(by_hand / "1_fake" / f"{number}.png")
    _, expected = extract(by_hand, out="by-hand", runtime=Runtime(loaders=0, batch=1))
    assert np.array_equal(align.read()[~is_real], expected.read())


def test_another_distribution_is_another_key_and_an_equal_one_is_not_made_again(tiny, folder, extract, tmp_path):
    labelled(folder)
    extract(folder, views=VIEWS)
    first = FeatureTable.open(tmp_path / "out" / "align").key
    summary, _ = extract(folder, views=VIEWS)
    assert summary.extracted == 0
    save(folder / "0_real" / "more.jpg", seed=9, quality=90)
    summary, _ = extract(folder, views=VIEWS)
    assert summary.views == {"clean": 1, "train-0": 1, "align": 13, "align-train-0": 13}
    assert FeatureTable.open(tmp_path / "out" / "align").key != first
