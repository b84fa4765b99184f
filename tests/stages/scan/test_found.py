"""What archives look like to a layout."""

import miniatures
import pytest

from stages.scan.found import Folder
from stages.scan.run import run


@pytest.mark.parametrize(
    ("place", "folders"),
    [
        ("images/sdxl-base-1.0.zip!/sdxl-base-1.0/val", "images/sdxl-base-1.0/val"),
        ("sdxl/SDXL.ZIP!", "sdxl"),
        ("1_fake.zip!", "1_fake"),
        ("real.tar!/deep/er", "real/deep/er"),
        ("fake/train-000012.tar!", "fake"),
        ("fake/part-0.parquet!", "fake"),
        ("wow!/a.zip", "wow!/a.zip"),
    ],
)
def test_archives_read_like_folders_and_shards_like_nothing(place, folders):
    assert "/".join(Folder(place).folders) == folders


def test_hidden_members_of_archives_are_left_out(tmp_path):
    content = miniatures.picture("x")
    names = ("real/1.png", "real/.2.png", "__MACOSX/real/._1.png", ".trash/3.png", "fake/1.PNG", "notes.md")
    miniatures.pack(tmp_path / "all.zip", dict.fromkeys(names, content))
    table, summary = run(corpus="mini", root=tmp_path, layout="auto")
    assert table["path"].to_pylist() == ["all.zip!/fake/1.PNG", "all.zip!/real/1.png"]
    assert table["sets"].to_pylist() == [["all"], ["all"]]
    assert summary.skipped == {"hidden": 3, ".md": 1}
