"""Every image is one row in its place, whatever it is and wherever it lies, and nothing else is read."""

import io
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from broken_files import break_folder

from stages.predict.inputs import find_images
from stages.predict.results import Prediction, columns
from stages.predict.run import predictions
from storage import names
from storage.errors import DataError


def listed(*paths, stdin=b"", left_out=None, **options):
    left_out = Counter() if left_out is None else left_out
    return list(find_images([str(path) for path in paths], io.BytesIO(stdin), left_out, **options))


@pytest.fixture
def real(study):
    return sorted((study.images("test") / "real").iterdir())


def test_60_images_of_which_30_are_broken_are_60_rows(study, detector, real, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    outside = tmp_path / "outside.png"
    shutil.copy(real[0], outside)
    broken = break_folder(folder, outside)
    assert len(broken) == 30
    good = [f"{letter}-good-{number:02}.png" for letter in "az" for number in range(15)]
    for number, name in enumerate(good):
        os.link(real[number % len(real)], folder / name)
    found = list(predictions(detector, listed(folder), loaders=2, batch=16))
    files = sorted(f"{folder}/{name}" for name in [*good, *broken - {"folder.png"}])
    assert [one.path for one in found] == [*files, f"{folder}/folder.png"]
    failed = {one.path.rpartition("/")[2]: one.error for one in found if one.status == "failed"}
    assert failed.keys() == broken
    assert all(error and "\n" not in error for error in failed.values())
    assert {(one.verdict, one.probability, one.logit) for one in found if one.error} == {(None, None, None)}
    logits = {one.path.rpartition("/")[2]: one.logit for one in found if one.verdict}
    expected = [one.logit for one in detector.score(real)]
    assert [logits[name] for name in good] == pytest.approx((expected * 2)[: len(good)], abs=1e-3)
    reasons = {name: error.split(":")[0] for name, error in failed.items()}
    assert (reasons["png-bomb.png"], reasons["html.png"]) == ("too large", "no image")
    assert reasons["jpeg-half.jpg"] == reasons["empty.jpg"] == "truncated"
    assert {reasons[name] for name in ("huge.png", "pipe.jpg", "dangling.png", "folder.png")} == {"unreadable"}


def test_links_that_lead_out_are_read_only_when_asked(real, tmp_path):
    folder, outside = tmp_path / "given", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    shutil.copy(real[0], outside / "secret.png")
    (folder / "link.png").symlink_to(outside / "secret.png")
    with zipfile.ZipFile(outside / "more.zip", "w") as file:
        file.write(real[2], "1.png")
    (folder / "more.zip").symlink_to(outside / "more.zip")
    shutil.copy(real[1], folder / ".hidden.png")
    (folder / "tree").symlink_to(outside)
    shutil.copy(real[1], folder / "own.png")
    (folder / "within.png").symlink_to("own.png")
    (folder / "up").symlink_to(folder)
    left_out = Counter()
    found = {item.name.removeprefix(f"{folder}/"): item.error for item in listed(folder, left_out=left_out)}
    assert found.keys() == {"link.png", "own.png", "within.png", "tree", "more.zip"}
    assert found["own.png"] is found["within.png"] is None
    assert all("leads out" in found[name] for name in ("link.png", "tree", "more.zip"))
    assert left_out == {"hidden": 1, "circular link": 1}
    followed = {item.name.removeprefix(f"{folder}/"): item.error for item in listed(folder, follow_links=True)}
    assert followed == dict.fromkeys(
        ["link.png", "own.png", "within.png", "tree/secret.png", "tree/more.zip!/1.png", "more.zip!/1.png"]
    )


def test_names_and_reasons_are_one_line_that_no_terminal_obeys(real, tmp_path):
    shutil.copy(real[0], tmp_path / "a\n\x1b[31m.png")
    (item,) = listed(tmp_path)
    assert item.name == f"{tmp_path}/a\\x0a\\x1b[31m.png"
    assert Path(names.to_path(item.name)).exists()
    reason = Prediction(path="a", status="failed", error="odd:\x1b[31m\nx").row(columns(check=False))["error"]
    assert reason == "odd:\\x1b[31m\\nx"


@pytest.mark.parametrize("line", [b"x" * 10_000_000, b"a\0b.png\n", b"y" * 4097 + b"\n"])
def test_a_line_that_is_no_path_ends_the_list_in_one_clear_line(line):
    stream = io.BytesIO(b"first.png\n" + line)
    with pytest.raises(DataError, match="line 2 of the list on standard input") as caught:
        list(find_images(["-"], stream, Counter()))
    assert len(str(caught.value)) < 200
    assert stream.tell() < 20_000  # the rest of it was not read into memory


def test_what_is_not_there_or_empty_is_said(tmp_path):
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        listed(tmp_path / "none.png")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="no image file in"):
        listed(tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match=r"bad\.zip cannot be read"):
        listed(tmp_path / "bad.zip")
