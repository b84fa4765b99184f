"""Every image is one row in its place, whatever it is and wherever it lies, and nothing else is read."""

import io
import os
import shutil
import zipfile
from dataclasses import replace
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from broken_files import break_folder
from test_round_trip import predictions

from stages.predict.features import CachedFeatures
from stages.predict.inputs import find_images
from stages.predict.looks import Looks, see
from storage import names
from storage.errors import DataError
from storage.sources import Sources

IMAGES = 300


def listed(*paths, stdin=b"", **options):
    return list(find_images([str(path) for path in paths], io.BytesIO(stdin), **options))


@pytest.fixture
def real(study):
    return sorted((study.images("test") / "real").iterdir())


def test_300_images_of_which_30_are_broken_are_300_rows(study, detector, real, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    outside = tmp_path / "outside.png"
    shutil.copy(real[0], outside)
    broken = break_folder(folder, outside)
    assert len(broken) == 30
    good = [f"good-{number:03}.png" for number in range(IMAGES - len(broken))]
    for number, name in enumerate(good):
        os.link(real[number % len(real)], folder / name)
    # the cache spares the forward pass of most; the round trip is tested elsewhere
    cached = CachedFeatures.open(study.features("test"), detector.card)
    found = predictions(detector, folder, features=cached)
    assert sorted(one.path for one in found) == sorted(f"{folder}/{name}" for name in [*good, *broken])
    failed = {one.path.rpartition("/")[2] for one in found if one.status == "failed"}
    assert failed == broken
    for one in found:
        if one.status == "failed":
            assert one.error
            assert "\n" not in one.error
            assert (one.verdict, one.probability, one.logit) == (None, None, None)
        else:
            assert one.verdict
    reasons = {one.path.rpartition("/")[2]: one.error.split(":")[0] for one in found if one.error}
    assert reasons["huge.png"] == "too large"
    assert reasons["png-bomb.png"] == "too large"
    assert reasons["jpeg-half.jpg"] == "truncated"
    assert reasons["empty.jpg"] == "truncated"
    assert reasons["html.png"] == "no image"
    assert reasons["pipe.jpg"] == reasons["dangling.png"] == reasons["folder.png"] == "unreadable"


def test_broken_files_decoded_in_processes_keep_the_order(detector, real, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    break_folder(folder, real[0])
    for number in range(8):
        os.link(real[number], folder / f"f{number}.png")
    found = predictions(detector, folder, loaders=2, batch=3)
    assert [one.path for one in found] == [item.name for item in listed(folder)]
    assert sum(one.status == "ok" for one in found) == 8
    alone = {one.path: one.logit for one in predictions(detector, folder, loaders=0, batch=1)}
    assert [one.logit for one in found if one.logit] == pytest.approx(
        [alone[one.path] for one in found if one.logit], abs=1e-3
    )


def test_few_images_wait_for_no_loader_process(detector, real, monkeypatch):
    import stages.predict.run as module

    opened = []

    def noted(job, count, ahead):
        opened.append(count)
        return module_open(job, count, ahead)

    module_open = module.open_loaders
    monkeypatch.setattr(module, "open_loaders", noted)
    monkeypatch.setattr(module, "auto_loaders", lambda _device: 1)
    few = predictions(detector, *real[:7])
    many = predictions(detector, *real[:8])
    assert opened == [0, 1]
    assert [one.path for one in few] == [str(path) for path in real[:7]]
    assert [one.path for one in many] == [str(path) for path in real[:8]]


def test_images_of_one_batch_keep_their_own_pixels(detector, real):
    found = predictions(detector, *real[:7], loaders=0, batch=4)
    assert len({one.logit for one in found}) == 7
    assert [one.logit for one in found] == pytest.approx(
        [detector.score([path])[0].logit for path in real[:7]], abs=1e-3
    )


def test_cached_features_give_the_same_logits(study, detector, real):
    cached = CachedFeatures.open(study.features("test"), detector.card)
    with_cache = predictions(detector, *real[:5], features=cached)
    without = predictions(detector, *real[:5])
    assert [one.logit for one in with_cache] == pytest.approx([one.logit for one in without], abs=1e-3)


def test_an_image_that_was_not_extracted_is_encoded(study, detector, real):
    cached = CachedFeatures.open(study.features("held"), detector.card)
    mixed = [real[0], study.images("held") / "real" / "00000.png", real[1]]
    found = predictions(detector, *mixed, features=cached)
    assert [one.path for one in found] == [str(path) for path in mixed]
    assert [one.logit for one in found] == pytest.approx([one.logit for one in predictions(detector, *mixed)], abs=1e-3)


def test_an_image_behind_all_cached_ones_is_not_found(study, detector, real):
    cached = CachedFeatures.open(study.features("held"), detector.card)
    only = replace(cached, hashes=cached.hashes[:0], rows=cached.rows[:0])
    assert only.find(Sources.of("/"), str(real[0]).lstrip("/")) is None


def test_the_first_result_needs_one_image(detector, real):
    seen = []

    def paths():
        for path in real:
            seen.append(path)
            yield path

    job = detector.job(Looks())
    results = detector.predictions((see(path, job) for path in paths()), Looks())
    assert next(results).path == str(real[0])
    assert len(seen) == 1
    list(islice(results, 3))
    assert len(seen) <= 1 + 2 + 4


def test_archives_are_read_in_place_by_name(detector, real, tmp_path):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(real[1], "b/2.png")
        file.write(real[0], "a/1.png")
        file.writestr("a/broken.jpg", b"no")
        file.writestr("../../evil.png", real[2].read_bytes())
        file.writestr("notes.txt", "x")
    found = predictions(detector, archive)
    members = [one.path.partition("!/")[2] for one in found]
    assert members == ["a/1.png", "a/broken.jpg", "b/2.png"]  # what climbs out of it counts as hidden
    assert [one.status for one in found] == ["ok", "failed", "ok"]
    assert not (tmp_path.parent.parent / "evil.png").exists()
    assert found[0].logit == pytest.approx(predictions(detector, real[0])[0].logit, abs=1e-3)


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
    found = {item.name.removeprefix(f"{folder}/"): item.error for item in listed(folder)}
    assert found.keys() == {"link.png", "own.png", "within.png", "tree", "more.zip"}
    assert found["own.png"] is found["within.png"] is None
    assert "leads out" in found["link.png"]
    assert "leads out" in found["tree"]
    assert "leads out" in found["more.zip"]
    followed = {item.name.removeprefix(f"{folder}/"): item.error for item in listed(folder, follow_links=True)}
    assert followed == dict.fromkeys(
        ["link.png", "own.png", "within.png", "tree/secret.png", "tree/more.zip!/1.png", "more.zip!/1.png"]
    )


def test_a_list_is_read_line_by_line(real, tmp_path):
    items = listed("-", stdin=b"\n".join([os.fsencode(real[0]), b"", b"nowhere.png", os.fsencode(tmp_path)]))
    assert [item.name for item in items] == [str(real[0]), "nowhere.png", str(tmp_path)]
    assert items[0].error is None
    assert items[1].error == "unreadable: no such file or directory"
    assert items[2].error == "unreadable: no regular file"


def test_the_longest_path_of_a_list_is_taken():
    (item,) = listed("-", stdin=b"y" * 4096 + b"\n")
    assert item.error == "unreadable: file name too long"


@pytest.mark.parametrize("line", [b"x" * 10_000_000, b"a\0b.png\n", b"y" * 4097 + b"\n"])
def test_a_line_that_is_no_path_ends_the_list_in_one_clear_line(line):
    stream = io.BytesIO(b"first.png\n" + line)
    with pytest.raises(DataError, match="line 2 of the list on standard input") as caught:
        list(find_images(["-"], stream))
    assert len(str(caught.value)) < 200
    assert stream.tell() < 20_000  # the rest of it was not read into memory


def test_names_of_any_bytes_have_one_line_each_and_a_way_back(tmp_path):
    odd = [b"line\nbreak.png", b"not-utf8-\xff.png", b"back\\slash.png", b"bell\x07.png", "é.png".encode()]
    for name in odd:
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    found = [item.name for item in listed(tmp_path)]
    assert all(name.isprintable() for name in found)
    assert sorted(os.fsencode(names.to_path(name)) for name in found) == sorted(
        os.fsencode(tmp_path) + b"/" + name for name in odd
    )
    assert all(item.error is None for item in listed(tmp_path))


def test_what_is_not_there_or_empty_is_said(tmp_path):
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        listed(tmp_path / "none.png")
    with pytest.raises(DataError, match="no image file in"):
        listed(tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match=r"bad\.zip cannot be read"):
        listed(tmp_path / "bad.zip")


def test_members_have_one_line_each_and_a_size_that_is_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.predict.inputs.MOST_IMAGE_BYTES", 10)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("line\nbreak.png", b"x" * 11)
        file.writestr("small.png", b"x" * 10)
    large, small = listed(tmp_path / "a.zip")
    assert large.name == f"{tmp_path}/a.zip!/line\\x0abreak.png"
    assert large.error.startswith("too large: 11 bytes")
    assert small.error is None
    pq.write_table(pa.table({"image": [b"x" * 5]}), tmp_path / "a.parquet")  # states no sizes of its rows
    assert [item.error for item in listed(tmp_path / "a.parquet")] == [None]


def test_an_archive_that_cannot_be_read_is_a_row_of_its_folder(real, tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    shutil.copy(real[0], folder / "own.png")
    (folder / "bad.zip").write_bytes(b"PK\x03\x04 broken")
    with zipfile.ZipFile(folder / "letters.zip", "w") as file:  # no image: passed over as a text file is
        file.writestr("notes.txt", "x")
    with zipfile.ZipFile(folder / "photos.zip", "w") as file:
        file.write(real[1], "1.png")
    found = {item.name.removeprefix(f"{folder}/"): item.error for item in listed(folder)}
    assert list(found) == ["own.png", "bad.zip", "photos.zip!/1.png"]
    assert found["bad.zip"].startswith("unreadable: archive")
    assert found["own.png"] is found["photos.zip!/1.png"] is None


def test_features_of_other_geometry_are_refused_by_name(study, detector, tmp_path):
    import stages.predict.features as module

    table = module.FeatureTable.open(study.features("test"))
    spec = replace(table.spec, view=table.spec.view | {"geometry": "tile224"})

    class Other:
        open = staticmethod(lambda _directory: replace(table, spec=spec))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FeatureTable", Other)
        with pytest.raises(DataError, match=r"view\.geometry: crop224-pad here, tile224 there"):
            CachedFeatures.open(study.features("test"), detector.card)
