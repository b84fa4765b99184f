"""Predict: images of any number in, one result each out, in their order and in constant memory."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import IO, TYPE_CHECKING

from stages.extract.loaders import open_loaders
from stages.extract.read_image import NO_METADATA, ReadResult
from stages.extract.settings import auto_loaders
from stages.predict.detector import task_of
from stages.predict.inputs import STDIN, Item, find_images
from stages.predict.likeness import Sample
from stages.predict.results import (
    FAILED,
    check_out,
    columns,
    format_of,
    most_suspicious_first,
    open_results,
    table_writer,
    text_writer,
)
from stages.reporter import SilentReporter
from storage.errors import DataError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from stages.extract.read_image import ReadSpec, Task
    from stages.predict.detector import Detector
    from stages.predict.results import Prediction
    from stages.reporter import Progress, Reporter

_FEW = 8  # images that are decoded here before a loader process would have started


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        verdicts: "real", "synthetic", "unsure" and "failed" -> images scored now.
        there: status -> images that had a row before, of a run that is resumed.
        left_out: kind -> entries of folders and archives that are no images to score.
        flips: view of the check -> images whose verdict flips under it.
        sample: some of the images scored now, to be compared with those of the calibration.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    flips: Counter[str] = field(default_factory=Counter)
    sample: Sample = field(default_factory=Sample)

    @property
    def failed(self) -> int:
        """How many images could not be read."""
        return self.verdicts[FAILED] + self.there[FAILED]

    @property
    def total(self) -> int:
        """How many images have a row."""
        return self.verdicts.total() + self.there.total()


def run(
    *,
    detector: Detector,
    paths: Sequence[str],
    stdin: IO[bytes],
    stream: IO[str],
    form: str = "table",
    out: Path | None = None,
    resume: bool = False,
    sort: bool = False,
    check: str | None = None,
    follow_links: bool = False,
    loaders: int | None = None,
    batch: int | None = None,
    reporter: Reporter,
) -> Summary:
    """Score all images below ``paths``, in order, and write a row for each.

    Args:
        detector: what scores.
        paths: files, folders, archives, or "-" for a list on ``stdin``.
        stdin: where "-" reads.
        stream: where rows go as a "table", "csv" or "jsonl" (``form``) where there is no ``out``.
        form: see ``stream``.
        out: the result file; its name tells its format.
        resume: continue what a stopped run left in ``out``: images that have a row are passed over.
        sort: write the most suspicious images first, when all are scored.
        check: also score the views of this check, a name in ``stages.predict.detector.CHECKS``.
        follow_links: whether links inside a folder may lead out of it.
        loaders: decoding processes; None for what suits the machine and the number of images, 0 to decode in this one.
        batch: pictures a forward pass; None for what suits the device.
        reporter: gets warnings, and the progress of a result file; rows on a terminal show it themselves.

    Raises:
        DataError: a path does not exist or holds no image, or ``out`` holds other rows.
        SettingError: ``out`` exists, or cannot be resumed, or a resumed file is to be sorted.
    """
    if sort and resume:
        raise SettingError("a resumed file keeps its order; leave --sort out, or sort the finished file")
    if out is not None:
        check_out(out, resume=resume)
    if detector.warning:
        reporter.warn(detector.warning)
    summary = Summary()
    names = columns(check=bool(check), likeness=detector.bundle.reference is not None, tiled=detector.tiles > 1)
    there: Mapping[str, str] = {}
    with ExitStack() as stack:
        progress: Progress = SilentReporter()
        is_page = out is not None and format_of(out) == "html"
        if out is None and form == "table":
            write = table_writer(stream, detector.calibration.synthetic_above)
        elif out is None:
            write = text_writer(stream, form, names)
        elif is_page:
            from stages.predict.page import open_page  # noqa: PLC0415 - a template engine, which no other format needs

            write = stack.enter_context(open_page(out, detector, check, summary.left_out))
        else:
            opened = open_results(out, names, detector=detector.name(check))
            write, there = stack.enter_context(opened)
            summary.there.update(there.values())
        if out is not None or sort:
            total = None
            if STDIN not in paths:
                found = find_images(paths, stdin, Counter(), follow_links=follow_links)
                with suppress(DataError):  # what was found before it is scored all the same
                    total = sum(item.name not in there for item in found)
            progress = stack.enter_context(reporter.progress("predict", total, "images"))
        images = find_images(paths, stdin, summary.left_out, follow_links=follow_links)
        images = (item for item in images if item.name not in there)
        results = predictions(detector, images, check=check, thumbnails=is_page, loaders=loaders, batch=batch)
        counted = _counted(results, summary, progress, detector.calibration.threshold)
        for prediction in sorted(counted, key=most_suspicious_first) if sort else counted:
            write(prediction)
    return summary


def _counted(
    results: Iterable[Prediction], summary: Summary, progress: Progress, threshold: float
) -> Iterator[Prediction]:
    for prediction in results:
        summary.verdicts[prediction.verdict or FAILED] += 1
        summary.flips.update((prediction.flipped or "").split())
        if prediction.features is not None:
            summary.sample.add(prediction.features, above=(prediction.logit or 0.0) > threshold)
        progress.advance(1, failed=int(prediction.verdict is None))
        yield replace(prediction, features=None)


def predictions(
    detector: Detector,
    images: Iterable[Item],
    *,
    check: str | None = None,
    thumbnails: bool = False,
    loaders: int | None = None,
    batch: int | None = None,
) -> Iterator[Prediction]:
    """Yield the results of images in their order; see :func:`run` for the arguments."""
    spec, size = detector.read_spec(check, thumbnails=thumbnails), batch or detector.backbone.auto_batch
    if loaders is None:
        images = iter(images)
        first = list(islice(images, _FEW))
        loaders = auto_loaders(detector.backbone.device.type) if len(first) == _FEW else 0
        images = chain(first, images)
    with open_loaders(spec, loaders, ahead=2 * size // detector.tiles) as read:
        yield from detector.predictions(_reads(images, spec, read), check=check, batch=size)


def _reads(
    images: Iterable[Item], spec: ReadSpec, read: Callable[[Iterable[Task]], Iterator[ReadResult]]
) -> Iterator[tuple[str, ReadResult]]:
    """Read the images in order; those that are not to be read go past the loaders."""
    ahead: deque[Item] = deque()  # of which nothing was yielded yet

    def tasks() -> Iterator[Task]:
        for image in images:
            ahead.append(image)
            if image.error is None:
                yield task_of(image.name, spec)

    for result in chain(read(tasks()), [None]):
        while ahead and ahead[0].error is not None:
            image = ahead.popleft()
            yield image.name, ReadResult(NO_METADATA | {"status": "failed", "error": image.error}, None)
        if result is not None:
            yield ahead.popleft().name, result
