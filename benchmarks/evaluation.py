"""How long honest numbers take: metrics with bootstrap intervals, and the report of a full study of synthetic scores.

Run in the project's folder: ``python -m benchmarks.evaluation [bootstrap | thresholds | report [FOLDER]]``.
``bootstrap`` is 100,000 scores with 1,000 bootstraps (to be under 20 s on 2 cores), ``thresholds`` compares rules that
set a threshold from unlabelled images, ``report`` is 20 generators x 3 heads x 5 seeds x 15 degraded views (to be under
60 s and 5 MB).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.analyse.files import PROFILE_SCHEMA, WINDOW_SCHEMA, windows_path, write_analysis
from stages.evaluate.scores import ScoreCard, write_scores
from stages.measure.bootstrap import Resampler, draw_counts, interval
from stages.measure.metrics import measure, unlabelled_threshold
from stages.report.run import run
from stages.report.study import Study

GENERATORS, HEADS, SEEDS = 20, 3, 5
VIEWS = (
    "clean", "jpeg-90", "jpeg-70", "jpeg-50", "jpeg-30", "blur-1", "blur-2", "blur-4", "scale-0.9", "scale-0.7",
    "scale-0.5", "webp-80", "webp-50", "noise-4", "noise-8", "scale-0.5+jpeg-70",
)  # fmt: skip
IMAGES = 500  # of each generator, and as many real ones of each set


def bootstrap(scores: int = 100_000, samples: int = 1_000) -> None:
    """Time all metrics of one set and the intervals of those that are bootstrapped."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], scores // 2)
    logits = random.normal(size=scores) + labels
    start = time.perf_counter()
    values = measure(labels, logits, threshold=0.5)
    measured = time.perf_counter()
    resampler = Resampler(labels, logits, threshold=0.5)
    drawn = [resampler.metrics(counts) for counts in draw_counts(labels, replicates=samples)]
    replicates = {name: np.concatenate([batch[name] for batch in drawn]) for name in drawn[0]}
    size = (scores // 2, scores // 2)
    intervals = {name: interval(name, float(values[name]), found, [size]) for name, found in replicates.items()}
    end = time.perf_counter()
    print(f"{scores:,} scores: metrics {measured - start:.2f} s, {samples:,} bootstraps of {len(intervals)} metrics "
          f"{end - measured:.2f} s")  # fmt: skip
    for name, (low, high) in intervals.items():
        print(f"  {name}: {low:.4f} to {high:.4f}")


def thresholds(images: int = 4_000, draws: int = 300) -> None:
    """Compare rules that set a threshold from N unlabelled images; classes are normal, a share of them synthetic."""
    shapes = {
        "separated, shifted": ((-6, 1), (0, 1)),
        "weak": ((-4, 1), (-1, 2)),
        "wide": ((-6, 1), (3, 4)),
        "wider": ((-6, 1), (0, 5)),
        "overlapping": ((-1, 1), (0, 1)),
    }
    rules = {
        "midpoint": unlabelled_threshold,
        "quantile": lambda logits, share: np.quantile(logits, 1 - share),
        "best split": _best_split,
    }
    random = np.random.default_rng(0)
    for name, ((real, real_std), (fake, fake_std)) in shapes.items():
        for share, drawn in ((0.5, 10), (0.5, 100), (0.25, 100), (0.1, 100)):
            accuracy: dict[str, list[float]] = {rule: [] for rule in (*rules, "score 0.5", "oracle")}
            for _ in range(draws):
                labels = random.random(images) < share
                logits = np.where(labels, random.normal(fake, fake_std, images), random.normal(real, real_std, images))
                rest = labels[drawn:], logits[drawn:]
                for rule, of in rules.items():
                    accuracy[rule].append(float(np.mean((rest[1] > of(logits[:drawn], share)) == rest[0])))
                accuracy["score 0.5"].append(float(np.mean((rest[1] > 0) == rest[0])))
                accuracy["oracle"].append(float(measure(*rest)["oracle_accuracy"]))
            means = ", ".join(f"{rule} {np.mean(values):.3f}" for rule, values in accuracy.items())
            print(f"{name}, share {share}, N = {drawn}: {means}")


def _best_split(logits: np.ndarray, _share: float) -> float:
    """Return the threshold with the greatest variance between the two sides (Otsu)."""
    ordered = np.sort(logits)
    below = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)[:-1]
    gap = sums / below - (ordered.sum() - sums) / (len(ordered) - below)
    at = int(np.argmax(below * (len(ordered) - below) * gap**2))
    return float((ordered[at] + ordered[at + 1]) / 2)


