"""Predict: images of any number in, one result each out, in their order and in constant memory."""

from __future__ import annotations

from collections import deque
from itertools import chain, groupby, islice
from typing import IO, TYPE_CHECKING, Any

from stages.extract.loaders import open_loaders
from stages.extract.settings import auto_loaders
from stages.predict.inputs import Item, find_images
from stages.predict.looks import Seen, seen_of, task_of
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from stages.extract.read_image import ReadResult, ReadSpec, Task
    from stages.predict.detector import Detector
    from stages.predict.features import CachedFeatures
    from stages.predict.looks import Looks
    from stages.predict.results import Prediction

_FEW = 8  # images that are decoded here before a loader process would have started


def run(
    *,
    detector: Detector,
    paths: Sequence[str],
    stdin: IO[bytes],
    looks: Looks,
    done: Iterable[dict[str, Any]] = (),
    features: CachedFeatures | None = None,
    follow_links: bool = False,
    loaders: int | None = None,
    batch: int | None = None,
) -> Iterator[Prediction]:
    """Yield the results of all images below ``paths``, in order.

    Args:
        detector: what scores.
        paths: files, folders, archives, or "-" for a list on ``stdin``.
        stdin: where "-" reads.
        looks: which views are scored.
        done: rows of a stopped run: these images are passed over.
        features: extracted features to use where they hold an image.
        follow_links: whether links inside a folder may lead out of it.
        loaders: decoding processes; None for what suits the machine and the number of images, 0 to decode in this one.
        batch: pictures a forward pass; None for what suits the device.

    Raises:
        DataError: a path does not exist or holds no image, or ``done`` is not the beginning of the images now found.
    """
    items = find_images(paths, stdin, follow_links=follow_links)
    _pass_over(done, items, looks.named(detector.bundle.identity))
    job = detector.job(looks)
    size = batch or detector.backbone.auto_batch
    if loaders is None:
        first = list(islice(items, _FEW))
        loaders = auto_loaders(detector.backbone.device.type) if len(first) == _FEW else 0
        items = chain(first, items)
    with open_loaders(job, loaders, ahead=2 * size) as read:
        yield from detector.predictions(_seen(items, job, read, features), looks, size)


def _pass_over(done: Iterable[dict[str, Any]], items: Iterator[Item], detector: str) -> None:
    """Take from ``items`` those that have a row."""
    for number, row in enumerate(done, 1):
        if row["detector"] != detector:
            raise DataError(
                f"row {number} was made by detector {row['detector']}, this is {detector}; resume with the same bundle "
                "and options, or name another file"
            )
        item = next(items, None)
        if item is None or item.name != row["path"]:
            found = "there is no such image" if item is None else f"the image there is now {item.name!r}"
            raise DataError(
                f"row {number} is of {row['path']!r}, but {found}: the images changed since the run was stopped; name "
                "another file"
            )


def _seen(
    items: Iterable[Item],
    job: ReadSpec,
    read: Callable[[Iterable[Task]], Iterator[ReadResult]],
    features: CachedFeatures | None,
) -> Iterator[Seen]:
    """Read the images; runs of them that need no decoding, because they are known or refused, go past the loaders."""
    known = ((item, _known(item, job, features)) for item in items)
    for is_known, group in groupby(known, key=lambda pair: pair[1] is not None):
        if is_known:
            yield from (seen for _, seen in group if seen is not None)
            continue
        ahead: deque[str] = deque()  # names of the images that loaders have
        for result in read(_tasks((item for item, _ in group), job, ahead)):
            yield seen_of(ahead.popleft(), result)


def _tasks(items: Iterable[Item], job: ReadSpec, ahead: deque[str]) -> Iterator[Task]:
    for item in items:
        ahead.append(item.name)
        yield task_of(item.name, job)


def _known(item: Item, job: ReadSpec, features: CachedFeatures | None) -> Seen | None:
    if item.error is not None:
        return Seen(item.name, error=item.error)
    found = None if features is None else features.find(job.sources, task_of(item.name, job).path)
    return None if found is None else Seen(item.name, features=found)
