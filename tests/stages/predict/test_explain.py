"""The page about one image, and the numbers on it."""

import re
import shutil

import numpy as np
import pytest
import torch

from stages.heads.file import build_head
from stages.heads.model_card import model_card
from stages.heads.settings import LinearSettings, LtdSettings, RineSettings, UnivfdSettings
from stages.predict.detector import Detector
from stages.predict.explain import contributions, explain, run
from stages.predict.make import run as make_bundle
from storage.errors import DataError
from storage.features import FeatureTable
from storage.headfile import load_head, save_head

# What the page says of the kinds of heads, one of them on each page.
SENTENCES = (
    "the head joins the outputs of its branches",
    "the head normalises what its attention layer gives",
    "the classifier is a weighted sum over the tokens of its blocks",
    "the head is a weighted sum over the coordinates of one vector of the image",
    "This head (rine) is not a sum of parts",
)


@pytest.fixture
def image(study):
    return study.images("test") / "fake" / "nearest" / "00001.png"


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (LtdSettings(), ["raw", "delta", "constant"]),
        (LtdSettings(branches=("delta",), selection="fixed:4"), ["delta", "constant"]),
        (LinearSettings(block="all"), [*(f"block {block}" for block in range(24)), "constant"]),
        (UnivfdSettings(), ["embedding", "constant"]),
    ],
)
def test_parts_sum_to_the_logit(settings, names):
    torch.manual_seed(0)
    head = build_head(settings, blocks=24, width=32, embedding=16).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    features = torch.randn(5, *head.feature_shape)
    parts = contributions(head, features)
    assert list(parts) == names
    torch.testing.assert_close(sum(parts.values()), head(features), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        (LtdSettings(selection="fixed:2,16"), (["raw branch", "LTD branch"] * 2, SENTENCES[0], [(2, 6), (16, 20)])),
        (LtdSettings(branches=("delta",)), (["LTD branch"], SENTENCES[1], [(11, 15)])),
        (LtdSettings(window=24, selection="fixed:0", branches=("raw",)), (["raw branch"], SENTENCES[1], [(0, 23)])),
        (LinearSettings(block="mean"), (["the mean of the patch tokens"], SENTENCES[3], [])),
        (RineSettings(project=8), ([], SENTENCES[4], [(0, 23)])),
    ],
)
def test_the_page_says_of_each_head_what_it_is(study, image, tmp_path, settings, shown):
    parts, sentence, windows = shown
    _, metadata = load_head(study.head)
    spec = FeatureTable.open(study.features("train")).spec
    head = build_head(settings, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
    if settings.type == "ltd" and not settings.fixed_starts:
        torch.nn.init.constant_(head.selection.pi, 0.0)  # of equal windows the first is chosen
    file, bundle = tmp_path / "head.safetensors", tmp_path / "detector.ltd"
    save_head(file, head.state_dict(), metadata | {"settings": settings.model_dump(mode="json")})
    make_bundle(head=file, out=bundle)
    found = run(detector=Detector.load(bundle), image=image, out=tmp_path / "page.html")
    page = re.sub(r"\s+", " ", (tmp_path / "page.html").read_text(encoding="utf-8"))
    rows = re.findall(r'<tr><th scope="row" class="text">(.*?)</th>', page.partition('id="contributions"')[2])
    assert [row for row, part in zip(rows, parts, strict=False) if not row.startswith(part)] == []
    assert rows[len(parts) :] == (["constant of the classifier", "Logit"] if parts else [])
    assert [known for known in SENTENCES if known in page] == [sentence]
    assert found.windows == windows


def test_the_profile_is_that_of_the_features(study, detector):
    table = FeatureTable.open(study.features("train"))
    row = table.index["path"].to_pylist().index("real/00003.png")
    tokens = table.read("cls", rows=np.array([row]))[0].astype(np.float64)
    found = explain(detector, study.images("train") / "real" / "00003.png")
    norms = np.linalg.norm(tokens, axis=1)
    cosine = (tokens[:-1] * tokens[1:]).sum(1) / norms[:-1] / norms[1:]
    assert found.cosine == pytest.approx(cosine, abs=1e-3)
    assert found.l2 == pytest.approx(np.linalg.norm(np.diff(tokens, axis=0), axis=1), rel=1e-2)
    start = detector.head.describe()["window_start"]
    assert found.windows == [(start, start + 4)]
    assert list(found.attention) == list(range(start, start + 5))
    attention = detector.backbone.taps(found.pixels[None], ["attention"], [start])["attention"]
    assert found.attention[start] == pytest.approx(attention[0, 0].numpy())
    assert sum(found.parts.values()) == pytest.approx(found.prediction.logit, abs=1e-3)


def test_the_page_asks_nobody_and_obeys_no_name(study, detector, image, tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    evil = folder / "\x1b[31m<script>alert(1)<.png"
    shutil.copy(image, evil)
    pages = [tmp_path / "page.html", tmp_path / "again.html"]
    for each in pages:
        run(detector=detector, image=evil, out=each)
    assert pages[0].read_bytes() == pages[1].read_bytes()
    page = pages[0].read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "default-src 'none'" in page
    assert "How it is split" in page
    assert page.count("<svg") == 2
    assert page.count('alt="Attention in block') == 5
    assert 'class="line image"' in page
    assert "40 real" in re.sub(r"<[^>]*>|\s+", " ", page).replace("  ", " ")


def test_a_head_file_that_says_too_little_is_refused(study, tmp_path):
    weights, metadata = load_head(study.head)
    for kept, fault in ((("settings", "feature_spec"), "facts, feature_key, head"), (("settings",), "feature_spec")):
        save_head(tmp_path / "poor.safetensors", weights, {key: metadata[key] for key in kept})
        with pytest.raises(DataError, match=rf"poor\.safetensors does not say its {fault}"):
            make_bundle(head=tmp_path / "poor.safetensors", out=tmp_path / "poor.ltd")
    for of_before, fault in (({"type": "ltd", "selection": "uniform"}, r"ltd\.selection: "), ({"type": "forest"}, "")):
        save_head(tmp_path / "old.safetensors", weights, metadata | {"settings": of_before})
        for use in (lambda file: make_bundle(head=file, out=tmp_path / "old.ltd"), model_card):
            with pytest.raises(DataError, match=rf"old\.safetensors has settings that are not known here \({fault}"):
                use(tmp_path / "old.safetensors")