def write_study(folder: Path, images: int = IMAGES) -> tuple[list[Path], list[Path]]:
    """Write scores and analyses of a synthetic study; return their files."""
    names = [f"generator-{g:02d}" for g in range(GENERATORS)]
    rows = [(f"{n}/real/{i:05d}.png", [n], None, 0) for n in names for i in range(images)]
    rows += [(f"{n}/fake/{i:05d}.png", [n], n, 1) for n in names for i in range(images)]
    columns = [list(column) for column in zip(*sorted(rows), strict=True)]
    table = pa.table(dict(zip(("path", "sets", "generator", "label"), columns, strict=True)))
    labels = np.array(columns[3])
    hardness = np.array([names.index(sets[0]) for sets in columns[1]]) / GENERATORS
    scores = []
    for head in range(HEADS):
        for seed in range(SEEDS):
            random = np.random.default_rng([head, seed])
            base = random.normal(size=len(rows)) * 2 + labels * (6 - 4 * hardness + 0.3 * head) - 2.5
            for degradation, view in enumerate((*VIEWS, "held-out")):
                card = ScoreCard(
                    head=f"head-{head}", seed=seed, corpus="train" if view == "held-out" else "synthetic", view=view,
                    feature_key=f"{degradation:032x}", head_sha256=f"{head * SEEDS + seed:064x}", failed=0,
                    facts={"window_start": 11 + head, "window": 5, "trained_on": "train"},
                )  # fmt: skip
                noise = random.normal(size=len(rows)) * 0.2 * degradation
                path = folder / f"head-{head}-{seed}" / f"{view}.parquet"
                write_scores(path, card=card, images=table, logits=base * (1 - 0.03 * degradation) + noise)
                scores.append(path)
    return scores, [_write_analysis(folder / "synthetic.parquet", names, images)]


def _write_analysis(path: Path, names: list[str], images: int) -> Path:
    facts = {"corpus": "synthetic", "view": "clean", "feature_key": "0" * 32}
    profile = [
        (name, label, k, 0.95 - 0.01 * label * (11 <= k <= 18), 0.01, 8.0 + k / 4 + label, 0.8, images)
        for label, name in [(0, "real"), *((1, name) for name in names)]
        for k in range(23)
    ]
    windows = [
        (name, start, n, 0.5 + 0.02 * n * (11 <= start <= 16), 0.5 + 0.01 * n, images * GENERATORS, images)
        for name in [None, *names]
        for n in range(2, 10)
        for start in range(25 - n)
    ]
    write_analysis(path, profile, PROFILE_SCHEMA, facts)
    write_analysis(windows_path(path), windows, WINDOW_SCHEMA, facts)
    return path


def report(out: Path | None = None) -> None:
    """Time the report of the synthetic study and tell its size."""
    with tempfile.TemporaryDirectory() as temporary:
        scores, profiles = write_study(Path(temporary) / "scores")
        target = out or Path(temporary) / "report"
        start = time.perf_counter()
        study = Study(name="synthetic", notes=["Synthetic scores."])
        run(study, score_files=scores, profile_files=profiles, out=target)
        seconds = time.perf_counter() - start
        size = (target / "report.html").stat().st_size / 1e6
        print(
            f"{GENERATORS} generators x {HEADS} heads x {SEEDS} seeds x {len(VIEWS) - 1} degraded views, "
            f"{2 * IMAGES * GENERATORS:,} images: {len(scores)} files, {seconds:.1f} s, report.html {size:.2f} MB"
        )


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else "both"
    if wanted in ("both", "bootstrap"):
        bootstrap()
    if wanted == "thresholds":
        thresholds()
    if wanted in ("both", "report"):
        report(Path(sys.argv[2]) if len(sys.argv) > 2 else None)
