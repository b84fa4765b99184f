"""Real scores and profile files of small studies, written the way the stages write them."""

import numpy as np
import pyarrow as pa
import pytest

from stages.analyse.files import (
    ATTENTION_SCHEMA,
    PROFILE_SCHEMA,
    PROJECTION_SCHEMA,
    WINDOW_SCHEMA,
    projection_path,
    windows_path,
    write_analysis,
)
from stages.evaluate.scores import ScoreCard, write_scores

HOSTILE = {
    "head": "</script><script>alert(1)</script>",
    "set": "=cmd|' /C calc'!A0",
    "other set": "<img src=x onerror=alert(1)>",
    "path": "<img src=x onerror=alert(1)>.png",
    "generator": "<svg onload=alert(1)>",
    "note": "<b onmouseover=alert(1)>*bold*</b>",
}


class StudyFiles:
    """Writes scores and profile files under one folder and remembers them."""

    def __init__(self, root):
        self.root, self.scores, self.profiles = root, [], []

    def add_scores(
        self, head, seed, sets, *, corpus="demo", view="test", shift=1.5, failed=0, reals=12, order=None, facts=None
    ):
        """Score ``reals`` shared real images and 10 synthetic ones a set; ``sets``: name -> has real images."""
        rows = [
            (f"{HOSTILE['path']}-{i}", [name for name, real in sets.items() if real], None, 0) for i in range(reals)
        ]
        rows += [(f"{name}/{i}", [name], name, 1) for name in sets for i in range(10)]
        rng = np.random.default_rng([seed, len(head)])
        logits = np.array([rng.normal(shift if row[3] else -shift, 1.0) for row in rows])
        order = np.arange(len(rows)) if order is None else order(len(rows))
        columns = [list(column) for column in zip(*(rows[i] for i in order), strict=True)]
        images = pa.table(dict(zip(("path", "sets", "generator", "label"), columns, strict=True)))
        card = ScoreCard(
            head=head, seed=seed, corpus=corpus, view=view, feature_key="ab" * 16, head_sha256="cd" * 32,
            failed=failed, facts=facts or {},
        )  # fmt: skip
        path = self.root / f"scores-{len(self.scores)}" / f"{view}.parquet"
        write_scores(path, card=card, images=images, logits=logits[order])
        self.scores.append(path)
        return path

    def add_profile(self, generators, *, corpus="demo", transitions=7, windows_of=(), attention=False):
        rows = []
        for label, group in [(0, "real"), *((1, name) for name in generators)]:
            looked = [0.2 + 0.1 * label, 0.05] if attention else []
            moved = [(0.98 - 0.01 * k * label, 0.004, 1.0 + k, 0.5) for k in range(transitions)]
            rows += [(group, label, k, *moved[k], *looked, 10) for k in range(transitions)]
        facts = {"corpus": corpus, "view": "test", "feature_key": "ab" * 16}
        path = self.root / f"profile-{len(self.profiles)}.parquet"
        write_analysis(path, rows, ATTENTION_SCHEMA if attention else PROFILE_SCHEMA, facts)
        windows = [
            (name, start, n, 0.5 + (0.2 if name else 0.4) * start / transitions, 0.4 if name else 0.3, 10, 10)
            for name in (None, *generators)
            for n in (2, 3)
            for start in range(transitions - n + 2)
        ]
        windows += [(None, start, n, auc, auc, 10, 10) for start, n, auc in windows_of]
        write_analysis(windows_path(path), windows, WINDOW_SCHEMA, facts)
        points = [(f"{HOSTILE['path']}-{i}", "real", 0, 0.1 * i, 1.0, -i, 0.5) for i in range(5)]
        points += [(f"fake-{i}", generators[0], 1, -0.1 * i, 2.0, i, -0.5) for i in range(5)]
        explained = {"blocks": [1, 2, 3], "explained": {"raw": [0.5, 0.2], "ltd": [0.4, 0.1]}}
        write_analysis(projection_path(path), points, PROJECTION_SCHEMA, {**facts, **explained})
        self.profiles.append(path)
        return path


@pytest.fixture
def study(tmp_path):
    return StudyFiles(tmp_path)


@pytest.fixture(scope="session")
def hostile():
    return HOSTILE


@pytest.fixture(scope="session")
def hostile_study(tmp_path_factory):
    """Three heads, two seeds, three sets of which one has no real images; every name tries to break out."""
    files = StudyFiles(tmp_path_factory.mktemp("hostile"))
    sets = {"plain": True, HOSTILE["set"]: True, HOSTILE["other set"]: False}
    for head, shift in (("ltd", 0.3), ("linear", 2.0), (HOSTILE["head"], 1.0)):
        for seed in (1, 2):
            facts = {"window_start": 2, "window": 3, "window_moved": False, "trained_on": "train"}
            files.add_scores(head, seed, sets, view="clean", shift=shift, failed=3, facts=facts)
            files.add_scores(head, seed, sets, view="jpeg-70", shift=shift / 2)
            files.add_scores(head, seed, sets, view="blur-2+jpeg-70", shift=shift / 2)
            files.add_scores(head, seed, {"x": True}, view="held-out", corpus="train", shift=shift)
    files.add_profile(["plain", HOSTILE["generator"]])
    return files


@pytest.fixture(scope="session")
def plain_study(tmp_path_factory):
    """Two heads, two seeds, three sets of which one has no real images."""
    files = StudyFiles(tmp_path_factory.mktemp("plain"))
    for head in ("ltd", "linear"):
        for seed in (1, 2):
            files.add_scores(head, seed, {"one": True, "two": True, "fakes only": False})
    files.add_profile(["one", "two"])
    return files
