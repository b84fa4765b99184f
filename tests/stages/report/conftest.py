"""Real scores and profile files of small studies, written the way the stages write them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.analyse.run import PROFILE_SCHEMA
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

    def add_scores(self, head, seed, sets, *, corpus="demo", view="test", shift=1.5, failed=0, reals=12, order=None):
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
            head=head, seed=seed, corpus=corpus, view=view, feature_key="ab" * 16, head_sha256="cd" * 32, failed=failed
        )
        path = self.root / f"scores-{len(self.scores)}.parquet"
        write_scores(path, card=card, images=images, logits=logits[order])
        self.scores.append(path)
        return path

    def add_profile(self, generators, *, corpus="demo", transitions=7):
        rows = []
        for label, group in [(0, "real"), *((1, name) for name in generators)]:
            for k in range(transitions):
                values = (group, label, k, 0.98 - 0.01 * k * label, 0.004, 1.0 + k, 0.5, 10)
                rows.append(dict(zip(PROFILE_SCHEMA.names, values, strict=True)))
        metadata = json.dumps({"corpus": corpus, "view": "test", "feature_key": "ab" * 16}).encode()
        table = pa.Table.from_pylist(rows, schema=PROFILE_SCHEMA).replace_schema_metadata({b"ltdpipe": metadata})
        path = self.root / f"profile-{len(self.profiles)}.parquet"
        pq.write_table(table, path)
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
    for head, shift in (("ltd", 2.0), ("linear", 0.3), (HOSTILE["head"], 1.0)):
        for seed in (1, 2):
            files.add_scores(head, seed, sets, shift=shift, failed=3)
    files.add_profile(["plain", HOSTILE["generator"]])
    return files
