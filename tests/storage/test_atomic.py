from pathlib import Path

import pytest
from faults import small_disk

from running import without_root_s_privilege
from storage.atomic import atomic_path, write_text
from storage.errors import ResourceError


def test_a_file_appears_complete_and_alone(tmp_path):
    target = tmp_path / "deep" / "file"
    with atomic_path(target) as partial:
        partial.write_text("half")
        assert not target.exists()
        assert partial.parent == target.parent
    assert target.read_text() == "half"
    assert [entry.name for entry in target.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(("sync_folder", "last"), [(True, ["sync deep"]), (False, [])])
def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path, monkeypatch, sync_folder, last
):
    done = []
    (tmp_path / "deep").mkdir()
    replace = Path.replace
    monkeypatch.setattr("storage.atomic.fsync", lambda path: done.append(f"sync {path.name}"))
    monkeypatch.setattr(Path, "replace", lambda path, to: done.append(f"{path.name} -> {to.name}") or replace(path, to))
    with atomic_path(tmp_path / "deep" / "file", sync_folder=sync_folder) as partial:
        partial.write_text("x")
    assert done == [f"sync {partial.name}", f"{partial.name} -> file", *last]


def test_a_full_disk_is_explained_and_the_old_file_stays(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        write_text(disk / "file", "old")
        with pytest.raises(ResourceError, match=r"cannot write .*file: the disk is full.*same command again"):
            write_text(disk / "file", "x" * 200_000)
        assert (disk / "file").read_text() == "old"
        assert [entry.name for entry in disk.iterdir()] == ["file"]
        write_text(disk / "file", "new")


def test_a_folder_that_may_not_be_written_to_is_explained(tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    done = without_root_s_privilege(
        "from pathlib import Path; from storage.atomic import write_text; import sys\n"
        "from storage.errors import ResourceError\n"
        "try: write_text(Path(sys.argv[1]), 'x')\nexcept ResourceError as error: print(error)",
        folder / "file",
    )
    assert done.stdout.startswith(f"cannot write {folder / 'file'}: permission denied; choose a folder")


def test_a_file_where_a_folder_has_to_be_and_the_other_way_round_are_explained(tmp_path):
    write_text(tmp_path / "file", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ResourceError, match=r"cannot write .*file/below: a file lies where a folder"):
        write_text(tmp_path / "file" / "below", "y")
    with pytest.raises(ResourceError, match=r"cannot write .*folder: a folder lies there"):
        write_text(tmp_path / "folder", "y")
    with pytest.raises(ResourceError, match="too long"):
        write_text(tmp_path / ("n" * 300), "y")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
