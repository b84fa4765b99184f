"""Images come, go and change, and may be called anything: each keeps its own features under its own path."""

import os

import fsspec
import numpy as np
import pytest
from extract_pictures import save

from stages.extract.run import run
from stages.extract.settings import ExtractSettings, Runtime
from stages.scan.run import run as scan
from storage.errors import DataError
from storage.names import to_text
from storage.sources import Sources

HERE = Runtime(loaders=0, shard_size=3)
CHECKING = Runtime(loaders=0, shard_size=3, check_content=True)


def features(table):
    return dict(zip(table.index["path"].to_pylist(), map(bytes, table.read("embedding")), strict=True))


@pytest.fixture
def grown(tiny, folder, extract):
    for number in range(8):
        save(folder / f"{number}.bmp", seed=number)
    extract(folder, runtime=HERE)
    return folder


def replace_content(path, seed):
    """Another picture of the same size in bytes and the same modification time."""
    status = path.stat()
    save(path, seed=seed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size


def test_touched_images_are_read_once_for_all_views_and_by_no_later_run(grown, extract, monkeypatch):
    views = ("clean", "jpeg:70")
    extract(grown, views=views, runtime=HERE)
    reads, read = [], Sources.read
    monkeypatch.setattr(Sources, "read", lambda self, path: reads.append(path) or read(self, path))
    for image in grown.glob("*.bmp"):
        os.utime(image, ns=(10**18, 10**18))
    counts = []
    for _ in range(3):
        assert extract(grown, views=views, runtime=HERE)[0].extracted == 0
        counts.append(len(reads))
        reads.clear()
    assert counts == [8, 0, 0]


def test_a_change_under_the_same_size_and_time_is_found_by_content(grown, extract, reporter):
    before = features(extract(grown, runtime=HERE)[1])
    replace_content(grown / "3.bmp", seed=33)
    assert extract(grown, runtime=HERE)[0].extracted == 0
    (grown / "0.bmp").unlink()  # the images are no longer counted as they were
    summary, table = extract(grown, runtime=CHECKING)
    assert summary.extracted == 1
    assert any("1 images have another content" in note for note in reporter.notes)
    after = features(table)
    assert {path for path in after if after[path] != before[path]} == {"3.bmp"}
    assert features(extract(grown, out="elsewhere", store="empty", runtime=HERE)[1]) == after
    for runtime in (HERE, CHECKING):
        summary, table = extract(grown, runtime=runtime)
        assert (summary.extracted, features(table)) == (0, after)


def test_equal_paths_sizes_and_times_below_another_root_are_no_equal_images(tiny, folder, extract, tmp_path):
    for seed, root in enumerate((folder, tmp_path / "other")):
        for number in range(4):
            os.utime(save(root / f"{number}.bmp", seed=10 * seed + number % 3), ns=(10**18, 10**18))
    os.utime(save(tmp_path / "other" / "3.bmp", seed=0), ns=(10**18, 10**18))  # the one picture that both have
    before = features(extract(folder, out="first", runtime=HERE)[1])
    summary, table = extract(tmp_path / "other", out="second", runtime=HERE)
    assert summary.extracted == 4
    assert {path for path, values in features(table).items() if values == before[path]} == {"3.bmp"}
    assert extract(tmp_path / "other", out="second", runtime=HERE)[0].extracted == 0
    assert features(extract(folder, out="first", runtime=HERE)[1]) == before


def test_what_could_not_be_read_is_made_as_soon_as_it_can_be(tiny, folder, tmp_path, reporter):
    remote = fsspec.filesystem("memory")
    for number in range(4):
        remote.pipe(f"/flaky/{number}.bmp", save(folder / f"{number}.bmp", seed=number).read_bytes())
    manifest, _ = scan(corpus="flaky", root="memory://flaky", layout="auto")

    def extracted(manifest=manifest):
        settings = ExtractSettings(backbone="tiny", weights="random:0")
        places = {"store": tmp_path / "store", "out": tmp_path / "out", "reporter": reporter, "runtime": HERE}
        where = {"root": "memory://flaky", "manifest": manifest, "geometry": "crop224-pad"}
        return run(corpus="flaky", settings=settings, **where, **places)

    content = remote.cat_file("/flaky/3.bmp")
    remote.rm_file("/flaky/3.bmp")  # as a network that fails
    assert extracted().failed_kinds == {"unreadable": 1}
    assert extracted().extracted == 0
    remote.pipe("/flaky/3.bmp", content)
    summary = extracted(manifest.slice(1))  # the images are no longer counted as they were
    assert (summary.extracted, summary.usable) == (1, 3)
    assert any("1 images that could not be read before" in note for note in reporter.notes)
    summary = extracted()
    assert (summary.extracted, summary.usable) == (0, 4)
    remote.rm("/flaky", recursive=True)


NAMES = [
    b"a/one.bmp", b"b/one.bmp",  # one name in two folders
    b"a/stem.bmp", b"a/stem.png",  # one stem, two extensions
    b"a/many.dots.tar.bmp", b"a/many.dots.bmp", b"a/with space.bmp", b"a/two\nlines.bmp",
    "a/\U0001f600.bmp".encode(), b"a/not-utf8-\xe9\xff.bmp",
    "a/na\u00efve.bmp".encode(), "a/nai\u0308ve.bmp".encode(),  # NFC and NFD twins
    b"a/Case.bmp", b"a/case.bmp", b"a/back\\slash.bmp", b"a/\\xe9.bmp",
]  # fmt: skip


def test_each_image_has_its_own_row_under_its_own_path(tiny, folder, extract, tmp_path):
    for seed, name in enumerate(NAMES):
        plain = save(tmp_path / f"plain.{name.rsplit(b'.')[-1].decode()}", seed=seed)
        target = os.path.join(os.fsencode(folder), name)  # noqa: PTH118 - bytes
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        os.rename(plain, target)  # noqa: PTH104
    summary, table = extract(folder, runtime=HERE)
    assert (summary.usable, table.index["path"].to_pylist()) == (len(NAMES), sorted(to_text_of(NAMES), key=str.encode))
    _, alone = extract(folder, out="whole", store="other", runtime=Runtime(loaders=0))
    rows = features(table)
    assert len(set(rows.values())) == len(NAMES)
    whole = dict(zip(alone.index["path"].to_pylist(), alone.read("embedding"), strict=True))
    for path, vector in rows.items():
        assert np.allclose(np.frombuffer(vector, np.float16), whole[path], rtol=0.01, atol=0.01)


def to_text_of(names):
    return [to_text(os.fsdecode(name)) for name in names]


def test_an_image_that_is_no_longer_what_the_manifest_says_is_named(grown, tmp_path, reporter):
    manifest, _ = scan(corpus="c", root=grown, layout="auto")
    (grown / "3.bmp").write_bytes(bytes(9999))
    with pytest.raises(DataError, match=r"3\.bmp has 9999 bytes instead of"):
        run(
            corpus="c",
            root=grown,
            manifest=manifest,
            settings=ExtractSettings(backbone="tiny", weights="random:0"),
            geometry="crop224-pad",
            store=tmp_path / "store",
            out=tmp_path / "out",
            reporter=reporter,
            runtime=CHECKING,
        )
