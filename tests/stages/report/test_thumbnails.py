import base64
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from stages.evaluate.scores import ScoreCard, write_scores
from stages.report.load import load_results
from stages.report.thumbnails import most_confident_errors
from storage.sources import Sources


@pytest.fixture
def errors(tmp_path):
    """Return the errors of a head on named images, all of them called wrongly."""

    def of(paths, label=0):
        images = pa.table(
            {"path": paths, "sets": [["s"]] * len(paths), "generator": [None if not label else "gan"] * len(paths),
             "label": pa.array([label] * len(paths), pa.int8())}
        )  # fmt: skip
        logits = (1 - 2 * label) * np.arange(1.0, len(paths) + 1)
        card = ScoreCard(head="h", seed=1, corpus="c", view="clean", feature_key="", head_sha256="", failed=0)
        write_scores(tmp_path / "clean.parquet", card=card, images=images, logits=logits)
        results = load_results([tmp_path / "clean.parquet"])
        return most_confident_errors(results, "h", {"c": Sources.of(tmp_path / "images")})

    (tmp_path / "images").mkdir()
    return of


def test_the_most_confident_errors_come_first_as_small_jpegs(errors, tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (640, 320), (200, 10, 10)).save(tmp_path / "images" / name)
    (group,) = errors(["a.png", "b.png"])
    assert (group.group, group.wrong, group.total) == ("real images", 2, 2)
    assert [picture.path for picture in group.pictures] == ["b.png", "a.png"]
    content = base64.b64decode(group.pictures[0].uri.removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("JPEG", (96, 48))
    assert len(content) < 4000


@pytest.mark.parametrize(
    "path", ["../secret.png", "x/../../secret.png", "\\x2e\\x2e/secret.png", "none.png", "text.png", "{}/secret.png"]
)
def test_what_is_not_an_image_of_the_corpus_is_not_shown(errors, tmp_path, path):
    path = path.format(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "images" / "x").mkdir()
    (tmp_path / "images" / "text.png").write_text("no image")
    (group,) = errors([path])
    assert [(picture.path, picture.uri) for picture in group.pictures] == [(path, "")]
