"""Which images of a corpus are encoded again, so that the files of both classes were made alike.

A head that is trained on JPEG reals and PNG fakes learns the file. Of the class with fewer JPEG files in a set, images
that were stored without loss become JPEG: as many as the other class has, at qualities drawn from its files. The other
class stays as it is, and what is lossy already is never encoded twice. Sets that share images are one.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from storage.errors import SettingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUALITY = "align_quality"  # column of the images of a plan: quality of the JPEG that each becomes, null: none
LOSSLESS = ("BMP", "PNG", "TIFF")
ALIGNMENT_VERSION = 1  # raise by hand when an edit changes which image is encoded how


def alignment(index: pa.Table, corpus: str) -> tuple[pa.Array, str]:
    """Return the quality that each image of an index is encoded at, null for none, and a digest of what decided.

    An image's draw is a hash of its path: it depends neither on the other images nor on their order.

    Args:
        index: of the clean view, with the columns path, label, sets, status, format and jpeg_quality.
        corpus: its name, for messages.

    Raises:
        SettingError: images have no label, or none would be encoded; the message says why.
    """
    if index["label"].null_count:
        raise SettingError(
            f"corpus {corpus!r}: the view align needs to know which images are real, and {index['label'].null_count} "
            "have no label; leave it out"
        )
    label, formats = index["label"].to_numpy(), index["format"].to_numpy()
    usable = pc.equal(index["status"], "ok").to_numpy()
    quality = index["jpeg_quality"].fill_null(0).to_numpy()
    is_jpeg, is_lossless = usable & (formats == "JPEG") & (quality > 0), usable & np.isin(formats, LOSSLESS)
    encoded_at = np.zeros(len(index), np.int64)
    rules = []
    for rows in _groups(index):
        classes = [rows[usable[rows] & (label[rows] == number)] for number in (0, 1)]
        if not all(map(len, classes)):
            continue  # a class alone has nothing to be made like
        shares = [is_jpeg[members].mean() for members in classes]
        fewer = int(np.argmin(shares))
        own, model = classes[fewer], classes[1 - fewer]
        candidates, qualities = own[is_lossless[own]], np.sort(quality[model[is_jpeg[model]]])
        wanted = len(own) * (shares[1 - fewer] - shares[fewer])
        if wanted == 0 or not len(candidates):
            continue
        share = min(wanted / len(candidates), 1.0)
        paths = index["path"].take(candidates).to_pylist()
        draws = np.array([_draws(path) for path in paths])  # (N, 2) in [0, 1): whether, and at which quality
        chosen = draws[:, 0] < share
        encoded_at[candidates[chosen]] = qualities[(draws[chosen, 1] * len(qualities)).astype(np.int64)]
        names = sorted(pc.unique(pc.list_flatten(index["sets"].take(rows))).to_pylist())
        rules.append([names, fewer, share, np.bincount(qualities, minlength=101).tolist()])
    if not encoded_at.any():
        raise SettingError(
            f"corpus {corpus!r}: the view align would encode no image, since no set has JPEG files in one class and "
            f"fewer of them, beside {', '.join(LOSSLESS)} files, in the other; leave it out of `views`"
        )
    digest = hashlib.sha256(json.dumps([ALIGNMENT_VERSION, sorted(rules)]).encode()).hexdigest()[:32]
    return pa.array(encoded_at, pa.int64(), mask=encoded_at == 0), digest


def _groups(index: pa.Table) -> list[NDArray[np.int64]]:
    """Return the rows of each group of sets that share images; images of no set are a group."""
    sets = index["sets"].combine_chunks()
    images = pc.list_parent_indices(sets).to_numpy()
    names = pc.list_flatten(sets).dictionary_encode()
    total = len(index) + len(names.dictionary)
    links = coo_array((np.ones(len(images)), (images, len(index) + names.indices.to_numpy())), shape=(total, total))
    group = connected_components(links, directed=False)[1][: len(index)]
    group[np.setdiff1d(np.arange(len(index)), images)] = -1
    return [np.flatnonzero(group == number) for number in np.unique(group)]


def _draws(path: str) -> tuple[float, float]:
    digest = hashlib.sha256(f"{path}\0align".encode()).digest()
    first, second = (int.from_bytes(digest[at : at + 6], "big") / 2**48 for at in (0, 6))
    return first, second
