"""The names that programs import from ``ltdpipe``."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

import ltdpipe
from planted import in_transitions, write_view
from stages.evaluate.scores import ScoreCard, write_scores
from storage.errors import DataError


@pytest.fixture(autouse=True)
def _own_store(own_store):
    """Features are made in a store of the test's own."""


def test_features_and_scores_are_opened_by_path_or_text(tmp_path):
    write_view(tmp_path / "clean", *in_transitions(40, seed=0), sets=("a",))
    table = ltdpipe.open_features(str(tmp_path / "clean"))
    assert table.read("cls", blocks=[3], rows=table.rows_of_set("a")).shape == (40, 1, 32)
    images = pa.table({"path": ["1.png"], "sets": [["a"]], "generator": [None], "label": [0]})
    card = ScoreCard(head="x", seed=0, corpus="c", view="clean", feature_key="k", head_sha256="h", failed=0)
    write_scores(tmp_path / "s.parquet", card=card, images=images, logits=np.array([0.5]))
    assert ltdpipe.read_scores(str(tmp_path / "s.parquet")).logit.tolist() == [0.5]
    with pytest.raises(DataError, match="nothing"):
        ltdpipe.open_features(tmp_path / "nothing")


def test_torch_is_imported_for_the_detector_alone():
    code = (
        "import ltdpipe, sys; assert 'torch' not in sys.modules; ltdpipe.Detector.load; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Detectr'"):
        ltdpipe.Detectr  # noqa: B018
