"""The scores of any detector, from a table of its own, as an ordinary scores file."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from stages.evaluate.scores import ScoreCard, write_scores
from storage.atomic import sha256_of
from storage.errors import DataError, SettingError, first_line
from storage.index import INDEX_NAME, read_index
from storage.manifest import evaluation_rows
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from stages.reporter import Reporter

# Names of columns, in any case, that say which image a row is of, and that hold a score; the first one there counts.
_IMAGE = ("path", "file", "filepath", "file_path", "image", "image_path", "filename", "file_name", "img", "sha256")
_SCORE = ("logit", "score", "prob", "probability", "prob_fake", "p_fake", "fake", "pred", "prediction", "y_score")
_NAMED = 3  # rows that a message names
# A probability of exactly 0 or 1 stands for this many units of the logit.
_LIMIT = 36.0
_Row = dict[str, Any]


def run(
    *,
    file: Path,
    detector: str,
    features: Path,
    out: Path,
    reporter: Reporter,
    column: str | None = None,
    higher_is: Literal["synthetic", "real"] = "synthetic",
    logits: bool = False,
) -> ScoreCard:
    """Write a scores file of what another detector said about the images of an extracted corpus.

    Rows are matched to images by their exact path, by a path that ends one in the other and in no third, or by their
    content: a column ``sha256``, or a file that is there to be hashed. A test set of which an image has no score is not
    scored: it would be another set.

    Args:
        file: CSV, JSON lines or Parquet with a column of paths, file names or sha256 and one of scores.
        detector: what it is called.
        features: the clean view of the corpus; only which images it has is read.
        out: the scores file to write.
        reporter: gets notes on what did not match, and a warning where scores seem to be the other way round.
        column: of the scores; None: the one of a usual name.
        higher_is: what a higher score says.
        logits: scores are logits, or on any scale on which 0 divides the classes; else probabilities.

    Returns:
        What the scores file is about.

    Raises:
        DataError: the file cannot be read, an image has two rows, no row is of any image, or no test set is complete.
        SettingError: no column is known for images or scores, or scores are no probabilities.
    """
    rows = _read(file)
    images_in, column = _columns(rows, file, column)
    index = read_index(features / INDEX_NAME)
    usable = index.table.filter(pc.equal(index.table["status"], "ok"))
    images = usable.take(evaluation_rows(usable))
    if images["label"].null_count:
        raise DataError(f"{features} holds images without a label, which cannot be evaluated")
    row_of, unmatched, ambiguous = _match([row[images_in] for row in rows], images, file)
    for what, found in (("no image of the corpus", unmatched), ("several images", ambiguous)):
        if found:
            named = ", ".join(printable(str(rows[number][images_in])) for number in found[:_NAMED])
            reporter.note(f"{len(found)} of {len(rows)} rows are of {what}, such as {named}")
    if not row_of:
        raise DataError(
            f"{file}: none of its {len(rows)} rows is of an image of {features}; expected {images_in!r} such as "
            f"{printable(images['path'][0].as_py())}, found {printable(str(rows[0][images_in]))}"
        )
    at = np.array(sorted(row_of), dtype=np.int64)
    values = _logits([rows[row_of[place]][column] for place in at.tolist()], file, column, logits=logits)
    values = values if higher_is == "synthetic" else -values
    scored = images.take(at)
    incomplete = _incomplete(images, at)
    for name, (lacking, size) in incomplete.items():
        reporter.note(f"set {printable(name)}: {lacking} of {size} images have no score, so it is not scored")
    sets = [[name for name in names if name not in incomplete] for names in scored["sets"].to_pylist()]
    if incomplete and not any(sets):
        unscored = np.setdiff1d(np.arange(len(images)), at)
        named = ", ".join(printable(images["path"][place].as_py()) for place in unscored[:_NAMED].tolist())
        raise DataError(
            f"{file}: no test set has a score of each of its images, so none can be scored; {len(unscored)} of "
            f"{len(images)} images lack one, such as {named}: add their rows, or take those images out of the corpus "
            "(docs/external.md, Gaps)"
        )
    listed = pa.array(sets, pa.list_(pa.large_string()))
    labels = scored["label"].to_numpy()
    if len(np.unique(labels)) == 2 and (auc := float(roc_auc_score(labels, values))) < 0.5:
        other = "real" if higher_is == "synthetic" else "synthetic"
        reporter.warn(f"{file}: AUC {auc:.3f} is below 0.5: higher scores seem to say {other}; see --higher-is {other}")
    card = ScoreCard(
        head=detector,
        seed=0,
        corpus=index.corpus,
        view=features.name,
        feature_key=index.spec.key,
        head_sha256=sha256_of(file),
        failed=len(index.table) - len(usable),
        facts={
            "external": {
                "file": file.name,
                "column": column,
                "higher_is": higher_is,
                "rows": len(rows),
                "unmatched": len(unmatched),
                "ambiguous": len(ambiguous),
                "images_without_score": len(images) - len(at),
                "incomplete_sets": sorted(incomplete),
            }
        },
    )
    scored = scored.set_column(scored.column_names.index("sets"), "sets", listed)
    write_scores(out, card=card, images=scored, logits=values)
    return card


def _read(file: Path) -> list[_Row]:
    """Return the rows of a table."""
    try:
        if file.suffix == ".parquet":
            return list(pq.read_table(file).to_pylist())
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{file} does not exist; expected a table of scores") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({first_line(error)}); expected a table of scores") from error
    if file.suffix in {".jsonl", ".ndjson", ".json"}:
        try:
            return [dict(json.loads(line)) for line in text.split("\n") if line.strip()]
        except (TypeError, ValueError) as error:
            raise DataError(f"{file} holds a line that is no JSON object ({error}); write one object a line") from error
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def _columns(rows: Sequence[_Row], file: Path, column: str | None) -> tuple[str, str]:
    """Return the columns of images and of scores."""
    names = list(rows[0]) if rows else []
    known = {str(name).lower(): name for name in names}
    image = next((known[name] for name in _IMAGE if name in known), None)
    score = column if column is not None else next((known[name] for name in _SCORE if name in known), None)
    if image is None or score not in names:
        what = "a column of images and one of scores" if column is None or image is None else f"a column {column!r}"
        raise (SettingError if names else DataError)(
            f"{file}: expected {what}; found {', '.join(map(str, names)) or 'no rows'}; name the scores with --column, "
            "and call the paths `path`"
        )
    return image, score


def _match(named: Iterable[Any], images: pa.Table, file: Path) -> tuple[dict[int, int], list[int], list[int]]:
    """Return image -> number of its row; the rows of no image; and those of several.

    Raises:
        DataError: an image has two rows.
    """
    paths, texts = images["path"].to_pylist(), [str(text) for text in named]
    exact = {path: [place] for place, path in enumerate(paths)}
    by_name, by_content = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    for place, (path, sha256) in enumerate(zip(paths, images["sha256"].to_pylist(), strict=True)):
        by_name[path.rpartition("/")[2]].append(place)
        by_content[sha256].append(place)
    row_of, unmatched, ambiguous = dict[int, int](), list[int](), list[int]()
    for number, text in enumerate(texts):
        given = text.replace("\\", "/").removeprefix("./")
        found = exact.get(given, [])
        if not found:
            ends = [place for place in by_name[given.rpartition("/")[2]] if _end_alike(given, paths[place])]
            alike = [min(len(given), len(paths[place])) for place in ends]
            found = [place for place, length in zip(ends, alike, strict=True) if length == max(alike)]
            if len(found) > 1:
                ambiguous.append(number)
                continue
        # copies of one content have one score
        found = found or by_content.get(given.lower(), [])
        if not found and Path(text).is_file():
            found = by_content.get(sha256_of(Path(text)), [])
        if not found:
            unmatched.append(number)
        for place in found:
            if place in row_of:
                twice = f"{printable(texts[row_of[place]])} and {printable(text)}"
                raise DataError(
                    f"{file} has two rows for the image {printable(paths[place])} ({twice}); leave one of them"
                )
            row_of[place] = number
    return row_of, unmatched, ambiguous


def _end_alike(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def _logits(texts: Sequence[Any], file: Path, column: str, *, logits: bool) -> NDArray[np.float64]:
    """Return scores as logits.

    Raises:
        SettingError: one is no finite number, or no probability.
    """
    try:
        values = np.array([float(text) for text in texts])
    except (TypeError, ValueError) as error:
        raise SettingError(f"{file}: column {column!r} holds what is no number ({error}); see --column") from error
    if not np.isfinite(values).all():
        raise SettingError(f"{file}: column {column!r} holds scores that are not finite; leave their rows out")
    if logits or column.lower() == "logit":
        return values
    if values.min() < 0 or values.max() > 1:
        raise SettingError(
            f"{file}: column {column!r} holds scores between {values.min():g} and {values.max():g}, expected "
            "probabilities from 0 to 1; add --logits where 0 divides the classes"
        )
    exact: NDArray[np.float64] = logit(values)
    return exact.clip(-_LIMIT, _LIMIT)


def _incomplete(images: pa.Table, scored: NDArray[np.int64]) -> dict[str, tuple[int, int]]:
    """Return test set -> (images without a score, images), for sets that lack some but not all."""
    names = images["sets"].to_pylist()
    sizes = Counter(itertools.chain.from_iterable(names))
    found = Counter(itertools.chain.from_iterable(names[place] for place in scored.tolist()))
    return {name: (sizes[name] - found[name], sizes[name]) for name in sorted(sizes) if 0 < found[name] < sizes[name]}
