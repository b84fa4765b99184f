from dataclasses import replace

import pyarrow as pa
import pytest

from planted import SPEC, labels_of, noise, write_view
from stages.heads.settings import TrainSettings
from stages.train.data import TrainingData, backbone_difference, split_rows
from storage.errors import DataError
from storage.features import FeatureTable


def table(folder, images=200, split=None, **more):
    write_view(folder, noise(images, blocks=3), labels_of(images), split=split, **more)
    return FeatureTable.open(folder)


def test_held_out_images_are_chosen_by_content_alone(tmp_path):
    small, large = table(tmp_path / "small", 150), table(tmp_path / "large", 300)
    some, more = (set(split_rows(small, TrainSettings(validation_share=share)).validation) for share in (0.2, 0.4))
    assert 15 < len(some) < 45
    assert some < more
    of_large = split_rows(large, TrainSettings(validation_share=0.2)).validation
    assert {row for row in of_large if row < 150} == some  # paths, and so contents here, are the same


def test_every_image_needs_a_label(tmp_path):
    labels = labels_of(200)
    labels[7] = -1
    write_view(tmp_path / "a", noise(200, blocks=3), labels)
    with pytest.raises(DataError, match=r"a holds images without a label; training needs `real` and `fake` folders"):
        split_rows(FeatureTable.open(tmp_path / "a"), TrainSettings())


def with_splits(table, *splits):
    index = table.index.to_pydict() | {"split": list(splits)}
    return replace(table, index=pa.table(index, schema=table.index.schema))


def test_images_of_a_split_that_neither_trains_nor_validates_are_left_out(tmp_path):
    mixed = with_splits(table(tmp_path / "a"), *["train"] * 100, *["val"] * 40, *["test"] * 60)
    split = split_rows(mixed, TrainSettings(validation="test"))
    assert (list(split.training), list(split.validation)) == (list(range(100)), list(range(140, 200)))
    held_out = split_rows(mixed, TrainSettings(validation_share=0.3))
    assert sorted([*held_out.training, *held_out.validation]) == list(range(100))


def test_validation_on_the_test_split_is_called_what_it_is(tmp_path):
    tested = table(tmp_path / "a", split="test")
    with pytest.raises(DataError, match=r"no real image on the training side of .*a \(0 images there"):
        split_rows(tested, TrainSettings(validation="test"))
    unsplit = table(tmp_path / "b")
    with pytest.raises(DataError, match=r"no real image on the validation side .* is split 'val' of the corpus"):
        split_rows(unsplit, TrainSettings(validation="val"))


def test_views_of_other_images_or_another_backbone_are_refused(tmp_path):
    table(tmp_path / "clean")
    table(tmp_path / "train-0", view="train-0")
    table(tmp_path / "fewer", 190, view="fewer")
    table(tmp_path / "others", view="others", images_in="elsewhere")
    table(tmp_path / "other", view="other", spec=replace(SPEC, precision="fp16"))
    settings = TrainSettings()
    opened = TrainingData.open([tmp_path / "train-0", tmp_path / "clean"], tmp_path / "clean", settings)
    assert [view.directory.name for view in opened.views] == ["train-0", "clean"]
    assert opened.validation_view is opened.views[1]
    with pytest.raises(DataError, match=r"clean and .*fewer are no views .*not the same images, 200 here, 190 there"):
        TrainingData.open([tmp_path / "clean", tmp_path / "fewer"], tmp_path / "clean", settings)
    with pytest.raises(DataError, match=r"clean and .*others are no views .*not the same images, 200 here, 200 there"):
        TrainingData.open([tmp_path / "clean"], tmp_path / "others", settings)
    with pytest.raises(DataError, match="precision: fp32 here, fp16 there"):
        TrainingData.open([tmp_path / "clean"], tmp_path / "other", settings)


def test_what_a_head_reads_may_be_stored_beside_other_features_but_not_decoded_otherwise():
    assert backbone_difference(SPEC, replace(SPEC, taps=("cls",), stored_blocks=(3,), view={"decoder": "none"})) == ""
    assert backbone_difference(SPEC, replace(SPEC, taps=("cls", "attention"), patches=4)) == ""
    cropped = {"decoder": "none", "geometry": "crop", "augmentation": "paper"}
    assert backbone_difference(SPEC, replace(SPEC, view=cropped)) == ""
    assert "decoder" in backbone_difference(SPEC, replace(SPEC, view={"decoder": "turbo"}))
